"""Validate a form and return its `TranscriptionRequest`, or raise an error that names the field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from app.api import fields
from app.api.fields import Field
from app.api.form import Form, shown, speakers_refused
from app.config import Config
from app.engine.job import Tier
from app.engine.languages import language_code
from app.engine.options import DecodeOptions, SpeechOptions, plain_text
from app.errors import InvalidRequest
from app.formats.subtitles import BROADCAST, Layout

SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """Validated request for one transcription.

    Attributes:
        file: The upload, in memory, or on disk if it is large.
        response_format: A key of `FORMATS`.
        layout: Layout of subtitles.
        stream: Whether to respond with server-sent events.
    """

    file: BinaryIO
    model: str
    response_format: str
    layout: Layout
    stream: bool
    tier: Tier
    options: DecodeOptions


def transcription_request(
    form: Form, headers: Mapping[str, str], config: Config, task: str | None = None
) -> TranscriptionRequest:
    """Validate the fields and fill in their defaults.

    Args:
        headers: The request's headers, names in capitals; one may set the tier.
        task: The route's task; None: the form may set it.

    Raises:
        InvalidRequest: A field is missing or invalid; the message names it.
    """
    if not form.has_file:
        raise InvalidRequest("The form has no file.", param="file")
    model = form.text(fields.MODEL)
    if not model:
        raise InvalidRequest("The form names no model.", param="model")
    check_speakers(form)
    stream = flag(form, fields.STREAM)
    response_format = one_of(form, fields.RESPONSE_FORMAT, "json" if stream else "verbose_json")
    if stream and response_format in fields.WITHOUT_EVENTS:
        raise InvalidRequest(
            f"stream is true, and {response_format} cannot come in events; ask for json.",
            param="response_format",
        )
    tier = form.text(fields.TRANSCRIPTION_TIER) or headers.get("X-TRANSCRIPTION-TIER", "")
    return TranscriptionRequest(
        file=form.file,
        model=model,
        response_format=response_format,
        layout=layout(form),
        stream=stream,
        tier=Tier.DEFERRED if tier.strip().lower() == Tier.DEFERRED.value else Tier.REALTIME,
        options=decode_options(form, config, task, stream or response_format == "json"),
    )


def check_speakers(form: Form) -> None:
    """Raise `InvalidRequest` for diarization, which this service does not support."""
    if form.text(fields.RESPONSE_FORMAT) == fields.DIARIZED_FORMAT:
        raise speakers_refused(fields.RESPONSE_FORMAT)
    for field in fields.SPEAKER_FIELDS:
        if listed(form, field):
            raise speakers_refused(field)


def decode_options(form: Form, config: Config, task: str | None, scores: bool) -> DecodeOptions:
    """Return a form's decoding options, with the server's defaults.

    Args:
        scores: Whether the response format can hold token scores.
    """
    granularities = listed(form, fields.TIMESTAMP_GRANULARITIES)
    for granularity in granularities:
        if granularity not in fields.GRANULARITIES:
            raise refused(fields.TIMESTAMP_GRANULARITIES, granularity, "segment or word")
    temperature = number(form, fields.TEMPERATURE)
    favoured = form.texts(fields.HOTWORDS) + listed(form, fields.KEYWORDS)
    return DecodeOptions(
        task=task or one_of(form, fields.TASK, fields.TASKS[0]),
        # A translation's source language is detected; a `language` field is ignored.
        language=None if task == "translate" else language(form),
        languages=languages(form),
        prompt=plain_text(form.text(fields.PROMPT)) or None,
        hotwords=plain_text(" ".join(favoured)) or None,
        word_timestamps="word" in granularities,
        token_scores="logprobs" in listed(form, fields.INCLUDE) and scores,
        temperatures=(temperature,) if temperature else config.temperature,
        speech=speech_options(form, config),
    )


def speech_options(form: Form, config: Config) -> SpeechOptions:
    """Return the VAD options from meeting bots' own fields or OpenAI's `chunking_strategy`."""
    unfold_chunking_strategy(form)
    threshold = number(form, fields.THRESHOLD)
    padding = number(form, fields.PREFIX_PADDING_MS)
    silence = number(form, fields.MIN_SILENCE_DURATION_MS)
    if silence is None:
        silence = number(form, fields.SILENCE_DURATION_MS)
    longest = number(form, fields.MAX_SPEECH_DURATION_S)
    default = SpeechOptions()
    return SpeechOptions(
        enabled=config.vad_filter,
        threshold=config.vad_filter_threshold if threshold is None else threshold,
        min_silence_duration_ms=(
            config.vad_min_silence_duration_ms if silence is None else int(silence)
        ),
        max_speech_duration_s=config.vad_max_speech_duration_s if longest is None else longest,
        padding_ms=default.padding_ms if padding is None else int(padding),
    )


def unfold_chunking_strategy(form: Form) -> None:
    """Add the members of a `chunking_strategy` JSON object to the form as separate fields."""
    field = fields.CHUNKING_STRATEGY
    text = form.text(field)
    if text in ("", "auto"):
        return
    try:
        strategy = json.loads(text)
    except (ValueError, RecursionError):
        strategy = None
    if not isinstance(strategy, dict) or strategy.get("type") != "server_vad":
        raise refused(field, text, "auto, or an object of type server_vad")
    for name, value in strategy.items():
        if value is not None:
            form.fields.setdefault(f"{field.name}[{name}]", []).append(str(value))


def layout(form: Form) -> Layout:
    """Return the layout of subtitles."""
    width, count = number(form, fields.MAX_LINE_WIDTH), number(form, fields.MAX_LINE_COUNT)
    default = BROADCAST
    return Layout(
        default.max_line_width if width is None else int(width),
        default.max_line_count if count is None else int(count),
    )


def language(form: Form) -> str | None:
    """Return the `language` field as a Whisper code; None: detect."""
    text = form.text(fields.LANGUAGE)
    try:
        return language_code(text)
    except ValueError:
        raise refused(fields.LANGUAGE, text, "a code such as en, or a language's name") from None


def languages(form: Form) -> tuple[str, ...]:
    """Return the candidates for language detection."""
    codes = []
    for text in listed(form, fields.LANGUAGES):
        try:
            code = language_code(text)
        except ValueError:
            code = None
        if code is None:
            raise refused(fields.LANGUAGES, text, "codes such as en, or languages' names")
        codes.append(code)
    return tuple(dict.fromkeys(codes))


def one_of(form: Form, field: Field, default: str) -> str:
    """Return the value of a field that has a few allowed values."""
    value = form.text(field) or default
    if value not in field.choices:
        raise refused(field, value, ", ".join(field.choices))
    return value


def listed(form: Form, field: Field) -> list[str]:
    """Return all values of a field: repeated, comma-separated, or as JSON lists."""
    values = (value.strip() for text in form.texts(field) for value in items(field, text.strip()))
    return [value for value in values if value]


def items(field: Field, text: str) -> list[str]:
    """Return the values in one text: a JSON list or a comma-separated list.

    A list printed by Python, JavaScript or Java (`['word', 'segment']`, `[word, segment]`) is not
    JSON and is read as a comma-separated list.
    """
    if text.startswith(("[", "{", '"')):
        try:
            content = json.loads(text)
        except RecursionError:
            content = None
        except ValueError:
            content = text
        values = content if isinstance(content, list) else [content]
        if not all(is_text(value) for value in values):
            raise refused(field, text, "text, or a JSON list of strings")
        if isinstance(content, list):
            return values
        text = content
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return [unquoted(part.strip()) for part in text.split(",")]


def is_text(value: object) -> bool:
    """Return whether it is a string without lone surrogates, which no tokenizer accepts."""
    return isinstance(value, str) and not SURROGATE.search(value)


def unquoted(text: str) -> str:
    """Return a text without the quotes around it."""
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


def flag(form: Form, field: Field) -> bool:
    """Return a boolean in any spelling that clients use; absent or empty: False."""
    value = (form.text(field) or "false").lower()
    if value not in ("true", "1", "false", "0"):
        raise refused(field, value, "true or false")
    return value in ("true", "1")


def number(form: Form, field: Field) -> float | None:
    """Return a number within the field's limits; None if it is absent or empty."""
    text = form.text(field)
    if not text:
        return None
    assert field.minimum is not None
    assert field.maximum is not None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if field.kind == "integer" and not value.is_integer():
        value = math.nan
    if not field.minimum <= value <= field.maximum:
        kind = "a whole number" if field.kind == "integer" else "a number"
        raise refused(field, text, f"{kind} from {field.minimum:g} to {field.maximum:g}")
    return value


def refused(field: Field, value: str, accepted: str) -> InvalidRequest:
    """Return the error for a field's invalid value."""
    name = field.name.removesuffix("[]")
    return InvalidRequest(f"{name} is {shown(value)!r}; it accepts {accepted}.", param=name)
