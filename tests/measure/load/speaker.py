"""One person who speaks in a meeting, and the bot that sends what is not confirmed yet.

Every 2 s the bot sends all speech since the last confirmed word, with the confirmed text as the
prompt and word times asked. Words that two answers in a row begin with are confirmed, and the next
window begins behind them. So windows grow from 2 s until two answers agree, and a bot whose
answers are late sends longer ones. No thread and no clock of its own: seconds count from the
beginning of the meeting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

EVERY_S = 2.0
LONGEST_S = 30.0
OPEN_END_S = 0.5  # a word that ends so close to the window's end may be cut, and is not confirmed
PROMPT_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Window:
    """Speech to be sent: from when to when, and how much had to be given up before it."""

    begin_s: float
    end_s: float
    dropped_s: float

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s


@dataclass
class Speaker:
    """What is confirmed, and what the last answer said.

    Args:
        shown_s: until when there was a text, confirmed or not.
    """

    confirmed_s: float = 0.0
    shown_s: float = 0.0
    prompt: str = ""
    language: str | None = None
    _before: list[tuple[str, float]] = field(default_factory=list)

    def window(self, now_s: float) -> Window:
        """All that was said and not confirmed, at most 30 s of it."""
        dropped_s = max(0.0, now_s - LONGEST_S - self.confirmed_s)
        if dropped_s:
            self.confirmed_s += dropped_s
            self._before = []
        # Speech that had a text before it was given up is not lost to the reader.
        unread_s = max(0.0, self.confirmed_s - self.shown_s) if dropped_s else 0.0
        self.shown_s = max(self.shown_s, self.confirmed_s)
        return Window(self.confirmed_s, now_s, unread_s)

    def hear(self, answer: dict[str, Any], window: Window) -> None:
        """Take an answer (`verbose_json` with words): what it has in common with the one before
        is confirmed."""
        self.shown_s = window.end_s
        self.language = answer.get("language") or self.language
        words = [
            (plain(word["word"]), window.begin_s + word["end"]) for word in answer.get("words", [])
        ]
        if not words:  # silence so far; a word may begin at its end
            self.confirmed_s = max(window.begin_s, window.end_s - 1.0)
            self._before = []
            return
        agreed = 0
        for (now, end_s), (then, _) in zip(words, self._before, strict=False):
            if now != then or end_s > window.end_s - OPEN_END_S:
                break
            agreed += 1
        if agreed:
            self.confirmed_s = min(words[agreed - 1][1], window.end_s)
            said = " ".join(word["word"].strip() for word in answer["words"][:agreed])
            self.prompt = f"{self.prompt} {said}"[-PROMPT_CHARACTERS:].strip()
        self._before = words[agreed:]


def plain(word: str) -> str:
    """A word as it is compared: without case and punctuation."""
    return re.sub(r"[^\w']", "", word.lower())
