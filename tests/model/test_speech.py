"""How a recording is cut, and that its parts put together are the whole."""

from __future__ import annotations

import re
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from app.engine.cancellation import Cancellation
from app.engine.hallucination_filter import NO_REPEATED_GROUP
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions, SpeechOptions
from app.engine.speech import (
    PART_S,
    PIECE_S,
    SAMPLE_RATE,
    Part,
    Span,
    cut_at_pauses,
    everything,
    find_speech,
    parts,
    pieces,
)
from app.engine.transcription import (
    Transcription,
    choose_language,
    drop_trailing_padding,
    uncovered_spans,
)
from app.errors import ClientDisconnected
from tests.support.recordings import LongRecording, long_recording, recording

SECOND = SAMPLE_RATE


def spans(*seconds: tuple[float, float]) -> list[Span]:
    return [Span(start=int(a * SECOND), end=int(b * SECOND)) for a, b in seconds]


def in_seconds(cut: list) -> list[list[tuple[float, float]]]:
    return [[(s["start"] / SECOND, s["end"] / SECOND) for s in group] for group, _ in cut]


class TestCutAtPauses:
    def test_at_the_longest_pause_that_leaves_it_half_full(self):
        said = spans((0, 5), (9, 14), (14, 20), (23, 28), (29, 34), (35, 40))

        cut = list(cut_at_pauses(said, 30 * SECOND))

        # 5 + 5 s are not half of 30; behind 16 s the pause of 3 s is the longest.
        assert [len(group) for group, _ in cut] == [3, 3]
        assert [offset / SECOND for _, offset in cut] == [0, 16]

    def test_the_fullest_of_equal_pauses(self):
        said = spans(*((10 * n, 10 * n + 9) for n in range(7)))

        cut = list(cut_at_pauses(said, 30 * SECOND))

        assert [len(group) for group, _ in cut] == [3, 3, 1]

    def test_one_span_that_is_too_long_is_its_own(self):
        cut = list(cut_at_pauses(spans((0, 40), (41, 42)), 30 * SECOND))

        assert in_seconds(cut) == [[(0, 40)], [(41, 42)]]

    def test_nothing_lost_and_nothing_twice(self):
        dice = np.random.default_rng(1)
        edges = np.cumsum(dice.integers(1, 10 * SECOND, 400))
        said = [Span(start=int(a), end=int(b)) for a, b in edges.reshape(-1, 2)]

        cut = list(cut_at_pauses(said, 30 * SECOND))

        assert [span for group, _ in cut for span in group] == said
        lengths = [sum(span["end"] - span["start"] for span in group) for group, _ in cut]
        assert max(lengths) <= 30 * SECOND
        assert [offset for _, offset in cut] == [sum(lengths[:n]) for n in range(len(lengths))]


class TestEverything:
    """Where silence is left in, the spans cover the recording."""

    def test_spans_meet_in_the_middle_of_the_pauses(self):
        found = everything(25 * SECOND, spans((1, 10), (12, 20)))

        assert found == spans((0, 11), (11, 25))

    def test_long_stretches_are_cut(self):
        assert everything(70 * SECOND, []) == spans((0, 24), (24, 48), (48, 70))

    def test_a_full_part_leaves_no_empty_span(self):
        assert everything(48 * SECOND, []) == spans((0, 24), (24, 48))


