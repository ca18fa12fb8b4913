"""What the host's processor can feed to a GPU, which is simulated (tests/support/simulated.py).

    make bench-host                      every part; about ten minutes
    python -m tests.measure.bench_host --parts windows --seconds 10

Parts, each with real workers, and real HAProxy but for `health`:

    windows    windows of 3 to 11 s with and without prompts, and of 25 s: windows/s, processor time
               by stage, batch sizes
    health     how long /health takes with 64 requests inside one worker
    streams    GPU_STREAMS 1, 2, 4 and 8
    workers    1 to 4 workers on one GPU, which take turns, and with MPS

Words are asked and the language is known. Each window of speech has its results recorded from the
real model before it is measured. Processor times do not depend on other load much; windows/s do.
Writes .run/bench-host.json and .run/bench-host.png.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import matplotlib
import numpy as np
import psutil

from app.config import ROOT
from tests.measure import bench
from tests.measure.load.caller import BOUNDARY, TRANSCRIPTIONS, form
from tests.measure.load.counters import Counts, Samples, Target, less, mean, total
from tests.measure.stages import COUNTED
from tests.support import models
from tests.support.recordings import SAMPLE_RATE, speech, wav
from tests.support.simulated import FOLDER
from tests.support.stack import Stack

PARTS = ("windows", "health", "streams", "workers")
CLIENTS = 64
DISTINCT = 24  # windows of each kind
SHORT_S = (3.0, 11.0)
LONG_S = (25.0, 25.0)
PROMPT_WORDS = (1, 60)
WARM_S = 3.0  # before a measurement: batches form, caches fill
SETTINGS = {
    "DEVICE": "cuda", "COMPUTE_TYPE": "float16", "FAIL_FAST_WHEN_BUSY": "false",
    "LOG_LEVEL": "warning", "MAX_QUEUE_SIZE": "1000",
}  # fmt: skip
KINDS = ("encode", "generate", "align")


@dataclass
class Load:
    """Answers of one run."""

    latencies_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    refused: int = 0


def windows(length_s: tuple[float, float], prompts: bool) -> list[bytes]:
    """The same bodies each time: windows cut anywhere out of running speech."""
    dice = random.Random(f"{length_s}")
    english = [one for one in speech() if one.language == "en" and one.seconds < 60]
    samples = np.concatenate([one.waveform() for one in english])
    words = " ".join(str(one.text) for one in english).split()
    bodies = []
    for _ in range(DISTINCT):
        n = int(dice.uniform(*length_s) * SAMPLE_RATE)
        begin = dice.randrange(samples.size - n)
        fields = [
            ("model", "whisper-1"), ("language", "en"), ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment"),
        ]  # fmt: skip
        at = dice.randrange(len(words))
        said = " ".join(words[at : at + dice.randint(*PROMPT_WORDS)])
        if prompts:
            fields.append(("prompt", said))
        bodies.append(form(wav(samples[begin : begin + n]), fields))
    return bodies


async def post(url: str, bodies: Iterator[bytes], until_s: float, load: Load) -> None:
    """Send one window after another over one connection."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: "
    )
    for body in bodies:
        began = time.monotonic()
        if began > until_s:
            break
        writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\ncontent-length: (\d+)", answer)
        content = await reader.readexactly(int(length[1])) if length else b""
        if answer.startswith(b"HTTP/1.1 503"):  # a machine with other load may be too slow
            load.refused += 1
            await asyncio.sleep(0.5)
            continue
        assert answer.startswith(b"HTTP/1.1 200"), (answer + content).decode()
        load.latencies_s.append(time.monotonic() - began)
    writer.close()


async def ask_health(url: str, until_s: float, load: Load) -> None:
    """Ask for /health ten times a second, each time over a new connection."""
    address = urlsplit(url)
    while time.monotonic() < until_s:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200"), answer.decode()
        writer.close()
        load.health_s.append(time.monotonic() - began)
        await asyncio.sleep(max(0.0, 0.1 - load.health_s[-1]))


