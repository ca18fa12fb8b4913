"""Which alerts each harm of `make chaos` raises, by a real Prometheus; and that work raises none.

    make alerts                            every harm; about 12 minutes
    python -m tests.measure.alerts kill overload

First a pool is at work, and no alert may fire; then each harm is done to it under load, and the
alerts that are expected must fire. Prometheus looks every second, and the rules' durations are a
tenth of their own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tests.measure.chaos import HARMS, NEED_ROOT, WORKERS, hurtable
from tests.support.prometheus import Prometheus
from tests.support.steady import Arrivals, Load, ask
from tests.support.victim import LARGE, WINDOW, Victim
from tests.support.waiting import until

# What must fire at least, by harm.
EXPECTED = {
    "kill": {"WorkerRestarted"},
    "arbiter": {"WorkerRestarted"},
    "two": {"WorkerRestarted"},
    "three": {"WorkerRestarted"},
    "only": {"BalancerReloaded"},
    "stop": {"WorkerDown"},
    "wedge": {"WorkerDown", "WorkerRestarted"},
    "lost": {"WorkerRestarted"},
    "full": {"WorkerDown"},
    "model": {"WorkerDown"},
    "port": {"WorkerDown"},
    "leavers": {"ClientsLeave"},
    "disk": {"DiskFull"},
    "unwritable": {"WorkerRestarted"},
    "restart": {"WorkerRestarted"},
    "scale": {"BalancerReloaded"},
    "reload": {"BalancerReloaded"},
    "overload": {"ShedsLoad"},
    "queue": {"QueueOld"},
}
FORGOTTEN_S = 90.0  # the longest range is a tenth of 10 minutes
FIRES_S = 30.0
BACK_S = 90.0


def raised_by(victim: Victim, watch: Prometheus, name: str, recover: bool = True) -> set[str]:
    """Do one kind of harm under load, and return the alerts that fired; waits for the expected,
    and until the pool is whole again."""
    began = time.monotonic()
    stack = victim.stack
    with Load(stack.url, [WINDOW] * 2, every_s=2.0):
        time.sleep(3)
        if name in ("overload", "queue"):
            with Arrivals(stack.url, WINDOW, 12.0):
                wait_for(watch, EXPECTED[name], began)
        else:
            harm = threading.Thread(target=HARMS[name], args=(victim, 0))
            harm.start()
            harm.join()
            wait_for(watch, EXPECTED[name], began)
        if recover:
            whole = until(lambda: victim.up() == victim.all() == WORKERS, BACK_S)
            assert whole, victim.lb_status()
    assert not recover or until(victim.at_rest, 60), victim.lb_status()
    return watch.fired(time.monotonic() - began)


def wait_for(watch: Prometheus, wanted: set[str], began: float) -> None:
    """Until they have fired, or it is too late for them."""
    until(lambda: wanted <= watch.fired(time.monotonic() - began), FIRES_S)


def at_work(victim: Victim, watch: Prometheus, seconds: float) -> set[str]:
    """The alerts that fire while the pool does what it can do."""
    began = time.monotonic()
    with Load(victim.stack.url, [WINDOW, WINDOW], every_s=2.0) as load:
        time.sleep(seconds)
    assert load.failed == {}, load.failed
    return watch.fired(time.monotonic() - began + 1)


def all_right(names: list[str], fail_fast: bool, work_s: float) -> bool:
    """Work, then every harm, each told in a line; whether all was as expected."""
    right = True
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        hurt = stack.enter_context(
            hurtable(folder, FAIL_FAST_WHEN_BUSY=str(fail_fast).lower(), MAX_QUEUE_SIZE="1000")
        )
        watch = stack.enter_context(Prometheus.watching(hurt.stack, folder / "prometheus"))
        ask(hurt.stack.url, LARGE)
        found = at_work(hurt, watch, work_s)
        right = not found
        print(f"at work for {work_s:g} s: {listed(found)}", flush=True)
        for name in names:
            found = raised_by(hurt, watch, name)
            missing = EXPECTED[name] - found
            told = f"; NOT {listed(missing)}" if missing else ""
            quiet = until(lambda: not watch.firing(), FORGOTTEN_S)
            told += "" if quiet else f"; STILL firing: {listed(watch.firing())}"
            print(f"{name}: {listed(found)}{told}", flush=True)
            right = right and quiet and not missing
    return right


def listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "silent"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("harms", nargs="*", metavar="HARM", help=f"of {', '.join(EXPECTED)}")
    parser.add_argument("--work", type=float, default=60, help="seconds of work before")
    chosen = parser.parse_args()
    names = chosen.harms or list(EXPECTED)
    if unknown := set(names) - set(EXPECTED):
        parser.error(f"no such harm: {', '.join(unknown)}")
    if os.geteuid() != 0:
        names = [name for name in names if name not in NEED_ROOT]
    wrong = False
    for fail_fast in (False, True):
        own = [name for name in names if (name == "overload") == fail_fast]
        if own:
            wrong = not all_right(own, fail_fast, chosen.work) or wrong
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
