"""Harm done to a pool under steady load, and what its clients saw of it.

    make chaos                                       every harm, a minute and 8 events each
    python -m tests.chaos kill reload --seconds 20 --events 3

The load is windows of speech at 70 % of what the pool was measured to do just before, and a
10 MB upload now and then where a change of ours must not lose it. Prints a table, writes
.run/chaos.json, exits 1 when a request failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.config import ROOT
from app.pool import children
from app.rollout import Balancer
from tests import bench
from tests.load import Load
from tests.recordings import recording, wav
from tests.stack import Stack, bare_environment, until

WORKERS = 3
CLIENTS = 6
SHARE = 0.7
MEASURE_S = 10.0
BACK_S = 60.0
WINDOW = wav(recording("austen_0890.wav").waveform())
# More than the balancer can send again: speech, and silence to 10 MB.
LARGE = wav(np.pad(recording("austen_0890.wav").waveform(), (0, 4_900_000)))
Harm = Callable[["Victim", int], None]


class Victim:
    """A running pool and the ways to hurt it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.balancer = Balancer(stack.run_dir / "admin.sock")

    def arbiters(self) -> list[int]:
        """Gunicorn's masters, each with one child that holds a model."""
        return [pid for pid in self.stack.processes() if is_worker(pid) and children(pid)]

    def child(self, number: int) -> int:
        """The process of a worker that holds its model."""
        masters = self.arbiters()
        return children(masters[number % len(masters)])[0]

    def up(self) -> int:
        """Workers that take requests."""
        return sum(server.status == "UP" for server in self.balancer.servers())

    def command(self, name: str, **settings: str) -> None:
        """`make restart` and its like."""
        told = subprocess.run(
            [sys.executable, "-m", "app.pool", name],
            cwd=ROOT, env=bare_environment() | self.stack.settings | settings,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if told.returncode != 0:
            raise RuntimeError(f"{name}: {told.stdout}")


def is_worker(pid: int) -> bool:
    try:
        return b"app.gunicorn_conf" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def kill(victim: Victim, event: int) -> None:
    """kill -9 of the process that holds a model"""
    os.kill(victim.child(event), signal.SIGKILL)


def arbiter(victim: Victim, event: int) -> None:
    """kill -9 of a worker's Gunicorn arbiter"""
    masters = victim.arbiters()
    os.kill(masters[event % len(masters)], signal.SIGKILL)


def two(victim: Victim, event: int) -> None:
    """kill -9 of two workers of three at once"""
    for number in (event, event + 1):
        os.kill(victim.child(number), signal.SIGKILL)


def stop(victim: Victim, event: int) -> None:
    """SIGSTOP of a worker's process, for good"""
    os.kill(victim.child(event), signal.SIGSTOP)


def restart(victim: Victim, event: int) -> None:
    """make restart, 10 MB uploads among the load"""
    victim.command("restart")


def scale(victim: Victim, event: int) -> None:
    """make scale to 5, to 2 and back to 3, 10 MB uploads among the load"""
    for workers in (5, 2, 3):
        victim.command("scale", WORKERS=str(workers))


def reload(victim: Victim, event: int) -> None:
    """make reload, 10 MB uploads among the load"""
    victim.command("reload")


HARMS: dict[str, Harm] = {
    harm.__name__: harm for harm in (kill, arbiter, two, stop, restart, scale, reload)
}
OURS = ("restart", "scale", "reload")  # changes of ours: not even a large upload may be lost


def capacity(stack: Stack) -> float:
    """Requests a second when there is always another one."""
    with Load(stack.url, [WINDOW] * CLIENTS) as load:
        time.sleep(MEASURE_S)
    return len(load.waits_s) / MEASURE_S


def hurt(victim: Victim, name: str, seconds: float, events: int) -> dict[str, object]:
    """Do one kind of harm again and again under load."""
    rate = SHARE * capacity(victim.stack)
    bodies = [WINDOW] * CLIENTS
    if name in OURS:
        bodies[0] = LARGE
    back: list[float] = []
    began = time.monotonic()
    with Load(victim.stack.url, bodies, every_s=CLIENTS / rate) as load:
        for event in range(events):
            time.sleep(max(0.0, began + event * seconds / events - time.monotonic()))
            at = time.monotonic()
            HARMS[name](victim, event)
            # The balancer needs a moment to see it.
            until(lambda: victim.up() < WORKERS, 6.0 if name == "stop" else 1.0)
            assert until(lambda: victim.up() == WORKERS, BACK_S), victim.stack.log
            back.append(time.monotonic() - at)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
    return {
        "harm": (HARMS[name].__doc__ or name).strip(),
        "events": events,
        "rate": rate,
        "requests": len(load.waits_s),
        "failed": load.failed,
        "p50_s": float(np.percentile(load.waits_s, 50)),
        "p95_s": float(np.percentile(load.waits_s, 95)),
        "max_s": max(load.waits_s),
        "back_s": float(np.median(back)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("harms", nargs="*", metavar="HARM", help=f"of {', '.join(HARMS)}")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--events", type=int, default=8)
    chosen = parser.parse_args()
    lines = []
    print("| harm | events | requests | failed | p50 | p95 | longest | whole again after |")
    print("|---|---|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack.started(
            Path(folder), WORKERS=str(WORKERS), FAIL_FAST_WHEN_BUSY="false", QUEUE_TIMEOUT_S="30"
        ) as stack,
    ):
        victim = Victim(stack)
        for name in chosen.harms or HARMS:
            line = hurt(victim, name, chosen.seconds, chosen.events)
            lines.append(line)
            print(
                f"| {line['harm']} | {line['events']} | {line['requests']} | "
                f"{line['failed'] or 0} | {line['p50_s']:.2f} s | {line['p95_s']:.2f} s | "
                f"{line['max_s']:.2f} s | {line['back_s']:.1f} s |",
                flush=True,
            )
    (ROOT / ".run").mkdir(exist_ok=True)
    bench.write("chaos", {"machine": bench.machine(), "lines": lines})
    return 1 if any(line["failed"] for line in lines) else 0


if __name__ == "__main__":
    raise SystemExit(main())
