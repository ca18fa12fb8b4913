"""An entry whose requests wait for a slot: how long, how many, and in which order."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.support.client import TRANSCRIPTIONS, form
from tests.support.entry import Entry
from tests.support.refusals import retry_after_s
from tests.support.steady import Load, ask
from tests.support.waiting import until

WINDOW = b"RIFF"
QUEUE_TIMEOUT_S = 2


@pytest.fixture
def entry(tmp_path) -> Iterator[Entry]:
    """One worker with one slot, for which requests wait 2 s, deferred ones 20 s."""
    with Entry.started(
        tmp_path, MAX_CONCURRENT_TRANSCRIPTIONS="1", FAIL_FAST_WHEN_BUSY="false",
        QUEUE_TIMEOUT_S=str(QUEUE_TIMEOUT_S), DEFERRED_QUEUE_TIMEOUT_S="20", MAX_QUEUE_SIZE="3",
    ) as running:  # fmt: skip
        yield running


@contextmanager
def full(entry: Entry) -> Iterator[Future[httpx.Response]]:
    """The one slot is taken until the block ends."""
    held = entry.workers[0].hold()
    with ThreadPoolExecutor(1) as background:
        busy = background.submit(entry.send, WINDOW)
        held.wait()
        try:
            yield busy
        finally:
            held.release()


def test_queue_timeout_is_counted(entry):
    with full(entry) as busy:
        began = time.monotonic()
        late = entry.send(WINDOW)
        waited_s = time.monotonic() - began

        assert late.status_code == 503
        assert retry_after_s(late) >= 1
        assert waited_s >= QUEUE_TIMEOUT_S
    assert busy.result().status_code == 200
    assert entry.refused() == {("deadline", "realtime"): 1}
    assert len(entry.workers[0].heard) == 1


def test_full_queue_refuses_at_once(entry):
    with full(entry), ThreadPoolExecutor(3) as background:
        waiting = [background.submit(entry.send, WINDOW) for _ in range(3)]
        assert until(lambda: "Queue: 3" in entry.status())

        refused = entry.send(WINDOW)

        assert refused.status_code == 503
        assert retry_after_s(refused) >= 1
        assert until(lambda: entry.refused()["queue_full", "realtime"] == 1)
        assert {one.result().status_code for one in waiting} == {503}, "their time passed"
    assert entry.refused()["deadline", "realtime"] == 3


def test_ten_requests_on_one_slot_are_all_answered(tmp_path):
    """None is refused, and none waits inside a worker."""
    with Entry.started(
        tmp_path, MAX_CONCURRENT_TRANSCRIPTIONS="1", FAIL_FAST_WHEN_BUSY="false",
        QUEUE_TIMEOUT_S="60",
    ) as entry, ThreadPoolExecutor(10) as clients:  # fmt: skip
        (worker,) = entry.workers
        worker.delay_s = 0.05

        answers = list(clients.map(lambda _: entry.send(WINDOW), range(10)))

    assert {answer.status_code for answer in answers} == {200}
    assert worker.most_inside == 1


def test_free_worker_takes_what_waits(tmp_path):
    """The queue is one for all workers: who becomes free first takes its head."""
    with Entry.started(
        tmp_path, workers=2, MAX_CONCURRENT_TRANSCRIPTIONS="1", FAIL_FAST_WHEN_BUSY="false",
        QUEUE_TIMEOUT_S="60",
    ) as entry, ThreadPoolExecutor(5) as clients:  # fmt: skip
        first, second = entry.workers
        held = first.hold(), second.hold()
        busy = [clients.submit(entry.send, WINDOW) for _ in held]
        for one in held:
            one.wait()
        waiting = [clients.submit(entry.send, WINDOW) for _ in range(3)]
        assert until(lambda: "Queue: 3" in entry.status())

        held[1].release()

        assert {one.result().status_code for one in waiting} == {200}
        assert (len(first.heard), len(second.heard)) == (1, 4)
        held[0].release()
        assert {one.result().status_code for one in busy} == {200}


def test_realtime_goes_first_and_deferred_is_not_starved(tmp_path):
    """Realtime that never ends: a deferred request is answered all the same, in the end."""
    with (
        Entry.started(
            tmp_path, MAX_CONCURRENT_TRANSCRIPTIONS="1", FAIL_FAST_WHEN_BUSY="false",
            QUEUE_TIMEOUT_S="60", DEFERRED_QUEUE_TIMEOUT_S="20",
        ) as entry,
        Load(entry.url, [WINDOW] * 3) as realtime,
        ThreadPoolExecutor(2) as background,
    ):  # fmt: skip
        entry.workers[0].delay_s = 0.2
        assert until(lambda: len(realtime.answers) > 2)
        before = len(realtime.answers)
        waiting = [background.submit(ask, entry.url, WINDOW, "deferred") for _ in range(2)]
        answers = [one.result() for one in waiting]
        overtaken = len(realtime.answers) - before

        assert [answer.outcome for answer in answers] == ["200", "200"]
        assert overtaken > 5, "behind what came up to 4 s after it"
        assert max(answer.seconds for answer in answers) < 20
        assert realtime.failed == {}
        assert until(lambda: "Deferred queue: 0" in entry.status())


@pytest.mark.parametrize("tier", ["realtime", "deferred"])
def test_client_that_leaves_a_worker_is_no_failure(entry, tier):
    """Not in the figures, not among the faults, and 499 in the log."""
    held = entry.workers[0].hold()

    assert ask(entry.url, WINDOW, tier, patience_s=0.5).outcome == "ReadTimeout"

    held.wait()
    assert until(lambda: [line["status"] for line in entry.requests] == [499])
    held.release()
    assert entry.send(WINDOW).status_code == 200
    figures = entry.figures()
    assert figures["history"][-1]["failed"] == figures["history"][-1]["refused"] == 0
    assert figures["faults"] == []
    assert figures["latency"]["realtime"]["requests"] == 1


@pytest.mark.parametrize("tier", ["realtime", "deferred"])
def test_client_whose_request_came_in_one_piece_is_seen_to_leave_the_queue(entry, tier):
    """As browsers send small recordings: nothing is left to read when it leaves."""
    request = form(WINDOW, {"model": "whisper-1"})
    body = request.read()
    head = (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nX-Transcription-Tier: {tier}\r\n"
        f"Content-Type: {request.headers['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with full(entry):
        with socket.create_connection(("127.0.0.1", entry.port)) as connection:
            connection.sendall(head.encode() + body)
            assert until(lambda: "Queue: 1" in entry.status())
        assert until(lambda: "Queue: 0" in entry.status())

    assert entry.refused() == {}
    assert len(entry.workers[0].heard) == 1


def test_client_that_leaves_the_queue_is_no_refusal(entry):
    with full(entry) as busy:
        for tier in ("realtime", "deferred"):
            assert ask(entry.url, WINDOW, tier, patience_s=0.5).outcome == "ReadTimeout"
        assert until(lambda: "Queue: 0" in entry.status())
        assert until(lambda: "Deferred queue: 0" in entry.status())
    assert busy.result().status_code == 200

    assert entry.refused() == {}
    assert len(entry.workers[0].heard) == 1
