"""How long a worker takes to say that it is well, while every slot is at work.

    python -m tests.measure.health [--requests 32] [--busy]

The balancer takes a worker out whose answer takes 1.5 s, twice in a row.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time

import httpx
import numpy as np

from tests.measure.chaos import busy_loops
from tests.support.recordings import long_recording, wav
from tests.support.worker import worker

MEASURE_S = 20.0
EVERY_S = 0.25


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--busy", action="store_true", help="with a busy loop on every core")
    chosen = parser.parse_args()
    content = wav(long_recording(60).samples)
    with worker(MAX_CONCURRENT_TRANSCRIPTIONS=str(chosen.requests)) as running:
        ended = threading.Event()

        def ask() -> None:
            with contextlib.suppress(httpx.HTTPError):  # those that the end cuts off
                while not ended.is_set():
                    running.post(content)

        clients = [threading.Thread(target=ask, daemon=True) for _ in range(chosen.requests)]
        for client in clients:
            client.start()
        while running.metric("transcription_slots_in_use") < chosen.requests:
            time.sleep(0.1)
        waits_s = []
        with busy_loops(chosen.busy):
            ends = time.monotonic() + MEASURE_S
            while time.monotonic() < ends:
                began = time.monotonic()
                assert running.health() is not None
                waits_s.append(time.monotonic() - began)
                time.sleep(EVERY_S)
        ended.set()
        running.process.kill()
    p50, p95 = np.percentile(waits_s, [50, 95])
    print(
        f"{chosen.requests} requests inside{', every core busy' if chosen.busy else ''}: /health "
        f"p50 {p50:.2f} s, p95 {p95:.2f} s, longest {max(waits_s):.2f} s of {len(waits_s)}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
