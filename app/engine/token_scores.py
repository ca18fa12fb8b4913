"""Compute the model's probability for each token of a decoded text.

CTranslate2's decoder returns one score per hypothesis; token scores of a beam are not available
(`return_logits_vocab` returns no values there). So the text goes through the model once more, as
for word timestamps: `align` runs the decoder over the tokens in one call and returns the
probability of each after the preceding tokens, without timestamps and prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.results import TokenScore

NEVER = -9999.0  # OpenAI's value for the logarithm of probability 0


@dataclass(eq=False, slots=True)
class ScoredText:
    """Text tokens of one decoding of a window, and their probabilities.

    `at` is the number of tokens already assigned to segments.
    """

    tokens: list[int]
    probabilities: list[float]
    at: int = 0

    def find(self, tokens: Sequence[int]) -> int | None:
        """Return the position of the tokens among the unassigned ones; None if absent."""
        for begin in range(self.at, len(self.tokens) - len(tokens) + 1):
            if self.tokens[begin : begin + len(tokens)] == tokens:
                return begin
        return None


class WindowScores:
    """Scored decodings of one request's latest window.

    faster-whisper may decode a window at several temperatures; it keeps the best result and
    splits it into segments. `of` matches each segment's tokens to a decoding.
    """

    def __init__(self) -> None:
        self._window: object = None
        self._texts: list[ScoredText] = []

    def add(self, window: object, tokens: list[int], probabilities: Sequence[float]) -> None:
        """Add a decoding of a window; a new window discards those of the previous one."""
        if len(tokens) != len(probabilities):
            raise ValueError("not as many probabilities as tokens. This is a bug.")
        if window is not self._window:
            self._window, self._texts = window, []
        self._texts.append(ScoredText(tokens, list(probabilities)))

    def of(self, tokens: list[int]) -> list[float]:
        """Return the probabilities of the next segment's text tokens."""
        positions = [(text, text.find(tokens)) for text in self._texts]
        kept = [(text, begin) for text, begin in positions if begin is not None]
        if not kept:
            raise ValueError("a segment's tokens were not decoded. This is a bug.")
        self._texts = [text for text, _ in kept]
        for text, begin in kept:
            text.at = begin + len(tokens)
        text, begin = kept[-1]
        return text.probabilities[begin : begin + len(tokens)]


def scored(
    segments: Iterable[Any],
    scores: WindowScores,
    end_token: int,
    spelling: Callable[[int], bytes],
) -> Iterator[Any]:
    """Yield faster-whisper's segments with an added attribute, `token_scores`.

    Args:
        segments: consumed lazily, so that `scores` still holds the segment's window.
        end_token: text tokens are the tokens below it.
        spelling: returns a token's bytes.
    """
    for segment in segments:
        words = [token for token in segment.tokens if token < end_token]
        segment.token_scores = tuple(
            TokenScore(spelling(token), logarithm(probability))
            for token, probability in zip(words, scores.of(words), strict=True)
        )
        yield segment


def logarithm(probability: float) -> float:
    """Return the natural logarithm, at least `NEVER`; also defined for 0."""
    return max(math.log(probability), NEVER) if probability > 0 else NEVER


def byte_letters() -> dict[str, int]:
    """Return the letters that encode bytes in Whisper's vocabulary.

    Source: GPT-2's `bytes_to_unicode`: printable bytes map to themselves, the others to characters
    from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_LETTERS = byte_letters()


def token_bytes(spelled: str) -> bytes:
    """Return the bytes that a token adds to the text: UTF-8, not always whole characters."""
    return bytes(BYTE_LETTERS[letter] for letter in spelled)
