"""The resource behind OpenAI's two audio routes: form, slot, waveform, segments, format."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator

import falcon

from app import metrics
from app.api.caller import Caller
from app.api.disconnect import ClientWatch
from app.api.events import EventStream
from app.api.form import Form
from app.api.models import served_models
from app.api.request import TranscriptionRequest, transcription_request
from app.api.spans import Spans
from app.audio.limits import SAMPLE_RATE, Limits
from app.audio.sandbox import Sandbox
from app.config import Config
from app.engine.engine import Engine
from app.engine.results import Segment, Transcript, run_to_end
from app.errors import ClientGone, ServiceError, Unavailable, UnknownModel
from app.formats import EVENT_STREAM, FORMATS
from app.process import give_back_memory

# No proxy on the way may gather events (the second is nginx's own name for that).
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
LONG_S = 60  # what a recording of this length has used is worth giving back at once


class Transcriptions:
    """POST a recording, get its text.

    Args:
        task: `translate` on the translations route; None where the form may say.
    """

    needs_scope = "transcribe"

    def __init__(
        self,
        config: Config,
        engine: Engine,
        sandbox: Sandbox,
        watch: ClientWatch,
        task: str | None = None,
    ) -> None:
        self._config = config
        self._engine = engine
        self._sandbox = sandbox
        self._watch = watch
        self._task = task
        self._limits = Limits.of(config)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        spans: Spans = req.context.spans
        caller: Caller = req.context.caller
        resp.set_header("X-Model", self._config.name)
        with Form() as form:
            self._limits.check_bytes(req.content_length or 0)
            form.read(req.context.body, req.content_type, self._limits)
            request = transcription_request(form, req.headers, self._config, self._task)
            spans.about({"tier": request.tier.value})
            self._check_model(request.model)
            spans.note("receive", spans.total_s)
            connection = req.env.get("gunicorn.socket")
            segments = self._segments(request, connection, spans, caller)
            if request.stream:
                # The upload is read when the first event is there, so it may go with the form.
                resp.stream = EventStream(segments, request.response_format == "verbose_json")
                resp.content_type = EVENT_STREAM
                resp.set_headers(UNBUFFERED)
                return
            transcript = run_to_end(segments)
        written = FORMATS[request.response_format]
        resp.text = written.write(transcript, request.layout)
        resp.content_type = written.content_type

    def _segments(
        self,
        request: TranscriptionRequest,
        connection: socket.socket | None,
        spans: Spans,
        caller: Caller,
    ) -> Generator[Segment, None, Transcript]:
        """The request's segments as they are decoded, then its transcript.

        From the first draw to the end it holds a slot, and the client's leaving ends it.
        """
        tier = request.tier.value
        try:
            with (
                self._watch.watching(connection) as cancellation,
                self._engine.admit(request.tier, cancellation, request.reserve) as queued_s,
            ):
                spans.note("queue", queued_s)
                self._engine.check(request.options)
                begin = time.monotonic()
                waveform = self._sandbox.decode(request.file, cancellation)
                seconds = waveform.size / SAMPLE_RATE
                if seconds > LONG_S:
                    give_back_memory()
                metrics.AUDIO_RECEIVED_SECONDS.labels(tier).inc(seconds)
                caller.sent(seconds)
                decoded = time.monotonic()
                spans.note("decode", decoded - begin)
                spans.about({"audio_s": round(seconds, 2)})
                transcript = yield from self._engine.segments(
                    waveform, request.options, cancellation, request.tier
                )
                ended = time.monotonic()
                spans.note("inference", ended - decoded)
                del waveform
                if seconds > LONG_S:
                    give_back_memory()
        except ServiceError as error:
            count_failure(error, tier)
            raise
        except GeneratorExit:  # between two events
            count_failure(ClientGone("The client left its stream."), tier)
            raise
        metrics.ANSWERS.labels("200", tier).inc()
        metrics.AUDIO_SECONDS.labels(tier).inc(seconds)
        caller.transcribed(seconds)
        if seconds:
            metrics.REAL_TIME_FACTOR.labels(tier).observe((queued_s + ended - begin) / seconds)
        spans.observe()
        return transcript

    def _check_model(self, model: str) -> None:
        if self._config.strict_model and model not in served_models(self._config):
            raise UnknownModel(model)


def count_failure(error: ServiceError, tier: str) -> None:
    """Count an answer that is no transcript, by its kind."""
    metrics.ANSWERS.labels(str(error.status), tier).inc()
    if isinstance(error, Unavailable):
        metrics.REFUSED.labels(error.reason, tier).inc()
    if isinstance(error, ClientGone):
        metrics.CANCELLED.labels(tier).inc()
