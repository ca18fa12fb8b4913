"""Part `service` of `make bench-gpu`: the whole service through HAProxy, under locust.

Windows of 6 s with words, with speech search; so the host's work counts here, too.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from app.pool.environment import PoolError, find_haproxy
from tests.measure.gpu.part import DEVICE, GPU, MODELS, SIZE, TYPES, Part
from tests.measure.load import side
from tests.measure.load.run import Load, run
from tests.measure.random_model import random_model

WINDOW_S = "6"
SECONDS = 8
# workers -> users
RUNS = {1: (1, 8, 32), 2: (32, 64)} if GPU else {1: (2,)}


def main() -> None:
    part = Part("service")
    try:
        find_haproxy()
    except PoolError as error:
        part.note(f"The whole service was not measured: {error}")
        part.finish()
        return
    folder = random_model(SIZE, MODELS)
    for workers, levels in RUNS.items():
        settings = {
            "WORKERS": str(workers), "MODEL_SIZE": str(folder), "DEVICE": DEVICE,
            "COMPUTE_TYPE": TYPES[0],
        }  # fmt: skip
        with (
            tempfile.TemporaryDirectory() as place,
            side.started("service", Path(place), **settings) as (target, _),
        ):
            for users in levels:
                if part.left_s < 2 * SECONDS:
                    part.note(f"No time for {workers} workers and {users} users.")
                    continue
                load = Load(users, SECONDS, options=("--window-seconds", WINDOW_S))
                step = run(target, load, Path(place), f"{workers} workers, {users} users")
                part.add(
                    f"The whole service, {SIZE}, {TYPES[0]} on {DEVICE}",
                    workers=workers, users=users, requests_per_s=step.figures.requests_per_s,
                    p50_s=step.figures.success_s.p50, p95_s=step.figures.success_s.p95,
                    refused=step.figures.counts["refused"], failed=step.figures.counts["error"],
                    busy=step.inside["device_busy_share"], cpu_s_a_window=step.cpu_s,
                    totals=step.mismatch or "as HAProxy counted",
                )  # fmt: skip
    part.finish()


if __name__ == "__main__":
    main()
