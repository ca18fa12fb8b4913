"""Cues of subtitles: a transcript's words cut into lines that can be read while they are heard.

A cue holds a few lines of limited width. Lines and cues end where a text may be broken, best of
all with a sentence. Where words have times, cues begin and end with their words; else a segment's
time is shared out by its letters.

Source of the figures: Netflix, Timed Text Style Guide: General Requirements (line length, two
lines, duration, gaps), which are close to the BBC's and the EBU's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from app.engine.results import Segment, Transcript
from app.formats.line_breaks import (
    IN_NAME,
    TIED,
    break_cost,
    ends_phrase,
    ends_sentence,
    is_between_scripts,
    is_between_words,
    narrow,
    split,
    width,
)

LONGEST_S = 7.0  # of one cue, where its words leave a choice
SHORTEST_S = 5 / 6
GAP_S = 0.08  # two frames: without it two cues look like one that changed
CHAINED_S = 0.5  # a shorter gap flickers, so the earlier cue stays until the next one
PAUSE_S = 0.35  # between words: a good place to cut

LINE_COST = 0.1  # of a cue's 1: lines are few and even, but bad breaks matter more
CONTEXT = 3  # words on each side that say how bad a break is

Cuts = tuple[int, ...]  # words with which a cue's lines begin, and the one after the cue


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
    """Return the transcript as cues in their order, none over another, none without text."""
    stretches = [words for one in transcript.segments if (words := pieces(one, layout))]
    for earlier, later in pairwise(stretches):
        # A segment may end with "Mr." and the next one begin with the name.
        while earlier and is_carried_over(earlier, later):
            later.insert(0, earlier.pop())
    return apart(
        [cue for words in stretches for cue in Stretch(words, layout).cues()], transcript.duration
    )


def is_carried_over(earlier: Sequence[Piece], later: Sequence[Piece]) -> bool:
    """Whether a segment's last word belongs to the next segment's first one."""
    words = [*earlier[-CONTEXT:], *later[:CONTEXT]]
    at = len(words) - len(later[:CONTEXT])
    # A segment that begins with a dash is another speaker's.
    is_new_word = words[at].text.startswith(" ") and words[at].text[1:2].isalnum()
    return is_new_word and not is_pause(words, at) and line_break_cost(words, at) >= TIED


def pieces(segment: Segment, layout: Layout) -> list[Piece]:
    """Return a segment's words; those wider than a line are cut to fit.

    Times may be of parts of words, "cold" and "-hearted": what no space parts is one word. Only
    in scripts without spaces can a line begin with each part.
    """
    if segment.words:
        timed = [(word.word, word.start, word.end) for word in segment.words]
    else:
        timed = [(segment.text.rstrip(), segment.start, segment.end)]
    text = "".join(part for part, _, _ in timed).rstrip()
    parts = set(accumulate((len(part) for part, _, _ in timed), initial=0))
    starts: list[float] = []  # of each letter, and their ends
    ends: list[float] = []
    for part, start, end in timed:
        times = [start + (end - start) * n / len(part) for n in range(len(part))]
        starts += times
        ends += [*times, end][1:]

    def begins_word(text: str, at: int) -> bool:
        is_part = at in parts or not segment.words
        return is_between_words(text, at) or (is_part and is_between_scripts(text, at))

    return [
        Piece(" " * text[begin].isspace() + text[begin:end].strip(), starts[begin], ends[end - 1])
        for first, last in split(text, 0, len(text), begins_word)
        for begin, end in narrow(text, first, last, layout.max_line_width)
        if text[begin:end].strip()
    ]


def is_pause(words: Sequence[Piece], at: int) -> bool:
    """Whether the speaker pauses before the word."""
    return words[at].start - words[at - 1].end >= PAUSE_S


def line_break_cost(words: Sequence[Piece], at: int) -> float:
    """Return how badly a line ends before the word."""
    before = "".join(word.text for word in words[max(0, at - CONTEXT) : at])
    after = "".join(word.text for word in words[at : at + CONTEXT])
    return break_cost(before, after, is_pause(words, at))


def cue_break_cost(words: Sequence[Piece], at: int) -> float:
    """Return how badly a cue ends before the word."""
    before, after = words[at - 1].text, words[at].text
    cost = line_break_cost(words, at)
    if cost >= IN_NAME:  # a full stop here, as in "Dr. Smith", ends nothing
        return cost + 0.5
    if ends_sentence(before, after):
        return cost - 0.6
    if is_pause(words, at):
        return cost - 0.3
    return cost if ends_phrase(before) else cost + 0.5


class Stretch:
    """Words said one after another, to be cut into cues where that reads best.

    Of all ways to cut, the one with the least cost: even cues, which end with a sentence, a
    phrase or a pause, on few and even lines.
    """

    def __init__(self, words: Sequence[Piece], layout: Layout) -> None:
        self._words = words
        self._layout = layout
        self._widths = [width(word.text) for word in words]
        breaks = range(1, len(words))
        self._line_breaks = [0.0, *(line_break_cost(words, at) for at in breaks), 0.0]
        self._cue_breaks = [0.0, *(cue_break_cost(words, at) for at in breaks), 0.0]

    def cues(self) -> Iterator[Cue]:
        """Yield the cues in their order."""
        # For each word the least cost of the cues before it, and the cuts of the last of them.
        best: list[tuple[float, Cuts]] = [(0.0, ())]
        for end in range(1, len(self._words) + 1):
            totals = [
                (best[cuts[0]][0] + self._cue_cost(cuts[0], end) + cost, cuts)
                for cost, cuts in self._layouts(end)
            ]
            best.append(min(totals))
        chosen = []
        end = len(self._words)
        while end:
            chosen.append(best[end][1])
            end = chosen[-1][0]
        yield from map(self._cue, reversed(chosen))

    def _layouts(self, end: int) -> Iterator[tuple[float, Cuts]]:
        """Yield the best layout of the words before `end`, and its cost.

        One for each number of lines and each word that can be the first.
        """
        layouts: dict[int, tuple[float, Cuts]] = {end: (0.0, (end,))}
        for _ in range(self._layout.max_line_count):
            longer: dict[int, tuple[float, Cuts]] = {}
            for cost, cuts in layouts.values():
                for begin, line_cost in self._lines(cuts[0], is_last=cuts[0] == end):
                    total = cost + line_cost
                    if begin not in longer or total < longer[begin][0]:
                        longer[begin] = (total, (begin, *cuts))
            yield from longer.values()
            layouts = longer

    def _lines(self, end: int, is_last: bool) -> Iterator[tuple[int, float]]:
        """Yield the words that a line which ends before `end` can begin with, and its cost."""
        cost = 0.0 if is_last else self._line_breaks[end]
        columns = 0
        for begin in range(end - 1, -1, -1):
            columns += self._widths[begin]
            line = columns - self._words[begin].text.startswith(" ")
            if line > self._layout.max_line_width and begin < end - 1:
                return
            # Of as many lines, those with the least squares are the most even.
            yield begin, cost + LINE_COST * (1 + (line / self._layout.max_line_width) ** 2)

    def _cue_cost(self, begin: int, end: int) -> float:
        """Return how badly the words from `begin` to `end` read as one cue."""
        full = self._layout.max_line_width * self._layout.max_line_count
        letters = sum(self._widths[begin:end])
        # Each cue costs something, so there are few; uneven ones cost more.
        cost = 1.0 + (1 - min(letters / full, 1.0)) ** 2
        too_long_s = self._words[end - 1].end - self._words[begin].start - LONGEST_S
        if end - begin > 1 and too_long_s > 0:
            cost += 4 + too_long_s
        return cost + self._cue_breaks[end]

    def _cue(self, cuts: Cuts) -> Cue:
        """Return words as a cue, its lines cut there."""
        lines = (
            "".join(word.text for word in self._words[begin:end]).strip()
            for begin, end in pairwise(cuts)
        )
        # "-->" stands in a cue's timing line only.
        shown = tuple(line.replace("-->", "->") for line in lines)
        return Cue(self._words[cuts[0]].start, self._words[cuts[-1] - 1].end, shown)


def apart(found: Sequence[Cue], duration: float) -> list[Cue]:
    """Return the cues without overlaps and short gaps, long enough to be seen where they can be.

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
