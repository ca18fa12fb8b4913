"""Read and write a session's options in the current and the earlier shape of OpenAI's API.

The current shape nests them in `session.audio.input`; the earlier one, of the header
`OpenAI-Beta: realtime=v1`, has `input_audio_…` fields. Both are read into one `Options`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.errors import InvalidRequest

LOGPROBS = "item.input_audio_transcription.logprobs"
# The earlier shape's names of the formats.
EARLIER_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
EARLIER_NAMES = {kind: name for name, kind in EARLIER_FORMATS.items()}
RATES = {"audio/pcm": (24_000, 16_000), "audio/pcmu": (8_000,), "audio/pcma": (8_000,)}
TURN_DETECTIONS = ("server_vad", "semantic_vad")
# Silence that ends a turn in place of semantic turn detection, which this service does not have.
EAGERNESS_MS = {"high": 500, "auto": 800, "medium": 800, "low": 1500}
MOST_CHARACTERS = 10_000  # of a prompt
MOST_WORDS = 500  # keywords or languages


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Encoding of the audio that a client sends: always one channel.

    Attributes:
        kind: `audio/pcm` (16-bit little-endian), `audio/pcmu` or `audio/pcma` (G.711).
        rate: samples per second.
    """

    kind: str = "audio/pcm"
    rate: int = 24_000

    @property
    def bytes_per_s(self) -> int:
        """Return the bytes of one second."""
        return self.rate * (2 if self.kind == "audio/pcm" else 1)


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """When the gateway starts and ends a turn by itself.

    Attributes:
        kind: `server_vad` or `semantic_vad`; both end a turn after a silence.
        threshold: speech probability from which sound counts as speech.
        prefix_padding_ms: audio before the speech that belongs to the turn.
        silence_duration_ms: silence that ends the turn.
        eagerness: of `semantic_vad`; None for `server_vad`.
    """

    kind: str = "server_vad"
    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    eagerness: str | None = None

    def shown(self) -> dict[str, Any]:
        """Return the object that clients see."""
        if self.kind == "semantic_vad":
            return {"type": self.kind, "eagerness": self.eagerness}
        return {
            "type": self.kind,
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding_ms,
            "silence_duration_ms": self.silence_duration_ms,
        }


@dataclass(frozen=True, slots=True)
class Options:
    """A session's options.

    Attributes:
        transcription: `model`, `language`, `languages`, `prompt`, `keywords` and `delay`, as far
            as the client sent them; `delay` has no effect.
        noise_reduction: returned to the client; it has no effect, because Whisper was trained on
            noisy audio.
        turn_detection: None: the client commits.
        include_logprobs: deltas and completed turns have log probabilities.
    """

    format: AudioFormat = AudioFormat()
    transcription: Mapping[str, Any] = field(default_factory=lambda: {"model": "whisper-1"})
    noise_reduction: Mapping[str, Any] | None = None
    turn_detection: TurnDetection | None = TurnDetection()
    include_logprobs: bool = False

    def updated(self, session: object) -> Options:
        """Return the options with the members of a `session` object of either shape.

        Raises:
            InvalidRequest: a member is invalid; nothing is changed.
        """
        session = an_object(session, "session")
        if session.get("type", "transcription") != "transcription":
            raise InvalidRequest(
                "Only transcription sessions are served; set session.type to 'transcription'.",
                param="session.type",
            )
        given = members(session)
        options = self
        for name, (value, param) in given.items():
            read: dict[str, Any] = {name: READERS[name](value, param, options)}
            options = replace(options, **read)
        return options

    def shown(self) -> dict[str, Any]:
        """Return the `session` object of the current shape."""
        rate = {"rate": self.format.rate} if self.format.kind == "audio/pcm" else {}
        return {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": {"type": self.format.kind, **rate},
                    "transcription": dict(self.transcription),
                    "noise_reduction": self.noise_reduction,
                    "turn_detection": self.turn_detection and self.turn_detection.shown(),
                }
            },
            "include": [LOGPROBS] if self.include_logprobs else None,
        }

    def shown_earlier(self) -> dict[str, Any]:
        """Return the `session` object of the earlier shape."""
        return {
            "input_audio_format": EARLIER_NAMES[self.format.kind],
            "input_audio_transcription": dict(self.transcription),
            "input_audio_noise_reduction": self.noise_reduction,
            "turn_detection": self.turn_detection and self.turn_detection.shown(),
            "include": [LOGPROBS] if self.include_logprobs else None,
        }


