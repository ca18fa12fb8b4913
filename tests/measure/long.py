"""Word errors and processor time of long recordings, beside plain faster-whisper's.

    python -m tests.measure.long                    every table
    python -m tests.measure.long --tables languages changes --models base

`mixtures`: the English sentences at hand in three random orders, with pauses, silence, music and
noise between them. `languages`: the sentences of each language that has two minutes of them, in the
manifest's order, and recordings that are long as they are. `changes`: one language, then another,
with no language given. `plain` is faster-whisper with the service's options; `overlaps` counts
segments that begin before the one before them ends.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import faster_whisper
import numpy as np

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.measure.errors import Errors, normalised
from tests.support import models
from tests.support import plain as plain_whisper
from tests.support.recordings import SAMPLE_RATE, mixture, recordings, speech

# name -> pauses in seconds, and what else stands between the sentences
MIXTURES: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "lively talk": ((0.1, 0.2, 0.35, 0.5, 0.8), ()),
    "with pauses": ((0.3, 0.8, 1.5, 3, 5), ("music_16s.ogg", "noise_brown_20s.ogg")),
    "long silence": ((0.5, 2, 5, 15, 30, 60), ("music_16s.ogg",)),
}
PAUSES_S = (0.3, 0.8, 0.5, 1.2)
SHORTEST_S = 120
CHANGES = (("en", "fr"), ("fr", "en"), ("es", "it"), ("en", "es", "en", "ru"))
CHANGED_S = 60  # of each language
Transcriber = Callable[[np.ndarray, DecodeOptions], list[tuple[float, float, str]]]


@dataclass(frozen=True)
class Long:
    """A long recording; `language` is of the words as they are compared, and is given if known."""

    name: str
    samples: np.ndarray
    words: str
    language: str
    given: bool = True


def spoken(language: str, limit_s: float) -> tuple[np.ndarray, str]:
    """Return sentences of one language with pauses, and their words."""
    samples: list[np.ndarray] = []
    texts: list[str] = []
    size = 0
    for one in speech():
        if one.language != language or one.seconds > SHORTEST_S:
            continue
        pause_s = PAUSES_S[len(texts) % len(PAUSES_S)]
        new = [one.waveform(), np.zeros(int(pause_s * SAMPLE_RATE), np.float32)]
        samples += new
        texts.append(str(one.text))
        size += sum(each.size for each in new)
        if size >= limit_s * SAMPLE_RATE:
            break
    return np.concatenate(samples or [np.zeros(0, np.float32)]), " ".join(texts)


def mixtures() -> Iterator[Long]:
    """Yield the English mixtures."""
    for name, (pauses_s, between) in MIXTURES.items():
        for seed in range(3):
            long = mixture(seed, pauses_s, between)
            yield Long(name, long.samples, " ".join(text for _, _, text in long.spans), "en")


def languages() -> Iterator[Long]:
    """Yield a long recording of each language, and those that are long as they are."""
    for language in sorted({one.language for one in speech() if one.language}):
        samples, words = spoken(language, 600)
        if samples.size >= SHORTEST_S * SAMPLE_RATE:
            yield Long(language, samples, words, language)
    for one in recordings():
        if one.text and one.seconds > SHORTEST_S and one.language:
            yield Long(one.name, one.waveform(), one.text, one.language)


def changes() -> Iterator[Long]:
    """Yield recordings that change their language."""
    for order in CHANGES:
        found = [spoken(language, CHANGED_S) for language in order]
        if all(samples.size for samples, _ in found):
            words = " ".join(words for _, words in found)
            samples = np.concatenate([samples for samples, _ in found])
            yield Long(" then ".join(order), samples, words, "", given=False)


TABLES = {"mixtures": mixtures, "languages": languages, "changes": changes}


def plain(folder: Path) -> Transcriber:
    """Return plain faster-whisper."""
    model = faster_whisper.WhisperModel(str(folder), "cpu", compute_type="int8", cpu_threads=1)

    def transcribe(samples: np.ndarray, options: DecodeOptions) -> list[tuple[float, float, str]]:
        segments, _ = plain_whisper.transcribe(model, samples, options)
        return [(each.start, each.end, each.text) for each in segments]

    return transcribe


def inside(folder: Path, long_audio: str) -> Transcriber:
    """Return the engine in this process."""
    model = Model(Config(model_size=str(folder), workers=1, long_audio=long_audio))

    def transcribe(samples: np.ndarray, options: DecodeOptions) -> list[tuple[float, float, str]]:
        transcript = model.decode(Job(samples, options)).result()
        return [(each.start, each.end, each.text) for each in transcript.segments]

    return transcribe


def measure(name: str, folder: Path, tables: list[str], sides: list[str]) -> None:
    """Print one model's tables."""
    chosen = {side: plain(folder) if side == "plain" else inside(folder, side) for side in sides}
    for table in tables:
        print(f"\nWhisper {name}, {table}\n")
        print("| recording | side | words | errors | substituted | deleted | invented "
              "| overlaps | CPU |\n" + "|---" * 9 + "|")  # fmt: skip
        heard = (
            long for long in TABLES[table]() if long.language == "en" or not name.endswith(".en")
        )
        for recording, group in groupby(heard, key=lambda long: long.name):
            for side, row in compare(list(group), chosen).items():
                print(f"| {recording} | {side} | {row} |", flush=True)


def compare(group: list[Long], sides: dict[str, Transcriber]) -> dict[str, str]:
    """Return each side's cells for recordings of one name."""
    rows = {}
    for side, transcribe in sides.items():
        errors, overlaps = Errors(), 0
        began_s = time.process_time()
        for long in group:
            options = DecodeOptions(language=long.language if long.given else None)
            segments = transcribe(long.samples, options)
            overlaps += sum(after[0] < before[1] for before, after in pairwise(segments))
            text = "".join(each[2] for each in segments)
            errors.add(normalised(long.words, long.language), normalised(text, long.language))
        cells = [str(errors.words), *errors.cells(), str(overlaps)]
        rows[side] = " | ".join([*cells, f"{time.process_time() - began_s:.0f} s"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    parser.add_argument("--sides", nargs="+", default=["plain", "sequential", "chunked"])
    options = parser.parse_args()
    folders = {"tiny.en": models.tiny_en, "base": models.base}
    for name in options.models:
        measure(name, folders[name](), options.tables, options.sides)


if __name__ == "__main__":
    main()
