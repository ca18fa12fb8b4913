"""Requests a second of this engine beside plain faster-whisper, in one run.

    make bench                        every row; about half an hour on 2 cores
    python -m tests.measure.bench --levels 1 8 --rounds 3 --cases known

Rows, on the same recordings (1 to 11 s) and options (beam 5, words, VAD):

    loop     plain faster-whisper, one request after another, all cores on one window
    usual    the same model under as many threads as there are clients
    best     plain faster-whisper with one-thread decodes side by side, one for each core
    engine   this engine
    adaptive the same with ENCODER_WINDOW=adaptive

The case `path` compares one 10 s WAV through the whole service (HAProxy, Gunicorn, Falcon,
multipart, WAV), with nothing else going on, to the same samples given to an engine in this process.
The case `sandbox` compares decoding an upload in a process of its own to decoding it in this one.

Rounds of all rows alternate, so that a change of the machine's speed meets all of them; the
table shows medians, and ratios taken round by round. Writes .run/bench.json and .run/bench.png.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import faster_whisper
import httpx
import numpy as np

from app.audio.decode import decode
from app.audio.sandbox.client import Sandbox
from app.config import ROOT, Config
from app.engine.cancellation import Cancellation
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.measure.device import device_figures
from tests.support import models
from tests.support import plain as plain_whisper
from tests.support.client import TRANSCRIPTIONS
from tests.support.recordings import NO_LIMITS, SAMPLE_RATE, recording, recordings, wav
from tests.support.stack import Stack

LEVELS = (1, 2, 4, 8, 16, 32)
CORES = len(os.sched_getaffinity(0))
CASES = ("known", "detected", "path", "sandbox")
PATH_ROUNDS = 60
SANDBOX_ROUNDS = 60
SANDBOX_PAUSE_S = 0.05
SANDBOX_FILES = (
    "austen_0890.wav", "austen_0890_8k_alaw.wav", "austen_0880_24bit_48k.wav",
    "tone_440hz_5s.flac", "austen_0870.ogg",
)  # fmt: skip
PATH_S = 10
CELLS = (
    "requests_per_s", "audio_s_per_s", "p50_s", "p95_s", "p99_s", "busy_share", "batch",
    "ratio_to_best",
)  # fmt: skip
Decode = Callable[[np.ndarray, str | None], str]


@dataclass(frozen=True)
class Measured:
    """One row's round: so many requests by so many clients."""

    row: str
    level: int
    elapsed_s: float
    requests: int
    audio_s: float
    latencies_s: tuple[float, ...]
    texts: tuple[str, ...]
    busy_share: float | None
    batch: float | None

    @property
    def rate(self) -> float:
        return self.requests / self.elapsed_s


def clips() -> list[np.ndarray]:
    """Speech of 1 to 11 s."""
    short = [one for one in recordings() if one.text and 1 <= one.seconds <= 11]
    return [one.waveform() for one in short if one.language == "en"]


def plain(folder: Path, workers: int, threads: int) -> Decode:
    """faster-whisper itself."""
    model = faster_whisper.WhisperModel(
        str(folder), "auto", compute_type="int8", num_workers=workers, cpu_threads=threads
    )

    def decode(waveform: np.ndarray, language: str | None) -> str:
        options = DecodeOptions(language=language, word_timestamps=True)
        return plain_whisper.text(model, waveform, options)

    return decode


def engine(folder: Path, encoder_window: str) -> Decode:
    """This engine as a worker of its own would have it."""
    model = Model(Config(model_size=str(folder), workers=1, encoder_window=encoder_window))

    def decode(waveform: np.ndarray, language: str | None) -> str:
        options = DecodeOptions(language=language, word_timestamps=True)
        return model.decode(Job(waveform, options)).result().text

    return decode


def measure(row: str, decode: Decode, language: str | None, level: int, n: int) -> Measured:
    """Have so many clients make n requests together, each its next one when it has an answer."""
    chosen = [clip for _, clip in zip(range(n), CLIPS * n, strict=False)]
    latencies: list[float] = []
    busy, calls, windows = device_figures()

    def ask(clip: np.ndarray) -> str:
        began = time.monotonic()
        text = decode(clip, language)
        latencies.append(time.monotonic() - began)
        return text.strip()

    began = time.monotonic()
    with ThreadPoolExecutor(1 if row == "loop" else level) as pool:
        texts = tuple(pool.map(ask, chosen))
    elapsed = time.monotonic() - began
    after = device_figures()
    ours = after[1] > calls
    return Measured(
        row, level, elapsed, n, sum(clip.size for clip in chosen) / SAMPLE_RATE,
        tuple(latencies), texts,
        (after[0] - busy) / elapsed if ours else None,
        (after[2] - windows) / max(1, after[1] - calls) if ours else None,
    )  # fmt: skip


