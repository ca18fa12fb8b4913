"""Cut a transcript's words into subtitle cues that can be read while they are heard.

A cue holds a few lines of limited width. Lines and cues end where a text may be broken, ideally
with a sentence. If words have times, cues begin and end with their words; otherwise a segment's
time is divided among its letters.

Source of the numbers: Netflix, Timed Text Style Guide: General Requirements (line length, two
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

LONGEST_S = 7.0  # of a cue with more than one word
SHORTEST_S = 5 / 6
GAP_S = 0.08  # two video frames; without it two cues look like one that changes
CHAINED_S = 0.5  # a shorter gap flickers, so the earlier cue is extended over it
PAUSE_S = 0.35  # between words; a good place to cut

LINE_COST = 0.1  # a cue costs 1; keeps lines few and even, but bad breaks cost more
CONTEXT = 3  # words on each side that determine the cost of a break

Cuts = tuple[int, ...]  # indices of the first word of each line, then of the word after the cue


@dataclass(frozen=True, slots=True)
class Layout:
    """Size limits of a cue: characters of a line (wide ones count twice), and lines."""

    max_line_width: int = 42
    max_line_count: int = 2


BROADCAST = Layout()


@dataclass(frozen=True, slots=True)
class Cue:
    """Lines shown from `start` to `end`, in seconds of the audio."""

    start: float
    end: float
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Unbreakable piece of a line: a word with its leading space, and its times."""

    text: str
    start: float
    end: float


def cues(transcript: Transcript, layout: Layout) -> list[Cue]:
    """Return the transcript's cues in order, without overlaps and without empty cues."""
    stretches = [words for segment in transcript.segments if (words := pieces(segment, layout))]
    for earlier, later in pairwise(stretches):
        # A segment may end with "Mr." and the next one begin with the name.
        while earlier and is_carried_over(earlier, later):
            later.insert(0, earlier.pop())
    return apart(
        [cue for words in stretches for cue in Stretch(words, layout).cues()], transcript.duration
    )


def is_carried_over(earlier: Sequence[Piece], later: Sequence[Piece]) -> bool:
    """Return whether a segment's last word belongs to the first word of the next segment."""
    words = [*earlier[-CONTEXT:], *later[:CONTEXT]]
    at = len(words) - len(later[:CONTEXT])
    # A dash at the beginning of a segment marks another speaker.
    is_new_word = words[at].text.startswith(" ") and words[at].text[1:2].isalnum()
    return is_new_word and not is_pause(words, at) and line_break_cost(words, at) >= TIED


def pieces(segment: Segment, layout: Layout) -> list[Piece]:
    """Return a segment's words; words wider than a line are cut to fit.

    Times may be those of parts of words, "cold" and "-hearted": parts without a space between them
    are one word. Only in scripts without spaces can a line begin with each part.
    """
    if segment.words:
        timed = [(word.word, word.start, word.end) for word in segment.words]
    else:
        timed = [(segment.text.rstrip(), segment.start, segment.end)]
    text = "".join(part for part, _, _ in timed).rstrip()
    parts = set(accumulate((len(part) for part, _, _ in timed), initial=0))
    starts: list[float] = []  # of each letter, like `ends`
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
    """Return whether the speaker pauses before the word."""
    return words[at].start - words[at - 1].end >= PAUSE_S


def line_break_cost(words: Sequence[Piece], at: int) -> float:
    """Return the cost of a line break before the word."""
    before = "".join(word.text for word in words[max(0, at - CONTEXT) : at])
    after = "".join(word.text for word in words[at : at + CONTEXT])
    return break_cost(before, after, is_pause(words, at))


def cue_break_cost(words: Sequence[Piece], at: int) -> float:
    """Return the cost of a cue that ends before the word."""
    before, after = words[at - 1].text, words[at].text
    cost = line_break_cost(words, at)
    if cost >= IN_NAME:  # the full stop in "Dr. Smith" ends no sentence
        return cost + 0.5
    if ends_sentence(before, after):
        return cost - 0.6
    if is_pause(words, at):
        return cost - 0.3
    return cost if ends_phrase(before) else cost + 0.5


