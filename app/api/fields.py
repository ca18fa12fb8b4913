"""Declare the fields of a transcription form: names, kinds, limits and meanings.

The form reader takes its limits from here, and `/openapi.json` is generated from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.formats import FORMATS

TASKS = ("transcribe", "translate")
GRANULARITIES = ("segment", "word")
INCLUDES = ("logprobs",)
TIERS = ("realtime", "deferred")
BOOLEANS = ("true", "false")
WITHOUT_EVENTS = ("srt", "vtt")  # formats that cannot be streamed
# Suffixes that frameworks append to a list's name: `name[]`; `name[0]` or `name.0` for one value.
INDEX = re.compile(r"(\[\d*\]|\.\d+)\Z")


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the form.

    Attributes:
        name: Name in error messages and in the API description.
        meaning: One or two sentences for the API description.
        kind: JSON Schema type, or `file`.
        choices: Allowed values; empty: any.
        minimum, maximum: Limits of a number.
        many: Whether it is a list, read in every spelling that clients use.
        open: Whether values other than the choices are accepted.
        required: Whether the field must be present.
        routes: The routes that read it.
    """

    name: str
    meaning: str
    kind: str = "string"
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    many: bool = False
    open: bool = False
    required: bool = False
    routes: tuple[str, ...] = ("transcriptions", "translations")

    def reads(self, name: str) -> bool:
        """Return whether a form part of this name belongs to the field."""
        if self.many:
            return INDEX.sub("", name) == self.name.removesuffix("[]")
        return name == self.name


FILE = Field(
    "file",
    "Recording: wav, flac, mp3, mp4, m4a, mpeg, ogg, opus, webm and more. The content decides the "
    "format, not the file's name.",
    kind="file",
    required=True,
)
MODEL = Field(
    "model",
    "Any name: the server's model answers, and the header `X-Model` names it. With `STRICT_MODEL` "
    "unknown names get 404.",
    required=True,
)
LANGUAGE = Field(
    "language",
    "Spoken language: an ISO 639 code of two or three letters, a tag that begins with one, or an "
    "English name (`en`, `eng`, `en-US`, `en_US.UTF-8`, `English`). Empty or `auto`: detect it.",
    routes=("transcriptions",),
)
LANGUAGES = Field(
    "languages[]",
    "Candidates for language detection.",
    many=True,
)
PROMPT = Field(
    "prompt", "Text that precedes the audio, as context. Only its last 223 tokens are used."
)
HOTWORDS = Field("hotwords", "Words to favour.")
KEYWORDS = Field("keywords[]", "Words to favour.", many=True)
RESPONSE_FORMAT = Field(
    "response_format",
    "Format of the response. Default: `verbose_json`, or `json` in a stream.",
    choices=tuple(FORMATS),
)
TIMESTAMP_GRANULARITIES = Field(
    "timestamp_granularities[]",
    "`word`: times of each word in `verbose_json`; `srt` and `vtt` then break cues at words.",
    choices=GRANULARITIES,
    many=True,
)
TEMPERATURE = Field(
    "temperature",
    "0: the server's `TEMPERATURE`, the most probable text. Higher values sample the text.",
    kind="number",
    minimum=0.0,
    maximum=1.0,
)
STREAM = Field(
    "stream",
    "`true`: send the text as server-sent events while it is decoded. With `verbose_json` the "
    "events hold segments, and the last event the whole `verbose_json` object.",
    kind="boolean",
    choices=BOOLEANS,
)
INCLUDE = Field(
    "include[]",
    "`logprobs`: tokens with their log probabilities, in `json` and in a stream.",
    choices=INCLUDES,
    many=True,
    open=True,
)
TASK = Field(
    "task",
    "`translate`: return English text, as the translations route does. A model that cannot "
    "translate gets 400, or transcribes if `TRANSLATE_FALLBACK` is set.",
    choices=TASKS,
    routes=("transcriptions",),
)
MAX_LINE_WIDTH = Field(
    "max_line_width",
    "`srt` and `vtt`: most characters in a line; wide characters count twice.",
    kind="integer",
    minimum=10,
    maximum=1000,
)
MAX_LINE_COUNT = Field(
    "max_line_count",
    "`srt` and `vtt`: most lines in a cue.",
    kind="integer",
    minimum=1,
    maximum=20,
)
MAX_SPEECH_DURATION_S = Field(
    "max_speech_duration_s",
    "Longest stretch of speech before it is cut, in seconds.",
    kind="number",
    minimum=0.1,
    maximum=86_400,
)
MIN_SILENCE_DURATION_MS = Field(
    "min_silence_duration_ms",
    "Shortest silence that ends a stretch of speech, in milliseconds.",
    kind="number",
    minimum=0,
    maximum=600_000,
)
CHUNKING_STRATEGY = Field(
    "chunking_strategy",
    "`auto`, or the three fields below as one JSON object with `type` `server_vad`.",
)
THRESHOLD = Field(
    "chunking_strategy[threshold]",
    "Least probability of speech, from 0 to 1.",
    kind="number",
    minimum=0.0,
    maximum=1.0,
)
PREFIX_PADDING_MS = Field(
    "chunking_strategy[prefix_padding_ms]",
    "Audio kept before and after each stretch of speech, in milliseconds.",
    kind="number",
    minimum=0,
    maximum=60_000,
)
SILENCE_DURATION_MS = Field(
    "chunking_strategy[silence_duration_ms]",
    "Same as `min_silence_duration_ms`.",
    kind="number",
    minimum=0,
    maximum=600_000,
)
TRANSCRIPTION_TIER = Field(
    "transcription_tier",
    "`deferred`: realtime requests go first. Prefer the header `X-Transcription-Tier`: the "
    "balancer does not read the form.",
    choices=TIERS,
    open=True,
)

FIELDS = (
    FILE,
    MODEL,
    LANGUAGE,
    LANGUAGES,
    PROMPT,
    RESPONSE_FORMAT,
    TIMESTAMP_GRANULARITIES,
    TEMPERATURE,
    STREAM,
    INCLUDE,
    HOTWORDS,
    KEYWORDS,
    TASK,
    MAX_LINE_WIDTH,
    MAX_LINE_COUNT,
    MAX_SPEECH_DURATION_S,
    MIN_SILENCE_DURATION_MS,
    CHUNKING_STRATEGY,
    THRESHOLD,
    PREFIX_PADDING_MS,
    SILENCE_DURATION_MS,
    TRANSCRIPTION_TIER,
)

# Fields that request diarization from OpenAI's API. They are refused, since clients would take a
# response without speakers for a diarized one.
DIARIZED_FORMAT = "diarized_json"
KNOWN_SPEAKER_NAMES = Field("known_speaker_names[]", "Names of speakers.", many=True)
KNOWN_SPEAKER_REFERENCES = Field("known_speaker_references[]", "Their voices.", many=True)
SPEAKER_FIELDS = (KNOWN_SPEAKER_NAMES, KNOWN_SPEAKER_REFERENCES)
