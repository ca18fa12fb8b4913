"""Define the gateway's Prometheus metrics and the question that each answers."""

from __future__ import annotations

import math
import time
from collections import deque

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

HEADER = "X-Figures"  # of the balancer's health checks
RECENT_S = 300.0
recent_delays: deque[tuple[float, float]] = deque(maxlen=1000)  # when, and the delay in seconds

disable_created_metrics()  # type: ignore[no-untyped-call]  # an extra series for each metric, of no use

SESSIONS = Gauge("transcription_live_sessions", "How many live sessions are open?")
SESSIONS_ENDED = Counter(
    "transcription_live_sessions_ended",
    "Why did sessions end (`why`: client, limit, slow, shutdown, error)?",
    ["why"],
)
SESSIONS_REFUSED = Counter(
    "transcription_live_sessions_refused",
    "Why were sessions refused (full, key, shutdown)?",
    ["why"],
)
BEHIND_SECONDS = Gauge(
    "transcription_live_behind_seconds", "How much audio waits for the pool, over all sessions?"
)
DELAY_SECONDS = Histogram(
    "transcription_live_delay_seconds",
    "How long after a word's audio arrived is the word sent?",
    buckets=(0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10, 20, 60),
)
SPEECH_SECONDS = Counter("transcription_live_speech_seconds", "How much audio was in turns?")
WINDOW_SECONDS = Counter(
    "transcription_live_window_seconds", "How much audio was sent in windows, repeats included?"
)
WINDOWS = Counter(
    "transcription_live_windows",
    "How were windows answered (`answer`: words, busy, refused)?",
    ["answer"],
)
TURNS = Counter(
    "transcription_live_turns", "How did turns end (`how`: completed, failed, cleared)?", ["how"]
)

# Create the series at 0: a rate compares two readings, so it misses the first count of a new one.
for why in ("client", "limit", "slow", "shutdown", "error"):
    SESSIONS_ENDED.labels(why)
for why in ("full", "key", "shutdown"):
    SESSIONS_REFUSED.labels(why)
for answer in ("words", "busy", "refused"):
    WINDOWS.labels(answer)
for how in ("completed", "failed", "cleared"):
    TURNS.labels(how)


def observe_delay(seconds: float) -> None:
    """Count the delay from a word's audio to the word."""
    DELAY_SECONDS.observe(seconds)
    recent_delays.append((time.monotonic(), seconds))


def figures(behind_s: float) -> str:
    """Return `name=value` pairs for the balancer, which shows them on /status.

    `behind_s` is the audio that waits for the pool; `p50_ms` and `p95_ms` are the median delay and
    the delay of 95 % of the words, of up to 1000 words of the last five minutes.
    """
    named = {"behind_s": f"{behind_s:.1f}"}
    since = time.monotonic() - RECENT_S
    fresh = sorted(seconds for when, seconds in recent_delays if when >= since)
    if fresh:
        for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95)):
            named[name] = f"{fresh[math.ceil(share * len(fresh)) - 1] * 1000:.0f}"
    return " ".join(f"{name}={value}" for name, value in named.items())
