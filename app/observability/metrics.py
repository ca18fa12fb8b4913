"""Define every Prometheus metric and the question that it answers.

A worker is one process, so the library's default registry holds all its metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from prometheus_client import (
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # an extra series for each metric, of no use

# From a short window on a fast GPU to hours of audio on a CPU.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

ANSWERS = Counter(
    "transcription_answers", "How were transcription requests answered?", ["status", "tier"]
)
REFUSED = Counter(
    "transcription_refused", "Why were requests refused before any work?", ["reason", "tier"]
)
CANCELLED = Counter(
    "transcription_cancelled", "How many clients disconnected before their answer?", ["tier"]
)
AUDIO_RECEIVED_SECONDS = Counter(
    "transcription_audio_received_seconds", "How much audio was decoded from uploads?", ["tier"]
)
AUDIO_SECONDS = Counter("transcription_audio_seconds", "How much audio was transcribed?", ["tier"])
KEY_REQUESTS = Counter(
    "transcription_key_requests",
    "How were each key's requests answered (2xx, 4xx, 5xx, cancelled)?",
    ["key", "status"],
)
KEY_AUDIO_SECONDS = Counter(
    "transcription_key_audio_seconds", "How much audio was transcribed for each key?", ["key"]
)
REAL_TIME_FACTOR = Histogram(
    "transcription_real_time_factor",
    "How long does an answer take per second of audio, waiting included?",
    ["tier"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
STAGE_SECONDS = Histogram(
    "transcription_stage_seconds",
    "Where does a successful request spend its time (receive, queue, decode, inference, total)?",
    ["stage"],
    buckets=SECONDS,
)
BATCH_SIZE = Histogram(
    "transcription_batch_size",
    "How many operations share one device call?",
    ["kind"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
OPERATION_WAIT_SECONDS = Histogram(
    "transcription_operation_wait_seconds",
    "How long does an operation wait for its device call?",
    ["kind"],
    buckets=SECONDS,
)
DEVICE_CALL_SECONDS = Histogram(
    "transcription_device_call_seconds",
    "How long does a device call take?",
    ["kind"],
    buckets=SECONDS,
)
DEVICE_BUSY_SECONDS = Counter(
    "transcription_device_busy_seconds",
    "How much time does the device spend in calls, summed over its threads?",
)
WINDOWS_ENCODED = Counter(
    "transcription_windows_encoded", "How many windows went through the encoder?"
)
WINDOWS_REDONE = Counter(
    "transcription_windows_redone", "How many short encoder windows were decoded again in full?"
)
TAIL_WINDOWS_DISCARDED = Counter(
    "transcription_tail_windows_discarded",
    "How many windows of less than a second at the end of recordings had implausible text?",
)
WINDOWS_TOO_SHORT = Counter(
    "transcription_windows_too_short",
    "How many windows at the end of recordings were too short for a word?",
)
PROMPT_ECHOES = Counter("transcription_prompt_echoes", "How many windows had a prompt echo?")
NOISE_WINDOWS = Counter(
    "transcription_noise_windows", "How many short windows were noise or music?"
)
PROMPT_OMISSIONS = Counter(
    "transcription_prompt_omissions",
    "How many windows had too little text and were decoded again without their prompt?",
)
REPETITION_LOOPS = Counter(
    "transcription_repetition_loops", "How many windows had a repetition loop?"
)
FORMER_NAMES = {
    "transcription_rests_not_believed": TAIL_WINDOWS_DISCARDED,
    "transcription_windows_looped": REPETITION_LOOPS,
    "transcription_windows_echoed": PROMPT_ECHOES,
}
DROPPED_OPERATIONS = Counter(
    "transcription_dropped_operations",
    "How many operations were dropped because the client had disconnected?",
)
OUT_OF_MEMORY = Counter(
    "transcription_out_of_memory", "How often did a batch exceed the device's memory?"
)
DECODERS_ENDED = Counter(
    "transcription_decoders_ended",
    "How many uploads ended their decoder process (`why`: time, died, failed)?",
    ["why"],
)
READY = Gauge("transcription_ready", "Is this worker ready?")
SLOTS_IN_USE = Gauge("transcription_slots_in_use", "How many slots are in use?")
WAITING = Gauge("transcription_waiting", "How many requests wait for the model or for a slot?")
GPU_MEMORY_BYTES = Gauge(
    "transcription_gpu_memory_bytes",
    "How much GPU memory is used and free, over all its processes?",
    ["is"],
)


# Create the series at 0: a rate compares two readings, so it misses the first count of a new one.
for tier in ("realtime", "deferred"):
    ANSWERS.labels("200", tier)
    CANCELLED.labels(tier)
    AUDIO_RECEIVED_SECONDS.labels(tier)
    AUDIO_SECONDS.labels(tier)
    REAL_TIME_FACTOR.labels(tier)
for why in ("time", "died", "failed"):
    DECODERS_ENDED.labels(why)
for stage in ("receive", "queue", "decode", "inference", "total"):
    STAGE_SECONDS.labels(stage)


def counted(metric: Counter | Histogram, label: str = "", values: Sequence[str] = ()) -> float:
    """Return the total of a counter or the sum of a histogram, over all labels or over these
    values of one label."""
    return sum(
        sample.value
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_sum"))
        and (not values or sample.labels[label] in values)
    )


class FormerNames(Collector):
    """Counters under the names that they had until 0.2; to be removed in 0.3."""

    def collect(self) -> Iterator[Metric]:
        """Yield each counter under its former name."""
        for former, counter in FORMER_NAMES.items():
            for metric in counter.describe():
                text = f"Former name of {metric.name}_total; removed in 0.3."
                yield CounterMetricFamily(former, text, value=counted(counter))

    def describe(self) -> Iterator[Metric]:
        """Yield the same, so that the registry knows the names."""
        return self.collect()


REGISTRY.register(FormerNames())


class Memory(Protocol):
    """A GPU's memory, as far as the metrics use it."""

    @property
    def used(self) -> int: ...

    @property
    def free(self) -> int: ...


def watch_gpu_memory(read: Callable[[], Memory | None]) -> None:
    """Read the memory on each scrape; 0 without a GPU."""
    for kind in ("used", "free"):
        GPU_MEMORY_BYTES.labels(kind).set_function(partial(bytes_of, read, kind))


def bytes_of(read: Callable[[], Memory | None], kind: str) -> float:
    """Return one attribute of the memory in bytes; 0 without a GPU."""
    memory = read()
    return float(getattr(memory, kind)) if memory else 0.0


class Occupancy(Protocol):
    """The admission, as far as the metrics use it."""

    @property
    def inside(self) -> int: ...

    @property
    def waiting(self) -> int: ...


def watch_admission(admission: Occupancy) -> None:
    """Read the occupancy from the admission on each scrape."""
    SLOTS_IN_USE.set_function(lambda: admission.inside)
    WAITING.set_function(lambda: admission.waiting)
