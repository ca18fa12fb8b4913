"""Channels of any number become one in which everything is heard."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.recordings import recording, to_pcm, wav_header, waveform

SPEECH = recording("goforward_16k.wav").waveform()


def wav_of(*channels: np.ndarray, rate: int = 16_000) -> bytes:
    """A WAV file of these channels."""
    pcm = to_pcm(np.stack(channels, axis=1)).tobytes()
    return wav_header(len(pcm), rate=rate, channels=len(channels)) + pcm


def loudness(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_channels_of_opposite_sign_do_not_cancel_out(share):
    found = waveform(wav_of(SPEECH, -share * SPEECH))

    assert loudness(found) > 0.5 * loudness(SPEECH)


def test_like_and_unlike_channels_are_mixed_as_ever():
    dice = np.random.default_rng(3)
    noise = dice.normal(0, 0.05, SPEECH.size).astype(np.float32)

    for right in (SPEECH, noise, np.zeros_like(SPEECH)):
        found = waveform(wav_of(SPEECH, right))

        np.testing.assert_allclose(found, (SPEECH + right) / 2, atol=2 / 32768)


@pytest.mark.parametrize("n_channels", [3, 4, 6, 8, 9, 12, 13, 16, 32, 64])
def test_any_number_of_channels_is_heard(n_channels):
    """Recorders of several microphones say nothing of where the channels are."""
    found = waveform(wav_of(*[SPEECH] * n_channels))

    assert found.size == SPEECH.size
    assert np.corrcoef(found, SPEECH)[0, 1] > 0.99
    assert loudness(found) > 0.3 * loudness(SPEECH)
