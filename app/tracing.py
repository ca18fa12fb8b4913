"""A trace for each transcription, sent to a collector when one is named.

The stages of a request are known when it ends (`app/api/spans.py`); they become the children of
one span, with the times they had. Nothing of the transcript, the prompt or a key is sent.

Source: OpenTelemetry's protocol (OTLP) over HTTP, and W3C Trace Context for the client's own trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from app import log
from app.api.spans import Stage
from app.config import Config

SERVICE = "transcription"
PATH = "/v1/traces"


class Traces:
    """Sends traces in the background, in batches, and what is left when the process ends; a
    collector that is away costs no request.

    Args:
        config: the collector's address.
    """

    def __init__(self, config: Config) -> None:
        resource = Resource.create(
            {
                "service.name": SERVICE,
                "service.instance.id": f"w{config.worker_id}",
                "transcription.model": config.name,
            }
        )
        self._provider = TracerProvider(resource=resource)
        endpoint = config.otel_exporter_otlp_endpoint.rstrip("/") + PATH
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer(SERVICE)
        self._propagator = TraceContextTextMapPropagator()

    def ended(
        self,
        stages: Sequence[Stage],
        fields: log.Fields,
        headers: Mapping[str, str],
    ) -> None:
        """A request has ended.

        Args:
            stages: the whole request first, then its stages.
            fields: what its log line says.
            headers: the request's, in lower case; `traceparent` names the trace it belongs to.
        """
        whole, *parts = stages
        context = self._propagator.extract(headers)
        attributes = {f"transcription.{field}": value for field, value in fields.items()}
        span = self._tracer.start_span(
            whole.name, context, trace.SpanKind.SERVER, attributes, start_time=whole.began_ns
        )
        if int(fields.get("status", 0)) >= 500:
            span.set_status(trace.StatusCode.ERROR)
        inside = trace.set_span_in_context(span)
        for part in parts:
            child = self._tracer.start_span(part.name, inside, start_time=part.began_ns)
            child.end(part.ended_ns)
        span.end(whole.ended_ns)
