"""What decoding gives: words in segments in a transcript. Times are seconds of the audio."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """One word; `word` keeps its leading space, so that words join to the segment's text."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of the text: the bytes it adds, and the logarithm of its probability."""

    content: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text with the model's own scores for the window it came from."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    # None when no words were asked for.
    words: tuple[Word, ...] | None = None
    # None when they were not asked for.
    token_scores: tuple[TokenScore, ...] | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """The answer to one request, before any format."""

    task: str
    language: str
    language_probability: float
    duration: float
    segments: tuple[Segment, ...] = ()
    # Whether words were asked for, which an empty transcript does not show.
    with_words: bool = False
    # The same for the tokens' scores.
    with_scores: bool = False

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(segment.text for segment in self.segments).strip()


def run_to_end(segments: Generator[Segment, None, Transcript]) -> Transcript:
    """Draw all segments, for who wants only the transcript that they end in."""
    while True:
        try:
            next(segments)
        except StopIteration as end:
            transcript: Transcript = end.value
            return transcript
