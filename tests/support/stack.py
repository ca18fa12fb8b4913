"""The whole service as `make run` starts it, on free ports, for tests and benchmarks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.config import ROOT
from tests.support.environment import bare_environment
from tests.support.http import HTTP
from tests.support.ports import ports
from tests.support.processes import descendants

READY_S = 300
STOP_S = 180
# Of the pools that ask for a key.
KEY = "a-secret-key"
METERED_KEY = "a-metered-key"


@dataclass
class Stack:
    """A pool in processes of its own."""

    process: subprocess.Popen[str]
    settings: dict[str, str]
    shown: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def started(cls, run_dir: Path, root: Path = ROOT, **settings: str) -> Iterator[Stack]:
        """Start it, wait until it says that it is ready, and end it after the block."""
        stack = cls.launch(run_dir, root, **settings)
        try:
            assert stack.ready.wait(READY_S), stack.log
            assert stack.process.poll() is None, stack.log
            yield stack
        finally:
            stack.stop()

    @classmethod
    def launch(cls, run_dir: Path, root: Path = ROOT, **settings: str) -> Stack:
        """Start it from a project's folder, with the interpreter there, and go on at once."""
        python = sys.executable if root == ROOT else str(root / ".venv/bin/python")
        own = ports(int(settings.get("WORKERS", "3"))) | {"RUN_DIR": str(run_dir)} | settings
        process = subprocess.Popen(
            [python, "-m", "app.pool", "run"],
            cwd=root,
            env=bare_environment() | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stack = cls(process, own)
        threading.Thread(target=stack._read, daemon=True).start()
        return stack

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self.shown.append(line)
                if line.startswith("Stop: "):
                    self.ready.set()
        self.ready.set()

    @property
    def terminal(self) -> str:
        """Return the terminal's text."""
        return "".join(self.shown)

    @property
    def lines(self) -> list[str]:
        """The lines of the log file."""
        path = self.run_dir / "service.log"
        return path.read_text().splitlines(keepends=True) if path.exists() else []

    @property
    def log(self) -> str:
        """Everything it has said, on the terminal and in the log file."""
        return self.terminal + "".join(self.lines)

    @property
    def url(self) -> str:
        """The service's one entry."""
        return f"http://127.0.0.1:{self.settings['LB_PORT']}"

    @property
    def run_dir(self) -> Path:
        """Where its sockets are."""
        return Path(self.settings["RUN_DIR"])

    def worker_url(self, number: int) -> str:
        """One worker, behind the balancer's back."""
        return f"http://127.0.0.1:{int(self.settings['WORKER_BASE_PORT']) + number - 1}"

    def metric(self, number: int, name: str) -> float:
        """The sum of a worker's metric over its labels."""
        text = HTTP.get(self.worker_url(number) + "/metrics").text
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def processes(self) -> list[int]:
        """Every process of the pool that lives."""
        return descendants(self.process.pid)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ctrl-C; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in [*self.processes(), self.process.pid]:
                os.kill(pid, signal.SIGKILL)
            raise
