"""Read how much of a GPU's memory is used and free."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pynvml  # type: ignore[import-untyped]

from app.engine.cuda_driver import Driver, driver


@dataclass(frozen=True, slots=True)
class Memory:
    """Used and free memory of a GPU, in bytes."""

    used: int
    free: int


class GpuMemory:
    """Memory reader for one GPU; counts all processes that use it.

    NVIDIA's management library counts all GPUs of the machine, whatever `CUDA_VISIBLE_DEVICES`
    says, so only an identifier names the GPU of this process. Without the library every reading
    is None.

    Args:
        uuid: identifier of the GPU or MIG instance, without its prefix; None: that of the first GPU
            that this process may use.
    """

    def __init__(self, uuid: str | None = None) -> None:
        self._handle: Any = None
        if uuid is None:
            gpu = driver()
            if gpu is None:
                return
            uuid = gpu.uuid()
        for prefix in ("MIG-", "GPU-"):
            try:
                pynvml.nvmlInit()
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(prefix + uuid)
                return
            except pynvml.NVMLError:
                continue

    def read(self) -> Memory | None:
        """Return the current memory use; None if it cannot be read."""
        if self._handle is None:
            return None
        try:
            info = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except pynvml.NVMLError:
            return None
        return Memory(int(info.used), int(info.free))

    def own_bytes(self) -> int | None:
        """Return this process's memory, CUDA's own included; None if it cannot be read."""
        if self._handle is None:
            return None
        try:
            processes = pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except pynvml.NVMLError:
            return None
        own = (process.usedGpuMemory for process in processes if process.pid == os.getpid())
        return next((int(size) for size in own if size is not None), None)


class MemoryShare:
    """Share of a GPU's memory that one of its workers may take.

    Args:
        driver: the driver, whose memory pool CTranslate2 allocates from.
        gpu: the GPU's memory reader.
        workers: workers on this GPU.
    """

    def __init__(self, driver: Driver, gpu: GpuMemory, workers: int) -> None:
        self._driver = driver
        self._gpu = gpu
        self._bytes = driver.total_bytes() // workers

    def begin(self) -> None:
        """Start to measure."""
        self._driver.forget_peak()

    def keeps(self) -> bool:
        """Return whether this process kept to its share since `begin`, and start again."""
        now, peak = self._driver.reserved_bytes()
        at_rest = self._gpu.own_bytes() or now
        self.begin()
        return at_rest + peak - now <= self._bytes
