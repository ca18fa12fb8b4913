"""Detect speech and split a recording into the parts that are decoded on their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import faster_whisper.vad
import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps

from app.audio.limits import SAMPLE_RATE
from app.audio.speech_model import speech_model
from app.engine.options import SpeechOptions

# Samples from `start` to `end`, in faster-whisper's form.
Span = dict[str, int]

PADDING_S = SpeechOptions().padding_ms / 1000
WINDOW_S = 30  # the most audio that the encoder sees at once
# The most speech of one part. Fuller windows lose more: in six random orders of the test sentences
# (base, lively talk) the error rate was 5.05 % at 24 s, 5.17 % at 27 s and 5.73 % at 30 s.
PART_S = 24
SHORTEST_HALVED_S = 8
# Speech is detected in pieces of this length, so that memory does not grow with the recording.
PIECE_S = 600
SEARCH_S = 30  # a piece ends at the quietest moment of its last seconds
MOMENT_S = 0.3
# Detection loses some speech whose loudest moment is below QUIET, and all of it 15 dB below that.
# Near a microphone that moment is about SPOKEN. Both levels are the RMS over LEVEL_S.
QUIET = 0.006
SPOKEN = 0.2
LEVEL_S = 0.03
# `get_speech_timestamps` finds its model by this name.
faster_whisper.vad.get_vad_model = speech_model


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a recording that is decoded on its own: the speech of its spans, joined.

    Attributes:
        spans: the part's position in the recording.
        offset: samples of speech in the preceding parts.
        whole: the part is the unmodified recording, so its times are the recording's.
    """

    spans: Sequence[Span]
    offset: int = 0
    whole: bool = False

    @property
    def seconds(self) -> float:
        """Return the duration of the speech."""
        return sum(span["end"] - span["start"] for span in self.spans) / SAMPLE_RATE

    def samples(self, waveform: np.ndarray) -> np.ndarray:
        """Return only the speech: float32, shape (n_samples,)."""
        return np.concatenate([waveform[span["start"] : span["end"]] for span in self.spans])

    def halves(self) -> tuple[Part, Part] | None:
        """Split at the pause nearest the middle; None if too short or without a pause."""
        if len(self.spans) < 2 or self.seconds < SHORTEST_HALVED_S:
            return None
        ends = np.cumsum([span["end"] - span["start"] for span in self.spans])
        n = int(np.argmin(np.abs(ends[:-1] - ends[-1] / 2))) + 1
        return (
            Part(self.spans[:n], self.offset),
            Part(self.spans[n:], self.offset + int(ends[n - 1])),
        )

    def between(self, begin_s: float, end_s: float) -> Part:
        """Return the part between two times, in seconds of this part's speech."""
        begin, end = int(begin_s * SAMPLE_RATE), int(end_s * SAMPLE_RATE)
        spans: list[Span] = []
        at = 0
        for span in self.spans:
            length = span["end"] - span["start"]
            first, last = max(begin - at, 0), min(end - at, length)
            if first < last:
                spans.append(Span(start=span["start"] + first, end=span["start"] + last))
            at += length
        return Part(spans, self.offset + begin)


def amplified(waveform: np.ndarray) -> np.ndarray:
    """Return a quiet recording amplified to the level of speech, any other unchanged.

    Whisper's features do not depend on the level; speech detection does.

    Args:
        waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
    """
    n = int(LEVEL_S * SAMPLE_RATE)
    moments = waveform[: waveform.size // n * n].reshape(-1, n)
    energy = np.einsum("ij,ij->i", moments, moments).max(initial=0.0)
    level = float(np.sqrt(energy / n))
    if not 0 < level < QUIET:
        return waveform
    return np.clip(waveform * np.float32(SPOKEN / level), -1.0, 1.0)


def is_long(waveform: np.ndarray) -> bool:
    """Return whether the recording needs more than one window."""
    return waveform.size > WINDOW_S * SAMPLE_RATE


def parts(waveform: np.ndarray, options: SpeechOptions, chunked: bool) -> list[Part]:
    """Return the parts of a recording in order; empty without speech.

    Args:
        waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
        options: the request's speech options; without detection silence is kept, but a chunked
            recording is still cut at pauses.
        chunked: limit each part to `PART_S`.
    """
    if options.enabled:
        longest_s = options.max_speech_duration_s
        spans = find_speech(waveform, options, min(longest_s, PART_S) if chunked else longest_s)
    elif chunked:
        spans = everything(waveform.size, find_speech(waveform, SpeechOptions(), PART_S / 2))
    elif waveform.size:
        return [Part([Span(start=0, end=waveform.size)], whole=True)]
    else:
        return []
    if not chunked:
        return [Part(spans)] if spans else []
    return [Part(cut, offset) for cut, offset in cut_at_pauses(spans, PART_S * SAMPLE_RATE)]


def find_speech(waveform: np.ndarray, options: SpeechOptions, longest_s: float) -> list[Span]:
    """Return the spans of speech, none longer than `longest_s`."""
    choices = VadOptions(
        threshold=options.threshold,
        min_silence_duration_ms=options.min_silence_duration_ms,
        max_speech_duration_s=longest_s,
        speech_pad_ms=options.padding_ms,
    )
    return [
        Span(start=begin + span["start"], end=begin + span["end"])
        for begin, end in pieces(waveform)
        for span in get_speech_timestamps(waveform[begin:end], choices)
    ]


def pieces(waveform: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the start and end sample of each piece for speech detection."""
    begin = 0
    moment = int(MOMENT_S * SAMPLE_RATE)
    while waveform.size - begin > PIECE_S * SAMPLE_RATE:
        search = begin + (PIECE_S - SEARCH_S) * SAMPLE_RATE
        moments = waveform[search : search + SEARCH_S * SAMPLE_RATE].reshape(-1, moment)
        quietest = int(np.argmin(np.einsum("ij,ij->i", moments, moments)))
        end = search + quietest * moment + moment // 2
        yield begin, end
        begin = end
    yield begin, waveform.size


def everything(n_samples: int, speech: Sequence[Span]) -> list[Span]:
    """Return adjacent spans that cover all samples and meet in the middle of each pause.

    A longer stretch between two pauses is cut every `PART_S`.
    """
    longest = PART_S * SAMPLE_RATE
    pauses = [(a["end"] + b["start"]) // 2 for a, b in pairwise(speech)]
    spans: list[Span] = []
    for end in [*pauses, n_samples]:
        begin = spans[-1]["end"] if spans else 0
        cuts = [*range(begin, end, longest), end]
        spans += [Span(start=a, end=b) for a, b in pairwise(cuts)]
    return spans


def cut_at_pauses(spans: Sequence[Span], longest: int) -> Iterator[tuple[Sequence[Span], int]]:
    """Yield groups of consecutive spans, each with the number of samples in preceding groups.

    Each group holds at most `longest` samples (but at least one span), and ends at the longest
    pause that leaves it at least half full.
    """
    offset = 0
    while spans:
        ends = np.cumsum([span["end"] - span["start"] for span in spans])
        most = max(1, int(np.searchsorted(ends, longest, side="right")))
        if most < len(spans):
            least = min(most, int(np.searchsorted(ends, longest / 2)) + 1)
            most = max(
                range(least, most + 1),
                key=lambda n: (spans[n]["start"] - spans[n - 1]["end"], n),
            )
        yield spans[:most], offset
        offset += int(ends[most - 1])
        spans = spans[most:]