class TestPieces:
    def test_cut_in_the_quietest_moment(self):
        loud = np.ones(int(PIECE_S * 1.5 * SECOND), np.float32)
        quiet = int((PIECE_S - 12) * SECOND)
        loud[quiet : quiet + SECOND] = 0

        (begin, cut), (again, end) = pieces(loud)

        assert (begin, again, end) == (0, cut, loud.size)
        assert quiet < cut < quiet + SECOND

    def test_no_cut_where_none_is_needed(self):
        assert list(pieces(np.ones(PIECE_S * SECOND, np.float32))) == [(0, PIECE_S * SECOND)]
        assert list(pieces(np.ones(0, np.float32))) == [(0, 0)]

    def test_speech_is_found_in_every_piece_at_its_place(self):
        sentence = recording("austen_0890.wav").waveform()
        hours = np.zeros(25 * 60 * SECOND, np.float32)
        places = [30, 598, 900, 1190, 1480]
        for place in places:
            hours[place * SECOND : place * SECOND + sentence.size] = sentence

        found = find_speech(hours, SpeechOptions(), 15)

        for place in places:
            inside = [s for s in found if place - 0.5 < s["start"] / SECOND < place + 6]
            said = sum(s["end"] - s["start"] for s in inside) / SECOND
            assert said > 4.5, place
        assert all(a["end"] <= b["start"] for a, b in pairwise(found))

    def test_memory_does_not_grow_with_the_recording(self):
        def peak(minutes: int) -> int:
            noise = np.zeros(minutes * 60 * SECOND, np.float32)
            tracemalloc.start()
            find_speech(noise, SpeechOptions(), 15)
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            return most

        assert peak(40) < peak(20) * 1.2


class TestParts:
    def test_a_window_stays_whole(self):
        waveform = recording("austen_0890.wav").waveform()

        assert len(parts(waveform, SpeechOptions(), chunked=True)) == 1
        (part,) = parts(waveform, SpeechOptions(enabled=False), chunked=False)
        assert part.whole
        assert part.seconds == waveform.size / SECOND

    @pytest.mark.parametrize("enabled", [True, False])
    def test_no_part_is_longer_than_it_may_be(self, enabled):
        waveform = long_recording(100).samples
        options = SpeechOptions(enabled=enabled, max_speech_duration_s=60)

        cut = parts(waveform, options, chunked=True)

        assert len(cut) > 2
        assert max(part.samples(waveform).size for part in cut) <= PART_S * SECOND
        assert enabled or sum(part.samples(waveform).size for part in cut) == waveform.size

    @pytest.mark.parametrize("enabled", [True, False])
    def test_nothing_in_nothing(self, enabled):
        assert parts(np.zeros(0, np.float32), SpeechOptions(enabled=enabled), chunked=True) == []

    def test_silence_has_none(self):
        silence = np.zeros(40 * SECOND, np.float32)

        assert parts(silence, SpeechOptions(), chunked=True) == []


@pytest.fixture(scope="module")
def long() -> LongRecording:
    """Known sentences with their places, of three parts."""
    return long_recording(70)


class TestHalves:
    def test_at_the_pause_nearest_the_middle(self):
        part = Part(spans((0, 3), (4, 9), (10, 14), (15, 16)), offset=SECOND)

        assert part.halves() == (
            Part(spans((0, 3), (4, 9)), offset=SECOND),
            Part(spans((10, 14), (15, 16)), offset=9 * SECOND),
        )

    def test_what_is_short_or_of_one_piece_has_none(self):
        assert Part(spans((0, 20))).halves() is None
        assert Part(spans((0, 3), (4, 7))).halves() is None


class TestBetween:
    def test_across_its_spans(self):
        part = Part(spans((0, 5), (10, 15), (20, 25)), offset=3 * SECOND)

        assert part.between(4, 11) == Part(spans((4, 5), (10, 15), (20, 21)), offset=7 * SECOND)

    def test_up_to_its_edges(self):
        part = Part(spans((1, 5), (10, 15)))

        assert part.between(0, part.seconds) == part
        assert part.between(4, 9) == Part(spans((10, 15)), offset=4 * SECOND)


@dataclass
class Said:
    """What `drop_trailing_padding` and `uncovered_spans` look at in a segment."""

    start: float
    end: float
    seek: int = 0


def looping(segments: Iterator[Any]) -> Iterator[Any]:
    return (replace(one, text=" so" * 99, compression_ratio=20.0) for one in segments)


def repetitive(segments: Iterator[Any]) -> Iterator[Any]:
    return (replace(one, text=" so so so so", compression_ratio=2.6) for one in segments)


