"""The whole service as `make run` starts it, on free ports, for tests and benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.config import ROOT, settings
from app.pool import children

READY_S = 120
STOP_S = 90


@dataclass
class Stack:
    """A pool in processes of its own."""

    process: subprocess.Popen[str]
    settings: dict[str, str]
    lines: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def started(cls, run_dir: Path, **settings: str) -> Iterator[Stack]:
        """Start it, wait until it says that it is ready, and end it after the block."""
        stack = cls.launch(run_dir, **settings)
        try:
            assert stack.ready.wait(READY_S), stack.log
            assert stack.process.poll() is None, stack.log
            yield stack
        finally:
            stack.stop()

    @classmethod
    def launch(cls, run_dir: Path, **settings: str) -> Stack:
        """Start it and go on at once."""
        own = ports(int(settings.get("WORKERS", "3"))) | {"RUN_DIR": str(run_dir)} | settings
        process = subprocess.Popen(
            [sys.executable, "-m", "app.pool", "run"],
            cwd=ROOT,
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
                self.lines.append(line)
                if line.startswith("Ready after"):
                    self.ready.set()
        self.ready.set()

    @property
    def log(self) -> str:
        """Everything it has said."""
        return "".join(self.lines)

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
        text = httpx.get(self.worker_url(number) + "/metrics").text
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


def ports(workers: int) -> dict[str, str]:
    """Free ports for a pool: one each for the balancer and its page, a run of them for workers."""
    for base in range(21_000 + os.getpid() % 5_000, 32_000, 97):
        numbers = range(base, base + workers + 2)
        if all(is_free(number) for number in numbers):
            names = {"LB_PORT": base, "STATS_PORT": base + 1, "WORKER_BASE_PORT": base + 2}
            return {name: str(number) for name, number in names.items()}
    raise AssertionError("no free ports")


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def bare_environment() -> dict[str, str]:
    """This process's environment without the service's own settings."""
    names = {each.name.upper() for each in settings()}
    return {name: value for name, value in os.environ.items() if name not in names}


def descendants(pid: int) -> list[int]:
    """The living processes below one."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def alive(pid: int) -> bool:
    """Whether a process is there and is not a corpse."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition: object, seconds: float = 15.0) -> bool:
    """Wait for a condition that nobody announces; says whether it came true."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
