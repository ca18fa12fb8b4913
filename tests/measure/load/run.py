"""One run of locust's users against one service, with the service's own counts around it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app.config import ROOT
from tests.measure.load.counters import Counts, Target, Totals, inside
from tests.measure.load.figures import Figures
from tests.measure.load.journal import Journal
from tests.support.cores import Cores, Seconds

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# A user that was told to stop first sees its request through, so that it is counted on both sides.
FINISH_S = 180
START_S = 120
SPAWN_S = 1  # until all users are there


@dataclass(frozen=True)
class Load:
    """Who sends what, for how long.

    Args:
        users: how many.
        seconds: how long all of them are there.
        kinds: user classes of the locustfile.
        options: further options of the locustfile, such as `--pace 2`.
    """

    users: int
    seconds: float
    kinds: Sequence[str] = ("Window",)
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Step:
    """What one run showed.

    Args:
        name: as the report calls it.
        figures: what clients saw.
        totals: clients' totals beside HAProxy's; None where the stats page is out of reach.
        inside: what the workers say; see `counters.inside`.
        cores: who used the machine's cores.
        cpu_s: CPU seconds of the service for each transcript; None where it is elsewhere. It
            hardly depends on what else the machine does.
        journal: all of it, for plots.
    """

    name: str
    target: str
    workers: int
    load: Load
    figures: Figures
    totals: Totals | None
    inside: dict[str, Any]
    cores: Cores
    cpu_s: float | None
    journal: Journal = field(repr=False)

    @property
    def mismatch(self) -> str:
        """Return what of the totals does not agree; empty: all does."""
        return self.totals.mismatch if self.totals else ""

    def plain(self) -> dict[str, Any]:
        """Itself for the JSON report, without the journal."""
        return {
            "name": self.name, "target": self.target, "workers": self.workers,
            "users": self.load.users, "seconds": self.load.seconds,
            "kinds": list(self.load.kinds), "options": list(self.load.options),
            "clients": asdict(self.figures),
            "totals": asdict(self.totals) if self.totals else None,
            "service": self.inside, "cores": asdict(self.cores), "cpu_s_per_transcript": self.cpu_s,
        }  # fmt: skip


def run(target: Target, load: Load, folder: Path, name: str) -> Step:
    """Have the users do their work, and count.

    Raises:
        RuntimeError: locust failed; the message holds what it said.
    """
    journal_path = folder / f"{name.replace(' ', '_').replace(',', '')}.jsonl"
    before, began, spent = Counts.of(target), time.monotonic(), Seconds.of(target.pids)
    locust(target.url, load, journal_path)
    used, wall_s = Seconds.of(target.pids), time.monotonic() - began
    after = Counts.of(target)
    journal = Journal.read(journal_path)
    counts = after.since(before)
    told = inside(counts, journal.span_s)
    lanes = target.lanes
    told["device_busy_share"] = told["device_calls_at_once"] / lanes if lanes else None
    figures = Figures.of(journal)
    spent_s = used.service - spent.service
    return Step(
        name=name,
        target=target.name,
        workers=len(target.worker_urls),
        load=load,
        figures=figures,
        totals=Totals.of(journal.calls, counts) if target.stats_url else None,
        inside=told,
        cores=Cores.between(spent, used, wall_s, local=bool(target.pids)),
        cpu_s=spent_s / figures.counts["ok"] if target.pids and figures.counts["ok"] else None,
        journal=journal,
    )


def locust(url: str, load: Load, journal: Path) -> None:
    """Run locust without its web page until its users have finished."""
    command = [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", url,
        "--users", str(load.users), "--spawn-rate", str(max(1, load.users)),
        "--run-time", f"{load.seconds + SPAWN_S:g}s", "--stop-timeout", str(FINISH_S),
        "--exit-code-on-error", "0", "--only-summary", "--loglevel", "WARNING",
        "--journal", str(journal), *load.options, *load.kinds,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=START_S + load.seconds + FINISH_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"locust ended with {done.returncode}:\n{done.stdout[-2000:]}")
