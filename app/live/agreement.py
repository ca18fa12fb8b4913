"""Confirm the words on which two successive windows agree (LocalAgreement-2).

Source: D. Macháček, R. Dabre, O. Bojar, "Turning Whisper into Real-Time Transcription System",
IJCNLP-AACL 2023 (system demonstrations), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MOST_REPEATED = 5  # words that a window may repeat at its start
LOST_S = 0.5  # speech without words at the end of a window, from which words were lost there
NEAR_S = 1.0  # such a repetition begins this close to the confirmed end
EDGE_S = 0.2  # see `is_of_turn`


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a window.

    Attributes:
        text: with its leading space, if the language has one.
        start, end: seconds from the turn's first sample.
        logprob: natural logarithm of its probability.
    """

    text: str
    start: float
    end: float
    logprob: float = 0.0

    @property
    def key(self) -> str:
        """Return the text without case and punctuation, which change until a sentence ends."""
        return "".join(letter for letter in self.text.casefold() if letter.isalnum())


@dataclass(slots=True)
class Agreement:
    """The words of one turn.

    Attributes:
        confirmed: words that were sent; never taken back.
        pending: words of the newest window after those.
    """

    confirmed: list[Word] = field(default_factory=list)
    pending: list[Word] = field(default_factory=list)

    @property
    def until_s(self) -> float:
        """Return the end of the confirmed words, in seconds from the turn's first sample."""
        return self.confirmed[-1].end if self.confirmed else 0.0

    def insert(self, words: Sequence[Word], spoken_s: float = 0.0) -> list[Word]:
        """Take the words of another window; return those that it confirms.

        Args:
            spoken_s: the end of the speech in the window, in seconds from the turn's first sample.
        """
        words = self.unsent(words)
        count = common_prefix(self.pending, words)
        if count == len(words) and spoken_s - (words[-1].end if words else self.until_s) > LOST_S:
            # The newest window lost the last words of the one before.
            return self._confirm([*words, *self.pending[count:]], count)
        # The newest window's last word may be cut off by its end, and its full stop be wrong.
        if count == len(words) and count and self.pending[count - 1].text != words[-1].text:
            count -= 1
        return self._confirm(words, count)

    def accept(self, words: Sequence[Word], before_s: float = float("inf")) -> list[Word]:
        """Confirm the words of the last window, or those that end by a time; return them."""
        words = self.unsent(words)
        return self._confirm(words, sum(word.end <= before_s for word in words))

    def finish(self) -> list[Word]:
        """Confirm the words of the newest window, which had all of the turn's audio."""
        return self._confirm(self.pending, len(self.pending))

    def _confirm(self, words: Sequence[Word], count: int) -> list[Word]:
        new = list(words[:count])
        self.confirmed += new
        self.pending = list(words[count:])
        return new

    def unsent(self, words: Sequence[Word]) -> Sequence[Word]:
        """Return the words of a window that are not confirmed yet: those after the confirmed end,
        without a repetition of the last confirmed words."""
        if not self.confirmed:
            return [word for word in words if is_of_turn(word)]
        until_s = self.until_s
        words = [word for word in words if (word.start + word.end) / 2 > until_s]
        if not words or words[0].start > until_s + NEAR_S:
            return words
        for count in range(min(MOST_REPEATED, len(words), len(self.confirmed)), 0, -1):
            last = [word.key for word in self.confirmed[-count:]]
            if last == [word.key for word in words[:count]]:
                return words[count:]
        return words


def is_of_turn(word: Word) -> bool:
    """Return whether a word is of the turn, and not of the audio before it.

    The alignment of words with sound stretches those next to a pause: the turn's first word often
    seems to begin in the speech before, and the last word of that sometimes to end in the turn.
    """
    return word.end > (0.0 if word.start > -EDGE_S else EDGE_S)


def common_prefix(some: Sequence[Word], others: Sequence[Word]) -> int:
    """Return how many words at the start of both are the same."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one.key != other.key:
            break
        count += 1
    return count
