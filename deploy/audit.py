"""Asks a database of vulnerabilities about every package that is pinned here, and tells.

    make audit

A report and never a failure: what is found is a reason for `make lock`, and whoever has no way to
the database is told so. Run by the tools' own environment (deploy/requirements-supply.txt).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ANSWER_S = 5  # the longest one answer of the database takes


@dataclass(frozen=True)
class Report:
    """What the database said of some packages.

    Attributes:
        known: a line for each vulnerability that it knows.
        asked: packages it knows at all.
        unknown: packages it gave no answer for.
    """

    known: tuple[str, ...]
    asked: int
    unknown: int = 0

    @classmethod
    def of(cls, text: str) -> Report:
        """From pip-audit's JSON."""
        packages = json.loads(text)["dependencies"]
        known = [
            f"{package['name']} {package['version']}: {one['id']}"
            + (f", repaired in {', '.join(one['fix_versions'])}" if one["fix_versions"] else "")
            for package in packages
            for one in package.get("vulns", ())
        ]
        unknown = sum("skip_reason" in package for package in packages)
        # An index that knows none of them is another one, which has no such database.
        asked = len(packages) - unknown
        return cls(tuple(known), asked, unknown) if asked else NOTHING

    def sentence(self, name: str) -> str:
        """The report on one file, for a person."""
        if not self.asked:
            return f"{name}: not audited, the database of vulnerabilities could not be asked."
        without = f", {self.unknown} not in the database" if self.unknown else ""
        first = (
            f"{name}: {len(self.known)} known vulnerabilities in {self.asked} packages{without}."
        )
        return "\n  ".join([first, *self.known])


NOTHING = Report((), 0)


def requirements() -> list[Path]:
    """Every file of pinned requirements, the service's own first."""
    found = [
        path
        for folder in (".", "deploy", "deploy/ansible", "tests", "tests/service/clients")
        for path in sorted((ROOT / folder).glob("*.txt"))
    ]
    return [path for path in found if "--hash=sha256:" in path.read_text()]


def audit(path: Path, seconds: float) -> Report:
    """Ask about one file's packages.

    Raises:
        subprocess.TimeoutExpired: it took longer.
        ValueError: the tool said something else than its report.
    """
    asked = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", str(path),
         "--format", "json", "--progress-spinner", "off", "--timeout", str(ANSWER_S),
         "--cache-dir", str(ROOT / ".run/supply/cache")],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    return Report.of(asked.stdout)


def main() -> int:
    """Print a sentence for each file, then end well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path, help="pinned requirements; none: all")
    parser.add_argument("--seconds", type=float, default=120.0, help="for all of them")
    chosen = parser.parse_args()
    deadline = time.monotonic() + chosen.seconds
    paths = chosen.files or requirements()
    for path in paths:
        report = NOTHING
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError, KeyError):
            report = audit(path, max(0.1, deadline - time.monotonic()))
        print(report.sentence(str(path.resolve().relative_to(ROOT))), flush=True)
        if report == NOTHING and len(paths) > 1:
            print("The other files were not tried: the next one would wait as long.")
            break
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
