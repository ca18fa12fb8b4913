"""Every harm that this project knows of, done to it, in one command: `make security`.

    python -m tests.measure.security [NAME …]

Each line of the list is a command of its own, with a limit in time; all of them are run, and the
table says what each came to. Exit status 1 when any has failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from app.config import ROOT

TOTAL_S = 15 * 60
PYTEST = ("-m", "pytest", "-q", "--no-header")


@dataclass(frozen=True)
class Harm:
    """What somebody may do, and the command that does it.

    Args:
        name: a word to choose it by.
        what: for the table.
        command: arguments of Python.
        limit_s: beyond it the command has failed.
    """

    name: str
    what: str
    command: tuple[str, ...]
    limit_s: int


# The one list. A harm that is new gets a line here.
HARMS = (
    Harm(
        "http", "malformed HTTP, slow clients, tricks with paths, other sites, open ports",
        (*PYTEST, "tests/service/test_hygiene.py", "tests/entry/test_guards.py",
         "tests/entry/test_other_sites.py"), 240,
    ),
    Harm(
        "privacy", "words of transcripts looked for wherever they could be left",
        (*PYTEST, "tests/service/test_privacy.py", "tests/unit/test_log.py",
         "tests/service/test_log.py"), 180,
    ),
    Harm(
        "keys", "keys that are wrong, revoked, guessed, in a URL, over their limits",
        (*PYTEST, "tests/unit/test_keys.py", "tests/entry/test_keys.py",
         "tests/service/test_keys.py"), 180,
    ),
    Harm(
        "pages", "pages that would load or run what is not theirs",
        (*PYTEST, "tests/unit/test_pages.py"), 60,
    ),
    Harm("crowd", "10 000 idle connections", ("-m", "tests.measure.crowd"), 120),
    Harm(
        "files", "hostile recordings, and a decoder that breaks out",
        (*PYTEST, "tests/worker/test_sandbox.py"), 180,
    ),
    Harm(
        "fuzz", "damaged forms, fields, headers and recordings",
        (*PYTEST, "tests/unit/test_fuzz.py"), 120,
    ),
    Harm(
        "faults", "a device that is lost, full, reset, or hangs",
        (*PYTEST, "tests/service/test_faults.py", "tests/unit/test_device.py"), 180,
    ),
    Harm(
        "words", "text that nobody said; the same request, the same bytes",
        (*PYTEST, "tests/model/test_guard.py", "tests/service/test_determinism.py"), 180,
    ),
    Harm(
        "supply", "packages and models that are not the ones that were meant",
        (*PYTEST, "tests/deploy/test_supply.py"), 120,
    ),
    Harm(
        "life", "months of requests, mistakes, leavers and killed workers, in short",
        ("-m", "tests.measure.endurance", "life", "--wall-minutes", "2"), 240,
    ),
    Harm(
        "api", "requests made from the API's description",
        (*PYTEST, "tests/service/test_api_description.py"), 120,
    ),
)  # fmt: skip


def run(harm: Harm, limit_s: float) -> tuple[str, float]:
    """Run one; returns how it ended and after how many seconds."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *harm.command], cwd=ROOT, start_new_session=True)
    try:
        ended = "ok" if process.wait(limit_s) == 0 else "FAILED"
    except subprocess.TimeoutExpired:
        # Its pools end with it: each has a parent that it does not outlive.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        ended = f"not done after {limit_s:.0f} s"
    return ended, time.monotonic() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    known = [harm.name for harm in HARMS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := set(names) - set(known):
        parser.error(f"no such harm: {', '.join(unknown)}")
    began, table, failed = time.monotonic(), [], False
    for harm in (harm for harm in HARMS if harm.name in names):
        left_s = TOTAL_S - (time.monotonic() - began)
        ended, seconds = run(harm, max(1.0, min(harm.limit_s, left_s)))
        failed = failed or ended != "ok"
        table.append(f"| {harm.name} | {harm.what} | {ended} | {seconds:.0f} s |")
    print("\n| name | harm | ended | after |\n|---|---|---|---|")
    print(*table, sep="\n")
    print(f"{time.monotonic() - began:.0f} s in all")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
