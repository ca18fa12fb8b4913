"""Every Prometheus metric, with the question it answers.

One worker is one process, so the library's own registry holds all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # one line an hour tells no one anything

# From a short window on a fast GPU to hours of audio on a CPU.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

ANSWERS = Counter(
    "transcription_answers", "How were transcription requests answered?", ["status", "tier"]
)
REFUSED = Counter(
    "transcription_refused", "Why were requests turned away without work?", ["reason", "tier"]
)
CANCELLED = Counter(
    "transcription_cancelled", "How many clients left before their answer?", ["tier"]
)
AUDIO_RECEIVED_SECONDS = Counter(
    "transcription_audio_received_seconds", "How much audio was decoded from uploads?", ["tier"]
)
AUDIO_SECONDS = Counter("transcription_audio_seconds", "How much audio was transcribed?", ["tier"])
KEY_REQUESTS = Counter(
    "transcription_key_requests",
    "How were each key's requests answered (2xx, 4xx, 5xx)?",
    ["key", "status"],
)
KEY_AUDIO_SECONDS = Counter(
    "transcription_key_audio_seconds", "How much audio was transcribed for each key?", ["key"]
)
REAL_TIME_FACTOR = Histogram(
    "transcription_real_time_factor",
    "How long does an answer take, for each second of its audio (waiting included)?",
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
    "How many requests' windows share one call on the device?",
    ["kind"],
    buckets=(1, 2, 4, 8, 16, 32, 64),
)
OPERATION_WAIT_SECONDS = Histogram(
    "transcription_operation_wait_seconds",
    "How long does a window wait for the device before a call?",
    ["kind"],
    buckets=SECONDS,
)
DEVICE_CALL_SECONDS = Histogram(
    "transcription_device_call_seconds",
    "How long does a call on the device take?",
    ["kind"],
    buckets=SECONDS,
)
DEVICE_BUSY_SECONDS = Counter(
    "transcription_device_busy_seconds",
    "How much of the time is the device in a call (over its threads)?",
)
WINDOWS_ENCODED = Counter(
    "transcription_windows_encoded", "How many windows went through the encoder?"
)
WINDOWS_REDONE = Counter(
    "transcription_windows_redone", "How many short encoder windows had to be done again in full?"
)
RESTS_NOT_BELIEVED = Counter(
    "transcription_rests_not_believed",
    "How many ends of recordings had an unlikely text in their short encoder window?",
)
WINDOWS_TOO_SHORT = Counter(
    "transcription_windows_too_short", "How many ends of recordings were too short for a word?"
)
WINDOWS_ECHOED = Counter(
    "transcription_windows_echoed", "How many windows said what stands in their prompt?"
)
WINDOWS_LOOPED = Counter(
    "transcription_windows_looped", "How many windows said the same again and again?"
)
DROPPED_OPERATIONS = Counter(
    "transcription_dropped_operations", "How many calls were saved because the client had left?"
)
OUT_OF_MEMORY = Counter(
    "transcription_out_of_memory", "How often was a batch too large for the device's memory?"
)
DECODERS_ENDED = Counter(
    "transcription_decoders_ended",
    "How many uploads cost their decoder (`why`: time, died, failed)?",
    ["why"],
)
READY = Gauge("transcription_ready", "Could this worker transcribe now?")
SLOTS_IN_USE = Gauge("transcription_slots_in_use", "How many requests are inside?")
WAITING = Gauge("transcription_waiting", "How many requests wait for the model?")
GPU_MEMORY_BYTES = Gauge(
    "transcription_gpu_memory_bytes",
    "How full is the GPU's memory, all its users together?",
    ["is"],
)


# A counter that is not there before it first counts loses that count: rates compare two readings.
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
    """What a counter has counted or a histogram has summed up, over all its labels or over these
    values of one."""
    return sum(
        sample.value
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith(("_total", "_sum"))
        and (not values or sample.labels[label] in values)
    )


class Memory(Protocol):
    """What is asked of a GPU's memory."""

    @property
    def used(self) -> int: ...

    @property
    def free(self) -> int: ...


def watch_gpu_memory(read: Callable[[], Memory | None]) -> None:
    """Read the memory whenever the metrics are asked for; 0 of everything where there is none."""
    for kind in ("used", "free"):
        GPU_MEMORY_BYTES.labels(kind).set_function(partial(bytes_of, read, kind))


def bytes_of(read: Callable[[], Memory | None], kind: str) -> float:
    """One figure of the memory."""
    memory = read()
    return float(getattr(memory, kind)) if memory else 0.0


class Occupancy(Protocol):
    """What is asked of the admission."""

    @property
    def inside(self) -> int: ...

    @property
    def waiting(self) -> int: ...


def watch_admission(admission: Occupancy) -> None:
    """Read the occupancy from its keeper whenever the metrics are asked for."""
    SLOTS_IN_USE.set_function(lambda: admission.inside)
    WAITING.set_function(lambda: admission.waiting)
