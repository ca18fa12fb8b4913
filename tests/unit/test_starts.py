"""A worker in a crash loop: slowed down, and in view."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.api.headers import header_text
from app.config import ROOT, Config
from app.pool import supervisor
from app.worker.starts import LastErrorHandler, Starts, wait_in_view
from tests.support.http import HTTP
from tests.support.ports import free_ports, is_free
from tests.support.waiting import until


@pytest.fixture
def starts(tmp_path) -> Starts:
    return Starts.of(Config(run_dir=tmp_path, worker_id=2))


def test_waits_grow_and_end_when_the_worker_is_ready(starts):
    assert [starts.begin() for _ in range(8)] == [0, 0, 1, 2, 4, 8, 16, 30]

    starts.ready()

    assert starts.begin() == 0


def test_reason_is_the_first_trouble_of_the_last_process(starts):
    starts.begin()
    log = logging.Logger("of-a-worker")
    log.addHandler(LastErrorHandler(starts, logging.WARNING))
    log.info("starting")
    try:
        raise ImportError("libcublas.so.12:\n cannot open")
    except ImportError:
        log.exception("Exception in worker process")
    log.error("Worker exited with code 3")

    starts.begin()

    assert starts.reason == (
        "The worker ended once before it was ready. ImportError: libcublas.so.12: cannot open"
    )
    starts.begin()
    assert "No error was logged" in starts.reason


@pytest.mark.parametrize("words", [["restart", "worker_2"], ["update", "worker_2"]])
def test_restart_on_purpose_forgets_them(starts, tmp_path, words):
    """A rollout that goes back restarts what just failed, and must not meet its wait."""
    other = Starts.of(Config(run_dir=tmp_path, worker_id=3))
    for one in (starts, other):
        assert [one.begin() for _ in range(3)] == [0, 0, 1]

    assert supervisor.control(Config(run_dir=tmp_path), *words).returncode != 0, "nothing runs here"

    assert starts.begin() == 0
    assert other.begin() == 2


def test_folder_that_cannot_be_written_remembers_nothing(tmp_path):
    starts = Starts(tmp_path / "gone" / "worker_1.starts")

    assert [starts.begin() for _ in range(4)] == [0, 0, 0, 0]
    starts.ready()


def test_broken_file_is_no_trouble(tmp_path):
    path = tmp_path / "worker_1.starts"
    path.write_text("{")

    assert Starts(path).begin() == 0
    assert Starts(path).begin() == 0
    assert Starts(path).begin() == 1


@contextmanager
def waiting(address: tuple[str, int], reason: str, worker_id: int) -> Iterator[str]:
    """A process that waits in view until the block ends; yields the address of its health."""
    url = f"http://{address[0]}:{address[1]}/health"
    wait = f"wait_in_view(600, {address}, {reason!r}, {worker_id})"
    process = subprocess.Popen(
        [sys.executable, "-c", f"from app.worker.starts import wait_in_view; {wait}"], cwd=ROOT
    )
    try:
        assert until(lambda: answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def address() -> tuple[str, int]:
    return "127.0.0.1", free_ports(1)[0]


def test_worker_that_waits_says_why_on_its_port(address):
    with waiting(address, "Two\nlines – so.", 2) as url:
        told = HTTP.get(url)

    assert told.status_code == 503
    assert told.json()["reason"] == "Two\nlines – so."
    assert told.json()["state"] == "broken"
    assert told.headers["x-reason"] == "Two lines ? so."
    assert told.headers["x-worker"] == "2"


def test_port_is_free_again_after_the_wait(address):
    wait_in_view(0.1, address, "for a moment", 1)

    assert is_free(address[1])


def test_port_that_another_program_has_is_left_alone(address):
    with waiting(address, "first", 1) as url:
        wait_in_view(0.1, address, "second", 1)

        assert HTTP.get(url).json()["reason"] == "first"


def test_header_text_is_one_short_line():
    assert header_text("a\r\nb: c") == "a b: c"
    assert len(header_text("x" * 1000)) <= 300


def answers(url: str) -> bool:
    try:
        HTTP.get(url)
    except httpx.HTTPError:
        return False
    return True
