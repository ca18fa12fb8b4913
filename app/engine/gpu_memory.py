"""Read how much of a GPU's memory is used and free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pynvml  # type: ignore[import-untyped]


@dataclass(frozen=True, slots=True)
class Memory:
    """A GPU's memory in bytes."""

    used: int
    free: int


class GpuMemory:
    """The memory of one GPU, all of its users together.

    Without NVIDIA's driver library there is no reading, and every answer is None.

    Args:
        gpu: its index as nvidia-smi counts, or its `GPU-…` or `MIG-…` identifier; None: the first.
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
        """The memory now."""
        if self._handle is None:
            return None
        try:
            found = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except pynvml.NVMLError:
            return None
        return Memory(int(found.used), int(found.free))
