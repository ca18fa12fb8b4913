"""The memory that decoded audio may take: what does not fit waits, first come first served."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.config import Config
from app.engine.audio_budget import LEAST_BYTES_PER_S, LEAST_WAV_BYTES_PER_S, AudioBudget
from app.engine.cancellation import Cancellation
from app.errors import Busy, ClientDisconnected
from tests.support.recordings import DATA, recordings
from tests.support.waiting import LIMIT_S, until

HOUR_S = 3600.0


def budget(seconds: float, wait_s: float = LIMIT_S) -> AudioBudget:
    return AudioBudget(seconds, HOUR_S, wait_s)


def test_upload_counts_as_the_most_that_its_bytes_can_hold():
    room = budget(2 * HOUR_S)

    with room.reserve(b"OggS", 1000 * LEAST_BYTES_PER_S, Cancellation()) as reservation:
        assert room._held == 1000
        reservation.decoded(12.5)
        assert room._held == 12.5
    with room.reserve(b"RIFF", 60 * LEAST_WAV_BYTES_PER_S, Cancellation()):
        assert room._held == 60
    with room.reserve(b"fLaC", 1 << 30, Cancellation()):
        assert room._held == HOUR_S, "no recording is longer"

    assert room._held == 0


@pytest.mark.parametrize("one", recordings(), ids=lambda one: one.name)
def test_no_recording_holds_more_than_it_counts_for(one):
    room = budget(1e9)
    content = one.content()

    with room.reserve(content[:4], len(content), Cancellation()):
        assert room._held >= one.seconds if content else room._held == 0


def test_what_does_not_fit_waits_until_it_does():
    room = budget(HOUR_S)
    order: list[int] = []
    inside, go = threading.Event(), threading.Event()

    def hold(number: int, size: int) -> None:
        with room.reserve(b"OggS", size, Cancellation()):
            order.append(number)
            inside.set()
            assert go.wait(LIMIT_S)

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(hold, 1, 10 << 20)  # the whole of it
        assert inside.wait(LIMIT_S)
        second = threads.submit(hold, 2, 10 << 20)
        assert until(lambda: len(room._waiting) == 1)
        third = threads.submit(hold, 3, 10)
        assert until(lambda: len(room._waiting) == 2)
        assert order == [1], "a small one does not slip past one that waits"
        go.set()
        for done in (first, second, third):
            done.result()

    assert order == [1, 2, 3]
    assert room._held == 0


def test_wait_has_an_end():
    room = budget(HOUR_S, wait_s=0.3)

    with room.reserve(b"OggS", 1 << 30, Cancellation()):
        with pytest.raises(Busy), room.reserve(b"OggS", 10, Cancellation()):
            pass
        assert room._held == HOUR_S
    assert room._held == 0


def test_client_that_leaves_waits_no_longer():
    room, gone = budget(HOUR_S), Cancellation()

    with room.reserve(b"OggS", 1 << 30, Cancellation()):
        threading.Timer(0.1, gone.cancel).start()
        with pytest.raises(ClientDisconnected), room.reserve(b"OggS", 10, gone):
            pass
    assert room._held == 0


def test_longest_recording_always_fits():
    config = Config(max_decoded_audio_s=10, max_audio_duration_s=HOUR_S)

    assert config.audio_budget_s == HOUR_S
    assert Config(max_decoded_audio_s=1e6).audio_budget_s == 1e6
    assert Config(workers=1).audio_budget_s >= Config(workers=2).audio_budget_s > 0
    assert (DATA / "silence_35s.flac").is_file(), "whose bytes say least"
