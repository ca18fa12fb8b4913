"""Cues of subtitles: a transcript's words cut into lines that can be read while they are heard.

A cue holds a few lines of limited width, none of them broken inside a word. Where words have
times, cues begin and end with their words; else a segment's time is shared out by its letters.

Source of the figures: Netflix, Timed Text Style Guide: General Requirements (line length, two
lines, duration, gaps), which are close to the BBC's and the EBU's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from app.engine.results import Segment, Transcript

LONGEST_S = 7.0  # of one cue, where its words leave a choice
SHORTEST_S = 5 / 6
GAP_S = 0.08  # two frames: without it two cues look like one that changed
CHAINED_S = 0.5  # a shorter gap flickers, so the earlier cue stays until the next one
PAUSE_S = 0.35  # between words: a good place to cut

SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "।", "۔", "؟")
PHRASE_ENDS = (",", ";", ":", "،", "、", "，", "；", "：", "—", "–")
# A word with the space before it, for languages that put one; else it is cut where a line is full.
SPACED = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Layout:
    """How much a cue may hold: characters of a line (wide ones count twice), lines."""

    max_line_width: int = 42
    max_line_count: int = 2


BROADCAST = Layout()


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines that are shown from `start` to `end`, seconds of the audio."""

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """What stays together on a line: a word with the space before it, and when it is said."""

    text: str
    start: float
    end: float


def cues(transcript: Transcript, layout: Layout) -> list[Cue]:
    """The transcript as cues in their order, none over another, none without text."""
    found = [
        Cue(group[0].start, group[-1].end, lines)
        for segment in transcript.segments
        for group, lines in groups(pieces(segment, layout), layout)
    ]
    return apart(found, transcript.duration)


def pieces(segment: Segment, layout: Layout) -> list[Piece]:
    """A segment's words; those wider than a line cut to fit."""
    if segment.words:
        words = [Piece(word.word, word.start, word.end) for word in segment.words]
    else:
        words = timed_by_letters(segment)
    return [part for word in words for part in narrow(word, layout.max_line_width)]


def timed_by_letters(segment: Segment) -> list[Piece]:
    """The segment's words, each with its share of the segment's time."""
    words = [found.group() for found in SPACED.finditer(segment.text)]
    ends = list(accumulate(map(len, words)))
    a_letter = (segment.end - segment.start) / ends[-1] if ends else 0.0
    return [
        Piece(word, segment.start + (end - len(word)) * a_letter, segment.start + end * a_letter)
        for word, end in zip(words, ends, strict=True)
    ]


def narrow(word: Piece, max_width: int) -> Iterator[Piece]:
    """The word itself, or parts of it that fit on a line; closing marks begin none."""
    if width(word.text.strip()) <= max_width:
        yield word
        return
    clusters: list[str] = []
    for letter in word.text:
        if clusters and belongs_to_the_last(letter):
            clusters[-1] += letter
        else:
            clusters.append(letter)
    # Each letter may begin a line, which the search for the best cuts then decides.
    a_letter = (word.end - word.start) / len(word.text)
    at = 0
    for cluster in clusters:
        begin, at = at, at + len(cluster)
        yield Piece(cluster, word.start + begin * a_letter, word.start + at * a_letter)


def belongs_to_the_last(letter: str) -> bool:
    """Whether a mark must stay with the letter before it: an accent, a closing mark."""
    return unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf", "Pe", "Pf", "Po")


def groups(
    words: Sequence[Piece], layout: Layout
) -> Iterator[tuple[Sequence[Piece], tuple[str, ...]]]:
    """The words of one segment as cues, cut where that reads best, with their lines.

    Of all ways to cut, the one with the least cost: even cues, which end with a sentence, a
    phrase or a pause.
    """
    n = len(words)
    best: list[tuple[float, int]] = [(0.0, 0)] + [(float("inf"), 0)] * n
    for end in range(1, n + 1):
        for begin in range(end - 1, -1, -1):
            cost = cue_cost(words, begin, end, layout)
            if cost is None:
                break
            total = best[begin][0] + cost
            if total < best[end][0]:
                best[end] = (total, begin)
    cuts, end = [n], n
    while end:
        end = best[end][1]
        cuts.append(end)
    cuts.reverse()
    for begin, end in pairwise(cuts):
        if lines := wrapped(words[begin:end], layout):
            yield words[begin:end], lines


def cue_cost(words: Sequence[Piece], begin: int, end: int, layout: Layout) -> float | None:
    """How badly words `begin` to `end` read as one cue; None: they do not fit, nor will more."""
    group = words[begin:end]
    full = layout.max_line_width * layout.max_line_count
    letters = sum(width(word.text) for word in group)
    if len(group) > 1 and (
        letters > full + 1 or len(filled(group, layout.max_line_width)) > layout.max_line_count
    ):
        return None
    # Each cue costs something, so there are few; uneven ones cost more.
    cost = 1.0 + (1 - min(letters / full, 1.0)) ** 2
    too_long_s = group[-1].end - group[0].start - LONGEST_S
    if len(group) > 1 and too_long_s > 0:
        cost += 4 + too_long_s
    if end < len(words):
        cost += cut_cost(words[end - 1], words[end])
    return cost


def cut_cost(before: Piece, after: Piece) -> float:
    """How badly one cue ends and the next begins between these words."""
    text = before.text.rstrip("\"'”’»)")
    if text.endswith(SENTENCE_ENDS):
        return -0.6
    if after.start - before.end >= PAUSE_S:
        return -0.3
    return 0.0 if text.endswith(PHRASE_ENDS) else 0.5


def wrapped(words: Sequence[Piece], layout: Layout) -> tuple[str, ...]:
    """The words on as few lines as the width allows, all about as long as each other."""
    lines = filled(words, layout.max_line_width)
    narrowest = max((width(line) for line in lines), default=0)
    for narrower in range(narrowest - 1, 0, -1):
        evener = filled(words, narrower)
        if len(evener) > len(lines) or any(width(line) > narrower for line in evener):
            break
        lines = evener
    return tuple(lines)


def filled(words: Sequence[Piece], max_width: int) -> list[str]:
    """Each line filled before the next one begins; spaces at its ends are gone."""
    lines: list[str] = []
    line = ""
    for word in words:
        longer = line + word.text
        if line.strip() and width(longer.strip()) > max_width:
            lines.append(line)
            line = word.text
        else:
            line = longer
    lines.append(line)
    # "-->" stands in a cue's timing line only.
    cleaned = (" ".join(one.split()).replace("-->", "->") for one in lines)
    return [one for one in cleaned if one]


def apart(found: Sequence[Cue], duration: float) -> list[Cue]:
    """The cues with gaps and overlaps resolved, and long enough to be seen where there is room.

    A cue never ends after the next one begins; where two begin together, the later one waits.
    """
    placed: list[Cue] = []
    for number, cue in enumerate(found):
        start = max(cue.start, placed[-1].end) if placed else cue.start
        last = number + 1 == len(found)
        following = max(duration, start) if last else max(found[number + 1].start, start)
        end = max(cue.end, start + SHORTEST_S)
        latest = following if last else following - GAP_S
        if end > latest or (not last and following - end < CHAINED_S and following > cue.end):
            end = latest
        # No room at all: it takes some of the next one's time.
        end = max(end, start + GAP_S)
        placed.append(replace(cue, start=start, end=end))
    return placed


def width(text: str) -> int:
    """Columns of a text: wide characters of East Asia take two, combining ones none."""
    return sum(columns(letter) for letter in text)


def columns(letter: str) -> int:
    """Columns of one character."""
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in ("W", "F") else 1
