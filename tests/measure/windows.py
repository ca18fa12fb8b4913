"""Word errors and processor time of windows as bots cut them, by settings.

    python -m tests.measure.windows --windows 60            ways to treat prompts
    python -m tests.measure.windows --rows filters window   the filters, the encoder window

A bot sends 2 to 15 s of running speech that ends anywhere, with the previous 200 characters of text
as the prompt. `mixed` talk changes its speaker and subject after every sentence; `consecutive` talk
is one reader's. Words have the times that tiny.en gives the known text by forced alignment. A word
that the cut goes through may be heard or not. `invented` words are insertions; `twice` is the share
of windows decoded again; CPU is the whole process's, of one machine and run only.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
from faster_whisper.tokenizer import Tokenizer

from app.config import Config
from app.engine.batching.request_model import RequestModel
from app.engine.batching.window import Encoded, Window
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.observability import metrics
from tests.measure.errors import Errors, normalised
from tests.support import models
from tests.support.recordings import SAMPLE_RATE, speech, utterances

# Groups of rows: settings that differ from the defaults, and whether the prompt is sent.
Row = tuple[dict[str, Any], bool]
ROWS: dict[str, tuple[Row, ...]] = {
    "prompts": (
        ({"prompt_min_tokens_per_s": 0}, True),
        ({}, True),
        ({"ignore_prompts": True}, True),
        *(({"prompt_length_multiple": step}, True) for step in (16, 32, 64)),
    ),
    "filters": (
        ({"min_window_ms": 0, "loop_max_tokens_per_s": 0, "prompt_echo_min_chars": 0}, True),
        ({"loop_max_tokens_per_s": 0, "prompt_echo_min_chars": 0}, True),
        ({"prompt_echo_min_chars": 0}, True),
        ({}, True),
    ),
    "window": tuple(
        ({"encoder_window": window}, prompted)
        for prompted in (True, False)
        for window in ("full", "adaptive")
    ),
}
LENGTHS_S = (2.0, 15.0)
PAUSES_S = (0.2, 0.35, 0.5, 0.8)
TALK_S = 40.0  # before a window begins at the latest
PROMPT_CHARACTERS = 200
AGAIN = (
    metrics.WINDOWS_REDONE,
    metrics.PROMPT_ECHOES,
    metrics.PROMPT_OMISSIONS,
    metrics.REPETITION_LOOPS,
)
ENCODE = RequestModel._encoded  # which each Encodings replaces by its own


@dataclass(frozen=True)
class Timed:
    """A word with its leading space, and when it is said, in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Cut:
    """A bot's window: samples, the text before it, its words, and those with a word cut through."""

    samples: np.ndarray
    prompt: str
    words: str
    words_and_cut: str


@dataclass(frozen=True)
class Talk:
    """Running speech with the times of its words."""

    samples: np.ndarray
    words: Sequence[Timed]


class Aligner:
    """Give known words their times, by forced alignment."""

    def __init__(self) -> None:
        self._whisper = faster_whisper.WhisperModel(
            str(models.tiny_en()), "cpu", compute_type="int8", cpu_threads=1
        )
        self._tokenizer = Tokenizer(
            self._whisper.hf_tokenizer, False, task="transcribe", language="en"
        )

    def words(self, samples: np.ndarray, text: str) -> list[Timed]:
        """Return the words of at most 30 s of speech."""
        features = self._whisper.feature_extractor(samples)
        frames = features.shape[-1] - 1
        encoded = self._whisper.encode(faster_whisper.transcribe.pad_or_trim(features[:, :frames]))
        tokens = self._tokenizer.encode(" " + text)
        (found,) = self._whisper.find_alignment(self._tokenizer, [tokens], encoded, frames)
        words: list[Timed] = []
        for each in found:
            start, end = float(each["start"]), float(each["end"])
            if words and not each["word"].startswith(" "):
                words[-1] = Timed(words[-1].word + each["word"], words[-1].start, words[-1].end)
            else:
                words.append(Timed(each["word"], start, end))
        return words


def later(words: Iterable[Timed], by_s: float) -> list[Timed]:
    """Return the words at later times."""
    return [Timed(each.word, each.start + by_s, each.end + by_s) for each in words]


def mixed(sentences: Sequence[Talk], dice: random.Random) -> Talk:
    """Return sentences of random speakers and subjects, with short pauses."""
    samples: list[np.ndarray] = []
    words: list[Timed] = []
    at = 0
    while at < (TALK_S + LENGTHS_S[1]) * SAMPLE_RATE:
        sentence = dice.choice(sentences)
        words += later(sentence.words, at / SAMPLE_RATE)
        pause = np.zeros(int(dice.choice(PAUSES_S) * SAMPLE_RATE), np.float32)
        samples += [sentence.samples, pause]
        at += sentence.samples.size + pause.size
    return Talk(np.concatenate(samples), words)