def omitting(segments: Iterator[Any]) -> Iterator[Any]:
    """Yield the first words, as if they lasted to the end."""
    first, *others = segments
    end = max([first.end, *(one.end for one in others)])
    yield replace(first, text=" so so", tokens=first.tokens[:3], end=end)


def silent(segments: Iterator[Any]) -> Iterator[Any]:
    return (one for one in segments if False)


class TestWhatTheModelPassedOver:
    def test_stretches_that_no_segment_covers(self):
        said = [Said(3.0, 8.0), Said(7.5, 9.0), Said(10.5, 20.0)]

        assert list(uncovered_spans(said, 30.0)) == [(0.0, 3.0), (20.0, 30.0)]
        assert list(uncovered_spans([], 1.9)) == []
        assert list(uncovered_spans([], 5.0)) == [(0.0, 5.0)]

    def test_a_window_of_padding_alone_is_not_drawn(self):
        said = [Said(0, 28.0), Said(28.0, 28.2, seek=2800)]

        assert list(drop_trailing_padding(said, 28.2)) == said[:1]
        assert list(drop_trailing_padding(said, 29.0)) == said

    def test_it_is_decoded_by_itself(self, tiny_config, long):
        """A model that answers only for what comes after its first ten seconds."""
        model = Model(tiny_config)
        real = Transcription._begin
        first = []

        def forgetful(transcription, part, *options, **further):
            begun = real(transcription, part, *options, **further)
            if part.seconds > 14 and not first:
                first.append(part)
                segments = (one for one in begun.segments if one.start > 10)
                return replace(begun, segments=segments)
            return begun

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transcription, "_begin", forgetful)
            transcript = model.decode(Job(long.samples, DecodeOptions())).result()

        assert first
        assert transcript.text.lower().count("selfish") == sum(
            "selfish" in text for _, _, text in long.spans
        )

    @pytest.mark.parametrize(
        ("failing", "kept_from_looping"),
        [(looping, True), (repetitive, False), (omitting, False), (silent, False)],
        ids=lambda value: getattr(value, "__name__", ""),
    )
    def test_a_part_that_fails_is_decoded_again_in_halves(
        self, tiny_config, long, failing, kept_from_looping
    ):
        """A model that fails in the same way in every part of some length."""
        model = Model(tiny_config)
        real = Transcription._begin
        halves = []

        def begin(transcription, part, *options, **further):
            begun = real(transcription, part, *options, **further)
            if part.seconds > 12:
                return replace(begun, segments=failing(begun.segments))
            halves.append(further.get("no_repeat_ngram_size"))
            return begun

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transcription, "_begin", begin)
            transcript = model.decode(Job(long.samples, DecodeOptions())).result()

        assert transcript.text.lower().count("selfish") == sum(
            "selfish" in text for _, _, text in long.spans
        )
        assert " so so" not in transcript.text
        assert (NO_REPEATED_GROUP in halves) is kept_from_looping

    def test_without_detection_a_part_may_hold_no_speech(self, tiny_config, long):
        options = DecodeOptions(speech=SpeechOptions(enabled=False))
        real = Transcription._begin
        begun = []

        def begin(transcription, part, *options, **further):
            begun.append(part)
            return replace(real(transcription, part, *options, **further), segments=iter(()))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transcription, "_begin", begin)
            transcript = Model(tiny_config).decode(Job(long.samples, options)).result()

        assert transcript.text == ""
        assert begun == parts(long.samples, options.speech, True)
        assert any(part.halves() for part in begun)


@pytest.mark.parametrize(
    ("probabilities", "language"),
    [
        ({"en": 0.1, "fr": 0.85, "de": 0.05}, "fr"),
        ({"en": 0.1, "fr": 0.6, "de": 0.3}, "en"),
        ({"es": 0.3, "fr": 0.4, "de": 0.3}, "en"),
        ({"fr": 0.01}, "fr"),
    ],
    ids=["sure", "doubtful", "a third one", "the only candidate"],
)
def test_a_doubtful_part_keeps_the_language_before_it(probabilities, language):
    previous: Future[str] = Future()
    previous.set_result("en")

    assert choose_language(probabilities, previous) == language


