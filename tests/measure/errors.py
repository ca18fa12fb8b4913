"""Count word errors by kind, after Whisper's own normaliser."""

from __future__ import annotations

from dataclasses import dataclass

import jiwer
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

BY_CHARACTER = ("ja", "zh")
ENGLISH = EnglishTextNormalizer()
SPOKEN = str.maketrans("()[]", "    ")  # the normaliser removes bracketed text


def normalised(text: str, language: str | None) -> str:
    """Return a text as it is compared: without case, punctuation and spelling variants."""
    text = text.translate(SPOKEN)
    if language == "en":
        return str(ENGLISH(text))
    return str(BasicTextNormalizer(split_letters=language in BY_CHARACTER)(text))


@dataclass
class Errors:
    """Errors counted over several texts."""

    words: int = 0
    substituted: int = 0
    deleted: int = 0
    invented: int = 0

    @property
    def wrong(self) -> int:
        """Return the number of errors."""
        return self.substituted + self.deleted + self.invented

    @property
    def rate(self) -> float:
        """Return the word error rate."""
        return self.wrong / max(1, self.words)

    def add(self, reference: str, text: str, *others: str) -> None:
        """Count a text's errors, both texts normalised.

        Args:
            others: further references of which the best counts; `reference` gives the words.
        """
        counted = [jiwer.process_words(words, text or " ") for words in (reference, *others)]
        best = min(counted, key=lambda each: each.substitutions + each.deletions + each.insertions)
        self.words += len(reference.split())
        self.substituted += best.substitutions
        self.deleted += best.deletions
        self.invented += best.insertions

    def cells(self) -> list[str]:
        """Return rate, substituted, deleted and invented words, as a table shows them."""
        return [f"{self.rate:.2%}", *map(str, (self.substituted, self.deleted, self.invented))]

    def __str__(self) -> str:
        return f"{100 * self.rate:6.2f} %"
