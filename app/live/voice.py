"""Detect where speech starts and stops in a session's audio."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.audio.limits import SAMPLE_RATE
from app.audio.speech_model import FRAME, State, speech_model

AT_ONCE = 5  # frames of one call (160 ms), which cost half as much as single ones
PIECE = AT_ONCE * FRAME  # samples of one call
# Speech goes on down to this much below the threshold, as in Silero's own iterator.
HYSTERESIS = 0.15
INAUDIBLE = 8  # 16-bit samples within this are digital silence; the model is not asked


@dataclass(frozen=True, slots=True)
class Change:
    """Start or end of speech.

    Attributes:
        starts: speech starts here; otherwise it has ended.
        at: the sample, counted from the session's first.
    """

    starts: bool
    at: int


class Voice:
    """Voice activity of one session.

    Args:
        threshold: speech probability from which sound counts as speech.
        silence: samples of silence that end speech.

    Attributes:
        heard: samples examined so far.
        last_voice: the end of the last frame with speech, in samples from the session's first.
        speaking: speech has started and has not ended.
    """

    def __init__(self, threshold: float, silence: int) -> None:
        self.threshold = threshold
        self.silence = silence
        self.heard = 0
        self.last_voice = 0
        self.speaking = False
        self._rest = np.empty(0, np.int16)
        self._state = State()

    def feed(self, samples: np.ndarray) -> Iterator[Change]:
        """Examine further samples (int16, 16 kHz) and yield the changes in them."""
        self._rest = np.concatenate((self._rest, samples)) if self._rest.size else samples
        if self._rest.size >= PIECE:
            yield from self.flush()

    def flush(self) -> Iterator[Change]:
        """Examine the samples that wait for a call, except the last incomplete frame, and yield the
        changes in them."""
        n = self._rest.size // FRAME
        if not n:
            return
        frames, self._rest = self._rest[: n * FRAME], self._rest[n * FRAME :]
        for probability in self._probabilities(frames.reshape(n, FRAME)):
            self.heard += FRAME
            yield from self._change(float(probability))

    def _probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Return the speech probability of each frame: float32, shape (n_frames,)."""
        if not self.speaking and max(frames.max(), -int(frames.min())) <= INAUDIBLE:
            return np.zeros(len(frames), np.float32)
        return speech_model().continued(
            frames.astype(np.float32) * np.float32(1 / 32768), self._state
        )

    def _change(self, probability: float) -> Iterator[Change]:
        limit = self.threshold - (HYSTERESIS if self.speaking else 0.0)
        if probability >= max(limit, 0.01):
            self.last_voice = self.heard
            if not self.speaking:
                self.speaking = True
                yield Change(True, self.heard - FRAME)
        elif self.speaking and self.heard - self.last_voice >= self.silence:
            self.speaking = False
            yield Change(False, self.last_voice)


def samples_of(milliseconds: float) -> int:
    """Return the number of 16 kHz samples of a duration."""
    return int(milliseconds * SAMPLE_RATE / 1000)
