"""What batching gives on a GPU: speed, memory, and that the words stay the same.

    make bench-gpu                         about ten minutes on a GPU
    python -m tests.measure.bench_gpu --size tiny --levels 1 4 --rounds 1    also on a CPU

Speed and memory are those of models with random weights, which need no model hub: real shapes,
and every window decodes the same number of tokens. Words are compared with real small models.
Rows, under N clients with windows of 2 to 10 s, language known, beam 5:

    loop        plain faster-whisper, one request after another
    best        plain faster-whisper under N threads, the best of num_workers 1, 2 and 4
    engine      this engine
    one stream  this engine with GPU_STREAMS=1
    prompts ... the same three when every request has a prompt of its own length (0 to 60 tokens);
                `steps` is PROMPT_LENGTH_MULTIPLE=16

Without a GPU everything runs on the CPU, in batches all the same: the figures say nothing then,
and the code is shown to work. Writes .run/bench-gpu.json and .run/bench-gpu.png.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np

from app.config import ROOT, Config
from app.engine.gpu_memory import GpuMemory
from app.engine.hardware import gpu_count, preload_cublas
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.engine.transcription import Transcription
from tests.measure import bench
from tests.measure.random_model import SIZES, random_model
from tests.measure.wer import Errors, normalised
from tests.support import models, plain
from tests.support.recordings import Recording, speech

FOLDER = ROOT / ".run" / "test-models"
DECODED_TOKENS = 40  # of about ten seconds of speech
BATCH = 16
GPU = gpu_count() > 0
DEVICE = "cuda" if GPU else "cpu"
TYPES = ("float16", "int8_float16") if GPU else ("int8",)
WORDS = ("the", "and", "of", "that", "with", "this", "from", "they", "which", "were", "said")


def every_window_alike(model: faster_whisper.WhisperModel) -> dict[str, Any]:
    """Arguments with which a random model decodes just so many tokens of one window."""
    end = model.hf_tokenizer.token_to_id("<|endoftext|>")
    return {
        "max_new_tokens": DECODED_TOKENS,
        "suppress_tokens": [-1, end],
        "without_timestamps": True,
        "compression_ratio_threshold": None,
        "log_prob_threshold": None,
        "no_speech_threshold": None,
    }


def prompt_of(waveform: np.ndarray) -> str | None:
    """What was said before a clip, as clients send it: nothing, or up to sixty words."""
    dice = random.Random(waveform.size)
    return " ".join(dice.choices(WORDS, k=dice.randint(1, 60))) if dice.random() < 0.85 else None


def plain_row(folder: Path, compute_type: str, workers: int, prompts: bool) -> bench.Decode:
    """faster-whisper itself."""
    model = faster_whisper.WhisperModel(
        str(folder), DEVICE, compute_type=compute_type, num_workers=workers, cpu_threads=1
    )
    fixed = every_window_alike(model)

    def decode(waveform: np.ndarray, language: str | None) -> str:
        prompt = prompt_of(waveform) if prompts else None
        segments, _ = model.transcribe(
            waveform, language=language, beam_size=5, temperature=[0.0], initial_prompt=prompt,
            condition_on_previous_text=False, **fixed,
        )  # fmt: skip
        return "".join(segment.text for segment in segments)

    return decode


def engine_row(folder: Path, compute_type: str, prompts: bool, **settings: Any) -> bench.Decode:
    """This engine; on a CPU with the batches of a GPU."""
    config = Config(
        model_size=str(folder), workers=1, device=DEVICE, compute_type=compute_type,
        max_batch_size=BATCH, vad_filter=False, **settings,
    )  # fmt: skip
    model = Model(config, max_batch=None if GPU else BATCH)
    options = DecodeOptions(language="en")
    options = replace(options, speech=replace(options.speech, enabled=False))

    def decode(waveform: np.ndarray, language: str | None) -> str:
        prompt = prompt_of(waveform) if prompts else None
        return model.decode(Job(waveform, replace(options, prompt=prompt))).result().text

    return decode


def speed(size: str, levels: list[int], rounds: int) -> list[dict[str, object]]:
    """Print and return the tables of requests a second."""
    folder = random_model(size, FOLDER)
    compute_type = TYPES[0]
    real = Transcription._arguments

    def alike(self: Transcription, whisper: Any, options: DecodeOptions) -> dict[str, Any]:
        return real(self, whisper, options) | every_window_alike(whisper)

    Transcription._arguments = alike  # type: ignore[method-assign]
    lines = []
    for prompts in (False, True):
        rows = {} if prompts else {"loop": plain_row(folder, compute_type, 1, False)}
        rows["best"] = best(folder, compute_type, prompts, levels[-1])
        rows["engine"] = engine_row(folder, compute_type, prompts)
        rows["one stream"] = engine_row(folder, compute_type, prompts, gpu_streams=1)
        if prompts:
            rows["steps"] = engine_row(folder, compute_type, prompts, prompt_length_multiple=16)
        case = "prompts" if prompts else "no prompts"
        measured = bench.run_case(rows, "en", levels, rounds)
        title = f"Whisper {size}, random weights, {compute_type} on {DEVICE}, {case}"
        lines += bench.show(case, title, measured)
        del rows
    Transcription._arguments = real  # type: ignore[method-assign]
    return lines


def best(folder: Path, compute_type: str, prompts: bool, level: int) -> bench.Decode:
    """Plain faster-whisper with the number of workers that does most under this load."""
    rows = {n: plain_row(folder, compute_type, n, prompts) for n in (1, 2, 4)}
    rates = {}
    for n, decode in rows.items():
        decode(bench.CLIPS[0], "en")
        rates[n] = bench.measure(str(n), decode, "en", level, max(8, level)).rate
    chosen = max(rates, key=lambda n: rates[n])
    print("plain faster-whisper, requests/s by num_workers:", rates)
    return rows[chosen]


def bytes_taken() -> int:
    """Memory in use: the GPU's, or this process's."""
    memory = GpuMemory().read() if GPU else None
    if memory:
        return memory.used
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def memory_of(size: str, compute_type: str, batch: int) -> int:
    """Bytes that a loaded model takes after full batches of that many windows."""
    before = bytes_taken()
    config = Config(
        model_size=str(random_model(size, FOLDER)), workers=1, device=DEVICE,
        compute_type=compute_type, max_batch_size=batch,
    )  # fmt: skip
    Model(config, max_batch=batch).try_full_batch()
    return bytes_taken() - before


def memory(sizes: list[str]) -> list[dict[str, object]]:
    """Print and return what models take, each measured in a process of its own."""
    print(f"\nMemory in MiB on {DEVICE}, model and one full batch of the longest texts")
    print(f"{'model':16} {'type':14}" + "".join(f"{f'batch {n}':>10}" for n in (1, BATCH)))
    lines: list[dict[str, object]] = []
    for size in sizes:
        for compute_type in TYPES:
            taken = []
            for batch in (1, BATCH):
                asked = [sys.executable, "-m", "tests.measure.bench_gpu", "--memory-of"]
                asked += [size, compute_type, str(batch)]
                said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
                taken.append(int(said.stdout.split()[-1]) >> 20 if said.returncode == 0 else None)
            lines.append({"model": size, "type": compute_type, "mib": taken})
            shown = "".join(f"{'none' if one is None else one:>10}" for one in taken)
            print(f"{size:16} {compute_type:14}" + shown)
    return lines


def words(name: str, folder: Path, recordings: list[Recording]) -> dict[str, object]:
    """Print and return how the texts compare with plain faster-whisper's on the same device."""
    whisper = faster_whisper.WhisperModel(str(folder), DEVICE, compute_type=TYPES[0])
    config = Config(
        model_size=str(folder), workers=1, device=DEVICE, compute_type=TYPES[0],
        long_audio="sequential",
    )  # fmt: skip
    model = Model(config, max_batch=BATCH)

    def ours(one: Recording) -> str:
        options = DecodeOptions(language=one.language, word_timestamps=True)
        return model.decode(Job(one.waveform(), options)).result().text

    def theirs(one: Recording) -> str:
        options = DecodeOptions(language=one.language, word_timestamps=True)
        return plain.text(whisper, one.waveform(), options).strip()

    with ThreadPoolExecutor(BATCH) as pool:
        found = list(pool.map(ours, recordings))
    expected = list(map(theirs, recordings))
    same = statistics.fmean(a == b for a, b in zip(found, expected, strict=True))
    rates = []
    for texts in (found, expected):
        errors = Errors()
        for one, text in zip(recordings, texts, strict=True):
            errors.add(normalised(str(one.text), one.language), normalised(text, one.language))
        rates.append(100 * errors.wrong / errors.words)
    print(
        f"{name:8} {len(recordings):4} recordings: {100 * same:.1f} % the same text; word error "
        f"rate {rates[0]:.2f} % in company, {rates[1]:.2f} % in plain faster-whisper alone"
    )
    return {"model": name, "same": same, "wer": rates[0], "plain_wer": rates[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", choices=list(SIZES), default="large-v3-turbo")
    parser.add_argument("--levels", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-sizes", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--memory-of", nargs=3, metavar=("SIZE", "TYPE", "BATCH"))
    chosen = parser.parse_args()
    if GPU:
        preload_cublas()
    if chosen.memory_of:
        size, compute_type, batch = chosen.memory_of
        print(memory_of(size, compute_type, int(batch)))
        return
    about = bench.machine() | {"device": device_name(), "compute_type": TYPES[0]}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    english = [one for one in speech() if one.language == "en" and one.seconds < 60]
    compared = [
        words("tiny.en", models.tiny_en(), english),
        words("base", models.base(), [one for one in speech() if one.seconds < 60]),
    ]
    lines = speed(chosen.size, chosen.levels, chosen.rounds)
    taken = memory(chosen.memory_sizes)
    bench.write("bench-gpu", {"machine": about, "words": compared, "lines": lines, "memory": taken})
    bench.plot(lines, ROOT / ".run" / "bench-gpu.png")


def device_name() -> str:
    """The GPU as its driver names it."""
    if not GPU:
        return "cpu"
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    main()
