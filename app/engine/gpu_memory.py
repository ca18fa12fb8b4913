"""Read how much of a GPU's memory is used and free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pynvml  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Memory:
    """Used and free memory of a GPU, in bytes."""

    used: int
    free: int


class GpuMemory:
    """Memory reader for one GPU; counts all processes that use it.

    Without NVIDIA's driver library every reading is None.

    Args:
        gpu: index as in nvidia-smi, or a `GPU-…` or `MIG-…` identifier; None: the first GPU.
    """

    def __init__(self, gpu: str | None = None) -> None:
        self._handle: Any = None
        try:
            pynvml.nvmlInit()
            gpu = gpu or "0"
            self._handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
                if gpu.isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(gpu)
            )
        except pynvml.NVMLError:
            return

    def read(self) -> Memory | None:
        """Return the current memory use; None if it cannot be read."""
        if self._handle is None:
            return None
        try:
            info = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except pynvml.NVMLError:
            return None
        return Memory(int(info.used), int(info.free))
