"""Word error rate of this service beside plain faster-whisper's, on the same files.

    make wer                          tiny.en over the English recordings, base over all
    python -m tests.measure.wer --url URL     against a service that runs already (no plain column)
    python -m tests.measure.wer --manifest FOLDER --url URL     the same with recordings of your own

Both sides get the same model and the same options; the service is asked through its balancer, with
LONG_AUDIO=sequential, which is faster-whisper's way. A third column is the engine with
ENCODER_WINDOW=adaptive, whose words differ. Each language is also measured with noise mixed in, and
recordings without speech are sent: every word that comes back for one is made up. Long recordings:
tests/measure/long.py; windows of bots: tests/measure/windows.py.
Texts are compared after Whisper's own normaliser (for Chinese and Japanese by characters).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faster_whisper
import httpx
import numpy as np

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.measure.errors import Errors, normalised
from tests.support import models
from tests.support import plain as plain_whisper
from tests.support.client import TRANSCRIPTIONS
from tests.support.recordings import (
    Recording,
    manifest,
    recording,
    recordings,
    speech,
    wav,
    waveform,
    without_speech,
)  # fmt: skip
from tests.support.stack import Stack

NOISE_DB = (20.0, 10.0, 0.0)
Transcriber = Callable[[Recording], str]


@dataclass(frozen=True)
class Noisy(Recording):
    """A recording with noise in it.

    Args:
        snr_db: the speech's power over the noise's, in decibels.
    """

    snr_db: float = 0.0

    @classmethod
    def of(cls, clean: Recording, snr_db: float) -> Noisy:
        return cls(
            clean.path, clean.seconds, clean.text, clean.language, clean.kind, clean.note,
            snr_db=snr_db,
        )  # fmt: skip

    def content(self) -> bytes:
        """16-bit WAV; the same noise every time, brown as in a room."""
        speech = waveform(self.path.read_bytes())
        noise = np.resize(recording("noise_brown_20s.ogg").waveform(), speech.size)
        power = float(np.mean(speech**2)) / max(1e-12, float(np.mean(noise**2)))
        mixed = speech + noise * np.sqrt(power / 10 ** (self.snr_db / 10))
        return wav((mixed / max(1.0, float(np.abs(mixed).max()))).astype(np.float32))

    def waveform(self) -> np.ndarray:
        """float32, of the same 16 bits that a service is sent."""
        return waveform(self.content())


def through(url: str) -> Transcriber:
    """Transcribe through a service."""

    def transcribe(one: Recording) -> str:
        answer = httpx.post(
            url + TRANSCRIPTIONS,
            data={"model": "whisper-1", "language": one.language, "response_format": "json"},
            files={"file": (one.name, one.content())},
            timeout=600,
        )
        answer.raise_for_status()
        return str(answer.json()["text"])

    return transcribe


def plain(folder: Path) -> Transcriber:
    """Transcribe with faster-whisper itself, with the service's default options."""
    model = faster_whisper.WhisperModel(str(folder), "cpu", compute_type="int8")

    def transcribe(one: Recording) -> str:
        return plain_whisper.text(model, one.waveform(), DecodeOptions(language=one.language))

    return transcribe


def inside(model: Model) -> Transcriber:
    """Transcribe with the engine in this process."""

    def transcribe(one: Recording) -> str:
        options = DecodeOptions(language=one.language)
        return model.decode(Job(one.waveform(), options)).result().text

    return transcribe


def compare(recordings: Iterable[Recording], sides: dict[str, Transcriber]) -> bool:
    """Print each language's error rate on each side; whether the first two had the same texts."""
    errors: dict[str, dict[str, Errors]] = {}
    same = True
    for one in recordings:
        texts = {side: transcribe(one) for side, transcribe in sides.items()}
        same = same and len({texts[side].strip() for side in list(sides)[:2]}) == 1
        for language in (str(one.language), "all"):
            row = errors.setdefault(language, {side: Errors() for side in sides})
            for side, text in texts.items():
                row[side].add(
                    normalised(str(one.text), one.language), normalised(text, one.language)
                )
    print(f"{'language':10} {'words':>6}  " + "  ".join(f"{side:>16}" for side in sides))
    for language, row in sorted(errors.items(), key=lambda item: (item[0] == "all", item[0])):
        words = next(iter(row.values())).words
        print(f"{language:10} {words:6}  " + "  ".join(f"{row[side]!s:>16}" for side in sides))
    return same


def compare_noise(chosen: Sequence[Recording], sides: dict[str, Transcriber]) -> None:
    """Print each noise level's table."""
    for snr_db in NOISE_DB:
        print(f"\nwith noise {snr_db:g} dB below the speech")
        compare([Noisy.of(one, snr_db) for one in chosen], sides)


def hallucinations(silent: Sequence[Recording], sides: dict[str, Transcriber]) -> dict[str, int]:
    """Print and return how many words each side hears where nobody speaks."""
    heard = {side: [(one, transcribe(one)) for one in silent] for side, transcribe in sides.items()}
    found = {side: sum(len(text.split()) for _, text in texts) for side, texts in heard.items()}
    print(f"\n{len(silent)} recordings without speech; words heard in them: ", end="")
    print(", ".join(f"{side} {words}" for side, words in found.items()))
    for side, texts in heard.items():
        for one, text in texts:
            if text.strip():
                print(f"  {side}, {one.name}: {text.strip()[:80]}")
    return found


def against(url: str, chosen: Sequence[Recording]) -> None:
    """Print what a service that runs already makes of recordings."""
    told = httpx.get(url + "/health", timeout=10)
    shown = ("model", "device", "compute_type")
    print(json.dumps({key: told.json().get(key) for key in shown}))
    sides = {"this service": through(url)}
    compare(speech(chosen), sides)
    compare_noise(speech(chosen), sides)
    hallucinations(without_speech(chosen), sides)


def measure(name: str, folder: Path, chosen: Sequence[Recording]) -> bool:
    """Print one model's tables; whether the service's texts are plain faster-whisper's."""
    settings = {
        "WORKERS": "1", "MODEL_SIZE": str(folder), "MODEL_NAME": name,
        "LONG_AUDIO": "sequential",
    }  # fmt: skip
    adaptive = Model(Config(model_size=str(folder), workers=1, encoder_window="adaptive"))
    with (
        tempfile.TemporaryDirectory() as run_dir,
        Stack.started(Path(run_dir), **settings) as s,
    ):
        spoken = speech(chosen)
        print(f"\nWhisper {name}, int8 on the CPU, {len(spoken)} recordings")
        sides = {
            "this service": through(s.url),
            "faster-whisper": plain(folder),
            "adaptive window": inside(adaptive),
        }
        same = compare(spoken, sides)
        compare_noise(spoken, sides)
        hallucinations(without_speech(chosen), sides)
    return same


def main() -> int:
    """Print the tables; exit 1 when a text differs from plain faster-whisper's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", help="a service that runs already, such as http://127.0.0.1:8083")
    parser.add_argument("--manifest", type=Path, help="a folder of recordings with manifest.json")
    options = parser.parse_args()
    chosen = list(manifest(options.manifest)) if options.manifest else recordings()
    if not chosen:
        parser.error(f"{options.manifest} has no manifest.json, or lists nothing there")
    if options.url:
        against(options.url.rstrip("/"), chosen)
        return 0
    english = [one for one in chosen if one.language in ("en", None)]
    same = measure("tiny.en", models.tiny_en(), english)
    same = measure("base", models.base(), chosen) and same
    print("\nThe service's texts are faster-whisper's." if same else "\nSome texts differ.")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