def members(session: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return the given options by the names of `Options`' fields: value and its path."""
    given: dict[str, tuple[Any, str]] = {}
    audio = an_object(session.get("audio") or {}, "session.audio")
    current = an_object(audio.get("input") or {}, "session.audio.input")
    for name in ("format", "transcription", "noise_reduction", "turn_detection"):
        if name in current:
            given[name] = (current[name], f"session.audio.input.{name}")
        earlier = name if name == "turn_detection" else f"input_audio_{name}"
        if earlier in session:
            given[name] = (session[earlier], f"session.{earlier}")
    if "include" in session:
        given["include_logprobs"] = (session["include"], "session.include")
    return given


def read_format(value: Any, param: str, options: Options) -> AudioFormat:
    """Return the audio format: `pcm16` of the earlier shape, or an object of the current one."""
    if isinstance(value, str):
        value = {"type": EARLIER_FORMATS.get(value, value)}
    value = an_object(value or {}, param)
    kind = value.get("type", "audio/pcm")
    rates = RATES.get(kind) if isinstance(kind, str) else None
    if rates is None:
        raise InvalidRequest(f"{param}.type must be one of {', '.join(RATES)}.", param=param)
    rate = value.get("rate") or rates[0]
    if rate not in rates:
        allowed = " or ".join(map(str, rates))
        raise InvalidRequest(f"{param}.rate must be {allowed} for {kind}.", param=param)
    return AudioFormat(kind, int(rate))


def read_transcription(value: Any, param: str, options: Options) -> Mapping[str, Any]:
    """Return the transcription options, with those that stay as they are."""
    merged = {**options.transcription, **an_object(value or {}, param)}
    kept: dict[str, Any] = {}
    for name, limit in (("model", 200), ("language", 100), ("prompt", MOST_CHARACTERS)):
        if merged.get(name) is not None:
            kept[name] = a_text(merged[name], limit, f"{param}.{name}")
    for name in ("languages", "keywords"):
        if merged.get(name) is not None:
            kept[name] = texts(merged[name], f"{param}.{name}")
    if merged.get("delay") in ("minimal", "low", "medium", "high", "xhigh"):
        kept["delay"] = merged["delay"]
    return {"model": "whisper-1", **kept}


def read_noise_reduction(value: Any, param: str, options: Options) -> Mapping[str, Any] | None:
    """Return the noise reduction, which has no effect."""
    if value is None:
        return None
    kind = an_object(value, param).get("type")
    if kind not in ("near_field", "far_field", None):
        raise InvalidRequest(f"{param}.type must be near_field or far_field.", param=param)
    return {"type": kind} if kind else {}


def read_turn_detection(value: Any, param: str, options: Options) -> TurnDetection | None:
    """Return the turn detection; None: the client commits."""
    if value is None:
        return None
    value = an_object(value, param)
    kind = value.get("type", "server_vad")
    if kind not in TURN_DETECTIONS:
        raise InvalidRequest(
            f"{param}.type must be one of {', '.join(TURN_DETECTIONS)}.", param=f"{param}.type"
        )
    if kind == "semantic_vad":
        eagerness = value.get("eagerness") or "auto"
        if not isinstance(eagerness, str) or eagerness not in EAGERNESS_MS:
            allowed = ", ".join(EAGERNESS_MS)
            raise InvalidRequest(f"{param}.eagerness must be one of {allowed}.", param=param)
        return TurnDetection(kind, silence_duration_ms=EAGERNESS_MS[eagerness], eagerness=eagerness)
    before = options.turn_detection or TurnDetection()
    if before.kind != kind:
        before = TurnDetection()
    return TurnDetection(
        threshold=a_number(value, "threshold", 0, 1, before.threshold, param),
        prefix_padding_ms=int(
            a_number(value, "prefix_padding_ms", 0, 5000, before.prefix_padding_ms, param)
        ),
        silence_duration_ms=int(
            a_number(value, "silence_duration_ms", 50, 10_000, before.silence_duration_ms, param)
        ),
    )


def read_include(value: Any, param: str, options: Options) -> bool:
    """Return whether log probabilities are requested; other members are ignored."""
    return LOGPROBS in texts(value or [], param)


READERS = {
    "format": read_format,
    "transcription": read_transcription,
    "noise_reduction": read_noise_reduction,
    "turn_detection": read_turn_detection,
    "include_logprobs": read_include,
}


def an_object(value: object, param: str) -> Mapping[str, Any]:
    """Return a JSON object, or raise `InvalidRequest`."""
    if not isinstance(value, dict):
        raise InvalidRequest(f"{param} must be an object.", param=param)
    return value


def a_text(value: object, limit: int, param: str) -> str:
    """Return a string of at most `limit` characters, or raise `InvalidRequest`."""
    if not isinstance(value, str) or len(value) > limit:
        raise InvalidRequest(
            f"{param} must be a string of at most {limit} characters.", param=param
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{param} contains half of a surrogate pair.", param=param) from None
    return value


def texts(value: object, param: str) -> list[str]:
    """Return a list of short strings, or raise `InvalidRequest`."""
    if not isinstance(value, list) or len(value) > MOST_WORDS:
        raise InvalidRequest(f"{param} must be a list of at most {MOST_WORDS}.", param=param)
    return [a_text(each, 200, param) for each in value]


def a_number(
    given: Mapping[str, Any], name: str, least: float, most: float, before: float, param: str
) -> float:
    """Return a number within its limits, `before` if it is not given, or raise
    `InvalidRequest`."""
    value = given.get(name)
    if value is None:
        return before
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise InvalidRequest(
            f"{param}.{name} must be a number from {least:g} to {most:g}.", param=f"{param}.{name}"
        )
    return value
