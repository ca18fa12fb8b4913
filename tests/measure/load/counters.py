"""The service's own counts before and after a run: what clients saw must agree with them.

HAProxy counts every request of its frontend `api` and the class of every answer; its script counts
refusals by reason; the workers count batches, device time and queueing. All are read on the stats
port and the workers' ports, so reading them adds nothing to what is counted.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.measure.load.journal import Call

ANSWER_S = 10.0
Sample = tuple[str, tuple[tuple[str, str], ...]]
Samples = dict[Sample, float]
# What is told of a histogram or a counter of the workers.
KINDS = ("encode", "generate", "align", "detect_language")


@dataclass(frozen=True)
class Target:
    """A service to be measured and where its counts are.

    Args:
        name: as the report calls it.
        url: its one entry.
        stats_url: HAProxy's stats port; empty: out of reach, and totals are not compared.
        worker_urls: the workers' own ports; empty: out of reach.
        pids: its processes, where they are on this machine.
        lanes: calls that its devices make side by side, all workers together; 0: not known.
    """

    name: str
    url: str
    stats_url: str = ""
    worker_urls: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    lanes: int = 0


@dataclass(frozen=True)
class Counts:
    """All counts of one moment: HAProxy's, its script's, and those of the workers, added up."""

    balancer: Samples
    refused: Samples
    workers: Samples

    @classmethod
    def of(cls, target: Target) -> Counts:
        """Those of now; a worker that does not answer has none."""
        workers: Samples = {}
        for url in target.worker_urls:
            for sample, value in read(url + "/metrics", lenient=True).items():
                workers[sample] = workers.get(sample, 0.0) + value
        stats = target.stats_url
        return cls(
            read(stats + "/metrics") if stats else {},
            read(stats + "/metrics/refused", lenient=True) if stats else {},
            workers,
        )

    def since(self, before: Counts) -> Counts:
        """Return what was added after an earlier moment; only counters mean something in it."""
        return Counts(
            less(self.balancer, before.balancer),
            less(self.refused, before.refused),
            less(self.workers, before.workers),
        )


def read(url: str, lenient: bool = False) -> Samples:
    """The samples of a page in Prometheus' text form; lenient: none if it is out of reach."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as page:
            text = page.read().decode()
    except OSError:
        if lenient:
            return {}
        raise
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def less(after: Samples, before: Samples) -> Samples:
    return {sample: value - before.get(sample, 0.0) for sample, value in after.items()}


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        value
        for (found, own), value in samples.items()
        if found == name and labels.items() <= dict(own).items()
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """Clients' totals beside HAProxy's, for one run.

    Args:
        sent, requests: what clients sent, and what the frontend counted.
        ok, answers_2xx: transcripts, and answers of that class.
        other, answers_other: all else that was answered.
        unanswered: requests whose client saw no answer: it gave up, or the connection failed.
            HAProxy may have counted each as any class, or not at all.
        mismatch: what does not agree, in a sentence; empty: all does.
    """

    sent: int
    requests: int
    ok: int
    answers_2xx: int
    other: int
    answers_other: int
    unanswered: int
    mismatch: str

    @classmethod
    def of(cls, calls: list[Call], counts: Counts, proxy: str = "api") -> Totals:
        """Compare; without unanswered requests every figure must be equal."""
        classes = {
            code: total(
                counts.balancer, "haproxy_frontend_http_responses_total", proxy=proxy, code=code
            )
            for code in ("1xx", "2xx", "3xx", "4xx", "5xx", "other")
        }
        requests = total(counts.balancer, "haproxy_frontend_http_requests_total", proxy=proxy)
        unanswered = sum(call.left or call.status == 0 for call in calls)
        ok = sum(call.status == 200 and not call.left for call in calls)
        other = len(calls) - ok - unanswered
        found = cls(
            len(calls), int(requests), ok, int(classes["2xx"]), other,
            int(sum(classes.values()) - classes["2xx"]), unanswered, "",
        )  # fmt: skip
        return found.judged()

    def judged(self) -> Totals:
        """The same with its verdict."""
        wrong = [
            f"{name}: clients {ours}, HAProxy {theirs}"
            for name, ours, theirs, fewest in (
                ("requests", self.sent, self.requests, self.sent - self.unanswered),
                ("transcripts", self.ok + self.unanswered, self.answers_2xx, self.ok),
                ("other answers", self.other + self.unanswered, self.answers_other, self.other),
            )
            if not fewest <= theirs <= ours
        ]
        return Totals(
            self.sent, self.requests, self.ok, self.answers_2xx, self.other,
            self.answers_other, self.unanswered, "; ".join(wrong),
        )  # fmt: skip


def inside(counts: Counts, wall_s: float) -> dict[str, Any]:
    """Return what the workers say of a run: batches, device, queue; None where nothing was counted.

    Args:
        counts: of the run alone.
        wall_s: from the first reading to the second, seconds.
    """
    workers = counts.workers
    return {
        "windows_per_call": {
            kind: mean(workers, "transcription_batch_size", kind=kind) for kind in KINDS
        },
        "batch_sizes": {
            kind: buckets(workers, "transcription_batch_size", kind=kind) for kind in KINDS
        },
        "device_calls_at_once": total(workers, "transcription_device_busy_seconds_total") / wall_s,
        "operation_wait_s": {
            kind: mean(workers, "transcription_operation_wait_seconds", kind=kind) for kind in KINDS
        },
        "stage_s": {
            stage: mean(workers, "transcription_stage_seconds", stage=stage)
            for stage in ("receive", "queue", "decode", "inference", "total")
        },
        "windows_encoded": total(workers, "transcription_windows_encoded_total"),
        "windows_redone": total(workers, "transcription_windows_redone_total"),
        "tail_windows_discarded": total(workers, "transcription_tail_windows_discarded_total"),
        "windows_too_short": total(workers, "transcription_windows_too_short_total"),
        "out_of_memory": total(workers, "transcription_out_of_memory_total"),
        "cancelled": total(workers, "transcription_cancelled_total"),
        "dropped_operations": total(workers, "transcription_dropped_operations_total"),
        "refused_by_reason": by(counts.refused, "transcription_pool_refused_total", "reason"),
        "retries": total(counts.balancer, "haproxy_backend_retry_warnings_total"),
        "redispatches": total(counts.balancer, "haproxy_backend_redispatch_warnings_total"),
    }


def mean(samples: Samples, name: str, **labels: str) -> float | None:
    """A histogram's mean."""
    count = total(samples, name + "_count", **labels)
    return total(samples, name + "_sum", **labels) / count if count else None


def buckets(samples: Samples, name: str, **labels: str) -> dict[str, int]:
    """A histogram's counts by the upper edge of each bucket, empty ones left out."""
    edges: dict[float, float] = {}
    for (found, own), value in samples.items():
        if found == name + "_bucket" and labels.items() <= dict(own).items():
            edge = float(dict(own)["le"])
            edges[edge] = edges.get(edge, 0.0) + value
    result, before = {}, 0.0
    for edge in sorted(edges):
        if edges[edge] > before:
            result[f"{edge:g}"] = int(edges[edge] - before)
        before = edges[edge]
    return result


def by(samples: Samples, name: str, label: str) -> Mapping[str, int]:
    """A counter's samples above 0, by one of their labels."""
    found: dict[str, int] = {}
    for (own_name, own), value in samples.items():
        if own_name == name and value > 0:
            key = dict(own).get(label, "")
            found[key] = found.get(key, 0) + int(value)
    return found