async def run_load(
    url: str, bodies: Sequence[bytes], seconds: float, clients: int, health: str | None = None
) -> Load:
    load = Load()
    chosen = itertools.cycle(random.Random(1).sample(bodies, len(bodies)))
    until_s = time.monotonic() + seconds
    calls = [post(url, chosen, until_s, load) for _ in range(clients)]
    if health:
        calls.append(ask_health(health, until_s, load))
    await asyncio.gather(*calls)
    return load


@contextmanager
def pool(workers: int = 1, turns: bool = False, **settings: str) -> Iterator[Stack]:
    """A pool whose workers have a simulated GPU."""
    with tempfile.TemporaryDirectory() as run_dir:
        shared = {"SIMULATED_GPU_TURNS": str(Path(run_dir, "turns"))} if turns else {}
        settings = SETTINGS | {
            "WORKERS": str(workers), "MODEL_SIZE": str(models.tiny_en()), "PYTHONPATH": str(FOLDER),
            "SIMULATED_GPU": os.environ.get("SIMULATED_GPU", ""),
        } | shared | settings  # fmt: skip
        with Stack.started(Path(run_dir), **settings) as stack:
            yield stack


def counted(stack: Stack, workers: int) -> Samples:
    """Return the workers' metrics, added up."""
    urls = tuple(stack.worker_url(number) for number in range(1, workers + 1))
    return Counts.of(Target("service", stack.url, worker_urls=urls)).workers


def processor_s(stack: Stack) -> dict[str, float]:
    """Processor time by kind of process: workers, HAProxy, this client."""
    found = {"workers": 0.0, "haproxy": 0.0, "client": time.process_time()}
    for pid in stack.processes():
        process = psutil.Process(pid)
        times = process.cpu_times()
        name = "haproxy" if process.name() == "haproxy" else "workers"
        found[name] += times.user + times.system
    return found


