"""The resource behind OpenAI's two audio routes: form, slot, waveform, transcript, format."""

from __future__ import annotations

import time

import falcon

from app import log, metrics
from app.api.disconnect import ClientWatch
from app.api.form import Form, TranscriptionRequest, transcription_request
from app.api.models import served_models
from app.audio.decode import decode
from app.audio.limits import SAMPLE_RATE, Limits
from app.config import Config
from app.engine.cancellation import Cancellation
from app.engine.engine import Engine
from app.engine.results import Transcript
from app.errors import ClientGone, NotFound, ServiceError, Unavailable
from app.formats import FORMATS
from app.process import give_back_memory

LONG_S = 60  # what a recording of this length has used is worth giving back at once


class Transcriptions:
    """POST a recording, get its text.

    Args:
        task: `translate` on the translations route; None where the form may say.
    """

    needs_key = True

    def __init__(
        self, config: Config, engine: Engine, watch: ClientWatch, task: str | None = None
    ) -> None:
        self._config = config
        self._engine = engine
        self._watch = watch
        self._task = task
        self._limits = Limits.of(config)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        began = time.monotonic()
        with Form() as form:
            self._limits.check_bytes(req.content_length or 0)
            form.read(req.stream, req.content_type, self._limits)
            request = transcription_request(form, req.headers, self._config, self._task)
            req.context.spans = {"tier": request.tier.value}
            self._check_model(request.model)
            metrics.STAGE_SECONDS.labels("receive").observe(time.monotonic() - began)
            with self._watch.watching(req.env.get("gunicorn.socket")) as cancellation:
                transcript, req.context.spans = self._transcribe(request, cancellation)
        written = FORMATS[request.response_format]
        resp.text = written.write(transcript)
        resp.content_type = written.content_type
        resp.set_header("X-Model", self._config.name)
        metrics.STAGE_SECONDS.labels("total").observe(time.monotonic() - began)

    def _transcribe(
        self, request: TranscriptionRequest, cancellation: Cancellation
    ) -> tuple[Transcript, log.Fields]:
        """The request's transcript, and where its time went, for the log."""
        tier = request.tier.value
        try:
            with self._engine.admit(request.tier, cancellation, request.reserve) as queued_s:
                begin = time.monotonic()
                waveform = decode(request.file, self._limits)
                long = waveform.size > LONG_S * SAMPLE_RATE
                if long:
                    give_back_memory()
                metrics.AUDIO_RECEIVED_SECONDS.labels(tier).inc(waveform.size / SAMPLE_RATE)
                decoded = time.monotonic()
                transcript = self._engine.transcribe(
                    waveform, request.options, cancellation, request.tier
                )
                ended = time.monotonic()
                del waveform
                if long:
                    give_back_memory()
        except ServiceError as error:
            count_failure(error, tier)
            raise
        metrics.ANSWERS.labels("200", tier).inc()
        metrics.AUDIO_SECONDS.labels(tier).inc(transcript.duration)
        if transcript.duration:
            elapsed = queued_s + ended - begin
            metrics.REAL_TIME_FACTOR.labels(tier).observe(elapsed / transcript.duration)
        stages = {"queue": queued_s, "decode": decoded - begin, "inference": ended - decoded}
        for stage, seconds in stages.items():
            metrics.STAGE_SECONDS.labels(stage).observe(seconds)
        spent = {f"{stage}_ms": round(seconds * 1000) for stage, seconds in stages.items()}
        return transcript, {"tier": tier, "audio_s": round(transcript.duration, 2), **spent}

    def _check_model(self, model: str) -> None:
        if self._config.strict_model and model not in served_models(self._config):
            raise NotFound(f"The model {model[:80]!r} is not served here.", param="model")


def count_failure(error: ServiceError, tier: str) -> None:
    """Count an answer that is no transcript, by its kind."""
    metrics.ANSWERS.labels(str(error.status), tier).inc()
    if isinstance(error, Unavailable):
        metrics.REFUSED.labels(error.reason, tier).inc()
    if isinstance(error, ClientGone):
        metrics.CANCELLED.labels(tier).inc()
