"""What the end of a bot's window costs: faster-whisper goes on behind the last word's end.

    python -m tests.measure.ends [--windows 120]    tiny.en and base; ten minutes on 2 cores

A bot sends pieces of running speech, cut anywhere, with what was said before as the prompt. Then
the model often puts its last time stamp a little before the end of the sound, and faster-whisper
decodes what is left as a window of its own, which holds no word and costs as much as any other.
Shown with and without the filter against that (app/engine/hallucination_filter.py), and with the
adaptive encoder window: windows encoded, processor seconds, and errors of words against the words
that ended before the cut. A right word that was dropped would show as `deleted`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from whisper_normalizer.english import EnglishTextNormalizer

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.observability import metrics
from tests.support import models
from tests.support.recordings import SAMPLE_RATE, utterances

SETTINGS: tuple[dict[str, Any], ...] = (
    {"min_window_ms": 0, "loop_max_tokens_per_s": 0, "prompt_echo_min_chars": 0},
    {"min_window_ms": 50, "loop_max_tokens_per_s": 0, "prompt_echo_min_chars": 0},
    {"min_window_ms": 100, "loop_max_tokens_per_s": 0, "prompt_echo_min_chars": 0},
    {"min_window_ms": 100, "loop_max_tokens_per_s": 12, "prompt_echo_min_chars": 0},
    {"min_window_ms": 100, "loop_max_tokens_per_s": 12, "prompt_echo_min_chars": 20},
    {"min_window_ms": 300, "loop_max_tokens_per_s": 12, "prompt_echo_min_chars": 20},
    {"encoder_window": "adaptive"},  # and what is default of the others
)
COLUMNS = ("min_window_ms", "loop_max_tokens_per_s", "prompt_echo_min_chars", "encoder_window")
LENGTHS_S = (2, 3, 4, 5, 6, 8, 10, 14, 20, 25)
PAUSES_S = (0.2, 0.35, 0.5, 0.8)
TALK_S = 60.0
PROMPT_CHARACTERS = 200
normal: Callable[[str], str] = EnglishTextNormalizer()


@dataclass(frozen=True)
class Timed:
    """A word and when it is said, in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Cut:
    """A bot's window: float32 samples at 16 kHz, the words said before it, the words in it."""

    samples: np.ndarray
    prompt: str
    words: str


Sentence = tuple[np.ndarray, list[Timed]]


def timed_sentences(model: Model) -> list[Sentence]:
    """The English sentences that the model hears without an error, with its times."""
    found = []
    options = DecodeOptions(language="en", word_timestamps=True)
    for samples, text in utterances():
        heard = model.decode(Job(samples, options)).result()
        words = [word for one in heard.segments for word in one.words or ()]
        if normal(heard.text) == normal(text):
            found.append((samples, [Timed(one.word, one.start, one.end) for one in words]))
    return found


def cut(sentences: Sequence[Sentence], dice: random.Random) -> Cut:
    """A piece of somebody's talk that begins with a word and ends anywhere."""
    parts: list[np.ndarray] = []
    said: list[Timed] = []
    at_s = 0.0
    while at_s < TALK_S:
        samples, words = dice.choice(sentences)
        said += [Timed(one.word, one.start + at_s, one.end + at_s) for one in words]
        pause = np.zeros(int(dice.choice(PAUSES_S) * SAMPLE_RATE), np.float32)
        parts += [samples, pause]
        at_s += (samples.size + pause.size) / SAMPLE_RATE
    begin_s = dice.choice([one.start for one in said if one.start < TALK_S / 2])
    end_s = begin_s + dice.choice(LENGTHS_S)
    before = "".join(one.word for one in said if one.end <= begin_s)
    inside = "".join(one.word for one in said if one.start >= begin_s and one.end <= end_s)
    edges = [int(second * SAMPLE_RATE) for second in (begin_s, end_s)]
    return Cut(
        np.concatenate(parts)[edges[0] : edges[1]], before[-PROMPT_CHARACTERS:].strip(), inside
    )


def measure(name: str, folder: Path, windows: int) -> None:
    """Print one model's table."""
    sentences = timed_sentences(Model(Config(model_size=str(folder), workers=1)))
    dice = random.Random(5)
    cuts = [cut(sentences, dice) for _ in range(windows)]
    spoken = [one for one in cuts if normal(one.words)]
    print(f"\nWhisper {name}, {windows} windows, {sum(len(c.words.split()) for c in cuts)} words")
    heads = (*(f"`{each.upper()}`" for each in COLUMNS), "windows encoded", "CPU", "errors",
             "wrong", "deleted", "invented")  # fmt: skip
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for settings in SETTINGS:
        config = Config(model_size=str(folder), workers=1, **settings)
        model = Model(config)
        encoded = metrics.WINDOWS_ENCODED._value.get()
        began_s = time.process_time()
        options = DecodeOptions(language="en", word_timestamps=True)
        jobs = [Job(one.samples, replace(options, prompt=one.prompt or None)) for one in spoken]
        heard = [normal(model.decode(job).result().text) for job in jobs]
        found = jiwer.process_words([normal(one.words) for one in spoken], heard)
        took_s = time.process_time() - began_s
        encoded = metrics.WINDOWS_ENCODED._value.get() - encoded
        cells = (*(getattr(config, each) for each in COLUMNS), round(encoded), f"{took_s:.0f} s",
                 f"{found.wer:.2%}", found.substitutions, found.deletions,
                 found.insertions)  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--windows", type=int, default=120, help="how many are cut")
    options = parser.parse_args()
    measure("tiny.en", models.tiny_en(), options.windows)
    measure("base", models.base(), options.windows)


if __name__ == "__main__":
    main()
