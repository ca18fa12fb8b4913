"""A window's features and its encoding, and how windows of one call are put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ctranslate2
import numpy as np


@dataclass(eq=False, slots=True)
class EncodedBatch:
    """The encoder's output for windows that were encoded together, where the device left it."""

    output: ctranslate2.StorageView  # shape (n_windows, 1500, width)
    n_windows: int
    _on_host: np.ndarray | None = None

    def on_host(self) -> np.ndarray:
        """The same numbers in this process's memory, float32; copied from a GPU at most once."""
        if self._on_host is None:
            view = self.output.to(ctranslate2.DataType.float32)
            self._on_host = np.asarray(view.to_device(ctranslate2.Device.cpu))
        return self._on_host


@dataclass(frozen=True, slots=True)
class Encoded:
    """One window of an encoded batch."""

    batch: EncodedBatch
    index: int


class Window:
    """A window's features, and its encoding once somebody needed it; one request's own.

    Args:
        features: float32, shape (n_mels, n_frames).
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self.encoded: Encoded | None = None
        filled = np.flatnonzero(features.any(axis=0))
        # Frames up to the last that holds sound; behind it is padding.
        self.sound_frames = int(filled[-1]) + 1 if filled.size else 0
        # Frames the encoder sees.
        self.frames = features.shape[1]


def gather(windows: Sequence[Encoded]) -> ctranslate2.StorageView:
    """The encoder's output for these windows, in this order, as one call takes it.

    Windows that were encoded together and are still together go on as the device left them;
    others are put together in this process's memory.
    """
    first = windows[0].batch
    together = all(one.batch is first for one in windows)
    if together and [one.index for one in windows] == list(range(first.n_windows)):
        return first.output
    parts = [one.batch.on_host()[one.index] for one in windows]
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.stack(parts)))
