"""Traces of requests, as a collector gets them over HTTP."""

from __future__ import annotations

import gzip
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from app.config import Config, ConfigError
from tests.support.client import Client
from tests.support.recordings import recording
from tests.support.text import SENTENCE

PROMPT = "The sisters were left to their thoughts."
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
WAIT_S = 15


@dataclass
class Collector:
    """Takes what is exported to it."""

    address: str
    bodies: queue.Queue[bytes] = field(default_factory=queue.Queue)

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[Collector]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.bodies.put(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        collector = cls(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield collector
        finally:
            server.shutdown()
            server.server_close()

    def spans(self) -> tuple[list[Any], dict[str, str], bytes]:
        """The next export: its spans, its resource's attributes, and all of it as sent."""
        body = self.bodies.get(timeout=WAIT_S)
        (sent,) = ExportTraceServiceRequest.FromString(body).resource_spans
        about = {one.key: one.value.string_value for one in sent.resource.attributes}
        return [span for scope in sent.scope_spans for span in scope.spans], about, body


@pytest.fixture
def quick(monkeypatch):
    """Exports are sent at once."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def test_a_transcription_is_a_trace_of_its_stages(tiny_config, tiny_engine, quick):
    with Collector.listening() as collector:
        config = replace(tiny_config, otel_exporter_otlp_endpoint=collector.address)
        client = Client.of(config, tiny_engine)

        answer = client.post(
            recording("austen_0890.wav").content(), {"prompt": PROMPT},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "mine-1"},
        )  # fmt: skip
        spans, about, body = collector.spans()

    assert answer.status_code == 200
    assert about["service.name"] == "transcription"
    (whole,) = [span for span in spans if span.name.startswith("POST ")]
    parts = {span.name: span for span in spans if span is not whole}
    assert set(parts) == {"receive", "queue", "decode", "inference"}
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == PARENT
    for part in parts.values():
        assert part.trace_id == whole.trace_id
        assert part.parent_span_id == whole.span_id
        assert part.start_time_unix_nano >= whole.start_time_unix_nano
        assert part.end_time_unix_nano <= whole.end_time_unix_nano
    assert parts["queue"].end_time_unix_nano <= parts["inference"].start_time_unix_nano
    told = {one.key.removeprefix("transcription."): one.value for one in whole.attributes}
    assert told["status"].int_value == 200
    assert told["request_id"].string_value == "mine-1"
    assert told["audio_s"].double_value == pytest.approx(5.3, abs=0.1)
    for private in (SENTENCE.split()[3], SENTENCE, PROMPT):
        assert private.encode() not in body


def test_a_collector_that_is_away_costs_no_request(tiny_config, tiny_engine, quick):
    config = replace(tiny_config, otel_exporter_otlp_endpoint="http://127.0.0.1:9")

    answer = Client.of(config, tiny_engine).post(recording("austen_0890.wav").content())

    assert answer.status_code == 200


def test_what_is_no_address_stops_the_start():
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        Config.from_env({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, env_file=None)
