"""Text that nobody said: words heard in an hour without speech, by what is heard instead.

    python -m tests.measure.false_text [--minutes 10]    tiny.en and base

Every kind of sound is made anew, at three levels, and sent in windows as a bot sends them: alone,
with a prompt (which may come back as text), and with the search for speech switched off, which
shows what that search keeps away. The recordings without speech of `tests/data` are sent as well.
The price is counted too: single words heard rightly without the noise filter, and with it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions, SpeechOptions
from tests.measure.errors import normalised
from tests.measure.windows import Aligner
from tests.support import models
from tests.support.recordings import SAMPLE_RATE, utterances, without_speech

WINDOW_S = 10
LEVELS_DB = (-50.0, -30.0, -15.0)  # of the loudest moment, below full scale
PROMPT = "So, as I said, the quarterly figures are better than we thought. Any questions?"
SHORTEST_WORD_S = 0.33
MARGIN_S = 0.1
Sound = Callable[[np.random.Generator, int], np.ndarray]


def coloured(dice: np.random.Generator, size: int, slope: float) -> np.ndarray:
    """Noise whose power falls with the frequency to the power of `slope`."""
    spectrum = np.fft.rfft(dice.standard_normal(size))
    frequencies = np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 20.0)
    return np.fft.irfft(spectrum * frequencies ** (-slope / 2), size)


def band(dice: np.random.Generator, size: int, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies."""
    spectrum = np.fft.rfft(dice.standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum * ((frequencies > low) & (frequencies < high)), size)


def keyboard(dice: np.random.Generator, size: int) -> np.ndarray:
    """Somebody types: six short clicks a second, each with its own body."""
    sound = coloured(dice, size, 1.0) * 0.002
    click = np.exp(-np.arange(800) / 90.0)
    for at in dice.integers(0, size - click.size, 6 * size // SAMPLE_RATE):
        pitch = dice.uniform(900, 4000) * 2 * np.pi / SAMPLE_RATE
        body = np.sin(pitch * np.arange(click.size)) + dice.standard_normal(click.size)
        sound[at : at + click.size] += dice.uniform(0.3, 1.0) * click * body
    return sound


def breathing(dice: np.random.Generator, size: int) -> np.ndarray:
    """Somebody breathes near the microphone: in and out, fifteen times a minute."""
    seconds = np.arange(size) / SAMPLE_RATE
    depth = np.maximum(0.0, np.sin(2 * np.pi * seconds / 4 + dice.uniform(0, 6))) ** 2
    depth += 0.6 * np.maximum(0.0, -np.sin(2 * np.pi * seconds / 4)) ** 4
    return depth * band(dice, size, 250, 2500)


def chords(dice: np.random.Generator, size: int) -> np.ndarray:
    """Music: chords of plucked tones, two a second."""
    sound = np.zeros(size)
    note = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for at in range(0, size - SAMPLE_RATE, SAMPLE_RATE // 2):
        root = 110 * 2 ** (dice.integers(0, 24) / 12)
        for ratio in (1, 1.26, 1.5):
            for over in (1, 2, 3):
                tone = np.sin(2 * np.pi * root * ratio * over * note) / over
                sound[at : at + note.size] += tone * np.exp(-3 * note)
    return sound


def hum(dice: np.random.Generator, size: int) -> np.ndarray:
    """A fan and the mains: 50 Hz with its overtones."""
    seconds = np.arange(size) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * 50 * n * seconds) / n for n in range(1, 9))
    return tones + 0.3 * coloured(dice, size, 1.5) / 10


SOUNDS: dict[str, Sound] = {
    "silence": lambda dice, size: np.zeros(size),
    "white noise": lambda dice, size: dice.standard_normal(size),
    "pink noise": lambda dice, size: coloured(dice, size, 1.0),
    "brown noise": lambda dice, size: coloured(dice, size, 2.0),
    "hum": hum,
    "keyboard": keyboard,
    "breathing": breathing,
    "music": chords,
}


