"""A worker in a crash loop: slowed down, and in view."""

from __future__ import annotations

import logging
import threading

import httpx
import pytest

from app.config import Config
from app.pool import Pool
from app.starts import LastWords, Starts, header_text, wait_in_view
from tests.stack import ports, until


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
    log.addHandler(LastWords(starts, logging.WARNING))
    log.info("starting")
    try:
        raise ImportError("libcublas.so.12:\n cannot open")
    except ImportError:
        log.exception("Exception in worker process")
    log.error("Worker exited with code 3")

    starts.begin()

    assert starts.reason == (
        "The worker ended 1 times before it was ready. ImportError: libcublas.so.12: cannot open"
    )
    starts.begin()
    assert "said nothing" in starts.reason


@pytest.mark.parametrize("words", [["restart", "worker_2"], ["update", "worker_2"]])
def test_restart_on_purpose_forgets_them(starts, tmp_path, words):
    """A rollout that goes back restarts what just failed, and must not meet its wait."""
    other = Starts.of(Config(run_dir=tmp_path, worker_id=3))
    for one in (starts, other):
        assert [one.begin() for _ in range(3)] == [0, 0, 1]

    assert Pool(Config(run_dir=tmp_path)).supervisorctl(words) != 0, "nothing runs here"

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


def test_worker_that_waits_says_why_on_its_port():
    port = int(ports(1)["WORKER_BASE_PORT"])
    address = ("127.0.0.1", port)
    waiting = threading.Thread(target=wait_in_view, args=(1.5, address, "Two\nlines – so.", 2))
    waiting.start()
    url = f"http://127.0.0.1:{port}/health"
    assert until(lambda: answers(url), 1)

    told = httpx.get(url)

    assert told.status_code == 503
    assert told.json()["reason"] == "Two\nlines – so."
    assert told.json()["state"] == "broken"
    assert told.headers["x-reason"] == "Two lines ? so."
    assert told.headers["x-worker"] == "2"
    waiting.join(5)
    assert not answers(url), "the port is free again"


def test_port_that_another_program_has_is_left_alone():
    port = int(ports(1)["WORKER_BASE_PORT"])
    address = ("127.0.0.1", port)
    first = threading.Thread(target=wait_in_view, args=(1.0, address, "first", 1))
    first.start()
    assert until(lambda: answers(f"http://127.0.0.1:{port}/health"), 1)

    wait_in_view(0.1, address, "second", 1)

    assert httpx.get(f"http://127.0.0.1:{port}/health").json()["reason"] == "first"
    first.join(5)


def test_header_text_is_one_short_line():
    assert header_text("a\r\nb: c") == "a b: c"
    assert len(header_text("x" * 1000)) <= 300


def answers(url: str) -> bool:
    try:
        httpx.get(url, timeout=1)
    except httpx.HTTPError:
        return False
    return True
