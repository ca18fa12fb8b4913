"""Format text for a header value."""

from __future__ import annotations

MOST_LETTERS = 300


def header_text(text: str) -> str:
    """Return text as one line of ASCII, truncated to `MOST_LETTERS`."""
    return " ".join(text.split()).encode("ascii", "replace").decode()[:MOST_LETTERS]
