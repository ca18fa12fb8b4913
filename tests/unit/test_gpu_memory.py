"""A GPU's memory, as far as a machine without one can show: with a made-up driver."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pynvml
import pytest

from app.engine import cuda_driver
from app.engine.batching.batched_model import PROMPT_TOKENS
from app.engine.batching.operation import Kind
from app.engine.cuda_driver import Driver
from app.engine.gpu_memory import GpuMemory, Memory, MemoryShare
from app.engine.hallucination_filter import NO_REPEATED_GROUP
from app.engine.model import Model
from app.observability import metrics
from tests.support.driver import built

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


def test_without_a_name_it_is_the_first_gpu_of_this_process(driver, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(built(tmp_path)))
    cuda_driver.driver.cache_clear()
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda name: name)

    GpuMemory().read()

    assert driver == ["MIG-00010203-0405-0607-0809-0a0b0c0d0e0f"]
    cuda_driver.driver.cache_clear()


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


@pytest.fixture
def model(tiny_config) -> Model:
    """A model with batches on a CPU, and searches as short as can be."""
    config = replace(tiny_config, beam_size=1, best_of=1, max_concurrent_transcriptions=2)
    return Model(config, max_batch=2)


@pytest.fixture
def calls(model) -> list[tuple[Kind, list[Any], Any]]:
    """The calls that the model's device makes: kind, payloads and common arguments."""
    made: list[tuple[Kind, list[Any], Any]] = []
    functions = model.device_threads._calls

    def recorded(kind, function):
        def call(batch):
            made.append((kind, [one.payload for one in batch], batch[0].shared))
            return function(batch)

        return call

    functions.update({kind: recorded(kind, one) for kind, one in functions.items()})
    return made


def test_full_batches_are_tried(model, calls):
    """As at the start on a GPU: the largest calls there may be, of the longest texts."""
    assert model.try_full_batch() == 2

    assert [(kind, len(payloads)) for kind, payloads, _ in calls] == [
        (Kind.ENCODE, 2),
        (Kind.GENERATE, 2),
        (Kind.ALIGN, 2),
    ]
    (_, prompt), (_, text, _) = calls[1][1][0], calls[2][1][0]
    assert len(prompt) == 1 + PROMPT_TOKENS + 2
    assert PROMPT_TOKENS == 223
    assert len(text) == 224, "as much as Whisper writes"
    assert calls[1][2]["max_length"] == 448


def test_a_full_batch_without_room_is_halved_and_remembered(model):
    def short_of_memory(batch):
        if len(batch) > 1:
            raise RuntimeError("CUDA failed with error out of memory")
        return [None]

    model.device_threads._calls[Kind.GENERATE] = short_of_memory

    assert model.try_full_batch() == 1
    assert model.device_threads.largest_batch(Kind.GENERATE) == 1
    assert model.device_threads.largest_batch(Kind.ENCODE) == 2


def test_a_batch_that_takes_another_workers_share_is_halved_for_good(tiny_config):
    model = Model(tiny_config, max_batch=8)
    for kind in Kind:  # how much they take is not the question
        model.device_threads._calls[kind] = lambda batch: [None] * len(batch)
    kept = iter([False, False, True])

    assert model.try_full_batch(lambda: next(kept)) == 2
    assert {model.device_threads.largest_batch(kind) for kind in Kind} == {2}


def test_several_full_calls_are_tried_at_once_where_slots_fill_them(tiny_config):
    model = Model(replace(tiny_config, max_concurrent_transcriptions=8), max_batch=4)
    model.replicas = 4
    sizes = []
    for kind in Kind:
        model.device_threads._calls[kind] = lambda batch: sizes.append(len(batch)) or [0] * 4
    model.try_full_batch()

    assert sizes == [4] * 6, "twice each of encoding, decoding and alignment"


def test_rare_calls_are_made_before_a_request_makes_them(model, calls):
    """On a GPU each kind's first call may compile its kernels."""
    model.make_rare_calls()

    generated = [options for kind, _, options in calls if kind is Kind.GENERATE]
    assert any(options.get("sampling_topk") == 0 for options in generated)
    assert any(options.get("no_repeat_ngram_size") == NO_REPEATED_GROUP for options in generated)
    assert any(options.get("repetition_penalty", 1) > 1 for options in generated)
    batches = [
        {window.batch for window, _ in payloads}
        for kind, payloads, _ in calls
        if kind is Kind.GENERATE
    ]
    assert [len(joined) for joined in batches] == [2] * 3, "windows of two encoded batches"


@pytest.mark.parametrize(("workers", "kept"), [(1, True), (2, True), (3, False)])
def test_a_share_of_the_memory_is_kept_or_not(tmp_path, monkeypatch, workers, kept):
    """At rest and at the peak; the driver's functions with this machine's memory, 1 MiB of it."""
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(built(tmp_path)))
    gpu = Driver()
    piece = np.zeros(1 << 10, np.uint8)
    weights = gpu.join([piece.ctypes.data] * 200, piece.nbytes)
    share = MemoryShare(gpu, GpuMemory("8b"), workers)
    share.begin()
    del weights
    weights = gpu.join([piece.ctypes.data] * 200, piece.nbytes)
    call = gpu.join([piece.ctypes.data] * 200, piece.nbytes)
    del call

    assert share.keeps() is kept
    assert share.keeps(), "the peak was reset"
    del weights
