"""A GPU's faults, done to real workers by tests/support/wedge: no request is lost, and the worker
comes back by itself."""

from __future__ import annotations

import time

import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.steady import Load
from tests.support.victim import LARGE, WINDOW, Victim, harm_device, lost
from tests.support.waiting import until

# Under load, and each request counts: nothing else may want the cores.
pytestmark = [pytest.mark.slow, pytest.mark.alone]


def obeyed(victim: Victim, told) -> bool:
    """Return whether the worker has had its fault, which a request to it causes."""
    return until(lambda: not told.exists())


def test_memory_in_pieces_is_nobodys_error(victim):
    """A call without room is made again: the same worker answers, a little later."""
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        assert obeyed(victim, harm_device(victim, 0, "oom 2"))
        time.sleep(2)

    assert load.failed == {}
    assert victim.stack.metric(1, "transcription_out_of_memory_total") == 2
    assert "retry_in_s=" in victim.stack.log
    assert set(victim.arbiters()) == before


def test_reset_of_the_driver_is_over_soon(victim):
    """Calls fail for a moment: the other worker answers their requests, and this one stays."""
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        assert obeyed(victim, harm_device(victim, 0, "lost 2"))
        time.sleep(2)

        assert until(lambda: victim.up() == 2)

    assert load.failed == {}
    assert set(victim.arbiters()) == before


def test_lost_device_ends_its_worker_and_no_request(victim):
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW] * 4) as load:
        lost(victim, 0)
        assert until(lambda: victim.up() == 2)

    assert load.failed == {}
    assert len(before & set(victim.arbiters())) == 1
    assert "The device failed" in victim.stack.log


def test_upload_that_cannot_be_replayed_is_one_to_send_again(victim):
    """Larger than the balancer's buffer: 503 with Retry-After, and nothing of the cause."""
    answers = []
    for number in (0, 1):
        harm_device(victim, number, "lost 1")
    for _ in range(2):
        answers.append(
            HTTP.post(
                victim.stack.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
                files={"file": ("large.wav", LARGE)}, timeout=60,
            )
        )  # fmt: skip

    assert [answer.status_code for answer in answers].count(503) >= 1
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "worker_failed"
    assert int(refused.headers["retry-after"]) >= 1
    assert "CUDA" not in refused.text
    for number in (0, 1):
        harm_device(victim, number, "lost 0")  # where no request came
    assert until(lambda: victim.up() == 2)
