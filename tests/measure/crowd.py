"""Connections that do nothing, ten thousand of them, and what a real client sees meanwhile.

    python -m tests.measure.crowd [CONNECTIONS]

They are opened as fast as they are let in, and again when the balancer ends them, for longer than
it has patience with one. Exit status 1 when a request fails or waits too long.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.background import Background
from tests.support.recordings import recording, wav
from tests.support.stack import Stack
from tests.support.steady import ask

SECONDS = 25
HEALTH_S = 1.0
ANSWER_S = 10.0


class Crowd(Background):
    """Idle connections to a port, kept open from one thread until the block ends."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._count = count
        self._open: list[socket.socket] = []
        self.opened = 0

    def _loops(self) -> list[Callable[[], None]]:
        return [self._keep_up]

    @property
    def inside(self) -> int:
        """Those that are open now."""
        return len(self._open)

    def _keep_up(self) -> None:
        while not self._stop.is_set():
            self._open = [one for one in self._open if not ended(one)]
            while len(self._open) < self._count and not self._stop.is_set():
                try:
                    one = socket.create_connection(("127.0.0.1", self._port), timeout=2)
                except OSError:
                    break
                one.setblocking(False)
                self._open.append(one)
                self.opened += 1
            self._stop.wait(0.2)
        for one in self._open:
            one.close()


def ended(one: socket.socket) -> bool:
    """Return whether the server has closed this connection; it is then closed here too."""
    try:
        over = one.recv(1, socket.MSG_PEEK) == b"" or one.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        over = True
    if over:
        one.close()
    return over


def resident_mb(stack: Stack) -> float:
    """Memory of the balancer's processes."""
    total = 0.0
    for pid in stack.processes():
        with contextlib.suppress(OSError):
            if "haproxy" in Path(f"/proc/{pid}/comm").read_text():
                status = Path(f"/proc/{pid}/status").read_text()
                total += int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("connections", nargs="?", type=int, default=10_000)
    count = parser.parse_args().connections
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    window = wav(recording("goforward_16k.wav").waveform())
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack.started(Path(folder), WORKERS="1", MAX_CONCURRENT_TRANSCRIPTIONS="2") as stack,
    ):
        before_mb = resident_mb(stack)
        health_s, answers, inside = [], [], []
        with Crowd(int(stack.settings["LB_PORT"]), count) as crowd:
            full = time.monotonic() + 60
            while crowd.inside < count and time.monotonic() < full:
                time.sleep(0.1)
            ends = time.monotonic() + SECONDS
            while time.monotonic() < ends:
                began = time.monotonic()
                good = httpx.get(stack.url + "/health", timeout=30).status_code == 200
                health_s.append(time.monotonic() - began if good else 30.0)
                answers.append(ask(stack.url, window))
                inside.append(crowd.inside)
            most_mb = resident_mb(stack)
        failed = [one.outcome for one in answers if not one.good]
        print(
            f"{min(inside)} to {max(inside)} idle connections at once, {crowd.opened} in all: "
            f"health after {max(health_s) * 1000:.0f} ms at most, {len(answers)} transcripts, the "
            f"longest after {max(one.seconds for one in answers):.2f} s, failed: {failed or 0}; "
            f"the balancer's memory {before_mb:.0f} to {most_mb:.0f} MB"
        )
        slow = max(health_s) > HEALTH_S or max(one.seconds for one in answers) > ANSWER_S
        return 1 if failed or slow or max(inside) < count else 0


if __name__ == "__main__":
    raise SystemExit(main())
