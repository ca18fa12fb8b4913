"""The Grafana dashboard, from one source: `python deploy/monitoring/dashboard.py` writes
dashboard.json beside this file, and a test compares the two.

Every panel asks one question. Import the JSON in Grafana (Dashboards, New, Import) and choose the
Prometheus that scrapes as prometheus.yml shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("dashboard.json")
COLUMNS, WIDTH, HEIGHT = 3, 8, 8
OURS = 'machine=~"$machine"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """One question.

    Args:
        title: what is shown.
        question: what it answers, as its description.
        unit: Grafana's name of the unit.
        queries: legend -> PromQL.
    """

    title: str
    question: str
    unit: str
    queries: dict[str, str]


def quantile(share: float, metric: str, labels: str = "", by: str = "") -> str:
    """A histogram's quantile over all workers."""
    return (
        f"histogram_quantile({share}, sum by (le{by}) "
        f"(rate({metric}_bucket{{{OURS}{labels}}}{RATE})))"
    )


def rate(metric: str, labels: str = "", by: str = "machine") -> str:
    """A counter's rate."""
    return f"sum by ({by}) (rate({metric}{{{OURS}{labels}}}{RATE}))"


def mean(metric: str, by: str) -> str:
    """A histogram's mean."""
    return f"{rate(metric + '_sum', by=by)} / {rate(metric + '_count', by=by)}"


REQUESTS = "haproxy_frontend_http_requests_total"
REFUSED = "transcription_pool_refused_total"
API = ', proxy="api"'
WORKERS = ', proxy="workers"'
QUEUES = ', proxy=~"workers|deferred_queue"'
UP = 'state="UP"'
EACH = WORKERS + ', server!="waiting"'  # the one server there that is no worker

