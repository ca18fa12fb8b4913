"""The whole suite, in less time than one test after the other: `make test`.

The playbooks' hosts wait much of their time, for packages, for boots, for each other. Beside them
run the tests that stay in their own process and look at no clock, with less right to the cores;
then all the others, alone, since they do measure time. `python -m pytest` runs the same tests in
one row.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from app.config import ROOT

TESTS = Path(__file__).resolve().parent
HOSTS = "test_ansible.py"
BESIDE = (
    "test_contract.py", "test_decode.py", "test_encoder_window.py", "test_form.py",
    "test_formats.py", "test_fuzz.py", "test_gpu_memory.py", "test_guard.py", "test_languages.py",
    "test_model.py", "test_parity.py", "test_shapes.py", "test_speech.py", "test_subtitles.py",
    "test_wer.py",
)  # fmt: skip
SLOW = ("--durations=15", "--durations-min=10")


def command(*words: str) -> list[str]:
    """Pytest, which also names what took long."""
    return [sys.executable, "-m", "pytest", *SLOW, *words]


def paths(names: tuple[str, ...]) -> list[str]:
    """Test files by their names."""
    return [str(TESTS / name) for name in names]


def main() -> int:
    """Run all of it; returns 1 when any of it failed."""
    with tempfile.TemporaryFile("w+") as said:
        hosts = subprocess.Popen(
            command(*paths((HOSTS,))), cwd=ROOT, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            kind = ["nice", "-n", "10", *command(*paths(BESIDE))]
            codes = [subprocess.run(kind, cwd=ROOT, check=False).returncode]
            codes.append(hosts.wait())
        except BaseException:
            hosts.send_signal(signal.SIGINT)  # it takes its hosts down
            hosts.wait()
            raise
        said.seek(0)
        print(said.read(), flush=True)
    rest = [f"--ignore={path}" for path in paths((HOSTS, *BESIDE))]
    codes.append(subprocess.run(command(*rest), cwd=ROOT, check=False).returncode)
    return int(any(codes))


if __name__ == "__main__":
    raise SystemExit(main())
