"""How probable the model found each token that it wrote.

CTranslate2's decoder gives a score for a whole hypothesis only; a beam's own token scores are not
to be had (`return_logits_vocab` returns no values there). So the text is put to the model once
more, as when words are timed: `align` runs the decoder over the tokens in one call and says for
each how probable it is after the tokens before it, time stamps and the prompt left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.results import TokenScore

NEVER = -9999.0  # OpenAI's figure for a probability of 0, whose logarithm is no number


@dataclass(eq=False, slots=True)
class ScoredText:
    """The text tokens of one decoding of a window, and how probable each is; `at`: of which
    segments have been given out so many."""

    tokens: list[int]
    probabilities: list[float]
    at: int = 0

    def find(self, tokens: Sequence[int]) -> int | None:
        """Where these tokens stand in what has not been given out; None: nowhere."""
        for begin in range(self.at, len(self.tokens) - len(tokens) + 1):
            if self.tokens[begin : begin + len(tokens)] == tokens:
                return begin
        return None


class WindowScores:
    """The scored decodings of one request's latest window, of which one becomes its segments.

    faster-whisper decodes a window at several temperatures when it must, keeps the best, and
    cuts it into segments; `of` finds each segment's tokens again.
    """

    def __init__(self) -> None:
        self._window: object = None
        self._texts: list[ScoredText] = []

    def add(self, window: object, tokens: list[int], probabilities: Sequence[float]) -> None:
        """Note a decoding of a window; of another window than before: forget those before."""
        if len(tokens) != len(probabilities):
            raise ValueError("not as many probabilities as tokens. This is a bug.")
        if window is not self._window:
            self._window, self._texts = window, []
        self._texts.append(ScoredText(tokens, list(probabilities)))

    def of(self, tokens: list[int]) -> list[float]:
        """The probabilities of the next segment's text tokens."""
        found = [(text, text.find(tokens)) for text in self._texts]
        kept = [(text, begin) for text, begin in found if begin is not None]
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
    """faster-whisper's segments with one thing more: `token_scores`.

    Args:
        segments: drawn one at a time, so that `scores` still holds the segment's window.
        end_token: words are the tokens below it.
        spelling: a token's bytes.
    """
    for segment in segments:
        words = [token for token in segment.tokens if token < end_token]
        segment.token_scores = tuple(
            TokenScore(spelling(token), logarithm(probability))
            for token, probability in zip(words, scores.of(words), strict=True)
        )
        yield segment


def logarithm(probability: float) -> float:
    """The natural logarithm, of 0 too."""
    return max(math.log(probability), NEVER) if probability > 0 else NEVER


def byte_letters() -> dict[str, int]:
    """The letters in which Whisper's vocabulary spells bytes.

    Source: GPT-2's `bytes_to_unicode`: printable bytes stand for themselves, the others for the
    characters from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return letters | {chr(256 + number): byte for number, byte in enumerate(others)}


BYTE_LETTERS = byte_letters()


def token_bytes(spelled: str) -> bytes:
    """What a token of the vocabulary adds to the text; UTF-8, and not always whole characters."""
    return bytes(BYTE_LETTERS[letter] for letter in spelled)
