"""Compute the probability of speech in each 32 ms of sound, with Silero VAD.

The model is the one in faster-whisper's package in a form that takes less processor time
(tests/support/speech_model.py wrote it; docs/measurements.md, "The host's processor"). Its
probabilities differ by less than 1e-5 (tests/model/test_speech_model.py).
Source: github.com/snakers4/silero-vad, MIT licence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

MODEL = Path(__file__).with_name("speech.onnx")
FRAME = 512  # samples
CONTEXT = 64  # samples of the previous frame that the model sees too
POSITIONS = 4  # of windows of 2 * HOP samples in a frame, its context and its reflection
HOP = 128
# Frames of one call: few enough that ONNX Runtime's arena keeps their intermediate results for the
# next call. For larger ones the kernel would hand out and clear pages each time.
BLOCK_FRAMES = 64


def zeros() -> np.ndarray:
    """Return the model's state before the first frame."""
    return np.zeros((1, 1, 128), np.float32)


@dataclass(slots=True)
class State:
    """What the model keeps of the frames so far."""

    context: np.ndarray = field(default_factory=lambda: np.zeros(CONTEXT, np.float32))
    h: np.ndarray = field(default_factory=zeros)
    c: np.ndarray = field(default_factory=zeros)


class SpeechModel:
    """Silero VAD; any number of threads may call it."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(
            str(MODEL), providers=["CPUExecutionProvider"], sess_options=options
        )

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Return the probability of speech in each frame, float32, shape (n_frames,).

        Args:
            waveform: a recording; float32, shape (n_frames * 512,), mono 16 kHz.
        """
        frames = waveform.reshape(-1, FRAME).copy()
        # The last samples count as silence in faster-whisper, whose thresholds are for that.
        frames[-1, -CONTEXT:] = 0.0
        return self.continued(frames, State())

    def continued(self, frames: np.ndarray, state: State) -> np.ndarray:
        """Return the probability of speech in further frames, float32, shape (n_frames,).

        Args:
            frames: float32, shape (n_frames, 512), mono 16 kHz.
            state: of the frames before these; it is brought up to date.
        """
        # Each frame begins with the end of the one before and ends with its own reflection.
        seen = np.empty((len(frames), CONTEXT + FRAME + CONTEXT), np.float32)
        seen[0, :CONTEXT] = state.context
        seen[1:, :CONTEXT] = frames[:-1, -CONTEXT:]
        seen[:, CONTEXT:-CONTEXT] = frames
        seen[:, -CONTEXT:] = frames[:, -2 : -CONTEXT - 2 : -1]
        state.context = frames[-1, -CONTEXT:]
        probabilities = []
        for begin in range(0, len(seen), BLOCK_FRAMES):
            block = seen[begin : begin + BLOCK_FRAMES]
            # Samples n and 256 - n of each window of 256, for n from 1: the model's waves have
            # equal or opposite values there.
            rising = block[:, 1 : -HOP + 1].reshape(-1, POSITIONS, HOP)
            falling = block[:, HOP:].reshape(-1, POSITIONS, HOP)[:, :, ::-1]
            heard = {"sums": rising + falling, "differences": rising - falling}
            found, state.h, state.c = self._session.run(None, heard | {"h": state.h, "c": state.c})
            probabilities.append(found)
        return np.concatenate(probabilities)


@cache
def speech_model() -> SpeechModel:
    """Return the process's only model, loaded on first use."""
    return SpeechModel()
