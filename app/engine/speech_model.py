"""Compute the probability of speech in each 32 ms of a recording, with Silero VAD.

The model is the one in faster-whisper's package in a form that takes less processor time
(tests/support/speech_model.py wrote it; docs/measurements.md, "The host's processor"). Its
probabilities differ by less than 1e-5 (tests/model/test_speech_model.py).
Source: github.com/snakers4/silero-vad, MIT licence.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]

MODEL = Path(__file__).with_name("speech.onnx")
FRAME = 512  # samples
CONTEXT = 64  # samples of the previous frame that the model sees too
STATE = (1, 1, 128)
# Frames of one call: few enough that ONNX Runtime's arena keeps their intermediate results for the
# next call. For larger ones the kernel would hand out and clear pages each time.
BLOCK_FRAMES = 64


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
            waveform: float32, shape (n_frames * 512,), mono 16 kHz.
        """
        new = waveform.reshape(-1, FRAME)
        frames = np.zeros((len(new), CONTEXT + FRAME), np.float32)
        frames[:, CONTEXT:] = new
        frames[-1, -CONTEXT:] = 0.0  # as in faster-whisper, whose thresholds are for it
        frames[1:, :CONTEXT] = frames[:-1, -CONTEXT:]
        h = c = np.zeros(STATE, np.float32)
        blocks = []
        for begin in range(0, len(frames), BLOCK_FRAMES):
            inputs = {"input": frames[begin : begin + BLOCK_FRAMES], "h": h, "c": c}
            probabilities, h, c = self._session.run(None, inputs)
            blocks.append(probabilities)
        return np.concatenate(blocks)


@cache
def speech_model() -> SpeechModel:
    """Return the process's only model, loaded on first use."""
    return SpeechModel()