def consecutive(aligner: Aligner) -> list[Talk]:
    """Return the long recordings whose sentences have known times."""
    talks = []
    for one in speech():
        if one.language != "en" or "utterances" not in one.further:
            continue
        samples = one.waveform()
        words: list[Timed] = []
        for each in one.further["utterances"]:
            begin, end = (int(each[edge] * SAMPLE_RATE) for edge in ("start", "end"))
            words += later(aligner.words(samples[begin:end], each["text"]), each["start"])
        talks.append(Talk(samples, words))
    return talks


def cut(talk: Talk, dice: random.Random) -> Cut:
    """Return a window that begins with a word and ends anywhere."""
    seconds = talk.samples.size / SAMPLE_RATE
    latest_s = min(TALK_S, seconds) if seconds < 2 * TALK_S else seconds
    begin_s = dice.choice(
        [each.start for each in talk.words if each.start < latest_s - LENGTHS_S[1] / 2]
    )
    end_s = begin_s + dice.uniform(*LENGTHS_S)
    before = "".join(each.word for each in talk.words if each.start < begin_s)
    inside = [each for each in talk.words if begin_s <= each.start < end_s]
    complete = "".join(each.word for each in inside if each.end <= end_s)
    begin, end = (int(second * SAMPLE_RATE) for second in (begin_s, end_s))
    return Cut(
        talk.samples[begin:end],
        before[-PROMPT_CHARACTERS:].strip(),
        normalised(complete, "en"),
        normalised("".join(each.word for each in inside), "en"),
    )


def windows_of(n: int) -> dict[str, list[Cut]]:
    """Return so many windows of each kind of talk; the same every time."""
    aligner = Aligner()
    sentences = [
        Talk(samples, aligner.words(samples, text))
        for samples, text in utterances()
        if samples.size < 28 * SAMPLE_RATE
    ]
    talks = consecutive(aligner)
    dice = random.Random(5)
    kinds = {"mixed": [cut(mixed(sentences, dice), dice) for _ in range(n)]}
    dice = random.Random(5)  # so that fewer windows are the first of many
    if talks:
        kinds["consecutive"] = [cut(talks[i % len(talks)], dice) for i in range(n)]
    return {
        kind: [each for each in cuts if len(each.words.split()) > 1] for kind, cuts in kinds.items()
    }


class Encodings:
    """Encode each window once for all rows, and count its processor time in each.

    The encoder is the same in every row, and most of the time on a CPU.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes], tuple[Encoded, float]] = {}
        self.windows = 0  # encoded so far, had each row done so itself
        self.saved_s = 0.0
        RequestModel._encoded = lambda model, window: self.of(model, window)  # type: ignore

    def of(self, model: RequestModel, window: Window) -> Encoded:
        """Return a window's encoding."""
        if window.encoded is None:
            key = (window.frames, hashlib.sha256(window.features.tobytes()).digest())
            began_s = time.process_time()
            if key in self._known:
                window.encoded, took_s = self._known[key]
                self.saved_s += took_s
            else:
                window.encoded = ENCODE(model, window)
                self._known[key] = (window.encoded, time.process_time() - began_s)
            self.windows += 1
        return window.encoded


def again() -> float:
    """Return how many windows have been decoded again."""
    return sum(counter._value.get() for counter in AGAIN)


def measure_row(model: Model, prompted: bool, cuts: Sequence[Cut], encodings: Encodings) -> str:
    """Return the cells of one row."""
    errors = Errors()
    before = (encodings.windows, again(), time.process_time() + encodings.saved_s)
    for each in cuts:
        options = DecodeOptions(
            language="en", word_timestamps=True, prompt=(each.prompt or None) if prompted else None
        )
        text = model.decode(Job(each.samples, options)).result().text
        errors.add(each.words, normalised(text, "en"), each.words_and_cut)
    took_s = time.process_time() + encodings.saved_s - before[2]
    twice = (again() - before[1]) / max(1, encodings.windows - before[0])
    return " | ".join([*errors.cells(), f"{twice:.0%}", f"{took_s:.0f} s"])


def measure(name: str, folder: Path, kinds: dict[str, list[Cut]], rows: Sequence[Row]) -> None:
    """Print one model's tables."""
    for kind, cuts in kinds.items():
        encodings = Encodings()
        words = sum(len(each.words.split()) for each in cuts)
        print(f"\nWhisper {name}, {kind} talk, {len(cuts)} windows, {words} words\n")
        print("| settings | prompt | errors | substituted | deleted | invented | twice | CPU |")
        print("|---" * 8 + "|")
        for settings, prompted in rows:
            model = Model(Config(model_size=str(folder), workers=1, **settings))
            shown = ", ".join(f"`{key.upper()}={value}`" for key, value in settings.items())
            cells = measure_row(model, prompted, cuts, encodings)
            sent = "yes" if prompted else "no"
            print(f"| {shown or 'defaults'} | {sent} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--windows", type=int, default=100, help="of each kind of talk")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=["prompts"])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    options = parser.parse_args()
    rows = [each for group in options.rows for each in ROWS[group]]
    kinds = windows_of(options.windows)
    folders = {"tiny.en": models.tiny_en, "base": models.base}
    for name in options.models:
        measure(name, folders[name](), kinds, rows)


if __name__ == "__main__":
    main()
