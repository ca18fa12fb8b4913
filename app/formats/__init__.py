"""Write a transcript in each response format, and its events: pure functions, one table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import ceil
from typing import Any, Protocol

from app.engine.results import Segment, TokenScore, Transcript, Word
from app.formats.subtitles import BROADCAST, Cue, Layout, cues

EVENT_STREAM = "text/event-stream; charset=utf-8"
POSITIONS_PER_S = 50  # of audio, at the output of Whisper's encoder


class Writer(Protocol):
    """Function that writes a transcript; only subtitles use the layout."""

    def __call__(self, transcript: Transcript, layout: Layout = ..., /) -> str: ...


@dataclass(frozen=True, slots=True)
class Format:
    """Response format: its writer and its content type."""

    write: Writer
    content_type: str


def as_json(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """Write `json`: the text, its language, token scores if requested, and the usage."""
    body: dict[str, Any] = {"text": transcript.text, "languages": languages(transcript)}
    if transcript.with_scores:
        body["logprobs"] = logprobs(transcript.segments)
    return dump(body | {"usage": usage(transcript)})


def as_verbose_json(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """Write `verbose_json`: the model's whole output with its scores."""
    return dump(verbose(transcript))


def verbose(transcript: Transcript) -> dict[str, Any]:
    """Return the `verbose_json` object."""
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
    return body


def as_text(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """Write `text`: the words and a newline."""
    return transcript.text + "\n"


def as_srt(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """Write `srt`: SubRip."""
    return "".join(
        f"{number}\n{cue_block(cue, ',')}"
        for number, cue in enumerate(cues(transcript, layout), start=1)
    )


def as_vtt(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """Write `vtt`: WebVTT, with its header even if there are no cues.

    Source: W3C, WebVTT: The Web Video Text Tracks Format, section 4.
    """
    blocks = (escape_vtt(cue_block(cue, ".")) for cue in cues(transcript, layout))
    return "WEBVTT\n\n" + "".join(blocks)


FORMATS = {
    "json": Format(as_json, "application/json"),
    "verbose_json": Format(as_verbose_json, "application/json"),
    "text": Format(as_text, "text/plain; charset=utf-8"),
    "srt": Format(as_srt, "text/plain; charset=utf-8"),
    "vtt": Format(as_vtt, "text/vtt; charset=utf-8"),
}


def segment_object(segment: Segment) -> dict[str, Any]:
    """Return a segment as clients read it; meeting bots read `audio_start` and `audio_end`."""
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
    if segment.language is not None:
        body["language"] = segment.language
    if segment.words is not None:
        body["words"] = [word_object(word, word.word) for word in segment.words]
    return body


def word_object(word: Word, text: str) -> dict[str, Any]:
    """Return a word; in a segment its text keeps the leading space, since clients concatenate."""
    return {"word": text, "start": word.start, "end": word.end, "probability": word.probability}


def languages(transcript: Transcript) -> list[dict[str, str]]:
    """Return the languages as OpenAI's `gpt-transcribe` does; empty if none was detected."""
    if not transcript.language_probability:
        return []
    others = (segment.language for segment in transcript.segments if segment.language)
    return [{"code": code} for code in dict.fromkeys((transcript.language, *others))]


def usage(transcript: Transcript) -> dict[str, Any]:
    """Return what OpenAI bills for such a model: seconds of audio, rounded up."""
    return {"type": "duration", "seconds": ceil(transcript.duration)}


def clock(seconds: float, mark: str) -> str:
    """Return HH:MM:SS, the mark (`,` in SubRip, `.` in WebVTT) and milliseconds."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def cue_block(cue: Cue, mark: str) -> str:
    """Return a cue's times and lines, and the empty line that ends it."""
    times = f"{clock(cue.start, mark)} --> {clock(cue.end, mark)}"
    return "\n".join((times, *cue.lines)) + "\n\n"


def escape_vtt(text: str) -> str:
    """Escape `&` and `<`, which WebVTT reads as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


class Deltas:
    """Text deltas of a transcript, one for each segment, that concatenate to the whole text.

    The whole text is stripped, so a space is held back until more words follow.
    """

    def __init__(self) -> None:
        self._held = ""
        self._begun = False

    def after(self, segment: Segment) -> str:
        """Return what a segment adds; empty if it has no words."""
        text = self._held + segment.text
        kept = text.rstrip()
        self._held = text[len(kept) :] if self._begun or kept else ""
        if not self._begun:
            kept = kept.lstrip()
        self._begun = self._begun or bool(kept)
        return kept


def delta_event(delta: str, segment: Segment, in_full: bool) -> bytes:
    """Return the event for a segment's text; `in_full` adds the segment itself."""
    body: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
    if segment.token_scores is not None:
        body["logprobs"] = logprobs([segment])
    if in_full:
        body["segment"] = segment_object(segment)
    return event(body)


def done_event(transcript: Transcript, in_full: bool) -> bytes:
    """Return the event for the whole text and usage; `in_full` adds all of `verbose_json`."""
    body: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
    body["languages"] = languages(transcript)
    if in_full:
        body |= verbose(transcript)
    if transcript.with_scores:
        body["logprobs"] = logprobs(transcript.segments)
    body["usage"] = token_usage(transcript)
    return event(body)


def error_event(body: dict[str, Any]) -> bytes:
    """Return the event that ends a failed stream; its body is that of an error response."""
    return b"event: error\n" + event({"type": "error"} | body)


def event(body: dict[str, Any]) -> bytes:
    """Return one server-sent event.

    Source: WHATWG, HTML Living Standard, section 9.2.6.
    """
    return f"data: {dump(body)}\n\n".encode()


def logprobs(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """Return the tokens of the text; a token's bytes may be part of a character."""
    scores: Iterable[TokenScore] = chain.from_iterable(
        segment.token_scores or () for segment in segments
    )
    return [
        {
            "token": score.content.decode("utf-8", "replace"),
            "logprob": score.logprob,
            "bytes": list(score.content),
        }
        for score in scores
    ]


def token_usage(transcript: Transcript) -> dict[str, Any]:
    """Return a stream's usage, which OpenAI counts in tokens.

    Input tokens are the encoder's positions of audio, output tokens those of the text.
    """
    audio = ceil(transcript.duration * POSITIONS_PER_S)
    output = sum(len(segment.tokens) for segment in transcript.segments)
    return {
        "type": "tokens",
        "input_tokens": audio,
        "input_token_details": {"audio_tokens": audio},
        "output_tokens": output,
        "total_tokens": audio + output,
    }


def dump(body: dict[str, Any]) -> str:
    """Return JSON with unescaped Unicode; NaN is an error."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False)
