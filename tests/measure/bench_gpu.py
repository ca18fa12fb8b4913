"""What this service does on a GPU: words, speed, memory and faults, in 15 minutes.

    make bench-gpu                                       every part
    python -m tests.measure.bench_gpu words speed        some of them
    python -m tests.measure.bench_gpu environment --minutes 10
    python -m tests.measure.bench_gpu --size small

Parts, in this order, each in a process of its own that is ended when its time is up:

    environment  GPU, driver, cuBLAS, and how long the first call takes, which compiles kernels
    words        texts, word times and scores beside the CPU's (tiny.en, base), alone and in company
    batches      milliseconds of one call by the number of its windows
    speed        requests a second under 1 to 64 clients beside plain faster-whisper
    service      the whole service through HAProxy, under locust
    faults       out of memory, kill -9, drain
    memory       what models take

Each prints Markdown tables and writes .run/bench-gpu/PART.json after each line, so that a run that
breaks off leaves its results. Speed and memory are those of generated models, see random_model.py.
Without a GPU the same commands run small models on the CPU: those figures say nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from app.config import ROOT, Config
from app.worker.cuda_environment import cuda_environment
from tests.measure.gpu import cublas
from tests.measure.gpu.part import (
    CUBLAS_VARIABLE,
    DEADLINE,
    DEVICE,
    RESULTS,
    SIZE,
    SIZE_VARIABLE,
)
from tests.measure.random_model import SIZES

# part -> its seconds of 15 minutes
PARTS = {
    "environment": 150, "words": 110, "batches": 60, "speed": 320, "service": 100, "faults": 100,
    "memory": 60,
}  # fmt: skip
ALL_S = sum(PARTS.values())
SPARE_S = 8  # between the moment a part should end and the one it is interrupted
CLEAN_UP_S = 10  # of a part that is interrupted; then it is killed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, help="of these parts together")
    parser.add_argument("--size", choices=list(SIZES), default=SIZE, help="of the generated model")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    found, variables = cublas.environment()
    # As a worker has it; kernels are compiled once for all parts.
    variables |= cuda_environment(Config(run_dir=RESULTS), os.environ)
    variables |= {CUBLAS_VARIABLE: found, SIZE_VARIABLE: chosen.size}
    print(f"Device: {DEVICE}. Results: {RESULTS}")
    began = time.monotonic()
    names = chosen.parts or list(PARTS)
    ordinary_s = sum(PARTS[name] for name in names)
    times = chosen.minutes * 60 / ordinary_s if chosen.minutes else 1
    failed = [name for name in names if not run(name, PARTS[name] * times, variables)]
    minutes = (time.monotonic() - began) / 60
    print(f"\n{len(names) - len(failed)} of {len(names)} parts finished in {minutes:.1f} minutes.")
    if failed:
        print("Not finished:", *failed)
    return 1 if failed else 0


def run(name: str, seconds: float, variables: dict[str, str]) -> bool:
    """Run one part; return whether it finished."""
    print(f"\n## {name}", flush=True)
    began = time.monotonic()
    finished = run_command(
        [sys.executable, "-m", f"tests.measure.gpu.{name}"],
        seconds,
        os.environ | variables | {DEADLINE: str(began + seconds - SPARE_S)},
    )
    print(f"\n({name}: {time.monotonic() - began:.0f} s)")
    return finished


def run_command(command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> bool:
    """Run a command; return whether it succeeded in time.

    At the end of its time it is interrupted. Its whole process group is killed in any case.
    """
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    in_time = True
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        in_time = False
        print(f"\nIts {seconds:.0f} s are over; the figures measured until then are in its file.")
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(CLEAN_UP_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"\nExit status: {process.returncode}", flush=True)
    return in_time and process.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
