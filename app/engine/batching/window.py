"""Hold a window's features and encoding, and combine the encodings of one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ctranslate2
import numpy as np


@dataclass(eq=False, slots=True)
class EncodedBatch:
    """Encoder output of windows encoded in one call, in the device's memory."""

    output: ctranslate2.StorageView  # shape (n_windows, 1500, width)
    n_windows: int
    _on_host: np.ndarray | None = None

    def on_host(self) -> np.ndarray:
        """Return the output in host memory, float32; copied from a GPU at most once."""
        if self._on_host is None:
            view = self.output.to(ctranslate2.DataType.float32)
            self._on_host = np.asarray(view.to_device(ctranslate2.Device.cpu))
        return self._on_host


@dataclass(frozen=True, slots=True)
class Encoded:
    """Window of an encoded batch."""

    batch: EncodedBatch
    index: int


class Window:
    """Features of a window, and its encoding once needed; belongs to one request.

    Args:
        features: float32, shape (n_mels, n_frames).
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self.encoded: Encoded | None = None
        filled = np.flatnonzero(features.any(axis=0))
        # Frames up to the last with sound; the rest is padding.
        self.sound_frames = int(filled[-1]) + 1 if filled.size else 0
        # Frames the encoder sees.
        self.frames = features.shape[1]


def gather(windows: Sequence[Encoded]) -> ctranslate2.StorageView:
    """Return the encoder output of these windows, in this order, for one call.

    A complete encoded batch is passed on in the device's memory; other combinations are copied
    together in host memory.
    """
    first = windows[0].batch
    is_same_batch = all(window.batch is first for window in windows)
    if is_same_batch and [window.index for window in windows] == list(range(first.n_windows)):
        return first.output
    outputs = [window.batch.on_host()[window.index] for window in windows]
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.stack(outputs)))
