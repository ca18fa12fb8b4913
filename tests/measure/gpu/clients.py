"""One process of the part `speed`: load a model, then run clients for as long as asked.

The row comes as JSON in the first argument. Each line on standard input, `CLIENTS SECONDS`, is
answered by a line of JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import faster_whisper
import numpy as np

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.measure.device import device_figures
from tests.measure.gpu.part import CPU_BATCH, DEVICE, GPU, MODELS, SIZE
from tests.measure.random_model import random_model
from tests.support import plain
from tests.support.recordings import SAMPLE_RATE, utterances

WINDOWS = 64
SHORTEST_S, LONGEST_S = 2.0, 10.0
PROMPT_WORDS = 60
WITHOUT_PROMPT = 0.15
WORDS = ("the", "and", "of", "that", "with", "this", "from", "they", "which", "were", "said")
Decode = Callable[[np.ndarray, str | None], str]


@dataclass(frozen=True)
class Row:
    """What is measured.

    Args:
        side: `plain`, faster-whisper itself, or `engine`.
        calls: decodes at a time of a process: `num_workers` of faster-whisper, or GPU_STREAMS.
        prompts: whether windows have prompts, each of its own length.
        multiple: PROMPT_LENGTH_MULTIPLE.
        processes: how many such processes share the device.
    """

    side: str
    type: str
    calls: int
    prompts: bool = False
    multiple: int = 1
    processes: int = 1


@dataclass(frozen=True)
class Measured:
    """What one process did.

    Args:
        windows: done within the time asked; one that took longer counts for the share within.
        elapsed_s: until the last window ended.
        latencies_s: of all windows.
        calls_s: in device calls, all threads together.
        generate_calls, generated: decoding calls, and the windows in them.
    """

    windows: float
    elapsed_s: float
    latencies_s: list[float]
    calls_s: float
    generate_calls: float
    generated: float


def windows() -> list[tuple[np.ndarray, str | None]]:
    """Return running speech of 2 to 10 s with a prompt for most, the same ones every time."""
    dice = random.Random(0)
    speech = np.concatenate([samples for samples, _ in utterances()])
    found: list[tuple[np.ndarray, str | None]] = []
    for _ in range(WINDOWS):
        samples = int(dice.uniform(SHORTEST_S, LONGEST_S) * SAMPLE_RATE)
        start = dice.randrange(speech.size - samples)
        words = dice.choices(WORDS, k=dice.randint(1, PROMPT_WORDS))
        prompt = None if dice.random() < WITHOUT_PROMPT else " ".join(words)
        found.append((speech[start : start + samples], prompt))
    return found


def options_of(prompt: str | None) -> DecodeOptions:
    """Return a window's options, without speech search, which is the host's work on both sides."""
    options = DecodeOptions(language="en", prompt=prompt)
    return replace(options, speech=replace(options.speech, enabled=False))


def plain_side(row: Row) -> Decode:
    """Return faster-whisper itself."""
    model = faster_whisper.WhisperModel(
        str(random_model(SIZE, MODELS)), DEVICE, compute_type=row.type, num_workers=row.calls,
        cpu_threads=1,
    )  # fmt: skip
    return lambda samples, prompt: plain.text(model, samples, options_of(prompt))


def engine_side(row: Row) -> Decode:
    """Return this engine as a worker has it; on a CPU in batches all the same."""
    config = Config(
        model_size=str(random_model(SIZE, MODELS)), workers=row.processes, device=DEVICE,
        compute_type=row.type, gpu_streams=row.calls, prompt_length_multiple=row.multiple,
    )  # fmt: skip
    model = Model(config, max_batch=None if GPU else CPU_BATCH)
    model.warm_up()
    return lambda samples, prompt: model.decode(Job(samples, options_of(prompt))).result().text


def run(decode: Decode, prompts: bool, clients: int, seconds: float) -> Measured:
    """Have so many clients send one window after another."""
    turns = itertools.count()
    latencies: list[float] = []
    shares: list[float] = []
    before = device_figures()
    start = time.monotonic()
    end = start + seconds

    def client() -> None:
        while (began := time.monotonic()) < end:
            samples, prompt = WINDOWS_SENT[next(turns) % WINDOWS]
            text = decode(samples, prompt if prompts else None)
            assert len(text.split()) > 1, f"the generated model's sentence, not {text!r}"
            took = time.monotonic() - began
            latencies.append(took)
            shares.append(min(1.0, (end - began) / took))

    with ThreadPoolExecutor(clients) as pool:
        for future in [pool.submit(client) for _ in range(clients)]:
            future.result()
    spent = [now - then for now, then in zip(device_figures(), before, strict=True)]
    return Measured(sum(shares), time.monotonic() - start, latencies, *spent)


WINDOWS_SENT = windows()


def main() -> None:
    row = Row(**json.loads(sys.argv[1]))
    decode = plain_side(row) if row.side == "plain" else engine_side(row)
    decode(*WINDOWS_SENT[0])
    print("ready", flush=True)
    for line in sys.stdin:
        clients, seconds = line.split()
        measured: dict[str, Any] = asdict(run(decode, row.prompts, int(clients), float(seconds)))
        print(json.dumps(measured), flush=True)


if __name__ == "__main__":
    main()