def path(folder: Path) -> dict[str, object]:
    """Return what the way through the service adds to one request; medians in seconds."""
    samples = np.resize(CLIPS[0], PATH_S * SAMPLE_RATE)
    direct, form = (
        engine(folder, "full"),
        {
            "model": "whisper-1",
            "response_format": "json",
            "language": "en",
            "timestamp_granularities[]": "word",
        },
    )
    direct_s, through_s = [], []
    with (
        tempfile.TemporaryDirectory() as run_dir,
        Stack.started(Path(run_dir), WORKERS="1", MODEL_SIZE=str(folder)) as stack,
        httpx.Client(base_url=stack.url, timeout=60) as client,
    ):
        body = wav(samples)
        for _ in range(PATH_ROUNDS):
            began = time.monotonic()
            direct(samples, "en")
            direct_s.append(time.monotonic() - began)
            began = time.monotonic()
            answer = client.post(TRANSCRIPTIONS, data=form, files={"file": ("w.wav", body)})
            through_s.append(time.monotonic() - began)
            assert answer.status_code == 200, answer.text
    more_s = [through - direct for through, direct in zip(through_s, direct_s, strict=True)]
    line = {
        "case": "path", "rounds": PATH_ROUNDS,
        "engine_p50_s": statistics.median(direct_s),
        "service_p50_s": statistics.median(through_s),
        "overhead_p50_s": statistics.median(more_s),
    }  # fmt: skip
    print(
        f"\nOne {PATH_S} s WAV at a time: engine in process {line['engine_p50_s'] * 1000:.0f} ms, "
        f"whole service {line['service_p50_s'] * 1000:.0f} ms, overhead "
        f"{line['overhead_p50_s'] * 1000:.1f} ms (medians of {PATH_ROUNDS} pairs)"
    )
    return line


def sandbox() -> list[dict[str, object]]:
    """Return what decoding in a process of its own adds to one upload; medians in seconds."""
    lines: list[dict[str, object]] = []
    confined = Sandbox(NO_LIMITS, 60, (1, "info", "text"))
    confined.start()
    print(f"\nOne upload at a time, medians of {SANDBOX_ROUNDS} pairs")
    for name in SANDBOX_FILES:
        content = recording(name).content()
        decodes: dict[str, Callable[[BytesIO], np.ndarray]] = {
            "here": lambda file: decode(file, NO_LIMITS),
            "sandbox": lambda file: confined.decode(file, Cancellation()),
        }
        took_s: dict[str, list[float]] = {where: [] for where in decodes}
        for _ in range(SANDBOX_ROUNDS):
            for where, one in decodes.items():
                time.sleep(SANDBOX_PAUSE_S)
                began = time.monotonic()
                one(BytesIO(content))
                took_s[where].append(time.monotonic() - began)
        line = {
            "case": "sandbox", "file": name,
            **{f"{where}_p50_s": statistics.median(values) for where, values in took_s.items()},
            "overhead_p50_s": statistics.median(
                more - less for more, less in zip(took_s["sandbox"], took_s["here"], strict=True)),
        }  # fmt: skip
        shown = [f"{value * 1000:6.1f} ms" for value in line.values() if isinstance(value, float)]
        print(("{:28}" + "  {} {}" * 3).format(
            name, "here", shown[0], "sandbox", shown[1], "more", shown[2]))  # fmt: skip
        lines.append(line)
    confined.close()
    return lines


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, 100 * share))


def rows_of(folder: Path) -> dict[str, Decode]:
    """Return what is measured side by side on a CPU."""
    return {
        "loop": plain(folder, 1, CORES),
        "usual": plain(folder, 1, CORES),
        "best": plain(folder, CORES, 1),
        "engine": engine(folder, "full"),
        "adaptive": engine(folder, "adaptive"),
    }