class TestLongRecordings:
    """Parts decoded side by side and put together again."""

    @pytest.mark.parametrize("enabled", [True, False])
    def test_every_sentence_once_and_in_its_place(self, tiny_engine, long, enabled):
        options = DecodeOptions(word_timestamps=True, speech=SpeechOptions(enabled=enabled))

        transcript = tiny_engine.decode(Job(long.samples, options)).result()

        words = [word for segment in transcript.segments for word in segment.words]
        heard = [(re.sub(r"\W", "", word.word.lower()), word.start) for word in words]
        for spoken, place in (("selfish", 0), ("dashwood", 1), ("forward", 2)):
            found = [start for word, start in heard if word == spoken]
            expected = [span for n, span in enumerate(long.spans) if n % 3 == place]
            assert len(found) == len(expected), spoken
            for start, (begin, end, _) in zip(found, expected, strict=True):
                assert begin - 1 < start < end
        starts = [word.start for word in words]
        assert starts == sorted(starts)

    def test_numbers_go_on_from_part_to_part(self, tiny_engine, long):
        transcript = tiny_engine.decode(Job(long.samples, DecodeOptions())).result()

        assert [segment.id for segment in transcript.segments] == list(
            range(len(transcript.segments))
        )
        seeks = [segment.seek for segment in transcript.segments]
        assert seeks == sorted(seeks)
        assert len(set(seeks)) >= 3

    def test_the_same_answer_every_time(self, tiny_engine, long):
        first, second = (
            tiny_engine.decode(Job(long.samples, DecodeOptions())).result() for _ in "12"
        )

        assert first == second

    def test_a_detected_language_gives_the_words_of_a_known_one(self, base_engine, long):
        detected = base_engine.decode(Job(long.samples, DecodeOptions())).result()
        known = base_engine.decode(Job(long.samples, DecodeOptions(language="en"))).result()

        assert detected.language == "en"
        assert detected.segments == known.segments

    def test_each_part_is_decoded_in_its_own_language(self, base_engine):
        english, chinese = (
            recording(name).waveform() for name in ("austen_0870.ogg", "synthetic_zh.ogg")
        )
        waveform = np.concatenate([english] * 3 + [chinese] * 14)

        found = base_engine.decode(Job(waveform, DecodeOptions())).result()

        assert found.language == "en"
        assert "dashwood" in found.text.lower()
        assert found.segments[0].language is None
        assert found.segments[-1].language == "zh"

    def test_a_client_that_leaves_ends_all_parts(self, tiny_engine, long):
        cancellation = Cancellation()
        threading.Timer(0.5, cancellation.cancel).start()

        with pytest.raises(ClientDisconnected):
            tiny_engine.decode(
                Job(long.samples, DecodeOptions(), cancellation=cancellation)
            ).result()

        left = [one for one in threading.enumerate() if one.name.startswith("part")]
        assert left == []

    def test_a_part_that_fails_fails_the_request(self, tiny_config, long):
        model = Model(tiny_config)
        calls = []
        device = model.device_threads
        real = device._calls

        def breaks(batch):
            calls.append(batch)
            if len(calls) == 4:
                raise RuntimeError("broken")
            return real[batch[0].kind](batch)

        device._calls = dict.fromkeys(real, breaks)

        with pytest.raises(RuntimeError, match="broken"):
            model.decode(Job(long.samples, DecodeOptions())).result()

        left = [one for one in threading.enumerate() if one.name.startswith("part")]
        assert left == []

    def test_sequential_is_still_there(self, tiny_config, long):
        model = Model(replace(tiny_config, long_audio="sequential"))

        transcript = model.decode(Job(long.samples, DecodeOptions())).result()

        assert len(transcript.text) > 500
