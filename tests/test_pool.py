"""A pool under load that is changed, stopped in parts and hurt: no request fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from app.config import ROOT
from app.pool import children
from app.rollout import Balancer, RolloutError
from tests.load import Load
from tests.recordings import recording, wav
from tests.stack import Stack, bare_environment, until

COMMAND_S = 120
WINDOW = wav(recording("austen_0890.wav").waveform())
# More than the balancer can send again: five seconds of speech, and silence to 10 MB.
LARGE = wav(
    np.concatenate(
        [recording("austen_0890.wav").waveform(), np.zeros(5_000_000 - 84_800, np.float32)]
    )
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers and a queue."""
    with Stack.started(
        tmp_path_factory.mktemp("pool"), WORKERS="2", FAIL_FAST_WHEN_BUSY="false"
    ) as running:
        yield running


def command(pool: Stack, name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """`make restart`, `make scale`, `make reload`."""
    return subprocess.run(
        [sys.executable, "-m", "app.pool", name],
        cwd=ROOT, env=bare_environment() | pool.settings | settings,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_S,
    )  # fmt: skip


def balancer(pool: Stack) -> Balancer:
    return Balancer(pool.run_dir / "admin.sock")


def up(pool: Stack) -> int:
    """Workers that take requests."""
    return sum(server.status == "UP" for server in balancer(pool).servers())


def arbiters(pool: Stack) -> list[int]:
    """The Gunicorn masters of the pool, each with one child that holds a model."""
    return [
        pid for pid in pool.processes() if b"app.gunicorn_conf" in cmdline(pid) and children(pid)
    ]


def cmdline(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_restart_under_load(pool):
    """Also of uploads that cannot be sent again, since each worker finishes what it has."""
    before = set(arbiters(pool))
    with Load(pool.url, [WINDOW, WINDOW, LARGE]) as load:
        restarted = command(pool, "restart")

    assert restarted.returncode == 0, restarted.stdout
    assert "w2: back after" in restarted.stdout
    assert load.failed == {}
    assert load.answers["200"] > 4
    assert not before & set(arbiters(pool))
    assert up(pool) == 2


def test_scale_up_and_down_under_load(pool):
    with Load(pool.url, [WINDOW, WINDOW, LARGE]) as load:
        more = command(pool, "scale", WORKERS="3")
        assert more.returncode == 0, more.stdout
        assert until(lambda: up(pool) == 3, 30)
        fewer = command(pool, "scale", WORKERS="2")
        assert fewer.returncode == 0, fewer.stdout

    assert load.failed == {}
    assert "3 workers serve." in more.stdout
    assert "2 workers serve." in fewer.stdout
    assert up(pool) == 2
    assert until(lambda: len(arbiters(pool)) == 2, 30)


def test_reload_under_load(pool):
    with Load(pool.url, [WINDOW, WINDOW, LARGE]) as load:
        for _ in range(3):
            reloaded = command(pool, "reload")
            assert reloaded.returncode == 0, reloaded.stdout
            time.sleep(1)

    assert load.failed == {}


def test_stopped_worker_is_taken_out(pool):
    """A process that stands still: its requests are sent to another one, and it comes back."""
    (child, *_) = children(arbiters(pool)[0])
    with Load(pool.url, [WINDOW, WINDOW]) as load:
        time.sleep(1)
        os.kill(child, signal.SIGSTOP)
        assert until(lambda: up(pool) == 1, 10)
        time.sleep(2)
        os.kill(child, signal.SIGCONT)
        assert until(lambda: up(pool) == 2, 60)

    assert load.failed == {}


def test_killed_workers_lose_nothing(pool):
    """Again and again, each worker by turns, as its process is in the middle of requests."""
    with Load(pool.url, [WINDOW] * 5) as load:
        for event in range(4):
            time.sleep(1)
            masters = arbiters(pool)
            os.kill(children(masters[event % len(masters)])[0], signal.SIGKILL)
            assert until(lambda: up(pool) < 2, 10)
            assert until(lambda: up(pool) == 2, 60)

    assert load.failed == {}


def test_killed_arbiter_comes_back(pool):
    with Load(pool.url, [WINDOW, WINDOW]) as load:
        time.sleep(1)
        os.kill(arbiters(pool)[0], signal.SIGKILL)
        assert until(lambda: up(pool) == 1, 10)
        assert until(lambda: up(pool) == 2, 60)

    assert load.failed == {}


def test_scale_wants_a_number(pool):
    settings = {name: text for name, text in pool.settings.items() if name != "WORKERS"}
    told = subprocess.run(
        [sys.executable, "-m", "app.pool", "scale"],
        cwd=ROOT, env=bare_environment() | settings,
        capture_output=True, text=True, timeout=COMMAND_S,
    )  # fmt: skip

    assert told.returncode == 1
    assert "make scale WORKERS=4" in told.stdout


def test_nothing_to_change(tmp_path):
    told = subprocess.run(
        [sys.executable, "-m", "app.pool", "restart"],
        cwd=ROOT, env=bare_environment() | {"RUN_DIR": str(tmp_path)},
        capture_output=True, text=True, timeout=COMMAND_S,
    )  # fmt: skip

    assert told.returncode == 1
    assert "does not run" in told.stdout


def test_balancer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RolloutError, match="does not answer"):
        Balancer(tmp_path / "admin.sock").servers()
