"""A GPU's memory, as far as a machine without one can show: with a made-up driver."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pynvml
import pytest

from app.engine.batching.operation import Kind
from app.engine.gpu_memory import GpuMemory, Memory
from app.engine.model import Model
from app.observability import metrics

GIB = 1 << 30
NAMES = ("MIG-7a", "GPU-8b")


@pytest.fixture
def driver(monkeypatch):
    """NVIDIA's driver library as it answers on a machine with two GPUs."""
    asked = []

    def handle(name):
        if name not in NAMES:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return name

    def memory(handle):
        asked.append(handle)
        return SimpleNamespace(used=3 * GIB, free=21 * GIB)

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", memory)
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_the_workers_gpu_is_read(driver, name):
    assert GpuMemory(name[4:]).read() == Memory(used=3 * GIB, free=21 * GIB)
    assert driver == [name]


def test_this_process_is_found_among_those_on_the_gpu(driver, monkeypatch):
    processes = [
        SimpleNamespace(pid=1, usedGpuMemory=GIB),
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=2 * GIB),
    ]
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: processes, raising=False
    )
    assert GpuMemory("8b").own_bytes() == 2 * GIB
    processes.pop()
    assert GpuMemory("8b").own_bytes() is None


def test_a_driver_that_fails_gives_no_reading(driver, monkeypatch):
    memory = GpuMemory("8b")

    def fails(handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", fails)
    assert memory.read() is None


def test_without_a_driver_there_is_no_reading(monkeypatch):
    def absent():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    assert GpuMemory("8b").read() is None


def test_metrics_show_it():
    metrics.watch_gpu_memory(lambda: Memory(used=5, free=7))
    (found,) = metrics.GPU_MEMORY_BYTES.collect()
    assert {sample.labels["is"]: sample.value for sample in found.samples} == {"used": 5, "free": 7}
    metrics.watch_gpu_memory(lambda: None)


def test_full_batches_are_tried(tiny_config):
    """As at the start on a GPU: the largest calls there may be, of the longest texts."""
    before = metrics.BATCH_SIZE.labels("generate")._sum.get()

    assert Model(tiny_config, max_batch=3).try_full_batch() == 3

    assert metrics.BATCH_SIZE.labels("generate")._sum.get() - before == 3


def test_a_full_batch_without_room_is_halved_and_remembered(tiny_config):
    model = Model(tiny_config, max_batch=3)
    calls = model.device_threads._calls
    real = calls[Kind.GENERATE]

    def short_of_memory(batch):
        if len(batch) > 1:
            raise RuntimeError("CUDA failed with error out of memory")
        return real(batch)

    calls[Kind.GENERATE] = short_of_memory

    assert model.try_full_batch() == 1
    assert model.device_threads.largest_batch(Kind.GENERATE) == 1
    assert model.device_threads.largest_batch(Kind.ENCODE) == 3
