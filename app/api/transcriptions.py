"""Serve OpenAI's two audio routes: form, slot, waveform, segments, response."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator
from typing import BinaryIO

import falcon

from app.api.disconnect import ClientWatch
from app.api.event_stream import EventStream
from app.api.form import Form
from app.api.headers import header_text
from app.api.key_usage import KeyUsage
from app.api.models import served_models
from app.api.request import TranscriptionRequest, transcription_request
from app.api.spans import Spans
from app.audio.limits import SAMPLE_RATE, Limits
from app.audio.sandbox.client import Sandbox
from app.config import Config
from app.engine.audio_budget import AudioBudget
from app.engine.engine import Engine
from app.engine.results import Segment, Transcript, run_to_end
from app.errors import ClientDisconnected, ServiceError, Unavailable, UnknownModel, UnsupportedBody
from app.formats import EVENT_STREAM, FORMATS
from app.observability import metrics
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
        spans: Spans = req.context.spans
        caller: KeyUsage = req.context.caller
        resp.set_header("X-Model", header_text(self._config.name))
        with Form() as form:
            self._limits.check_bytes(req.content_length or 0)
            check_encoding(req.get_header("Content-Encoding") or "identity")
            form.read(req.context.body, req.content_type, self._limits)
            request = transcription_request(form, req.headers, self._config, self._task)
            spans.about({"tier": request.tier.value})
            self._check_model(request.model)
            spans.note("receive", spans.total_s)
            connection = req.env.get("gunicorn.socket")
            segments = self._segments(request, connection, spans, caller)
            if request.stream:
                # The upload has been read by the first event, so the form may delete it.
                resp.stream = EventStream(segments, request.response_format == "verbose_json")
                resp.content_type = EVENT_STREAM
                resp.set_headers(UNBUFFERED)
                return
            transcript = run_to_end(segments)
        response_format = FORMATS[request.response_format]
        resp.text = response_format.write(transcript, request.layout)
        resp.content_type = response_format.content_type

    def _segments(
        self,
        request: TranscriptionRequest,
        connection: socket.socket | None,
        spans: Spans,
        caller: KeyUsage,
    ) -> Generator[Segment, None, Transcript]:
        """Yield the request's segments as they are decoded, then return its transcript.

        It holds a slot from the first iteration to the end; a client disconnect ends it.
        """
        tier = request.tier.value
        try:
            with (
                self._watch.watching(connection) as cancellation,
                self._engine.admit(cancellation) as queued_s,
                self._budget.reserve(*measured(request.file), cancellation) as reservation,
            ):
                spans.note("queue", queued_s)
                self._engine.check(request.options)
                begin = time.monotonic()
                waveform = self._sandbox.decode(request.file, cancellation)
                seconds = waveform.size / SAMPLE_RATE
                reservation.decoded(seconds)
                if seconds > LONG_S:
                    give_back_memory()
                metrics.AUDIO_RECEIVED_SECONDS.labels(tier).inc(seconds)
                inference_begin = time.monotonic()
                spans.note("decode", inference_begin - begin)
                spans.about({"audio_s": round(seconds, 2)})
                transcript = yield from self._engine.segments(
                    waveform, request.options, cancellation, request.tier
                )
                end = time.monotonic()
                spans.note("inference", end - inference_begin)
                del waveform
                if seconds > LONG_S:
                    give_back_memory()
        except ServiceError as error:
            count_failure(error, tier)
            raise
        except GeneratorExit:  # between two events
            count_failure(ClientDisconnected("The client left its stream."), tier)
            raise
        metrics.ANSWERS.labels("200", tier).inc()
        metrics.AUDIO_SECONDS.labels(tier).inc(seconds)
        caller.transcribed(seconds)
        if seconds:
            metrics.REAL_TIME_FACTOR.labels(tier).observe((queued_s + end - begin) / seconds)
        spans.observe()
        return transcript

    def _check_model(self, model: str) -> None:
        if self._config.strict_model and model not in served_models(self._config):
            raise UnknownModel(model)


def check_encoding(encoding: str) -> None:
    """Raise `UnsupportedBody` for a compressed body, which would otherwise look broken."""
    if encoding.strip().lower() != "identity":
        raise UnsupportedBody("The body has a Content-Encoding; send it without one.")


def measured(file: BinaryIO) -> tuple[bytes, int]:
    """Return an upload's first 4 bytes and its size in bytes."""
    file.seek(0)
    head = file.read(4)
    return head, file.seek(0, 2)


def count_failure(error: ServiceError, tier: str) -> None:
    """Count an error response by its kind."""
    metrics.ANSWERS.labels(str(error.status), tier).inc()
    if isinstance(error, Unavailable):
        metrics.REFUSED.labels(error.reason, tier).inc()
    if isinstance(error, ClientDisconnected):
        metrics.CANCELLED.labels(tier).inc()
