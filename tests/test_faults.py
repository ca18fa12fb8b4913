"""A GPU's faults, done to real workers by tests/wedge: no request is lost, and the worker comes
back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.chaos import LARGE, WEDGE, WINDOW, Victim, harm_device, lost
from tests.client import TRANSCRIPTIONS
from tests.stack import Stack, until
from tests.steady import Load


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """Two workers and a queue, whose device can be made to fail."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "wedge").mkdir()
    with Stack.started(
        folder / "run", WORKERS="2", FAIL_FAST_WHEN_BUSY="false",
        WEDGE_DIR=str(folder / "wedge"), PYTHONPATH=str(WEDGE),
    ) as running:  # fmt: skip
        yield Victim(running)


def obeyed(victim: Victim, told) -> bool:
    """Whether the worker has met its harm; sent until one request went there."""
    return until(lambda: not told.exists(), 20)


def test_memory_in_pieces_is_nobodys_error(victim):
    """A call without room is made again: the same worker answers, a little later."""
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        assert obeyed(victim, harm_device(victim, 0, "oom 2"))
        time.sleep(2)

    assert load.failed == {}
    assert victim.stack.metric(1, "transcription_out_of_memory_total") == 2
    assert "once more in" in victim.stack.log
    assert set(victim.arbiters()) == before


def test_reset_of_the_driver_is_over_soon(victim):
    """Calls fail for a moment: the other worker answers their requests, and this one stays."""
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW, WINDOW]) as load:
        assert obeyed(victim, harm_device(victim, 0, "lost 2"))
        time.sleep(2)

        assert until(lambda: victim.up() == 2, 20)

    assert load.failed == {}
    assert set(victim.arbiters()) == before


def test_lost_device_ends_its_worker_and_no_request(victim):
    before = set(victim.arbiters())
    with Load(victim.stack.url, [WINDOW] * 4) as load:
        lost(victim, 0)
        assert until(lambda: victim.up() == 2, 60)

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
            httpx.post(
                victim.stack.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
                files={"file": ("large.wav", LARGE)}, timeout=60,
            )
        )  # fmt: skip

    assert [answer.status_code for answer in answers].count(503) >= 1
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "worker_failed"
    assert refused.headers["retry-after"] == "1"
    assert "CUDA" not in refused.text
    for number in (0, 1):
        harm_device(victim, number, "lost 0")  # where no request came
    assert until(lambda: victim.up() == 2, 20)
