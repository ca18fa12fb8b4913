"""Read what the device threads of this process have counted."""

from __future__ import annotations

from prometheus_client import REGISTRY


def device_figures() -> tuple[float, float, float]:
    """Return busy seconds, generate calls, and the windows in them, so far."""
    labels = {"kind": "generate"}
    return (
        REGISTRY.get_sample_value("transcription_device_busy_seconds_total") or 0.0,
        REGISTRY.get_sample_value("transcription_batch_size_count", labels) or 0.0,
        REGISTRY.get_sample_value("transcription_batch_size_sum", labels) or 0.0,
    )
