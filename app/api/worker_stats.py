"""What a worker tells the balancer about its work with each health check: one header.

The balancer keeps an answer's words up to 127 bytes, so names are short and numbers rounded.
"""

from __future__ import annotations

from app.engine.engine import Engine
from app.observability import metrics

HEADER = "X-Figures"
STAGES = ("queue", "decode", "inference")  # what an answer takes, without the client's sending
MIB = 1 << 20


def figures(engine: Engine) -> str:
    """`name=value` pairs: counters since the process started, and the GPU's memory in MiB.

    `busy` is seconds of device calls, of which there are `calls` at a time; `audio` and `took`
    are seconds of transcribed audio and of the clock for it.
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
    return " ".join(f"{name}={value}" for name, value in named.items())