def windows(sound: Sound, minutes: float) -> Iterator[np.ndarray]:
    """So much of a sound, in windows; float32, 16 kHz, the levels in turn."""
    dice = np.random.default_rng(7)
    for number in range(round(minutes * 60 / WINDOW_S)):
        samples = sound(dice, WINDOW_S * SAMPLE_RATE)
        loudest = np.abs(samples).max() or 1.0
        level = 10 ** (LEVELS_DB[number % len(LEVELS_DB)] / 20)
        yield (samples / loudest * level).astype(np.float32)


def recorded(minutes: float) -> Iterator[np.ndarray]:
    """Yield windows of the recordings without speech, each recording once."""
    for one in without_speech():
        samples = one.waveform()
        for begin in range(0, samples.size, WINDOW_S * SAMPLE_RATE):
            yield samples[begin : begin + WINDOW_S * SAMPLE_RATE]


def single_words(n: int) -> list[tuple[np.ndarray, str]]:
    """Return up to n words cut out of English sentences, each with a margin around it."""
    aligner = Aligner()
    found = []
    for samples, text in utterances():
        for word in aligner.words(samples, text) if samples.size < 28 * SAMPLE_RATE else ():
            if word.end - word.start >= SHORTEST_WORD_S:
                begin = max(0, int((word.start - MARGIN_S) * SAMPLE_RATE))
                end = int((word.end + MARGIN_S) * SAMPLE_RATE)
                found.append((samples[begin:end], normalised(word.word, "en")))
    return random.Random(7).sample(found, min(n, len(found)))


def rightly_heard(model: Model, words: Sequence[tuple[np.ndarray, str]]) -> int:
    """Return how many of the words a model hears rightly, each on its own."""
    options = DecodeOptions(language="en")
    return sum(
        normalised(model.decode(Job(samples, options)).result().text, "en") == word
        for samples, word in words
    )


def words_an_hour(
    model: Model, sounds: Iterator[np.ndarray], options: DecodeOptions
) -> tuple[float, list[str]]:
    """Words heard, for each hour of the sound, and the texts."""
    texts, seconds = [], 0.0
    for samples in sounds:
        text = model.decode(Job(samples, options)).result().text.strip()
        seconds += samples.size / SAMPLE_RATE
        if text:
            texts.append(text)
    return sum(len(text.split()) for text in texts) * 3600 / seconds, texts


def measure(
    name: str, folder: Path, minutes: float, words: Sequence[tuple[np.ndarray, str]]
) -> None:
    """Print one model's table."""
    model = Model(Config(model_size=str(folder), workers=1))
    everything = SpeechOptions(enabled=False)
    ways = {
        "alone": (DecodeOptions(language="en"), minutes),
        "with a prompt": (DecodeOptions(language="en", prompt=PROMPT), minutes),
        # Every window is decoded there, so it takes the time of a real one.
        "without the search for speech": (
            DecodeOptions(language="en", speech=everything), minutes / 10,
        ),
    }  # fmt: skip
    print(f"\nWhisper {name}: words heard in an hour without speech, {minutes:g} minutes of each")
    print("| |" + " | ".join(ways) + " |\n|---|" + "---|" * len(ways))
    kinds = {kind: lambda length, sound=sound: windows(sound, length)
             for kind, sound in SOUNDS.items()} | {"recordings": recorded}  # fmt: skip
    for kind, made in kinds.items():
        cells, heard = [], []
        for options, length in ways.values():
            rate, texts = words_an_hour(model, made(length), options)
            cells.append(f"{rate:.0f}")
            heard += texts
        print(
            f"| {kind} | " + " | ".join(cells) + " |" + f"  {heard[:2]}" * bool(heard), flush=True
        )

    unfiltered = Model(Config(model_size=str(folder), workers=1, noise_max_ms=0))
    print(
        f"\nOf {len(words)} single words {rightly_heard(unfiltered, words)} are heard rightly "
        f"without the noise filter, {rightly_heard(model, words)} with it"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=10, help="of each sound and way")
    parser.add_argument("--words", type=int, default=400, help="single words")
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"])
    options = parser.parse_args()
    folders = {"tiny.en": models.tiny_en, "base": models.base}
    words = single_words(options.words)
    for name in options.models:
        measure(name, folders[name](), options.minutes, words)


if __name__ == "__main__":
    main()