def run_case(
    rows: dict[str, Decode], language: str | None, levels: list[int], rounds: int
) -> list[Measured]:
    """All rows at all levels, round by round."""
    for row in rows.values():
        row(CLIPS[0], language)
    measured = []
    for level in levels:
        for _ in range(rounds):
            for row, run in rows.items():
                measured.append(measure(row, run, language, level, max(16, 2 * level)))
    return measured


def show(case: str, title: str, measured: list[Measured]) -> list[dict[str, object]]:
    """Print one case's table; returns its lines."""
    print(f"\n{title}")
    head = ("clients", "row", "req/s", "audio s/s", "p50", "p95", "p99", "busy", "batch", "vs best")
    print(("{:>8} {:9}" + "{:>10}" * 8).format(*head))
    lines = []
    for level in sorted({one.level for one in measured}):
        at = [one for one in measured if one.level == level]
        best = [one.rate for one in at if one.row == "best"]
        for row in dict.fromkeys(one.row for one in at):
            runs = [one for one in at if one.row == row]
            waits = [latency for one in runs for latency in one.latencies_s]
            line = {
                "case": case, "clients": level, "row": row,
                "requests_per_s": statistics.median(one.rate for one in runs),
                "audio_s_per_s": statistics.median(one.audio_s / one.elapsed_s for one in runs),
                **{f"p{n}_s": percentile(waits, n / 100) for n in (50, 95, 99)},
                "busy_share": runs[0].busy_share and statistics.median(
                    one.busy_share or 0 for one in runs),
                "batch": runs[0].batch and statistics.median(one.batch or 0 for one in runs),
                "ratio_to_best": statistics.median(
                    one.rate / other for one, other in zip(runs, best, strict=True)),
            }  # fmt: skip
            lines.append(line)
            cells = [line[name] for name in CELLS]
            shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
            print(("{:>8} {:9}" + "{:>10}" * 8).format(level, row, *shown))
    texts = {one.row: one.texts for one in measured if one.level == max(o.level for o in measured)}
    if not {"engine", "best"} <= set(texts):
        return lines
    same = sum(ours == theirs for ours, theirs in zip(texts["engine"], texts["best"], strict=True))
    print(f"The engine's text is plain faster-whisper's in {same} of {len(texts['best'])}.")
    return lines


def plot(lines: list[dict[str, object]], target: Path) -> None:
    """Requests a second over clients, a picture a case."""
    # Here, since most who import this module draw nothing.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [line for line in lines if line["case"] not in ("path", "sandbox")]
    cases = list(dict.fromkeys(str(line["case"]) for line in lines))
    if not cases:
        return
    figure, axes = pyplot.subplots(1, len(cases), figsize=(6 * len(cases), 4), squeeze=False)
    for axis, case in zip(axes[0], cases, strict=True):
        for row in dict.fromkeys(str(line["row"]) for line in lines if line["case"] == case):
            chosen = [line for line in lines if (line["case"], line["row"]) == (case, row)]
            axis.plot(
                [line["clients"] for line in chosen],
                [line["requests_per_s"] for line in chosen],
                marker="o", label=row,
            )  # fmt: skip
        axis.set(title=f"language {case}", xlabel="clients", ylabel="requests/s", xscale="log")
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.tight_layout()
    figure.savefig(target, dpi=120)


def machine() -> dict[str, object]:
    """Return what the figures were measured on."""
    git = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": CORES,
        "python": platform.python_version(),
        "revision": git.stdout.strip(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


CLIPS = clips()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    chosen = parser.parse_args()
    about = machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    lines, runs = [], []
    for case in chosen.cases:
        if case == "path":
            lines.append(path(models.tiny_en()))
            continue
        if case == "sandbox":
            lines += sandbox()
            continue
        known = case == "known"
        folder, language = (models.tiny_en(), "en") if known else (models.base(), None)
        measured = run_case(rows_of(folder), language, chosen.levels, chosen.rounds)
        title = f"Whisper {'tiny.en' if known else 'base'}, int8, language {case}"
        lines += show(case, title, measured)
        runs += [asdict(one) | {"texts": None} for one in measured]
    if lines:
        plot(lines, ROOT / ".run" / "bench.png")
    write("bench", {"machine": about, "lines": lines, "runs": runs})


def write(name: str, result: dict[str, object]) -> None:
    """Keep a result for later comparisons."""
    (ROOT / ".run" / f"{name}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
