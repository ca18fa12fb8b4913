"""Part `speed` of `make bench-gpu`: requests a second of this engine and of plain faster-whisper.

Clients send windows of 2 to 10 s one after another; language known, beam 5, no speech search.

    calls      num_workers of faster-whisper (`plain`), GPU_STREAMS of this engine
    prompts    each window has a prompt of 0 to 60 words; `16` has PROMPT_LENGTH_MULTIPLE=16
    processes  workers on this one device
    busy       share of the time in which a kernel ran, by the driver; `-` where it does not say
    at once    device calls in progress, at the mean
    batch      windows in one decoding call, at the mean
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pynvml  # type: ignore[import-untyped]

from app.config import ROOT
from app.engine.cuda_driver import driver
from tests.measure.gpu.clients import Measured, Row
from tests.measure.gpu.part import GPU, LEVELS, MODELS, SIZE, TYPES, Part
from tests.measure.random_model import random_model
from tests.support.background import Background

CELL_S = 3.0
WARM_S = 1.0
SAMPLE_S = 0.05
TABLE = "Requests a second"
MOST = LEVELS[-1]
BUSY_LEVELS = tuple(level for level in LEVELS if level >= 8) or LEVELS

# Targets at 32 clients, 8 clients, and anywhere.
AIM_TIMES, AIM_BUSY, AIM_P95 = 5.0, 0.9, 2.0


def plan() -> list[tuple[Row, Sequence[int]]]:
    """Return rows and their numbers of clients, the most telling first."""
    first = TYPES[0]
    if not GPU:
        return [
            (Row("plain", first, 2), LEVELS),
            (Row("engine", first, 4), LEVELS),
            (Row("engine", first, 4, prompts=True, multiple=16), LEVELS[-1:]),
            (Row("engine", first, 4, processes=2), LEVELS[-1:]),
        ]
    rows: list[tuple[Row, Sequence[int]]] = [
        (Row("engine", first, 4), LEVELS),
        (Row("plain", first, 1), LEVELS[:4]),
        (Row("plain", first, 4), LEVELS),
        (Row("plain", first, 8), BUSY_LEVELS),
        (Row("engine", first, 4, prompts=True), LEVELS),
        (Row("engine", first, 4, prompts=True, multiple=16), LEVELS),
        (Row("plain", first, 4, prompts=True), (8, 32)),
    ]
    rows += [(Row("engine", first, 4, processes=n), BUSY_LEVELS) for n in (2, 3)]
    rows += [
        (Row("engine", first, n, prompts=prompts), (8, 32))
        for n in (1, 2, 8)
        for prompts in (False, True)
    ]
    rows += [(Row("engine", other, 4), LEVELS) for other in TYPES[1:]]
    rows += [(Row("plain", other, 4), (8, 32)) for other in TYPES[1:]]
    return rows


class Busy(Background):
    """Share of the time in which the GPU ran a kernel, sampled until the block ends."""

    def __init__(self) -> None:
        self._samples: list[int] = []

    def _loops(self) -> list[Callable[[], None]]:
        return [self._watch]

    def _watch(self) -> None:
        gpus = driver()
        if gpus is None:
            return
        try:
            pynvml.nvmlInit()
            # NVML numbers all GPUs of the machine, whatever CUDA_VISIBLE_DEVICES says.
            gpu = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{gpus.uuid()}")
            while not self._stop.wait(SAMPLE_S):
                self._samples.append(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        except pynvml.NVMLError:  # no driver, or a MIG instance, which has no such figure
            return

    @property
    def share(self) -> float | None:
        return sum(self._samples) / len(self._samples) / 100 if self._samples else None


@dataclass
class Processes:
    """The processes of a row, each with its model."""

    running: list[subprocess.Popen[str]]

    @classmethod
    @contextmanager
    def started(cls, row: Row) -> Iterator[Processes]:
        """Start them, wait until all are ready, and end them after the block."""
        command = [sys.executable, "-m", "tests.measure.gpu.clients", json.dumps(asdict(row))]
        running = [
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(row.processes)
        ]
        try:
            yield cls(running)
        finally:
            for process in running:
                process.kill()
                process.wait()

    def answers(self) -> list[str]:
        """Return the next line of each.

        Raises:
            RuntimeError: a process has ended; its message is on standard error.
        """
        lines = [process.stdout.readline() for process in self.running if process.stdout]
        if not all(lines):
            raise RuntimeError("a process of this row ended")
        return lines

    def run(self, clients: int, seconds: float) -> list[Measured]:
        """Divide the clients among them."""
        n = len(self.running)
        for number, process in enumerate(self.running):
            assert process.stdin
            process.stdin.write(f"{max(1, (clients + number) // n)} {seconds}\n")
            process.stdin.flush()
        return [Measured(**json.loads(line)) for line in self.answers()]


def line(row: Row, clients: int, seconds: float, parts: Sequence[Measured], busy: Busy) -> Any:
    """Return a row's cells."""
    latencies = np.concatenate([part.latencies_s for part in parts])
    calls = sum(part.generate_calls for part in parts)
    return {
        "side": row.side, "type": row.type, "calls": row.calls,
        "prompts": (str(row.multiple) if row.multiple > 1 else "yes") if row.prompts else "no",
        "processes": row.processes, "clients": clients,
        "requests_per_s": sum(part.windows for part in parts) / seconds,
        **{f"p{n}_s": float(np.percentile(latencies, n)) for n in (50, 95, 99)},
        "busy": busy.share,
        "at_once": sum(part.calls_s / part.elapsed_s for part in parts) if calls else None,
        "batch": sum(part.generated for part in parts) / calls if calls else None,
    }  # fmt: skip


