"""Define transcripts, their segments and words. Times are seconds of the whole recording."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """Word with times; `word` keeps its leading space, so that words join to the segment's text."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class TokenScore:
    """Token of the text: its bytes and the natural logarithm of its probability."""

    content: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Text with start, end, and the model's scores for its window."""

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
    # None if word timestamps were not requested.
    words: tuple[Word, ...] | None = None
    # None if token scores were not requested.
    token_scores: tuple[TokenScore, ...] | None = None
    # None if it is the transcript's.
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Result of one request, before formatting."""

    task: str
    language: str
    language_probability: float
    duration: float
    segments: tuple[Segment, ...] = ()
    # Whether word timestamps were requested; an empty transcript does not show it.
    with_words: bool = False
    # The same for token scores.
    with_scores: bool = False

    @property
    def text(self) -> str:
        """Return the text of all segments."""
        return "".join(segment.text for segment in self.segments).strip()
