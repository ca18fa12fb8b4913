"""Subtitles: lines that fit, cues that neither overlap nor flicker, cut at words."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from app.engine.results import Segment, Transcript, Word
from app.formats import FORMATS
from app.formats.subtitles import GAP_S, LONGEST_S, Cue, Layout, cues, width
from tests.support.client import Client, assert_error
from tests.support.recordings import long_recording, recording, wav

LONG = (
    " It was a bright cold day in April, and the clocks were striking thirteen. Winston Smith, "
    "his chin nuzzled into his breast in an effort to escape the vile wind, slipped quickly "
    "through the glass doors of Victory Mansions."
)


def segment(start: float, end: float, text: str, timed: bool = False) -> Segment:
    """A segment, its words with even times where they are to have some."""
    pieces = [" " + word for word in text.split()]
    step = (end - start) / max(1, len(pieces))
    words = tuple(
        Word(piece, start + n * step, start + (n + 0.9) * step, 0.9)
        for n, piece in enumerate(pieces)
    )
    return Segment(0, 0, start, end, text, (1,), 0.0, -0.2, 1.0, 0.0, words if timed else None)


def laid_out(*segments: Segment, duration: float = 600.0, **layout: int) -> list[Cue]:
    return cues(Transcript("transcribe", "en", 0.9, duration, segments), Layout(**layout))


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize(("columns", "count"), [(42, 2), (32, 1), (20, 3), (1000, 1), (10, 2)])
def test_lines_fit_and_no_word_is_broken_or_lost(timed, columns, count):
    found = laid_out(segment(0, 16, LONG, timed), max_line_width=columns, max_line_count=count)

    for cue in found:
        assert 1 <= len(cue.lines) <= count
        assert all(width(line) <= columns for line in cue.lines)
    assert [word for cue in found for line in cue.lines for word in line.split()] == LONG.split()


def test_lines_of_a_cue_are_about_as_long_as_each_other():
    (cue,) = laid_out(segment(0, 4, " Unless to be rather cold-hearted and rather selfish is bad."))

    assert [len(line) for line in cue.lines] == [32, 26]


def test_cues_end_where_a_sentence_does():
    first, *_ = laid_out(segment(0, 16, LONG, timed=True))

    assert first.lines[-1].endswith("thirteen.")


def test_timed_words_give_their_cues_their_times():
    one = segment(10, 26, LONG, timed=True)
    starts = {word.start for word in one.words or ()}

    found = laid_out(one)

    assert len(found) > 2
    assert {cue.start for cue in found} <= starts
    assert all(cue.end - cue.start <= LONGEST_S for cue in found)


def test_overlaps_and_small_gaps_are_gone():
    found = laid_out(
        segment(0, 3, " One."), segment(2.5, 5, " Two."), segment(5.2, 8, " Three."),
        segment(9.5, 9.6, " Four."), segment(20, 20, " Five."),
    )  # fmt: skip

    assert [(cue.start, pytest.approx(cue.end)) for cue in found] == [
        (0, 2.42), (2.5, 5.12), (5.2, 8), (9.5, 9.5 + 5 / 6), (20, 20 + 5 / 6),
    ]  # fmt: skip


def test_cues_never_overlap_whatever_the_times():
    dice = random.Random(1)
    for _ in range(200):
        at, segments = 0.0, []
        for _ in range(dice.randint(1, 12)):
            at += dice.choice([0, 0, 0.01, 0.5, 3])
            length = dice.choice([0, 0.02, 1, 9])
            text = " ".join(dice.choice(["a", "word", "words,", "end."]) for _ in range(9))
            segments.append(segment(at, at + length, text, dice.random() < 0.5))
        found = laid_out(*segments)
        for cue in found:
            assert cue.end - cue.start >= GAP_S - 1e-9
        for earlier, later in pairwise(found):
            assert earlier.end <= later.start + 1e-9


def test_last_cue_ends_with_the_audio():
    (cue,) = laid_out(segment(4.9, 5.0, " End."), duration=5.2)

    assert cue.end == 5.2


def test_text_without_spaces_is_cut_at_characters_and_not_before_a_mark():
    text = "これは長い文章です、" * 8
    found = laid_out(segment(0, 20, text))

    lines = [line for cue in found for line in cue.lines]
    assert "".join(lines) == text
    assert all(width(line) <= 42 for line in lines)
    assert not any(line.startswith("、") for line in lines)


def test_arrow_in_a_text_is_no_timing_line():
    answer = FORMATS["vtt"].write(
        Transcript("transcribe", "en", 0.9, 9, (segment(0, 3, " a --> b & <i>"),))
    )

    assert answer == "WEBVTT\n\n00:00:00.000 --> 00:00:03.000\na -> b &amp; &lt;i>\n\n"


class TestOverTheApi:
    @pytest.mark.parametrize("response_format", ["srt", "vtt"])
    def test_lines_are_as_wide_as_asked_for(self, client: Client, response_format: str):
        fields = {
            "response_format": response_format, "max_line_width": "30", "max_line_count": "1",
            "timestamp_granularities[]": "word",
        }  # fmt: skip
        answer = client.post(recording("austen_0890.wav").path.read_bytes(), fields)

        blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
        lines = [line for block in blocks if "-->" in "".join(block) for line in block[-1:]]
        assert lines == [
            "Unless to be rather", "cold-hearted and rather", "selfish is to be ill-disposed.",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_line_width", "5"), ("max_line_width", "40.5"), ("max_line_count", "none")],
    )
    def test_wrong_layout_is_named(self, client: Client, name: str, value: str):
        content = recording("silence_3s.wav").path.read_bytes()

        assert_error(client.post(content, {name: value}), 400, name)

    def test_long_recording_has_cues_in_order(self, client: Client):
        content = wav(long_recording(40).samples)
        answer = client.post(content, {"response_format": "srt"})

        numbers = [block.split("\n")[0] for block in answer.text.strip().split("\n\n")]
        assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
