"""The sentence of austen_0890.wav, and how texts are compared: by their words."""

from __future__ import annotations

SENTENCE = "unless to be rather cold hearted and rather selfish is to be ill disposed"


def words(text: str) -> list[str]:
    """A text's words, without case and punctuation."""
    return "".join(one if one.isalnum() else " " for one in text.lower()).split()
