"""Parse a multipart body into its text fields and the upload."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.api.body import PIECE_BYTES
from app.api.fields import SPEAKER_FIELDS, Field
from app.audio.limits import Limits
from app.errors import InvalidRequest, StorageFull, UnsupportedBody

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

logger = logging.getLogger(__name__)

SPOOL_BYTES = 2 * 1024 * 1024  # larger uploads go to disk; a 30 s window as WAV stays in memory
MAX_FIELD_BYTES = 256 * 1024  # total of a form's text fields
MAX_PARTS = 200
MAX_HEADER_BYTES = 8 * 1024  # of one form part
BROKEN = "The multipart body is broken or incomplete."


class Body(Protocol):
    """Stream that a form is read from."""

    def read(self, size: int, /) -> bytes: ...


class Form:
    """Multipart form: text fields by name, and the upload.

    A context manager: leaving the block deletes the spooled upload.
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
        with contextlib.suppress(OSError):  # closing retries a failed write
            self.file.close()

    def read(self, body: Body, content_type: str | None, limits: Limits) -> None:
        """Read the whole body, counting its bytes: Content-Length is not trusted.

        Args:
            body: The request's stream, positioned at its start.
            content_type: The request's header, which names the boundary.

        Raises:
            UnsupportedBody: The body is not multipart/form-data.
            InvalidRequest: The body is broken, or has too many or too large fields.
            TooLarge: The body is over the byte limit.
            StorageFull: The disk is full.
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
            while chunk := body.read(PIECE_BYTES):
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
        """Append data to the upload; empty data flushes the buffer to disk.

        Raises:
            StorageFull: The disk is full.
        """
        try:
            self.file.write(data)
            if not data:
                self.file.flush()
        except OSError as error:
            logger.error("upload storage failed in %s: %s", tempfile.gettempdir(), error)
            raise StorageFull("The service has no room for this upload now.") from None

    def text(self, field: Field) -> str:
        """Return the field's last value, stripped; empty if it has none."""
        values = self.texts(field)
        return values[-1].strip() if values else ""

    def texts(self, field: Field) -> list[str]:
        """Return all values of a field, under any of its names."""
        return [
            value for name, values in self.fields.items() if field.reads(name) for value in values
        ]


class FormParts:
    """Callbacks of the multipart parser, which fill a form."""

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
        """Return the functions that python-multipart's parser calls."""
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
            for field in SPEAKER_FIELDS:  # voice recordings, which often exceed the limit
                if field.reads(self._name):
                    raise speakers_refused(field)
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


def speakers_refused(field: Field) -> InvalidRequest:
    """Return the error for a field that requests diarization."""
    name = field.name.removesuffix("[]")
    remedy = f"leave out {name}" if field in SPEAKER_FIELDS else f"ask for another {name}"
    return InvalidRequest(f"This service does not tell speakers apart; {remedy}.", param=name)


def shown(text: str) -> str:
    """Return a client's text, shortened for a message."""
    return text if len(text) <= 40 else text[:40] + "…"
