"""Load tests of the service on this machine, or of one that runs already.

    make load single                    the most one worker can do
    make load scaling                   1 to N workers
    make load overload                  twice what the service can do
    make load meetings                  the most meetings within the aim
    make load meetings ARGS="--sides service adaptive"
    make load soak                      20 minutes; does anything grow?
    make load web                       locust's own page on port 8089
    make capacity                       the figures and settings of this machine

The service's settings are taken from the environment: MODEL_SIZE=small WORKERS=4 make load single.
Reports: .run/load/MODE.html and .run/load/MODE.json. Exits 1 when the clients' totals are not
HAProxy's, or something grew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from app.config import ROOT
from tests.measure.load import side
from tests.measure.load.capacity import capacity
from tests.measure.load.counters import Target
from tests.measure.load.modes import Aim, Session, meetings, overload, scaling, single
from tests.measure.load.report import Report, shown
from tests.measure.load.run import LOCUSTFILE
from tests.measure.load.soak import soak

SECONDS = {
    "single": 25,
    "scaling": 40,
    "overload": 45,
    "meetings": 30,
    "soak": 1200,
    "capacity": 25,
}
WEB_PORT = 8089


def arguments() -> argparse.Namespace:
    about = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(prog="python -m tests.measure.load", description=about[0])
    add = parser.add_argument
    add("mode", choices=[*SECONDS, "web"])
    add("--seconds", type=float, help=f"of each run; {SECONDS}")
    add("--folder", type=Path, default=ROOT / ".run" / "load", help="for the reports")
    add("--url", help="a service that runs already; totals then need --stats")
    add("--stats", default="", help="its stats port, such as http://127.0.0.1:8404")
    add("--worker-urls", nargs="*", default=(), help="its workers' ports, for what is inside")
    add("--workers", type=int, nargs="+", default=(1, 2, 3), help="numbers that scaling tries")
    add("--times", type=float, default=2.0, help="overload: times the capacity")
    add("--sides", nargs="+", choices=side.SIDES, default=("service",), help="meetings: of whom")
    add("--start", type=int, default=2, help="meetings: the number to begin with")
    add("--p95", type=float, default=Aim.p95_s, help="meetings: seconds from speech to text")
    add("--lost", type=float, default=Aim.lost, help="meetings: share of windows lost at most")
    return parser.parse_args()


def report_of(session: Session, chosen: argparse.Namespace) -> Report:
    """Do what the mode says."""
    aim = Aim(chosen.p95, chosen.lost)
    match chosen.mode:
        case "single":
            return single(session)
        case "scaling":
            return scaling(session, chosen.workers)
        case "overload":
            return overload(session, chosen.times)
        case "meetings":
            return meetings(session, chosen.sides, aim, chosen.start)
        case "soak":
            return soak(session)
    return capacity(session, aim, chosen.start)


def web(session: Session) -> int:
    """Locust's page, in front of a service, until Ctrl-C."""
    with session.started("service") as target:
        print(f"http://127.0.0.1:{WEB_PORT}/  Ctrl-C ends it.", flush=True)
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", target.url,
                   "--web-host", "127.0.0.1", "--web-port", str(WEB_PORT), "--class-picker",
                   "--journal", str(session.folder / "web.jsonl")]  # fmt: skip
        try:
            return subprocess.run(command, cwd=ROOT, check=False).returncode
        except KeyboardInterrupt:
            return 0


def main() -> int:
    chosen = arguments()
    running = (
        Target("service", chosen.url.rstrip("/"), chosen.stats.rstrip("/"),
               tuple(chosen.worker_urls))
        if chosen.url
        else None
    )  # fmt: skip
    session = Session(chosen.folder, chosen.seconds or SECONDS.get(chosen.mode, 0), running)
    if chosen.mode == "web":
        return web(session)
    report = report_of(session, chosen)
    page = report.write(chosen.folder)
    print()
    for name, value in report.summary.items():
        print(f"{name}: {shown(value)}")
    for trouble in report.troubles:
        print(f"ERROR {trouble}")
    print(f"\nReport: {page} and {page.with_suffix('.json').name}")
    return 1 if report.troubles else 0


if __name__ == "__main__":
    raise SystemExit(main())
