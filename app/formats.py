"""A transcript in each form a client can ask for: pure functions, one table."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

from app.engine.results import Segment, Transcript, Word


@dataclass(frozen=True, slots=True)
class Format:
    """How a transcript is written and what the answer says it is."""

    write: Callable[[Transcript], str]
    content_type: str


def as_json(transcript: Transcript) -> str:
    """`json`: the text and what it cost."""
    return dump({"text": transcript.text, "usage": usage(transcript)})


def as_verbose_json(transcript: Transcript) -> str:
    """`verbose_json`: everything the model said, with its own scores."""
    body: dict[str, Any] = {
        "task": transcript.task,
        "language": transcript.language,
        "language_probability": transcript.language_probability,
        "duration": transcript.duration,
        "text": transcript.text,
        "segments": [segment_object(segment) for segment in transcript.segments],
    }
    if transcript.with_words:
        body["words"] = [
            word_object(word, word.word.strip())
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    body["usage"] = usage(transcript)
    return dump(body)


def as_text(transcript: Transcript) -> str:
    """`text`: the words and a line end."""
    return transcript.text + "\n"


def as_srt(transcript: Transcript) -> str:
    """`srt`: SubRip, one cue a segment."""
    return "".join(
        f"{number}\n{clock(segment.start, ',')} --> {clock(segment.end, ',')}\n"
        f"{cue_text(segment)}\n\n"
        for number, segment in enumerate(transcript.segments, start=1)
    )


def as_vtt(transcript: Transcript) -> str:
    """`vtt`: WebVTT, one cue a segment; the header stands even over no cues.

    Source: W3C, WebVTT: The Web Video Text Tracks Format, section 4.
    """
    cues = "".join(
        f"{clock(segment.start, '.')} --> {clock(segment.end, '.')}\n"
        f"{escape_vtt(cue_text(segment))}\n\n"
        for segment in transcript.segments
    )
    return "WEBVTT\n\n" + cues


FORMATS = {
    "json": Format(as_json, "application/json"),
    "verbose_json": Format(as_verbose_json, "application/json"),
    "text": Format(as_text, "text/plain; charset=utf-8"),
    "srt": Format(as_srt, "text/plain; charset=utf-8"),
    "vtt": Format(as_vtt, "text/vtt; charset=utf-8"),
}


def segment_object(segment: Segment) -> dict[str, Any]:
    """A segment as clients read it; `audio_start` and `audio_end` are what meeting bots read."""
    body: dict[str, Any] = {
        "id": segment.id,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
        "audio_start": segment.start,
        "audio_end": segment.end,
    }
    if segment.words is not None:
        body["words"] = [word_object(word, word.word) for word in segment.words]
    return body


def word_object(word: Word, text: str) -> dict[str, Any]:
    """A word; in a segment its text keeps the leading space, since clients concatenate."""
    return {"word": text, "start": word.start, "end": word.end, "probability": word.probability}


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI bills for such a model: seconds of audio, begun ones counted."""
    return {"type": "duration", "seconds": ceil(transcript.duration)}


def clock(seconds: float, mark: str) -> str:
    """HH:MM:SS and milliseconds behind the mark (`,` in SubRip, `.` in WebVTT)."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def cue_text(segment: Segment) -> str:
    """A segment's text as one line that cannot be taken for a cue's timing line."""
    return " ".join(segment.text.split()).replace("-->", "->")


def escape_vtt(text: str) -> str:
    """WebVTT reads `&` and `<` as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def dump(body: dict[str, Any]) -> str:
    """JSON in UTF-8, never NaN."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False)
