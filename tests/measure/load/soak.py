"""The soak: a long steady load, and whether the service's processes grow under it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.process import children
from tests.measure.load import plots, side
from tests.measure.load.figures import growth
from tests.measure.load.modes import Session, common
from tests.measure.load.report import Report
from tests.measure.load.run import Load
from tests.support.background import Background
from tests.support.stack import Stack

SHARE = 0.7  # of the capacity measured just before
SAMPLES = 240  # in all; not closer than 1 s
# What may be added after the warm-up, for each process. Allocators keep some memory, and a server
# starts threads as they are first needed.
RSS_SHARE, RSS_BYTES = 0.05, 24 << 20
THREADS, DESCRIPTORS = 4, 8
WARM_UP_S = 120.0  # until every worker has seen its longest window and its allocators have settled
LEAST_S = 300.0  # in less, growth cannot be told from the warm-up


@dataclass
class Series:
    """One process over time: bytes in memory, threads, open descriptors."""

    name: str
    seconds: list[float] = field(default_factory=list)
    rss_bytes: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def take(self, pid: int, at_s: float) -> bool:
        """Add a sample; says whether the process is still there."""
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            threads = len(os.listdir(f"/proc/{pid}/task"))
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            return False
        self.seconds.append(at_s)
        self.rss_bytes.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.threads.append(threads)
        self.descriptors.append(descriptors)
        return True

    def grown(self, values: list[float]) -> float:
        """Return how much one of the quantities grew after the warm-up."""
        length_s = max(1.0, self.seconds[-1])
        return growth(values, warm_up=min(0.5, max(0.2, WARM_UP_S / length_s)))

    def troubles(self) -> list[str]:
        """Return a sentence for each quantity that grew beyond its limit; none of a short soak."""
        if not self.seconds or self.seconds[-1] < 0.9 * LEAST_S:
            return []
        limits = (
            ("memory, MiB", self.rss_bytes, RSS_SHARE * max(self.rss_bytes) + RSS_BYTES, 1 << 20),
            ("threads", self.threads, THREADS, 1),
            ("descriptors", self.descriptors, DESCRIPTORS, 1),
        )
        return [
            f"{self.name}: {what} grew by {self.grown(values) / unit:.0f}, "
            f"more than {limit / unit:.0f}"
            for what, values, limit, unit in limits
            if self.grown(values) > limit
        ]


@dataclass
class Watch(Background):
    """Takes samples of processes until the block ends.

    Args:
        pids: name -> process.
        every_s: between samples, seconds.
    """

    pids: dict[str, int]
    every_s: float

    def __post_init__(self) -> None:
        self.series = {name: Series(name) for name in self.pids}
        self.gone: list[str] = []

    def _loops(self) -> list[Callable[[], None]]:
        return [self._watch]

    def _watch(self) -> None:
        began = time.monotonic()
        while True:
            for name, pid in self.pids.items():
                if name not in self.gone and not self.series[name].take(
                    pid, time.monotonic() - began
                ):
                    self.gone.append(name)
            if self._stop.wait(self.every_s):
                return


def processes(stack: Stack) -> dict[str, int]:
    """The pool's processes by what they are; without decoders, which live for one upload each."""
    kinds = ("haproxy", "gunicorn", "supervisord", "fork_server")
    found: dict[str, int] = {}
    decoders: set[int] = set()
    for pid in [stack.process.pid, *stack.processes()]:
        if pid in decoders:
            continue
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        kind = next((name for name in kinds if name in words), "pool")
        if kind == "fork_server":
            decoders.update(children(pid))
        found[f"{kind} {pid}"] = pid
    return found


def soak(session: Session) -> Report:
    """70 % of the capacity in windows of 2 to 30 s, and a long deferred file beside them."""
    own = side.chosen()
    with Stack.started(session.folder / "run" / "soak", **own) as stack:
        target = side.of(stack)
        session.settings = own
        users = side.slots(own)
        quick = min(30.0, session.seconds / 4)
        can = session.measure(target, Load(users, quick), "capacity").figures.requests_per_s
        rate = SHARE * can
        options = ("--pace", f"{users / rate:.4f}", "--deferred-users", "1")
        load = Load(users + 1, session.seconds, ("Window", "Deferred"), options)
        with Watch(processes(stack), max(1.0, session.seconds / SAMPLES)) as watch:
            step = session.measure(target, load, "soak")
    report = session.report("soak")
    report.troubles = [one for series in watch.series.values() for one in series.troubles()]
    report.troubles += [f"{name}: ended during the soak" for name in watch.gone]
    series = {name: one for name, one in watch.series.items() if one.seconds}
    report.summary = {
        "minutes": session.seconds / 60,
        "judged": "yes" if session.seconds >= LEAST_S else f"no: under {LEAST_S / 60:g} minutes",
        "offered/s": step.figures.offered_per_s,
        "transcripts/s": step.figures.requests_per_s,
        **{
            f"{name}: growth of MiB, threads, descriptors": [
                round(one.grown(one.rss_bytes) / (1 << 20), 1),
                one.grown(one.threads),
                one.grown(one.descriptors),
            ]
            for name, one in series.items()
        },
    }
    report.pictures = {
        "Memory": plots.growth(
            {
                name: (one.seconds, [value / (1 << 20) for value in one.rss_bytes])
                for name, one in series.items()
            },
            "MiB",
        ),
        "Threads": plots.growth(
            {name: (one.seconds, one.threads) for name, one in series.items()}, "threads"
        ),
        "Descriptors": plots.growth(
            {name: (one.seconds, one.descriptors) for name, one in series.items()}, "descriptors"
        ),
        **common(session.steps, step),
    }
    return report