ROWS: dict[str, list[Panel]] = {
    "Clients": [
        Panel("Requests", "How many come and how many are answered?", "reqps", {
            "offered": rate(REQUESTS, API),
            "{{code}}": rate("haproxy_frontend_http_responses_total", API, by="code"),
        }),
        Panel("Refused", "Why are clients told to come again?", "reqps", {
            "{{reason}}, {{tier}}": rate(REFUSED, by="reason, tier"),
        }),
        Panel("Share refused", "How large a part is refused?", "percentunit", {
            "{{machine}}": f"{rate(REFUSED)} / {rate(REQUESTS, API)}",
        }),
        Panel("Time to the answer", "How long does a transcript take inside a worker?", "s", {
            "p50": quantile(0.5, "transcription_stage_seconds", ', stage="total"'),
            "p95": quantile(0.95, "transcription_stage_seconds", ', stage="total"'),
            "p99": quantile(0.99, "transcription_stage_seconds", ', stage="total"'),
        }),
        Panel("Real-time factor, p95", "Above 1, live captions fall behind.", "none", {
            "{{tier}}": quantile(0.95, "transcription_real_time_factor", by=", tier"),
        }),
        Panel("Audio", "How many seconds of audio are transcribed in a second?", "none", {
            "transcribed, {{tier}}": rate("transcription_audio_seconds_total", by="tier"),
            "received": rate("transcription_audio_received_seconds_total"),
        }),
    ],
    "Workers": [
        Panel("Workers up", "How many take requests?", "none", {
            "{{machine}}": f"sum by (machine) (haproxy_server_status{{{OURS}{EACH}, {UP}}})",
            "ready, {{instance}}": f"transcription_ready{{{OURS}}}",
        }),
        Panel("Slots in use", "How many requests are inside?", "none", {
            "{{instance}}": f"transcription_slots_in_use{{{OURS}}}",
            "slots of {{server}}": f"haproxy_server_limit_sessions{{{OURS}{EACH}}}",
        }),
        Panel("Queues", "How many wait in the balancer, and in a worker?", "none", {
            "{{proxy}}": f"haproxy_backend_current_queue{{{OURS}{QUEUES}}}",
            "in {{instance}}": f"transcription_waiting{{{OURS}}}",
        }),
        Panel("Stages, mean", "Where does the time of a request go?", "s", {
            "{{stage}}": mean("transcription_stage_seconds", "stage"),
        }),
        Panel("Sent again", "How many requests were sent to another worker?", "reqps", {
            "{{proxy}}": rate("haproxy_backend_redispatch_warnings_total",
                              QUEUES, by="proxy"),
        }),
        Panel("Clients that left", "How many did not wait for their answer?", "reqps", {
            "{{proxy}}": rate("haproxy_backend_client_aborts_total",
                              QUEUES, by="proxy"),
        }),
    ],
    "Device": [
        Panel("Calls at once", "How busy is the device? 1 is one call all the time.", "none", {
            "{{instance}}": rate("transcription_device_busy_seconds_total", by="instance"),
        }),
        Panel("Windows a call, mean", "Do requests share calls?", "none", {
            "{{kind}}": mean("transcription_batch_size", "kind"),
        }),
        Panel("Wait for the device, p95", "How long does a window wait for a call?", "s", {
            "{{kind}}": quantile(0.95, "transcription_operation_wait_seconds", by=", kind"),
        }),
        Panel("Length of a call, p95", "How long does a call take?", "s", {
            "{{kind}}": quantile(0.95, "transcription_device_call_seconds", by=", kind"),
        }),
        Panel("GPU memory", "How full is it?", "bytes", {
            "{{is}}, {{instance}}": f"transcription_gpu_memory_bytes{{{OURS}}}",
        }),
        Panel("Trouble", "Batches too large, windows done again, loops, ends", "none", {
            "out of memory": rate("transcription_out_of_memory_total"),
            "windows redone": rate("transcription_windows_redone_total"),
            "loops": rate("transcription_windows_looped_total"),
            "prompts echoed": rate("transcription_windows_echoed_total"),
            "ends not believed": rate("transcription_rests_not_believed_total"),
            "ends not decoded": rate("transcription_windows_too_short_total"),
            "calls dropped": rate("transcription_dropped_operations_total"),
        }),
    ],
    "Processes": [
        Panel("Memory", "Does a worker grow?", "bytes", {
            "{{instance}}": f'process_resident_memory_bytes{{{OURS}, job="transcription-workers"}}',
        }),
        Panel("Descriptors", "Does a worker leave files open?", "none", {
            "{{instance}}": f'process_open_fds{{{OURS}, job="transcription-workers"}}',
        }),
        Panel("Age", "When was a worker started?", "s", {
            "{{instance}}":
                f'time() - process_start_time_seconds{{{OURS}, job="transcription-workers"}}',
        }),
    ],
}  # fmt: skip


def panel(number: int, one: Panel, x: int, y: int) -> dict[str, Any]:
    """A panel as Grafana has it."""
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number, "type": "timeseries", "title": one.title, "description": one.question,
        "datasource": source, "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                    "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": source, "expr": query,
             "legendFormat": legend}
            for n, (legend, query) in enumerate(one.queries.items())
        ],
    }  # fmt: skip


def dashboard() -> dict[str, Any]:
    """All of it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        grid = {"x": 0, "y": y, "w": COLUMNS * WIDTH, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": grid,
                       "collapsed": False, "panels": []})  # fmt: skip
        y += 1
        for n, one in enumerate(row):
            x = n % COLUMNS * WIDTH
            panels.append(panel(len(panels) + 1, one, x, y + n // COLUMNS * HEIGHT))
        y += -(-len(row) // COLUMNS) * HEIGHT
    return {
        "uid": "transcription", "title": "Transcription service", "schemaVersion": 38,
        "version": 1, "editable": True, "refresh": "10s", "timezone": "",
        "time": {"from": "now-1h", "to": "now"}, "tags": ["transcription"],
        "templating": {"list": [
            {"name": "source", "label": "Prometheus", "type": "datasource",
             "query": "prometheus"},
            {"name": "machine", "type": "query", "multi": True, "includeAll": True,
             "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "refresh": 2,
             "datasource": {"type": "prometheus", "uid": "${source}"},
             "query": "label_values(transcription_ready, machine)"},
        ]},
        "panels": panels,
    }  # fmt: skip


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())
