"""What the balancer does with a request whose worker failed it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from app.config import Config
from tests.support.entry import Entry
from tests.support.http import HTTP
from tests.support.refusals import retry_after_s
from tests.support.stub_worker import Reply
from tests.support.waiting import until

WINDOW = b"RIFF" + bytes(100_000)
LARGE = b"RIFF" + bytes(3_000_000)  # more than the balancer can send again
DROPPED = Reply(0)
DRAINING = Reply(503, {"X-Refused": "draining", "X-Error": "server_draining", "Retry-After": "1"})


@pytest.fixture
def entry(tmp_path) -> Iterator[Entry]:
    """Two workers, of which a test makes the first one fail."""
    with Entry.started(tmp_path, workers=2, FAIL_FAST_WHEN_BUSY="false") as running:
        yield running


@pytest.mark.parametrize("failure", [DROPPED, DRAINING], ids=["dropped", "draining"])
@pytest.mark.parametrize("tier", ["realtime", "deferred"])
def test_request_that_a_worker_drops_or_refuses_is_sent_to_another(entry, failure, tier):
    first, second = entry.workers
    first.reply = failure

    answers = [entry.send(WINDOW, tier) for _ in range(4)]

    assert {answer.status_code for answer in answers} == {200}
    assert len(first.heard) >= 1
    assert len(second.heard) == 4
    assert entry.refused() == {}
    assert until(lambda: len(entry.requests) == 4)


def test_error_that_is_the_clients_is_not_sent_again(entry):
    for worker in entry.workers:
        worker.reply = Reply(400, {"X-Error": "invalid_value"}, {"error": {"code": "invalid"}})

    assert entry.send(WINDOW).status_code == 400
    assert sum(len(worker.heard) for worker in entry.workers) == 1


def test_bug_of_a_worker_is_not_sent_again(entry):
    """The next worker has the same bug."""
    for worker in entry.workers:
        worker.reply = Reply(500, {"X-Error": "internal_error"}, {"error": {"code": "internal"}})

    assert entry.send(WINDOW).status_code == 500
    assert sum(len(worker.heard) for worker in entry.workers) == 1


def test_upload_that_cannot_be_sent_again_is_told_to_come_again(entry):
    for worker in entry.workers:
        worker.reply = DROPPED

    refused = entry.send(LARGE)

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "worker_failed"
    assert retry_after_s(refused) >= 1
    assert entry.refused() == {("worker_failed", "realtime"): 1}
    assert sum(len(worker.heard) for worker in entry.workers) == 1


def test_worker_that_is_gone_is_taken_out_and_taken_back(tmp_path):
    """A port that refuses connections, as that of a killed worker."""
    with Entry.started(tmp_path, workers=2, FAIL_FAST_WHEN_BUSY="false") as entry:
        first, second = entry.workers
        first.reason = "The worker is stopping."
        assert until(lambda: "Workers: 1 of 2 up" in entry.status())
        assert {entry.send(WINDOW).status_code for _ in range(3)} == {200}
        assert len(second.heard) == 3

        first.reason = ""

        assert until(lambda: "Workers: 2 of 2 up" in entry.status())
        held = second.hold()
        with ThreadPoolExecutor(2) as clients:
            both = [clients.submit(entry.send, WINDOW) for _ in range(2)]
            held.wait()
            assert until(lambda: len(first.heard) == 1)
            held.release()
            assert {one.result().status_code for one in both} == {200}


def test_health_is_answered_while_one_worker_stands_still(entry):
    """By the other one, within the balancer's patience with the first."""
    first, _ = entry.workers
    health = first.health

    def never() -> Reply:
        time.sleep(5)
        return health()

    first.health = never  # type: ignore[method-assign]

    answers = [HTTP.get(entry.url + "/health", timeout=60) for _ in range(4)]

    assert {answer.status_code for answer in answers} == {200}
    assert until(lambda: "Workers: 1 of 2 up" in entry.status())


