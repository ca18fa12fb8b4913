"""Report a worker's statistics to the balancer in one header of each health check.

The balancer keeps at most 127 bytes of it, so names are short and numbers rounded.
"""

from __future__ import annotations

import re

from app import __version__
from app.engine.engine import Engine
from app.observability import metrics

HEADER = "X-Figures"
STAGES = ("queue", "decode", "inference")  # without receiving the upload
MIB = 1 << 20
KEPT_BYTES = 127


def figures(engine: Engine, model: str) -> str:
    """Return `name=value` pairs: counters since the process started, and what the worker runs.

    `busy` is seconds of device calls, of which up to `calls` run at once; `audio` is seconds of
    transcribed audio, and `took` is the wall time for it; `used` and `free` are MiB of GPU memory.
    The model's name comes last, and is cut off where there is no room for it.
    """
    named: dict[str, object] = {
        "device": engine.device,
        "calls": engine.calls_at_once,
        "busy": f"{metrics.counted(metrics.DEVICE_BUSY_SECONDS):.1f}",
        "audio": f"{metrics.counted(metrics.AUDIO_SECONDS):.1f}",
        "took": f"{metrics.counted(metrics.STAGE_SECONDS, 'stage', STAGES):.1f}",
    }
    if memory := engine.gpu_memory:
        named |= {"used": memory.used // MIB, "free": memory.free // MIB}
    named |= {"version": __version__, "model": re.sub(r"[^!-~]+", "_", model)}
    return " ".join(f"{name}={value}" for name, value in named.items())[:KEPT_BYTES]
