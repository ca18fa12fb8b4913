"""Where somebody speaks, and the parts in which a recording is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from faster_whisper.vad import VadOptions, get_speech_timestamps

from app.audio.limits import SAMPLE_RATE
from app.engine.options import SpeechOptions

# Samples from `start` to `end`, as faster-whisper writes them.
Span = dict[str, int]

PADDING_S = SpeechOptions().padding_ms / 1000
WINDOW_S = 30  # what Whisper hears at a time
# The most speech of one part. Fuller windows lose more: in six random orders of the sentences at
# hand (base, lively talk) the error rate was 5.05 % at 24 s, 5.17 % at 27 s and 5.73 % at 30 s.
PART_S = 24
SHORTEST_HALVED_S = 8
# Speech is looked for in pieces of this length, so that an hour needs no more memory than this.
PIECE_S = 600
SEARCH_S = 30  # a piece ends in the quietest moment of its last seconds
MOMENT_S = 0.3
# The search loses speech whose loudest moment is below QUIET and misses it altogether 15 dB below.
# Near a microphone it is about SPOKEN. Both are the RMS of LEVEL_S.
QUIET = 0.006
SPOKEN = 0.2
LEVEL_S = 0.03


@dataclass(frozen=True, slots=True)
class Part:
    """What is decoded by itself: the speech of these spans, one after another.

    Attributes:
        spans: where it lies in the recording.
        offset: samples of speech in the parts before it.
        whole: it is the recording as it stands, so its times are the recording's.
    """

    spans: Sequence[Span]
    offset: int = 0
    whole: bool = False

    @property
    def seconds(self) -> float:
        """How much speech it holds."""
        return sum(span["end"] - span["start"] for span in self.spans) / SAMPLE_RATE

    def samples(self, waveform: np.ndarray) -> np.ndarray:
        """float32, shape (n_samples,): the speech alone."""
        return np.concatenate([waveform[span["start"] : span["end"]] for span in self.spans])

    def halves(self) -> tuple[Part, Part] | None:
        """The two parts it falls into at the pause nearest its middle; None: it is too short."""
        if len(self.spans) < 2 or self.seconds < SHORTEST_HALVED_S:
            return None
        ends = np.cumsum([span["end"] - span["start"] for span in self.spans])
        n = int(np.argmin(np.abs(ends[:-1] - ends[-1] / 2))) + 1
        return (
            Part(self.spans[:n], self.offset),
            Part(self.spans[n:], self.offset + int(ends[n - 1])),
        )

    def between(self, begin_s: float, end_s: float) -> Part:
        """The stretch of it from and to these seconds of its speech."""
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
    """Return a quiet recording at the level of speech, and any other as it is.

    Whisper's features do not depend on the level; the search for speech does.

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
    """Whether Whisper needs more than one window for it."""
    return waveform.size > WINDOW_S * SAMPLE_RATE


def parts(waveform: np.ndarray, options: SpeechOptions, chunked: bool) -> list[Part]:
    """The parts of a recording, in order; none where nobody speaks.

    Args:
        waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
        options: the request's choices; where they leave silence in, pauses are used for cutting
            all the same.
        chunked: no part is longer than `PART_S`.
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
    """Stretches of speech, none longer than `longest_s`."""
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
    """First and last sample of each piece in which speech is looked for."""
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
    """Spans without a gap between them that meet in the middle of each pause.

    Stretches without speech are cut wherever a part is full.
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
    """Groups of neighbouring spans, and the samples of the groups before.

    Each group holds at most `longest` samples (one span at least), and ends at the longest
    pause that leaves it half full.
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
