"""What the balancer does with a request whose worker failed it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

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
    assert retry_after_s(refused) == 1
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
