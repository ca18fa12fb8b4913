"""The speech model finds what Silero VAD in faster-whisper's package finds."""

from __future__ import annotations

import os

import faster_whisper.vad
import numpy as np
import pytest
from faster_whisper.utils import get_assets_path
from faster_whisper.vad import SileroVADModel

from app.audio.speech_model import BLOCK_FRAMES, FRAME, State, speech_model
from app.engine.options import SpeechOptions
from app.engine.speech import find_speech
from tests.support.recordings import long_recording, recordings

OPTIONS = SpeechOptions()
QUICK = SpeechOptions(threshold=0.7, min_silence_duration_ms=160)


@pytest.fixture(scope="module")
def original() -> SileroVADModel:
    return SileroVADModel(os.path.join(get_assets_path(), "silero_vad_v6.onnx"))


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    valid = [one.waveform() for one in recordings() if one.kind != "invalid" and one.seconds < 60]
    return [*valid, long_recording(70).samples]


def test_probabilities_are_the_originals(original, waveforms):
    for waveform in waveforms:
        padded = np.pad(waveform, (0, FRAME - waveform.size % FRAME))
        found = speech_model()(padded.copy())
        np.testing.assert_allclose(found, original(padded), rtol=0, atol=1e-5)


def test_spans_are_the_originals(monkeypatch, original, waveforms):
    """To the sample, so that the same sound is decoded."""
    found = [find_speech(one, options, 24) for one in waveforms for options in (OPTIONS, QUICK)]
    monkeypatch.setattr(faster_whisper.vad, "get_vad_model", lambda: original)

    expected = [find_speech(one, options, 24) for one in waveforms for options in (OPTIONS, QUICK)]

    assert found == expected
    assert any(found)


@pytest.mark.parametrize("frames", [1, BLOCK_FRAMES - 1, BLOCK_FRAMES, BLOCK_FRAMES + 1])
def test_any_number_of_frames(original, frames):
    samples = long_recording(10).samples[: frames * FRAME]

    np.testing.assert_allclose(speech_model()(samples), original(samples.copy()), atol=1e-5)


@pytest.mark.parametrize("size", [1, 5, BLOCK_FRAMES])
def test_a_stream_is_heard_as_a_recording(size):
    frames = long_recording(10).samples[: 200 * FRAME].reshape(-1, FRAME)
    state = State()
    pieces = [frames[begin : begin + size] for begin in range(0, len(frames), size)]

    found = np.concatenate([speech_model().continued(piece, state) for piece in pieces])

    np.testing.assert_allclose(found, speech_model().continued(frames, State()), atol=1e-5)
    assert found.max() > 0.9
