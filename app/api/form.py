"""A multipart body to a `TranscriptionRequest`, or a sentence about what is wrong with it."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.audio.limits import Limits
from app.config import Config
from app.engine.admission import Tier
from app.engine.languages import language_code
from app.engine.options import DecodeOptions, SpeechOptions
from app.errors import InvalidRequest, NoRoom, UnsupportedBody
from app.formats import FORMATS

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logger = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
SPOOL_BYTES = 2 * 1024 * 1024  # larger uploads go to disk; a 30 s window of WAV stays in memory
MAX_FIELD_BYTES = 256 * 1024  # all the text fields of a form together
MAX_PARTS = 200
MAX_HEADER_BYTES = 8 * 1024  # the headers of one part
TASKS = ("transcribe", "translate")
GRANULARITIES = ("segment", "word")
BROKEN = "The multipart body is broken or incomplete."


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """What one client asks for; `file` lies in memory, or on disk when it is large. `reserve`:
    the balancer has not seen to the slots that are kept for realtime requests."""

    file: BinaryIO
    model: str
    response_format: str
    tier: Tier
    reserve: bool
    options: DecodeOptions


class Body(Protocol):
    """What is asked of a request's stream."""

    def read(self, size: int, /) -> bytes: ...


class Form:
    """The parts of a multipart body: text fields by name, and the upload.

    A context manager: the spooled upload is gone when the block ends.
    """

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self.file = cast(
            BinaryIO,
            tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES),  # noqa: SIM115, closed on exit
        )
        self.has_file = False

    def __enter__(self) -> Form:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):  # what could not be written is written again
            self.file.close()

    def read(self, body: Body, content_type: str | None, limits: Limits) -> None:
        """Read the whole body, counting as it comes; its announced length is not believed.

        Args:
            body: the request's stream, positioned at its start.
            content_type: the request's header, which names the boundary.

        Raises:
            UnsupportedBody: it is not multipart/form-data.
            InvalidRequest: it is broken, or has too many or too large fields.
            TooLarge: it is over the byte limit.
            NoRoom: the disk is full.
        """
        kind, parameters = parse_options_header(content_type)
        if kind != b"multipart/form-data":
            raise UnsupportedBody("The body must be multipart/form-data.")
        boundary = parameters.get(b"boundary")
        if not boundary or len(boundary) > 200:
            raise InvalidRequest("The multipart body has no usable boundary.")
        parts = FormParts(self)
        parser = MultipartParser(boundary, parts.callbacks(), max_size=math.inf)
        n_bytes = 0
        try:
            while chunk := body.read(READ_BYTES):
                n_bytes += len(chunk)
                limits.check_bytes(n_bytes)
                parser.write(chunk)
            parser.finalize()
            self.write(b"")
        except (MultipartParseError, OSError, EOFError):
            raise InvalidRequest(BROKEN) from None
        if not parts.complete:
            raise InvalidRequest(BROKEN)

    def write(self, data: bytes) -> None:
        """Add to the upload; nothing: what is buffered goes to the disk.

        Raises:
            NoRoom: the disk is full.
        """
        try:
            self.file.write(data)
            if not data:
                self.file.flush()
        except OSError as error:
            logger.error("an upload cannot be kept in %s: %s", tempfile.gettempdir(), error)
            raise NoRoom("The service has no room for this upload now.") from None

    def text(self, *names: str) -> str | None:
        """The last value given under any of the names, without surrounding space."""
        values = self.texts(*names)
        return values[-1].strip() if values else None

    def texts(self, *names: str) -> list[str]:
        """All values given under any of the names."""
        return [value for name in names for value in self.fields.get(name, ())]

    def listed(self, *names: str) -> list[str]:
        """All values under the names, also where several stand in one, between commas."""
        parts = (part.strip() for value in self.texts(*names) for part in value.split(","))
        return [part for part in parts if part]


class FormParts:
    """Takes the multipart parser's events, in order, and fills a form with them."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._field_bytes = 0
        self._n_parts = 0
        self.complete = False

    def callbacks(self) -> MultipartCallbacks:
        """The functions python-multipart's parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_name,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _begin(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")
        self._disposition = b""
        self._value.clear()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_header()

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._header_name) + len(self._header_value) > MAX_HEADER_BYTES:
            raise InvalidRequest(BROKEN)

    def _on_header_end(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self._disposition)
        self._name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if self._name == "file":
            if self._form.has_file:
                raise InvalidRequest("The form has more than one file.", param="file")
            self._form.has_file = True

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._form.write(data[start:end])
            return
        self._field_bytes += end - start
        if self._field_bytes > MAX_FIELD_BYTES:
            raise InvalidRequest(f"The form's fields are larger than {MAX_FIELD_BYTES} bytes.")
        self._value += data[start:end]

    def _on_part_end(self) -> None:
        if self._name and self._name != "file":
            try:
                value = self._value.decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(
                    f"The field {shown(self._name)} is not UTF-8 text.", param=shown(self._name)
                ) from None
            self._form.fields.setdefault(self._name, []).append(value)

    def _on_end(self) -> None:
        self.complete = True


