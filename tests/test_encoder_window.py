"""The adaptive encoder window: how much is encoded, and what is done again in full."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from app import metrics
from app.engine.cancellation import Cancellation
from app.engine.encoder_window import encoder_frames, is_suspicious
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.recordings import recording
from tests.test_contract import SENTENCE, words


@dataclass
class Result:
    scores: tuple[float]


@pytest.mark.parametrize(
    ("sound", "encoded"),
    [(0, 1000), (800, 1000), (801, 1500), (1300, 1500), (1900, 3000), (3000, 3000)],
)
def test_lengths_are_rounded_up_to_a_few(sound, encoded):
    """So that windows meet in one call; long ones go in full at once."""
    assert encoder_frames(sound) == encoded


@pytest.mark.parametrize(
    ("score", "text", "tokens", "suspicious"),
    [
        (-0.3, "He was not an ill-disposed young man.", 11, False),
        (-0.9, "He was not an ill-disposed young man.", 11, True),
        (-0.3, "no no no no no no no no no no no no no no", 14, True),
        (-0.3, "He was not an ill-disposed young man.", 37, True),
        (-0.3, "", 0, False),
    ],
    ids=["sound", "unsure", "repetition", "too many tokens a second", "nothing"],
)
def test_runaway_results_are_suspicious(score, text, tokens, suspicious):
    assert is_suspicious(Result((score,)), text, tokens, sound_frames=300) is suspicious


@pytest.fixture(scope="module")
def adaptive(tiny_config):
    return Model(replace(tiny_config, encoder_window="adaptive"))


@pytest.mark.parametrize("name", ["austen_0890.wav", "odd_no_extension", "goforward_16k.wav"])
def test_clear_speech_has_the_same_words(adaptive, tiny_engine, name):
    options = DecodeOptions(word_timestamps=True)
    waveform = recording(name).waveform()

    short = adaptive.transcribe(waveform, options, Cancellation())
    full = tiny_engine.transcribe(waveform, options, Cancellation())

    assert words(short.text) == words(full.text)
    for ours, theirs in zip(short.segments[0].words, full.segments[0].words, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=0.5)


def test_suspicious_window_is_done_again_in_full(adaptive, monkeypatch):
    """The answer is then the full window's."""
    monkeypatch.setattr("app.engine.encoder_window.MIN_AVG_LOGPROB", 0.0)
    redone = metrics.WINDOWS_REDONE._value.get()
    encoded = metrics.WINDOWS_ENCODED._value.get()

    found = adaptive.transcribe(
        recording("austen_0890.wav").waveform(), DecodeOptions(), Cancellation()
    )

    assert words(found.text) == words(SENTENCE)
    assert metrics.WINDOWS_REDONE._value.get() == redone + 1
    assert metrics.WINDOWS_ENCODED._value.get() == encoded + 2


def test_silence_stays_silent(adaptive):
    options = DecodeOptions(speech=replace(DecodeOptions().speech, enabled=False))

    found = adaptive.transcribe(np.zeros(32_000, np.float32), options, Cancellation())

    assert len(found.text) < 20
