"""Part `faults` of `make bench-gpu`: no memory on the device, kill -9, a drain, under load.

The first takes nearly all of the GPU's memory away from an engine, and gives it back. The others
happen once each to a pool of three workers behind HAProxy while clients send windows.
"""

from __future__ import annotations

import ctypes
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import REGISTRY

from app.config import Config
from app.engine import cuda_driver
from app.engine.batching.operation import Kind
from app.engine.job import Job
from app.engine.model import Model
from app.pool.environment import PoolError, find_haproxy
from tests.measure.gpu.clients import WINDOWS_SENT, options_of
from tests.measure.gpu.part import DEVICE, GPU, MODELS, SIZE, TYPES, Part
from tests.measure.random_model import random_model
from tests.support.stack import Stack
from tests.support.steady import Load
from tests.support.victim import WEDGE, WINDOW, Victim, harm_device
from tests.support.waiting import until

WORKERS = 3
CLIENTS = 6
BEFORE_S, AFTER_S = 2.0, 2.0
FAULT_S = 15.0  # least time for one
BACK_S = 60.0
LEFT_BYTES = 64 << 20  # what the real fault leaves free


def out_of_memory(victim: Victim) -> None:
    """a worker's device has no memory for two calls (simulated)"""
    harm_device(victim, 0, "oom 2")


def kill(victim: Victim) -> None:
    """kill -9 of the process that holds a model"""
    os.kill(victim.child(1), signal.SIGKILL)


def drain(victim: Victim) -> None:
    """SIGTERM of a worker, which finishes its requests"""
    os.kill(victim.arbiters()[2], signal.SIGTERM)


@contextmanager
def pool(folder: Path) -> Iterator[Victim]:
    """Start a pool whose device obeys `harm_device`; requests wait where they could be refused."""
    settings = {
        "WORKERS": str(WORKERS), "MODEL_SIZE": str(random_model(SIZE, MODELS)), "DEVICE": DEVICE,
        "COMPUTE_TYPE": TYPES[0], "FAIL_FAST_WHEN_BUSY": "false", "QUEUE_TIMEOUT_S": "30",
        "WEDGE_DIR": str(folder), "PYTHONPATH": str(WEDGE),
    }  # fmt: skip
    with Stack.started(folder / "run", **settings) as stack:
        yield Victim(stack)


def pool_faults(part: Part) -> None:
    """Cause each fault in one pool."""
    with tempfile.TemporaryDirectory() as folder, pool(Path(folder)) as victim:
        for fault in (out_of_memory, kill, drain):
            if part.left_s < FAULT_S:
                part.note(f"No time for: {fault.__doc__}.")
                continue
            part.add("Faults in a pool of three workers", **caused(victim, fault))


def caused(victim: Victim, fault: Callable[[Victim], None]) -> dict[str, object]:
    """Cause a fault under load; return what clients saw, and when all workers were up again."""
    with Load(victim.stack.url, [WINDOW] * CLIENTS) as load:
        time.sleep(BEFORE_S)
        began = time.monotonic()
        fault(victim)
        until(lambda: victim.up() < victim.all(), 5.0)  # the balancer may not see the fault at all
        back = until(lambda: victim.up() == WORKERS, BACK_S)
        seconds = time.monotonic() - began
        time.sleep(AFTER_S)
    return {
        "fault": fault.__doc__, "requests": len(load.answers), "failed": load.failure_counts or 0,
        "longest_s": max(load.waits_s, default=None), "back_s": seconds if back else None,
    }  # fmt: skip


@contextmanager
def memory_taken(left: int) -> Iterator[int]:
    """Hold the GPU's free memory but for `left` bytes; give the number of bytes held.

    Raises:
        DriverError: the driver refused.
    """
    driver = cuda_driver.Driver()
    driver._enter()
    free, total, memory = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_uint64()
    driver._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    held = max(0, free.value - left)
    driver._call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(held))
    try:
        yield held
    finally:
        driver._call("cuMemFree_v2", memory)


def real_out_of_memory(part: Part) -> None:
    """Take the memory away from an engine at work, and give it back."""
    model = Model(
        Config(model_size=str(random_model(SIZE, MODELS)), workers=1, device=DEVICE,
               compute_type=TYPES[0])
    )  # fmt: skip
    model.warm_up()

    def ask(number: int) -> str:
        samples, prompt = WINDOWS_SENT[number]
        try:
            return model.decode(Job(samples, options_of(prompt))).result().text
        except Exception as error:
            return f"failed: {error}"

    def line(state: str, held: int) -> None:
        with ThreadPoolExecutor(len(WINDOWS_SENT)) as pool:
            texts = list(pool.map(ask, range(len(WINDOWS_SENT))))
        part.add(
            f"Out of memory, real: {len(WINDOWS_SENT)} windows at once, {SIZE}", state=state,
            held_mib=held >> 20, as_before=sum(text == expected for text in texts),
            out_of_memory=REGISTRY.get_sample_value("transcription_out_of_memory_total"),
            largest_batch=model.device_threads.largest_batch(Kind.GENERATE),
        )  # fmt: skip

    expected = ask(0)
    line("enough memory", 0)
    with memory_taken(LEFT_BYTES) as held:
        line("nearly none", held)
    line("given back", 0)


def main() -> None:
    part = Part("faults")
    if GPU:
        try:
            real_out_of_memory(part)
        except cuda_driver.DriverError as error:
            part.note(f"Real lack of memory could not be caused: {error}.")
    else:
        part.note("Real lack of memory needs a GPU.")
    try:
        find_haproxy()
        pool_faults(part)
    except (PoolError, AssertionError) as error:  # no HAProxy; not ready in time
        part.note(f"Faults in a pool were not caused: {str(error)[-500:]}")
    part.finish()


if __name__ == "__main__":
    main()
