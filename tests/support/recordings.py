"""The recordings: those in tests/data, those an operator has, and those made from them.

RECORDINGS names a further folder with a manifest.json of the same form.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np

from app.audio.decode import decode
from app.audio.limits import SAMPLE_RATE, Limits
from app.config import ROOT

DATA = ROOT / "tests" / "data"
FURTHER = os.environ.get("RECORDINGS")
NO_LIMITS = Limits(upload_bytes=1 << 32, duration_s=1e6)

# Forms of one recording that clients send: name -> container, codec, rate, layout.
FORMS = {
    "m4a": ("ipod", "aac", 44_100, "stereo"),
    "mp3": ("mp3", "libmp3lame", 44_100, "stereo"),
    "webm": ("webm", "libopus", 48_000, "mono"),
    "opus": ("ogg", "libopus", 48_000, "mono"),
    "flac": ("flac", "flac", 48_000, "stereo"),
    "24bit_48k.wav": ("wav", "pcm_s24le", 48_000, "stereo"),
    "8k_alaw.wav": ("wav", "pcm_alaw", 8_000, "mono"),
}


@dataclass(frozen=True)
class Recording:
    """One line of a manifest, and the file it speaks of."""

    path: Path
    seconds: float
    text: str | None
    language: str | None
    kind: str
    note: str
    further: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.name

    def content(self) -> bytes:
        """The file as it is sent."""
        return self.path.read_bytes()

    def waveform(self) -> np.ndarray:
        """float32, shape (n_samples,), 16 kHz."""
        return waveform(self.content())


def waveform(content: bytes) -> np.ndarray:
    """The samples of an upload; float32, shape (n_samples,), 16 kHz."""
    return decode(io.BytesIO(content), NO_LIMITS)


def recordings() -> list[Recording]:
    """Return all recordings, those of tests/data first, each name once."""
    found: dict[str, Recording] = {}
    for folder in (DATA, *([Path(FURTHER)] if FURTHER else [])):
        for recording in manifest(folder):
            found.setdefault(recording.name, recording)
    return list(found.values())


def manifest(place: Path) -> Iterator[Recording]:
    """The recordings a manifest lists; none where there is no manifest.

    Args:
        place: a folder with a manifest.json, or such a file. Each of its lines needs a `file`,
            beside it; of what is missing, `kind` is speech where there is a `text`.
    """
    listed = place if place.suffix == ".json" else place / "manifest.json"
    if not listed.is_file():
        return
    for line in json.loads(listed.read_text()):
        keys = ("file", "seconds", "text", "language", "kind", "note")
        text = line.get("text")
        yield Recording(
            listed.parent / line["file"],
            line.get("seconds", 0.0),
            text,
            line.get("language"),
            line.get("kind", "speech" if text else "noise"),
            line.get("note", ""),
            {key: value for key, value in line.items() if key not in keys},
        )


def recording(name: str) -> Recording:
    """The recording of that name."""
    return next(one for one in recordings() if one.name == name)


def speech(among: Sequence[Recording] | None = None) -> list[Recording]:
    """Recordings in which one person says known words; by default of all recordings."""
    of_all = recordings() if among is None else among
    return [one for one in of_all if one.kind in ("speech", "synthetic speech") and one.text]


def without_speech(among: Sequence[Recording] | None = None) -> list[Recording]:
    """Return recordings without speech."""
    of_all = recordings() if among is None else among
    return [one for one in of_all if one.kind in ("silence", "noise", "tone", "music")]


def encode(samples: np.ndarray, form: str, *, rate: int | None = None) -> bytes:
    """The waveform in one of the forms clients send."""
    container, codec, usual_rate, layout = FORMS[form]
    rate = rate or usual_rate
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = layout
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 1024
        )
        frame = av.AudioFrame.from_ndarray(to_pcm(samples).reshape(1, -1), "s16", "mono")
        frame.rate = SAMPLE_RATE
        for one in [*resampler.resample(frame), *resampler.resample(None), None]:
            for packet in stream.encode(one):
                output.mux(packet)
    return target.getvalue()


def to_pcm(samples: np.ndarray) -> np.ndarray:
    """float32 samples as 16-bit integers."""
    return np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")


def wav(samples: np.ndarray) -> bytes:
    """A plain 16 kHz mono WAV file, as meeting bots send it."""
    pcm = to_pcm(samples).tobytes()
    return wav_header(len(pcm)) + pcm


def wav_header(data_bytes: int, *, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    """The 44 bytes before 16-bit samples."""
    frame = channels * 2
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, 16)
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + data_bytes, b"WAVE", b"fmt ", len(form))
    return head + form + struct.pack("<4sI", b"data", data_bytes)  # fmt: skip


@dataclass(frozen=True)
class LongRecording:
    """Known sentences one after another, with the seconds at which each begins and ends."""

    samples: np.ndarray
    spans: list[tuple[float, float, str]]


def long_recording(seconds: float = 240.0, pause_s: float = 0.8) -> LongRecording:
    """Sentences of tests/data, repeated until the recording is that long."""
    names = ("austen_0890.wav", "austen_0870_vorbis.ogg", "goforward_16k.wav")
    sentences = [recording(name) for name in names]
    parts: list[np.ndarray] = []
    spans: list[tuple[float, float, str]] = []
    at = 0.0
    while at < seconds:
        sentence = sentences[len(spans) % len(sentences)]
        samples = sentence.waveform()
        parts += [samples, np.zeros(int(pause_s * SAMPLE_RATE), np.float32)]
        spans.append((at, at + samples.size / SAMPLE_RATE, str(sentence.text)))
        at += samples.size / SAMPLE_RATE + pause_s
    return LongRecording(np.concatenate(parts), spans)


def utterances() -> list[tuple[np.ndarray, str]]:
    """Return every English sentence once, each with its words."""
    found: list[tuple[np.ndarray, str]] = []
    for one in speech():
        samples = one.waveform()
        if one.language != "en" or any(one.text == text for _, text in found):
            continue
        for part in one.further.get("utterances", ()):
            begin, end = (int(part[edge] * SAMPLE_RATE) for edge in ("start", "end"))
            found.append((samples[begin:end], part["text"]))
        if "utterances" not in one.further and "speech" not in one.further:
            found.append((samples, str(one.text)))
    return found


def mixture(seed: int, pauses_s: Sequence[float], between: Sequence[str] = ()) -> LongRecording:
    """Return all sentences, of many speakers, in random order.

    Args:
        pauses_s: silence after a sentence, drawn from these.
        between: recordings without speech, pieces of which stand in some of the pauses.
    """
    dice = random.Random(seed)
    others = [recording(name).waveform() for name in between]
    sentences = utterances()
    dice.shuffle(sentences)
    parts: list[np.ndarray] = []
    spans: list[tuple[float, float, str]] = []
    at = 0
    for samples, text in sentences:
        spans.append((at / SAMPLE_RATE, (at + samples.size) / SAMPLE_RATE, text))
        pause = np.zeros(int(dice.choice(pauses_s) * SAMPLE_RATE), np.float32)
        new = [samples, pause]
        if others and dice.random() < 0.15:
            new.append(dice.choice(others)[: int(dice.uniform(3, 14) * SAMPLE_RATE)])
        at += sum(part.size for part in new)
        parts += new
    return LongRecording(np.concatenate(parts), spans)
