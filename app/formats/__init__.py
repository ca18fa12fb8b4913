"""A transcript in each form a client can ask for, and its events: pure functions, one table."""

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
POSITIONS_PER_S = 50  # what Whisper's encoder makes of the audio, and its decoder reads


class Writer(Protocol):
    """Writes a transcript; the layout is that of subtitles."""

    def __call__(self, transcript: Transcript, layout: Layout = ..., /) -> str: ...


@dataclass(frozen=True, slots=True)
class Format:
    """How a transcript is written and what the answer says it is."""

    write: Writer
    content_type: str


def as_json(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """`json`: the text, its language, its tokens' scores when asked for, and what it cost."""
    body: dict[str, Any] = {"text": transcript.text, "languages": languages(transcript)}
    if transcript.with_scores:
        body["logprobs"] = logprobs(transcript.segments)
    return dump(body | {"usage": usage(transcript)})


def as_verbose_json(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """`verbose_json`: everything the model said, with its own scores."""
    return dump(verbose(transcript))


def verbose(transcript: Transcript) -> dict[str, Any]:
    """The object of `verbose_json`."""
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
    """`text`: the words and a line end."""
    return transcript.text + "\n"


def as_srt(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """`srt`: SubRip."""
    return "".join(
        f"{number}\n{cue_block(cue, ',')}"
        for number, cue in enumerate(cues(transcript, layout), start=1)
    )


def as_vtt(transcript: Transcript, layout: Layout = BROADCAST) -> str:
    """`vtt`: WebVTT; the header stands even over no cues.

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


def languages(transcript: Transcript) -> list[dict[str, str]]:
    """Return the languages as OpenAI's `gpt-transcribe` does; none where none was detected."""
    return [{"code": transcript.language}] if transcript.language_probability else []


def usage(transcript: Transcript) -> dict[str, Any]:
    """What OpenAI bills for such a model: seconds of audio, begun ones counted."""
    return {"type": "duration", "seconds": ceil(transcript.duration)}


def clock(seconds: float, mark: str) -> str:
    """HH:MM:SS and milliseconds behind the mark (`,` in SubRip, `.` in WebVTT)."""
    milliseconds = round(seconds * 1000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{milliseconds // 1000:02d}{mark}{milliseconds % 1000:03d}"


def cue_block(cue: Cue, mark: str) -> str:
    """A cue's times and lines, and the empty line that ends it."""
    times = f"{clock(cue.start, mark)} --> {clock(cue.end, mark)}"
    return "\n".join((times, *cue.lines)) + "\n\n"


def escape_vtt(text: str) -> str:
    """WebVTT reads `&` and `<` as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


class Deltas:
    """The text of a transcript in pieces, one a segment, that join to the text as a whole.

    The whole has no space at its ends, so none is given out before it is known that words follow.
    """

    def __init__(self) -> None:
        self._held = ""
        self._begun = False

    def after(self, segment: Segment) -> str:
        """What a segment adds; empty when it has no words."""
        text = self._held + segment.text
        kept = text.rstrip()
        self._held = text[len(kept) :] if self._begun or kept else ""
        if not self._begun:
            kept = kept.lstrip()
        self._begun = self._begun or bool(kept)
        return kept


def delta_event(delta: str, segment: Segment, in_full: bool) -> bytes:
    """What a segment adds to the text; in full: and the segment itself."""
    body: dict[str, Any] = {"type": "transcript.text.delta", "delta": delta}
    if segment.token_scores is not None:
        body["logprobs"] = logprobs([segment])
    if in_full:
        body["segment"] = segment_object(segment)
    return event(body)


def done_event(transcript: Transcript, in_full: bool) -> bytes:
    """The whole text and what it cost; in full: all that `verbose_json` has besides."""
    body: dict[str, Any] = {"type": "transcript.text.done", "text": transcript.text}
    body["languages"] = languages(transcript)
    if in_full:
        body |= verbose(transcript)
    if transcript.with_scores:
        body["logprobs"] = logprobs(transcript.segments)
    body["usage"] = token_usage(transcript)
    return event(body)


def error_event(body: dict[str, Any]) -> bytes:
    """What ends a stream that cannot go on: the body that an answer in one piece would have."""
    return b"event: error\n" + event({"type": "error"} | body)


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event.

    Source: WHATWG, HTML Living Standard, section 9.2.6.
    """
    return f"data: {dump(body)}\n\n".encode()


def logprobs(segments: Iterable[Segment]) -> list[dict[str, Any]]:
    """The tokens of the text; the bytes of one may be part of a character."""
    scores: Iterable[TokenScore] = chain.from_iterable(one.token_scores or () for one in segments)
    return [
        {
            "token": score.content.decode("utf-8", "replace"),
            "logprob": score.logprob,
            "bytes": list(score.content),
        }
        for score in scores
    ]


def token_usage(transcript: Transcript) -> dict[str, Any]:
    """A stream's usage, which OpenAI counts in tokens: the encoder's positions of audio, and the
    tokens that were written."""
    audio = ceil(transcript.duration * POSITIONS_PER_S)
    written = sum(len(segment.tokens) for segment in transcript.segments)
    return {
        "type": "tokens",
        "input_tokens": audio,
        "input_token_details": {"audio_tokens": audio},
        "output_tokens": written,
        "total_tokens": audio + written,
    }


def dump(body: dict[str, Any]) -> str:
    """JSON in UTF-8, never NaN."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False)
