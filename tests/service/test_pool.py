"""A pool under load that is changed, stopped in parts and hurt: no request fails."""

from __future__ import annotations

import os
import signal
import time

import pytest

from app.pool.haproxy_admin import Balancer, RolloutError
from app.process import children
from tests.support.steady import Load
from tests.support.victim import CALL_LIMIT_S, LARGE, WINDOW, leavers, wedge, worker_id
from tests.support.waiting import LIMIT_S, until

# Under load, and each request counts: nothing else may want the cores.
pytestmark = pytest.mark.alone


def test_restart_under_load(victim):
    """Also of uploads that cannot be sent again, since each worker finishes what it has."""
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW, WINDOW, LARGE]) as load:
        restarted = victim.command("restart")

    assert restarted.returncode == 0, restarted.stdout
    assert "w2: back after" in restarted.stdout
    assert load.failed == {}
    assert load.counts["200"] > 4
    assert not before & set(victim.arbiters())
    assert victim.up() == 2


@pytest.mark.slow
def test_scale_up_and_down_under_load(victim):
    with Load(victim.stack.url, [WINDOW, WINDOW, LARGE]) as load:
        more = victim.command("scale", WORKERS="3")
        assert more.returncode == 0, more.stdout
        assert until(lambda: victim.up() == 3)
        assert "Workers: 3 of 3 up" in victim.lb_status()
        fewer = victim.command("scale", WORKERS="2")
        assert fewer.returncode == 0, fewer.stdout

    assert load.failed == {}
    assert "3 workers serve." in more.stdout
    assert "2 workers serve." in fewer.stdout
    assert victim.up() == 2
    assert until(lambda: len(victim.arbiters()) == 2)


def test_reload_under_load(victim):
    with Load(victim.stack.url, [WINDOW, WINDOW, LARGE]) as load:
        for _ in range(3):
            victim.must("reload")
            time.sleep(1)

    assert load.failed == {}


@pytest.mark.slow
def test_stopped_worker_is_taken_out(victim):
    """A stopped process: its requests are sent to another worker, and it comes back."""
    child = victim.child(0)
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        assert until(lambda: load.answers)
        os.kill(child, signal.SIGSTOP)
        assert until(lambda: victim.up() == 1)
        time.sleep(2)
        os.kill(child, signal.SIGCONT)
        assert until(lambda: victim.up() == 2)

    assert load.failed == {}


@pytest.mark.slow
def test_killed_workers_lose_nothing(victim):
    """Each worker in turn, as its process is in the middle of requests."""
    with Load(victim.stack.url, [WINDOW] * 5) as load:
        for event in range(2):
            seen = len(load.answers)
            assert until(lambda seen=seen: len(load.answers) > seen)
            os.kill(victim.child(event), signal.SIGKILL)
            assert until(lambda: victim.up() < 2)
            assert until(lambda: victim.up() == 2)

    assert load.failed == {}


@pytest.mark.slow
def test_killed_arbiter_comes_back(victim):
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        assert until(lambda: load.answers)
        os.kill(victim.arbiters()[0], signal.SIGKILL)
        assert until(lambda: victim.up() == 1)
        assert until(lambda: victim.up() == 2)

    assert load.failed == {}


@pytest.mark.slow
def test_worker_whose_device_hangs_is_replaced(victim):
    """Another worker answers its requests, and no other worker is restarted."""
    old = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        wedge(victim, 1)
        assert until(lambda: victim.up() == 2)

    assert load.failed == {}
    assert len(old & set(victim.arbiters())) == 1
    assert f"has not returned for {CALL_LIMIT_S} s" in victim.stack.log


def test_clients_that_leave_leave_nothing(victim):
    """While they are queued and while they are decoded."""
    with Load(victim.stack.url, [WINDOW]) as load:
        leavers(victim, 0)

    assert load.failed == {}
    assert until(lambda: victim.at_rest()), victim.lb_status()


@pytest.mark.slow
def test_worker_that_ends_before_it_is_ready_waits_and_says_why(victim):
    """A start that is killed again and again: each time it waits longer, and the balancer knows.
    A restart on purpose ends the waiting at once."""
    with Load(victim.stack.url, [WINDOW], every_s=1.0) as load:
        deadline = time.monotonic() + LIMIT_S
        while "times before it was ready" not in victim.lb_status():
            assert time.monotonic() < deadline, victim.lb_status()
            for pid in victim.arbiters():
                if worker_id(pid) == 1:
                    os.kill(children(pid)[0], signal.SIGKILL)
            time.sleep(0.1)
        told = victim.lb_status()
        restarted = victim.command("restart")

    assert restarted.returncode == 0, restarted.stdout
    assert load.failed == {}
    assert victim.up() == 2
    assert "w1: down. The worker ended 2 times before it was ready. Worker (pid:" in told
    assert "SIGKILL" in told


def test_scale_wants_a_number(victim):
    told = victim.command("scale")

    assert told.returncode == 1
    assert "make scale WORKERS=4" in told.stdout


def test_balancer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RolloutError, match="does not answer"):
        Balancer(tmp_path / "admin.sock").servers()
