"""A running pool that a test hurts: its processes, its devices, its clients."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np

from app.config import ROOT
from app.pool.haproxy_admin import Balancer
from app.process import children
from tests.support.environment import bare_environment
from tests.support.http import HTTP
from tests.support.recordings import recording, wav
from tests.support.stack import Stack
from tests.support.steady import ask
from tests.support.waiting import until

WEDGE = Path(__file__).resolve().parent / "wedge"
CALL_LIMIT_S = 20  # no call takes this long on a busy machine, also while workers load
WINDOW = wav(recording("austen_0890.wav").waveform())
# More than the balancer can send again: speech, and silence to 10 MB.
LARGE = wav(np.pad(recording("austen_0890.wav").waveform(), (0, 4_900_000)))


class Victim:
    """A running pool and the ways to hurt it."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.balancer = Balancer(stack.run_dir / "admin.sock")

    def arbiters(self) -> list[int]:
        """Gunicorn's masters, each with one child that holds a model, worker 1 first."""
        below = {pid: children(pid) for pid in self.stack.processes() if is_worker(pid)}
        return [pid for pid, ones in below.items() if any(map(is_worker, ones))]

    def child(self, number: int) -> int:
        """The process of a worker that holds its model."""
        masters = self.arbiters()
        return children(masters[number % len(masters)])[0]

    def all(self) -> int:
        """Workers that the balancer knows."""
        return len(self.balancer.servers())

    def up(self) -> int:
        """Workers that take requests."""
        return sum(server.status == "UP" for server in self.balancer.servers())

    def lb_status(self) -> str:
        """The balancer's own account."""
        return HTTP.get(self.stack.url + "/lb-status", timeout=60).text

    def at_rest(self) -> bool:
        """Return whether no request is in progress or waits, anywhere."""
        told = self.lb_status()
        idle = ("Requests in progress: 0", "\nQueue: 0", "Deferred queue: 0")
        numbers = range(1, self.all() + 1)
        try:
            return all(line in told for line in idle) and not any(
                self.stack.metric(number, "transcription_slots_in_use") for number in numbers
            )
        except httpx.TransportError:  # a worker is not there, though the balancer may not know yet
            return False

    def command(self, name: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """`make restart` and its like in a shell that knows only RUN_DIR, with what they said."""
        return subprocess.run(
            [sys.executable, "-m", "app.pool", name],
            cwd=ROOT, env=bare_environment() | {"RUN_DIR": str(self.stack.run_dir)} | settings,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
        )  # fmt: skip

    def must(self, name: str, **settings: str) -> None:
        """A command that may not fail."""
        done = self.command(name, **settings)
        assert done.returncode == 0, f"{name}: {done.stdout}"


def is_worker(pid: int) -> bool:
    try:
        return b"app.worker.gunicorn_conf" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def worker_id(pid: int) -> int:
    """Which worker a Gunicorn master is."""
    environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return int(next(one for one in environ if one.startswith(b"WORKER_ID=")).split(b"=")[1])


def wedge(victim: Victim, event: int) -> None:
    """a call on a worker's device that never returns"""
    harm_device(victim, event, "")
    assert until(lambda: victim.up() < victim.all(), CALL_LIMIT_S + 10), "taken out in time"


def lost(victim: Victim, event: int) -> None:
    """a worker's device that has gone away: every call on it fails"""
    before = set(victim.arbiters())
    told = harm_device(victim, event, "lost")
    # So that it is met at once, however seldom the load's own requests come.
    ask(victim.stack.worker_url(int(told.name)), WINDOW)
    assert until(lambda: len(before & set(victim.arbiters())) < len(before)), "ended in time"


def harm_device(victim: Victim, event: int, what: str) -> Path:
    """Have a worker's device fail as wedge/ describes; return the file that says so."""
    told = Path(victim.stack.settings["WEDGE_DIR"]) / str(event % victim.all() + 1)
    unfinished = told.with_suffix(".new")
    unfinished.write_text(what)
    unfinished.rename(told)
    return told


def leavers(victim: Victim, event: int) -> None:
    """a dozen clients that leave while queued or while decoding"""
    chance = random.Random(event)
    patience = [chance.uniform(0.1, 2.0) for _ in range(12)]
    gone = [
        threading.Thread(target=ask, args=(victim.stack.url, WINDOW, "realtime", seconds))
        for seconds in patience
    ]
    for thread in gone:
        thread.start()
    for thread in gone:
        thread.join()