class TestWithoutAWorker:
    """Requests wait for a worker that comes back, as they would for a slot."""

    @pytest.mark.parametrize("n_workers", [1, 3])
    @pytest.mark.parametrize("tier", ["realtime", "deferred"])
    def test_request_that_was_inside_is_sent_again(self, tmp_path, n_workers, tier):
        with (
            Entry.started(tmp_path, n_workers, FAIL_FAST_WHEN_BUSY="false") as entry,
            ThreadPoolExecutor(6) as clients,
            ExitStack() as dead,
        ):
            for worker in entry.workers:
                worker.gate.clear()
            answers = [clients.submit(entry.send, WINDOW, tier) for _ in range(n_workers)]
            assert until(lambda: sum(worker.inside for worker in entry.workers) == n_workers)

            for worker in entry.workers:
                dead.enter_context(worker.killed())
                worker.gate.set()
            assert until(lambda: f"Workers: 0 of {n_workers} up" in entry.status())
            time.sleep(1)
            assert not any(answer.done() for answer in answers)
            dead.close()

            assert {answer.result().status_code for answer in answers} == {200}
            assert entry.refused() == {}

    @pytest.mark.parametrize("content", [WINDOW, LARGE], ids=["window", "large"])
    def test_request_that_comes_waits(self, tmp_path, content):
        """Also one too large to be sent again: no worker has had it."""
        with (
            Entry.started(tmp_path, FAIL_FAST_WHEN_BUSY="false") as entry,
            ThreadPoolExecutor(2) as clients,
        ):
            (worker,) = entry.workers
            worker.reason = "The model is loading."
            assert until(lambda: "Workers: 0 of 1 up" in entry.status())
            waiting = clients.submit(entry.send, content)
            time.sleep(1)
            assert not waiting.done()

            worker.reason = ""

            assert waiting.result().status_code == 200
            assert entry.refused() == {}

    def test_wait_ends_with_the_queues_patience(self, tmp_path):
        with Entry.started(tmp_path, FAIL_FAST_WHEN_BUSY="false", QUEUE_TIMEOUT_S="1") as entry:
            entry.workers[0].reason = "The model is loading."
            assert until(lambda: "Workers: 0 of 1 up" in entry.status())
            began = time.monotonic()

            refused = entry.send(WINDOW)

            assert refused.status_code == 503
            assert retry_after_s(refused) >= 1
            assert time.monotonic() - began >= 1
            assert entry.refused() == {("no_worker", "realtime"): 1}

    def test_wait_outlasts_a_reload_of_the_balancer(self, tmp_path):
        """The process that had the request checks workers no more; the new one does."""
        with (
            Entry.started(tmp_path, FAIL_FAST_WHEN_BUSY="false") as entry,
            ThreadPoolExecutor(1) as clients,
        ):
            (worker,) = entry.workers
            worker.gate.clear()
            answer = clients.submit(entry.send, WINDOW)
            assert until(lambda: worker.inside == 1)
            entry.reload()

            with worker.killed():
                worker.gate.set()
                assert until(lambda: "Workers: 0 of 1 up" in entry.status())
                time.sleep(1)
                assert not answer.done()

            assert answer.result().status_code == 200


def test_decode_that_takes_too_long_is_not_repeated(tmp_path, monkeypatch):
    """The limit is that of the longest recording, here made short; and it is decoded once."""
    monkeypatch.setattr(Config, "longest_request_s", 1)
    with Entry.started(tmp_path, workers=2, FAIL_FAST_WHEN_BUSY="false") as entry:
        for worker in entry.workers:
            worker.delay_s = 3.0

        late = entry.send(WINDOW)

        assert late.status_code == 503
        assert late.json()["error"]["code"] == "worker_timeout"
        assert sum(len(worker.heard) for worker in entry.workers) == 1
        assert entry.refused() == {("worker_timeout", "realtime"): 1}


def test_longest_recording_has_the_time_it_needs():
    assert Config().longest_request_s > Config().max_audio_duration_s
    assert Config(max_audio_duration_s=86_400).longest_request_s > 86_400
    assert Config(max_audio_duration_s=30).longest_request_s >= 900