def measure(part: Part, row: Row, levels: Sequence[int]) -> None:
    """Measure a row at each number of clients while there is time."""
    with Processes.started(row) as processes:
        processes.answers()
        processes.run(levels[-1], WARM_S)
        for clients in levels:
            if part.left_s < CELL_S:
                part.note(f"No time for {row} with {clients} clients or more.")
                return
            with Busy() as busy:
                parts = processes.run(clients, CELL_S)
            part.add(TABLE, **line(row, clients, CELL_S, parts, busy))


def best(lines: Sequence[dict[str, Any]], side: str, clients: int) -> dict[str, Any] | None:
    """Return the fastest line of a side without prompts in the first number format."""
    chosen = [
        each for each in lines
        if (each["side"], each["clients"], each["prompts"], each["type"], each["processes"])
        == (side, clients, "no", TYPES[0], 1)
    ]  # fmt: skip
    return max(chosen, key=lambda each: each["requests_per_s"], default=None)


def targets(part: Part) -> None:
    """Add what the service aims at, and what it reached."""
    lines = [each for each in part.lines if each["table"] == TABLE]
    heading = "Targets, on a GPU with large-v3-turbo"
    for clients in LEVELS:
        ours, theirs = best(lines, "engine", clients), best(lines, "plain", clients)
        if ours and theirs:
            times = ours["requests_per_s"] / (theirs["requests_per_s"] or float("nan"))
            aim = AIM_TIMES if clients == 32 else None
            part.add(heading, what=f"times faster-whisper's best, {clients} clients", aim=aim,
                     reached=times)  # fmt: skip
    shares = [each["busy"] for each in lines if each["side"] == "engine" and each["busy"]]
    part.add(heading, what="device busy, at most", aim=AIM_BUSY, reached=max(shares, default=None))
    alone, eight = best(lines, "engine", 1), best(lines, "engine", 8)
    if alone and eight:
        part.add(heading, what="p95 with 8 clients over p95 alone", aim=AIM_P95,
                 reached=eight["p95_s"] / alone["p95_s"])  # fmt: skip


def main() -> None:
    part = Part("speed")
    random_model(SIZE, MODELS)  # once, before processes would make it side by side
    for row, levels in plan():
        if part.left_s < 0:
            part.note(f"No time for {row}.")
            continue
        try:
            measure(part, row, levels)
        except RuntimeError as error:
            part.note(f"{row} failed: {error}.")
    targets(part)
    part.finish()


if __name__ == "__main__":
    main()
