"""Part `words` of `make bench-gpu`: texts, word times and scores beside those of the CPU.

The reference is plain faster-whisper on the CPU, float32.

    rows    faster-whisper on this device; this engine, one request at a time (`alone`) and 16 at
            once (`company`)
    same    recordings with the same text as on the CPU
    errors  word error rate
    times   seconds between a word's start or end and that on the CPU, where texts are the same
    scores  the same of the segments' avg_logprob
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.measure.errors import Errors, normalised
from tests.measure.gpu.part import CPU_BATCH, DEVICE, GPU, TYPES, Part
from tests.support import models, plain
from tests.support.recordings import Recording, speech

AT_ONCE = 16
CPU_RECORDINGS = 3  # the shortest
SHORTEST_S, LONGEST_S = 2, 30  # longer ones are cut at other places by windows of another length
Transcribe = Callable[[Recording], Sequence[Any]]


def options_of(one: Recording) -> DecodeOptions:
    return DecodeOptions(language=one.language, word_timestamps=True)


def plain_side(folder: Path, device: str, compute_type: str) -> Transcribe:
    """Return faster-whisper itself."""
    model = faster_whisper.WhisperModel(str(folder), device, compute_type=compute_type)
    return lambda one: plain.transcribe(model, one.waveform(), options_of(one))[0]


def engine_side(folder: Path, compute_type: str) -> Transcribe:
    """Return this engine; on a CPU in batches all the same."""
    config = Config(
        model_size=str(folder), workers=1, device=DEVICE, compute_type=compute_type,
        long_audio="sequential",
    )  # fmt: skip
    model = Model(config, max_batch=None if GPU else CPU_BATCH)
    return lambda one: model.decode(Job(one.waveform(), options_of(one))).result().segments


def text(segments: Sequence[Any]) -> str:
    return "".join(segment.text for segment in segments).strip()


def differences(ours: Sequence[Any], theirs: Sequence[Any], edges: Callable[[Any], Any]) -> Any:
    """Return the distances of all numbers that segments have, as an array."""
    pairs = zip(ours, theirs, strict=False)
    return np.concatenate([np.zeros(0), *(np.abs(edges(a) - edges(b)) for a, b in pairs)])


def word_edges(segment: Any) -> Any:
    return np.array([edge for word in segment.words for edge in (word.start, word.end)])


def compare(
    part: Part, name: str, recordings: Sequence[Recording], expected: Sequence[Any],
    row: dict[str, str], results: Sequence[Any],
) -> None:  # fmt: skip
    """Add the line of one side."""
    errors, same, times, scores = Errors(), 0, [np.zeros(1)], [np.zeros(1)]
    for one, ours, theirs in zip(recordings, results, expected, strict=True):
        errors.add(normalised(str(one.text), one.language), normalised(text(ours), one.language))
        if [segment.text for segment in ours] == [segment.text for segment in theirs]:
            same += 1
            times.append(differences(ours, theirs, word_edges))
            scores.append(differences(ours, theirs, lambda each: np.array([each.avg_logprob])))
    apart, off = np.concatenate(times), np.concatenate(scores)
    part.add(
        f"{name}, {len(recordings)} recordings", **row, same=same,
        errors_percent=100 * errors.rate,
        times_p95_s=float(np.percentile(apart, 95)), times_max_s=float(apart.max()),
        scores_p95=float(np.percentile(off, 95)), scores_max=float(off.max()),
    )  # fmt: skip


def main() -> None:
    part = Part("words")
    known = [one for one in speech() if SHORTEST_S <= one.seconds < LONGEST_S]
    if not GPU:
        known = sorted(known, key=lambda one: one.seconds)[:CPU_RECORDINGS]
    for name, folder_of in (("tiny.en", models.tiny_en), ("base", models.base)):
        try:
            folder = folder_of()
        except AssertionError as error:
            part.note(f"{name} was not compared: {error}")
            continue
        recordings = [one for one in known if name == "base" or one.language == "en"]
        reference = "float32" if GPU else "int8"
        expected = list(map(plain_side(folder, "cpu", reference), recordings))
        compare(part, name, recordings, expected,
                {"side": "faster-whisper, CPU", "type": reference}, expected)  # fmt: skip
        for compute_type in ("float32", *TYPES) if GPU else TYPES:
            if GPU:
                theirs = list(map(plain_side(folder, DEVICE, compute_type), recordings))
                compare(part, name, recordings, expected,
                        {"side": "faster-whisper", "type": compute_type}, theirs)  # fmt: skip
            engine = engine_side(folder, compute_type)
            for side, at_once in (("alone", 1), ("company", AT_ONCE)):
                with ThreadPoolExecutor(at_once) as pool:
                    ours = list(pool.map(engine, recordings))
                compare(part, name, recordings, expected,
                        {"side": f"engine, {side}", "type": compute_type}, ours)  # fmt: skip
    part.finish()


if __name__ == "__main__":
    main()
