"""Text as a header may hold it."""

from __future__ import annotations

MOST_LETTERS = 300


def header_text(text: str) -> str:
    """Return a sentence as one line of ASCII, cut where it is too long for a header."""
    return " ".join(text.split()).encode("ascii", "replace").decode()[:MOST_LETTERS]
