"""Formats: a transcript written in each form, by the letter."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.engine.results import Segment, Transcript, Word
from app.formats import FORMATS, clock, done_event


def segment(start: float, end: float, text: str, words: tuple[Word, ...] | None = None) -> Segment:
    return Segment(0, 0, start, end, text, (1, 2), 0.0, -0.25, 1.5, 0.01, words)


def transcript(*segments: Segment) -> Transcript:
    return Transcript(
        "transcribe", "en", 0.9, 62.4, segments, any(one.words is not None for one in segments)
    )


WORDS = (Word(" Hello", 0.1, 0.5, 0.9), Word(" world.", 0.5, 1.0, 0.8))
HELLO = transcript(
    segment(0.0, 1.0, " Hello world.", WORDS), segment(61.0, 62.25, " A --> B <i> & C.\n", ())
)
SILENCE = Transcript("transcribe", "en", 1.0, 3.0)


def test_srt_numbers_its_cues():
    assert FORMATS["srt"].write(HELLO) == (
        "1\n00:00:00,100 --> 00:00:01,000\nHello world.\n\n"
        "2\n00:01:01,000 --> 00:01:02,250\nA -> B <i> & C.\n\n"
    )


def test_vtt_escapes_markup():
    assert FORMATS["vtt"].write(HELLO) == (
        "WEBVTT\n\n00:00:00.100 --> 00:00:01.000\nHello world.\n\n"
        "00:01:01.000 --> 00:01:02.250\nA -&gt; B &lt;i&gt; &amp; C.\n\n".replace("&gt;", ">")
    )


def test_silence_has_a_body_in_every_format():
    assert {name: form.write(SILENCE) for name, form in FORMATS.items() if "json" not in name} == {
        "text": "\n",
        "srt": "",
        "vtt": "WEBVTT\n\n",
    }
    assert json.loads(FORMATS["json"].write(SILENCE))["text"] == ""
    assert json.loads(FORMATS["verbose_json"].write(SILENCE))["segments"] == []


def test_json_has_the_language_as_a_list():
    """And none where none was detected, as OpenAI says of its own."""
    silent = replace(SILENCE, language_probability=0.0)

    assert json.loads(FORMATS["json"].write(HELLO)) == {
        "text": "Hello world. A --> B <i> & C.",
        "languages": [{"code": "en"}],
        "usage": {"type": "duration", "seconds": 63},
    }
    assert json.loads(FORMATS["json"].write(silent))["languages"] == []


@pytest.mark.parametrize("in_full", [True, False])
def test_last_event_has_the_language_as_a_list(in_full):
    _, _, data = done_event(HELLO, in_full).partition(b"data: ")

    assert json.loads(data)["languages"] == [{"code": "en"}]


def test_verbose_json_has_every_field():
    body = json.loads(FORMATS["verbose_json"].write(HELLO))

    assert list(body) == [
        "task", "language", "language_probability", "duration", "text", "segments", "words",
        "usage",
    ]  # fmt: skip
    assert set(body["segments"][0]) == {
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob",
        "compression_ratio", "no_speech_prob", "audio_start", "audio_end", "words",
    }  # fmt: skip
    assert body["usage"] == {"type": "duration", "seconds": 63}


def test_words_keep_their_space_in_segments_and_lose_it_in_the_list():
    """Clients concatenate a segment's words; OpenAI's own list has bare ones."""
    body = json.loads(FORMATS["verbose_json"].write(HELLO))

    assert [word["word"] for word in body["segments"][0]["words"]] == [" Hello", " world."]
    assert [word["word"] for word in body["words"]] == ["Hello", "world."]


def test_words_are_absent_unless_asked_for():
    body = json.loads(FORMATS["verbose_json"].write(transcript(segment(0, 1, " Hi."))))

    assert "words" not in body
    assert "words" not in body["segments"][0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00:00.000"),
        (59.9996, "00:01:00.000"),
        (3661.5, "01:01:01.500"),
        (360_000, "100:00:00.000"),
    ],
)
def test_clock_rounds_to_milliseconds(seconds, text):
    assert clock(seconds, ".") == text