class Stretch:
    """Consecutive words, cut into cues at the least total cost.

    Cheap cues are even, end with a sentence, a phrase or a pause, and have few and even lines.
    """

    def __init__(self, words: Sequence[Piece], layout: Layout) -> None:
        self._words = words
        self._layout = layout
        self._widths = [width(word.text) for word in words]
        breaks = range(1, len(words))
        self._line_breaks = [0.0, *(line_break_cost(words, at) for at in breaks), 0.0]
        self._cue_breaks = [0.0, *(cue_break_cost(words, at) for at in breaks), 0.0]

    def cues(self) -> Iterator[Cue]:
        """Yield the cues in order."""
        # For each word: the least cost of the cues before it, and the cuts of the last cue.
        best: list[tuple[float, Cuts]] = [(0.0, ())]
        for end in range(1, len(self._words) + 1):
            totals = [
                (best[cuts[0]][0] + self._cue_cost(cuts[0], end) + cost, cuts)
                for cost, cuts in self._layouts(end)
            ]
            best.append(min(totals))
        choices = []
        end = len(self._words)
        while end:
            choices.append(best[end][1])
            end = choices[-1][0]
        yield from map(self._cue, reversed(choices))

    def _layouts(self, end: int) -> Iterator[tuple[float, Cuts]]:
        """Yield the cost and the cuts of the best layouts of the words before `end`.

        One layout for each number of lines and each possible first word.
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
        """Yield the possible first words of a line that ends before `end`, with the line's cost."""
        cost = 0.0 if is_last else self._line_breaks[end]
        columns = 0
        for begin in range(end - 1, -1, -1):
            columns += self._widths[begin]
            line = columns - self._words[begin].text.startswith(" ")
            if line > self._layout.max_line_width and begin < end - 1:
                return
            # For a given number of lines, the least sum of squares is the most even.
            yield begin, cost + LINE_COST * (1 + (line / self._layout.max_line_width) ** 2)

    def _cue_cost(self, begin: int, end: int) -> float:
        """Return the cost of the words from `begin` to `end` as one cue."""
        full = self._layout.max_line_width * self._layout.max_line_count
        letters = sum(self._widths[begin:end])
        # A base cost keeps cues few; uneven cues cost more.
        cost = 1.0 + (1 - min(letters / full, 1.0)) ** 2
        too_long_s = self._words[end - 1].end - self._words[begin].start - LONGEST_S
        if end - begin > 1 and too_long_s > 0:
            cost += 4 + too_long_s
        return cost + self._cue_breaks[end]

    def _cue(self, cuts: Cuts) -> Cue:
        """Return the words as a cue with its lines cut at `cuts`."""
        lines = (
            "".join(word.text for word in self._words[begin:end]).strip()
            for begin, end in pairwise(cuts)
        )
        # "-->" is allowed only in a cue's timing line.
        escaped_lines = tuple(line.replace("-->", "->") for line in lines)
        return Cue(self._words[cuts[0]].start, self._words[cuts[-1] - 1].end, escaped_lines)


def apart(found: Sequence[Cue], duration: float) -> list[Cue]:
    """Return the cues without overlaps or short gaps, each shown long enough if there is room.

    A cue never ends after the next begins; if two begin together, the later one is delayed.
    """
    results: list[Cue] = []
    for number, cue in enumerate(found):
        start = max(cue.start, results[-1].end) if results else cue.start
        last = number + 1 == len(found)
        following = max(duration, start) if last else max(found[number + 1].start, start)
        end = max(cue.end, start + SHORTEST_S)
        latest = following if last else following - GAP_S
        if end > latest or (not last and following - end < CHAINED_S and following > cue.end):
            end = latest
        # Without any room, take time from the next cue.
        end = max(end, start + GAP_S)
        results.append(replace(cue, start=start, end=end))
    return results