def measure(
    stack: Stack, bodies: Sequence[bytes], seconds: float, workers: int = 1, *,
    direct: bool = False, health: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Record the windows' results, then measure; return what one run's table shows."""
    url = stack.worker_url(1) if direct else stack.url
    record(stack, bodies, workers)
    asyncio.run(run_load(url, bodies, WARM_S, CLIENTS))
    before, cpu, began = counted(stack, workers), processor_s(stack), time.monotonic()
    load = asyncio.run(
        run_load(url, bodies, seconds, CLIENTS, stack.worker_url(1) if health else None)
    )
    elapsed, after, spent = time.monotonic() - began, counted(stack, workers), processor_s(stack)
    grown = less(after, before)
    n = len(load.latencies_s)
    assert not total(grown, "simulated_gpu_computed_total"), "results were not recorded"
    per_window = {name: 1000 * (spent[name] - cpu[name]) / n for name in cpu}
    stages = {
        dict(labels)["stage"]: 1000 * value / n
        for (name, labels), value in grown.items()
        if name == f"{COUNTED}_total"
    }
    simulated = stages.pop("simulation", 0.0)
    per_window["workers"] -= simulated
    stages["rest"] = per_window["workers"] - sum(stages.values())
    return {
        "windows_per_s": n / elapsed,
        "cpu_ms": per_window,
        "cores": sum(spent[name] - cpu[name] for name in cpu) / elapsed,
        "stages_ms": stages,
        "simulation_ms": simulated,
        "batch": {
            kind: mean(grown, "transcription_batch_size", kind=kind) or 0.0 for kind in KINDS
        },
        "refused": load.refused,
        "p50_s": bench.percentile(load.latencies_s, 0.5),
        "p95_s": bench.percentile(load.latencies_s, 0.95),
        "health_s": {
            f"p{share}": bench.percentile(load.health_s, share / 100) for share in (50, 95, 99)
        } if load.health_s else None,
    }  # fmt: skip


def record(stack: Stack, bodies: Sequence[bytes], workers: int) -> None:
    """Have each worker ask for each window once; the first one's model computes the results."""
    for number in range(1, workers + 1):
        asyncio.run(post(stack.worker_url(number), iter(bodies), float("inf"), Load()))


HEAD = (
    "", "windows/s", "CPU ms: worker", "haproxy", "client", "cores", "encode", "generate", "align",
    "p50 s", "p95 s",
)  # fmt: skip


def show(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print one line of the table."""
    cells = (
        found["windows_per_s"], *found["cpu_ms"].values(), found["cores"],
        *found["batch"].values(), found["p50_s"], found["p95_s"],
    )  # fmt: skip
    refused = f"  {found['refused']} refused" if found["refused"] else ""
    print(f"{name:28}" + "".join(f"{cell:>15.2f}" for cell in cells) + refused, flush=True)
    return {"name": name} | found


def show_stages(found: dict[str, Any]) -> None:
    stages = sorted(found["stages_ms"].items(), key=lambda item: -item[1])
    print("    ms by stage: " + ", ".join(f"{name} {value:.2f}" for name, value in stages))


def windows_part(seconds: float) -> list[dict[str, Any]]:
    cases = {
        "3 to 11 s": windows(SHORT_S, prompts=False),
        "3 to 11 s, prompts": windows(SHORT_S, prompts=True),
        "25 s": windows(LONG_S, prompts=False),
    }
    lines = []
    with pool() as stack:
        for name, bodies in cases.items():
            lines.append(show(name, measure(stack, bodies, seconds)))
            show_stages(lines[-1])
    return lines


def health_part(seconds: float) -> list[dict[str, Any]]:
    bodies = windows(SHORT_S, prompts=False)
    with pool(MAX_CONCURRENT_TRANSCRIPTIONS=str(CLIENTS)) as stack:
        found = show("64 inside one worker", measure(
            stack, bodies, seconds, direct=True, health=True))  # fmt: skip
    shown = (f"{name} {value:.3f} s" for name, value in found["health_s"].items())
    print("    /health: " + ", ".join(shown))
    return [found]


def streams_part(seconds: float) -> list[dict[str, Any]]:
    lines = []
    for prompts in (False, True):
        bodies = windows(SHORT_S, prompts)
        for streams in (1, 2, 4, 8):
            name = f"GPU_STREAMS={streams}" + (", prompts" if prompts else "")
            with pool(GPU_STREAMS=str(streams)) as stack:
                lines.append(show(name, measure(stack, bodies, seconds)))
    return lines


def workers_part(seconds: float) -> list[dict[str, Any]]:
    lines = []
    bodies = windows(SHORT_S, prompts=False)
    for workers in (1, 2, 3, 4):
        for turns in (True, False) if workers > 1 else (False,):
            sharing = f", {'turns' if turns else 'MPS'}" if workers > 1 else ""
            name = f"WORKERS={workers}{sharing}"
            with pool(workers, turns) as stack:
                lines.append(show(name, measure(stack, bodies, seconds, workers)))
    return lines


RUN = {
    "windows": windows_part, "health": health_part, "streams": streams_part,
    "workers": workers_part,
}  # fmt: skip


def plot(lines: Sequence[dict[str, Any]], target: Path) -> None:
    """Processor time by stage where it is known, and windows/s."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time_axis, rate_axis) = pyplot.subplots(1, 2, figsize=(13, 0.4 * len(lines) + 2))
    names = [line["name"] for line in lines]
    left = np.zeros(len(lines))
    for stage in dict.fromkeys(name for line in lines for name in line["stages_ms"]):
        values = np.array([line["stages_ms"].get(stage, 0.0) for line in lines])
        time_axis.barh(names, values, left=left, label=stage)
        left += values
    time_axis.set(xlabel="a worker's processor time for a window, ms")
    time_axis.legend(fontsize="small")
    rate_axis.barh(names, [line["windows_per_s"] for line in lines])
    rate_axis.set(xlabel="windows/s", yticklabels=())
    for axis in (time_axis, rate_axis):
        axis.invert_yaxis()
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    chosen = parser.parse_args()
    about = bench.machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"{HEAD[0]:28}" + "".join(f"{cell:>15}" for cell in HEAD[1:]))
    lines = [line for part in chosen.parts for line in RUN[part](chosen.seconds)]
    bench.write("bench-host", {"machine": about, "lines": lines})
    plot(lines, ROOT / ".run" / "bench-host.png")


if __name__ == "__main__":
    main()