def transcription_request(
    form: Form, headers: Mapping[str, str], config: Config, task: str | None = None
) -> TranscriptionRequest:
    """Check the fields and name their defaults.

    Args:
        headers: the request's, names in capitals; a tier may stand there.
        task: what the route says; None: the form may say it.

    Raises:
        InvalidRequest: a field is missing or wrong; the message says which.
    """
    if not form.has_file:
        raise InvalidRequest("The form has no file.", param="file")
    model = form.text("model")
    if not model:
        raise InvalidRequest("The form names no model.", param="model")
    tier = form.text("transcription_tier") or headers.get("X-TRANSCRIPTION-TIER", "")
    return TranscriptionRequest(
        file=form.file,
        model=model,
        response_format=one_of(form, "response_format", tuple(FORMATS), "verbose_json"),
        tier=Tier.DEFERRED if tier.strip().lower() == Tier.DEFERRED.value else Tier.REALTIME,
        reserve=headers.get("X-POOL-TIER") != Tier.DEFERRED.value,
        options=decode_options(form, config, task),
    )


def decode_options(form: Form, config: Config, task: str | None) -> DecodeOptions:
    """The decoding choices of a form; what it leaves open is the server's."""
    asked = form.listed("timestamp_granularities", "timestamp_granularities[]")
    for granularity in asked:
        if granularity not in GRANULARITIES:
            raise refused("timestamp_granularities", granularity, "segment or word")
    temperature = number(form, "temperature", 0.0, 1.0)
    return DecodeOptions(
        task=task or one_of(form, "task", TASKS, TASKS[0]),
        # A translation's source is detected: its form has no language, and one sent is ignored.
        language=None if task == "translate" else language(form),
        languages=languages(form),
        prompt=form.text("prompt") or None,
        hotwords=" ".join(form.texts("hotwords") + form.listed("keywords", "keywords[]")).strip()
        or None,
        word_timestamps="word" in asked,
        temperatures=(temperature,) if temperature else config.temperature,
        speech=speech_options(form, config),
    )


def speech_options(form: Form, config: Config) -> SpeechOptions:
    """The VAD choices: meeting bots' own fields, or OpenAI's `chunking_strategy`."""
    chunking = "chunking_strategy[%s]"
    threshold = number(form, chunking % "threshold", 0.0, 1.0)
    padding = number(form, chunking % "prefix_padding_ms", 0, 60_000)
    silence = number(form, "min_silence_duration_ms", 0, 600_000)
    if silence is None:
        silence = number(form, chunking % "silence_duration_ms", 0, 600_000)
    longest = number(form, "max_speech_duration_s", 0.1, 86_400)
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


def language(form: Form) -> str | None:
    """The `language` field as a Whisper code; None: detect."""
    text = form.text("language") or ""
    try:
        return language_code(text)
    except ValueError:
        raise refused("language", text, "a code such as en, or a language's name") from None


def languages(form: Form) -> tuple[str, ...]:
    """The candidates among which detection chooses."""
    found = []
    for text in form.listed("languages", "languages[]"):
        try:
            code = language_code(text)
        except ValueError:
            code = None
        if code is None:
            raise refused("languages", text, "codes such as en, or languages' names")
        found.append(code)
    return tuple(dict.fromkeys(found))


def one_of(form: Form, name: str, accepted: tuple[str, ...], default: str) -> str:
    """A field that has a few possible values."""
    value = form.text(name) or default
    if value not in accepted:
        raise refused(name, value, ", ".join(accepted))
    return value


def number(form: Form, name: str, minimum: float, maximum: float) -> float | None:
    """A number within its limits; None when the field is absent or empty."""
    text = form.text(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not minimum <= value <= maximum:
        raise refused(name, text, f"a number from {minimum:g} to {maximum:g}")
    return value


def refused(name: str, value: str, accepted: str) -> InvalidRequest:
    """The sentence for a field's wrong value."""
    return InvalidRequest(f"{name} is {shown(value)!r}; it accepts {accepted}.", param=name)


def shown(text: str) -> str:
    """A client's text, short enough for a message."""
    return text if len(text) <= 40 else text[:40] + "…"
