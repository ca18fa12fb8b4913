"""Serve OpenAI's two audio routes: form, slot, waveform, segments, response."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import BinaryIO

import falcon

from app.api.disconnect import ClientWatch
from app.api.event_stream import EventStream
from app.api.form import Form
from app.api.headers import header_text
from app.api.models import served_models
from app.api.recorder import Recorder
from app.api.request import TranscriptionRequest, transcription_request
from app.audio.limits import SAMPLE_RATE, Limits
from app.audio.sandbox.client import Sandbox
from app.config import Config
from app.engine.audio_budget import AudioBudget
from app.engine.cancellation import Cancellation
from app.engine.decoding import Decoding
from app.engine.engine import Engine
from app.engine.job import Job
from app.errors import UnknownModel, UnsupportedBody
from app.formats import EVENT_STREAM, FORMATS
from app.process import give_back_memory

# Keep proxies from buffering events (the second header is nginx's own).
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
LONG_S = 60  # longer recordings use enough memory to return it to the system at once


class Transcriptions:
    """Resource that transcribes the recording of a POST request.

    Args:
        task: `translate` on the translations route; None if the form may set it.
    """

    needs_key = True

    def __init__(
        self,
        config: Config,
        engine: Engine,
        sandbox: Sandbox,
        watch: ClientWatch,
        budget: AudioBudget,
        task: str | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._sandbox = sandbox
        self._watch = watch
        self._task = task
        self._limits = Limits.of(config)
        self._budget = budget

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        record: Recorder = req.context.record
        resp.set_header("X-Model", header_text(self._config.name))
        # A stream keeps what the request holds. Its upload is decoded by then and can go.
        with Form() as form, ExitStack() as held:
            request = self._read(req, form)
            record.received(request.tier)
            watching = self._watch.watching(req.env.get("gunicorn.socket"))
            decoding = self._decode(request, held.enter_context(watching), record, held)
            if request.stream:
                in_full = request.response_format == "verbose_json"
                resp.stream = EventStream(decoding, in_full, record, held)
                resp.content_type = EVENT_STREAM
                resp.set_headers(UNBUFFERED)
                return
            transcript = decoding.result()
        response_format = FORMATS[request.response_format]
        resp.text = response_format.write(transcript, request.layout)
        resp.content_type = response_format.content_type

    def _read(self, req: falcon.Request, form: Form) -> TranscriptionRequest:
        """Read the body into the form and validate it."""
        self._limits.check_bytes(req.content_length or 0)
        check_encoding(req.get_header("Content-Encoding") or "identity")
        form.read(req.context.body, req.content_type, self._limits)
        request = transcription_request(form, req.headers, self._config, self._task)
        if self._config.strict_model and request.model not in served_models(self._config):
            raise UnknownModel(request.model)
        return request

    def _decode(
        self,
        request: TranscriptionRequest,
        cancellation: Cancellation,
        record: Recorder,
        held: ExitStack,
    ) -> Decoding:
        """Take a slot and memory, decode the upload, and return the decoding of its speech.

        Args:
            held: Releases slot and memory when it closes.
        """
        with record.stage("queue"):
            held.enter_context(self._engine.admission.slot(cancellation))
            size = measured(request.file)
            reservation = held.enter_context(self._budget.reserve(*size, cancellation))
        self._engine.check(request.options)
        with record.stage("decode"):
            waveform = self._sandbox.decode(request.file, cancellation)
        seconds = waveform.size / SAMPLE_RATE
        reservation.decoded(seconds)
        record.decoded(seconds)
        if seconds > LONG_S:
            give_back_memory()
            held.callback(give_back_memory)
        held.enter_context(record.stage("inference"))
        job = Job(waveform, request.options, request.tier, cancellation)
        return held.enter_context(closing(self._engine.decode(job)))


def check_encoding(encoding: str) -> None:
    """Raise `UnsupportedBody` for a compressed body, which would otherwise look broken."""
    if encoding.strip().lower() != "identity":
        raise UnsupportedBody("The body has a Content-Encoding; send it without one.")


def measured(file: BinaryIO) -> tuple[bytes, int]:
    """Return an upload's first 4 bytes and its size in bytes."""
    file.seek(0)
    head = file.read(4)
    return head, file.seek(0, 2)
