"""Hold a window's features and encoding, and combine the encodings of one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np

from app.engine.cuda_driver import driver

# Copies pieces of memory, given their addresses and the bytes of each, into new memory one after
# another. Returns the owner: `address` is the new memory, which is freed with the owner.
Join = Callable[[Sequence[int], int], Any]


@dataclass(eq=False, slots=True)
class HostMemory:
    """Memory of this machine."""

    array: np.ndarray

    @property
    def address(self) -> int:
        """Return the address of its first byte."""
        return int(self.array.ctypes.data)


def join_on_host(pieces: Sequence[int], n_bytes: int) -> HostMemory:
    """Return new memory with copies of the pieces; see `Join`."""
    memory = HostMemory(np.empty(n_bytes * len(pieces), np.uint8))
    for number, piece in enumerate(pieces):
        ctypes.memmove(memory.address + number * n_bytes, piece, n_bytes)
    return memory


class Area:
    """Memory of the device as CTranslate2 takes it, by NumPy's or CUDA's array interface.

    Args:
        device: `cpu` or `cuda`.
        interface: shape, type and address, as in both interfaces.
        owner: what frees the memory; kept while CTranslate2 uses the area.
    """

    def __init__(self, device: str, interface: dict[str, Any], owner: object) -> None:
        self._owner = owner
        setattr(self, array_interface(device), interface)


def array_interface(device: str) -> str:
    """Return the name of the attribute that describes memory of this device."""
    return "__cuda_array_interface__" if device == "cuda" else "__array_interface__"


class EncodedBatch:
    """Encoder output of windows encoded in one call, in the device's memory.

    Args:
        output: shape (n_windows, 1500, width), in the encoder's own type.
    """

    def __init__(self, output: ctranslate2.StorageView) -> None:
        if output.dtype == ctranslate2.DataType.bfloat16:  # no array interface has it
            output = output.to(ctranslate2.DataType.float32)
        self._output = output
        self.device = str(output.device)
        interface = getattr(output, array_interface(self.device))
        self.shape = tuple(interface["shape"])
        self.type = str(interface["typestr"])
        self._address = int(interface["data"][0])

    @property
    def window_bytes(self) -> int:
        """Return the size of one window's output."""
        return int(np.prod(self.shape[1:])) * np.dtype(self.type).itemsize

    def address(self, index: int) -> int:
        """Return where a window's output begins in the device's memory."""
        return self._address + index * self.window_bytes

    def view(self, first: int, n_windows: int) -> ctranslate2.StorageView:
        """Return some neighbouring windows' output, not copied."""
        return self.area(self.address(first), n_windows, self._output)

    def area(self, address: int, n_windows: int, owner: object) -> ctranslate2.StorageView:
        """Return memory with this batch's shape and type as an encoder output."""
        interface = {
            "shape": (n_windows, *self.shape[1:]),
            "typestr": self.type,
            "data": (address, False),
            "version": 3,
        }
        return ctranslate2.StorageView.from_array(Area(self.device, interface, owner))


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

    @property
    def is_short(self) -> bool:
        """Return whether the encoder does not see all frames."""
        return bool(self.frames < self.features.shape[1])

    def widen(self) -> None:
        """Show the encoder all frames, at its next use."""
        self.frames = self.features.shape[1]
        self.encoded = None


def gather(windows: Sequence[Encoded], join: Join | None = None) -> ctranslate2.StorageView:
    """Return the encoder output of these windows, in this order, for one call.

    Windows that are neighbours in one encoded batch are passed on where they are; others are
    copied together within the device's memory.

    Args:
        join: copies memory of the device; None: the driver's or this machine's.
    """
    first = windows[0]
    batch = first.batch
    neighbours = range(first.index, first.index + len(windows))
    if all(window.batch is batch for window in windows) and [
        window.index for window in windows
    ] == list(neighbours):
        return batch.view(first.index, len(windows))
    join = join or joining(batch.device)
    pieces = [window.batch.address(window.index) for window in windows]
    memory = join(pieces, batch.window_bytes)
    return batch.area(memory.address, len(windows), memory)


def joining(device: str) -> Join:
    """Return the function that copies memory within this device."""
    gpu = driver() if device == "cuda" else None
    return gpu.join if gpu else join_on_host
