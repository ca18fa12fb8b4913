"""Detect where speech starts and stops in a session's audio, with Silero's voice activity model.

The file is the engine's (`app/engine/speech_model.py`), so that gateway and engine hear alike. It
is run here because the engine takes whole recordings, while a stream needs the model's state
carried from piece to piece, and because the engine's package loads CTranslate2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

from app.audio.limits import SAMPLE_RATE
from app.config import ROOT

MODEL = ROOT / "app" / "engine" / "speech.onnx"
CHUNK = 512  # samples the model hears at once: 32 ms
CONTEXT = 64  # samples of the chunk before it
AT_ONCE = 5  # chunks of one call (160 ms), which cost half as much as single ones
PIECE = AT_ONCE * CHUNK  # samples of one call
STATE = (1, 1, 128)
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


@cache
def model() -> onnxruntime.InferenceSession:
    """Load the model once for all sessions."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        str(MODEL), providers=["CPUExecutionProvider"], sess_options=options
    )


class Voice:
    """Voice activity of one session.

    Args:
        threshold: speech probability from which sound counts as speech.
        silence: samples of silence that end speech.

    Attributes:
        heard: samples examined so far.
        last_voice: the end of the last chunk with speech, in samples from the session's first.
        speaking: speech has started and has not ended.
    """

    def __init__(self, threshold: float, silence: int) -> None:
        self.threshold = threshold
        self.silence = silence
        self.heard = 0
        self.last_voice = 0
        self.speaking = False
        self._rest = np.empty(0, np.int16)
        self._context = np.zeros(CONTEXT, np.float32)
        self._state: list[Any] = [np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)]

    def feed(self, samples: np.ndarray) -> Iterator[Change]:
        """Examine further samples (int16, 16 kHz) and yield the changes in them."""
        self._rest = np.concatenate((self._rest, samples)) if self._rest.size else samples
        if self._rest.size >= PIECE:
            yield from self.flush()

    def flush(self) -> Iterator[Change]:
        """Examine the samples that wait for a call, except the last incomplete chunk, and yield the
        changes in them."""
        n = self._rest.size // CHUNK
        if not n:
            return
        chunks, self._rest = self._rest[: n * CHUNK], self._rest[n * CHUNK :]
        for probability in self._probabilities(chunks.reshape(n, CHUNK)):
            self.heard += CHUNK
            yield from self._change(float(probability))

    def _probabilities(self, chunks: np.ndarray) -> np.ndarray:
        """Return the speech probability of each chunk: float32, shape (n_chunks,)."""
        if not self.speaking and max(chunks.max(), -int(chunks.min())) <= INAUDIBLE:
            return np.zeros(len(chunks), np.float32)
        waveform = chunks.astype(np.float32)
        waveform *= 1 / 32768
        contexts = np.vstack((self._context, waveform[:-1, -CONTEXT:]))
        self._context = waveform[-1, -CONTEXT:]
        h, c = self._state
        heard = {"input": np.hstack((contexts, waveform)), "h": h, "c": c}
        probabilities, *self._state = model().run(None, heard)
        return np.asarray(probabilities).reshape(-1)

    def _change(self, probability: float) -> Iterator[Change]:
        limit = self.threshold - (HYSTERESIS if self.speaking else 0.0)
        if probability >= max(limit, 0.01):
            self.last_voice = self.heard
            if not self.speaking:
                self.speaking = True
                yield Change(True, self.heard - CHUNK)
        elif self.speaking and self.heard - self.last_voice >= self.silence:
            self.speaking = False
            yield Change(False, self.last_voice)


def samples_of(milliseconds: float) -> int:
    """Return the number of 16 kHz samples of a duration."""
    return int(milliseconds * SAMPLE_RATE / 1000)
