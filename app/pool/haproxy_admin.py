"""Read and set the state of the workers through HAProxy's admin socket.

This module imports nothing from the project: Ansible copies it alone to balancer hosts.
"""

from __future__ import annotations

import csv
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.2
ANSWER_S = 5.0  # for the balancer to answer a command
TAKEN_UP_S = 30.0  # for the balancer to see that a worker is ready
BACKEND = "workers"
WAITING = "waiting"  # the only server of the backend that is not a worker


class RolloutError(Exception):
    """Stopped change; the other workers keep serving. The message says where and why."""


@dataclass(frozen=True)
class Server:
    """State of a worker, as the balancer reports it."""

    name: str
    port: int
    status: str
    requests: int


class Balancer:
    """Client of HAProxy's admin socket.

    Args:
        path: the path of the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, command: str) -> str:
        """Send a command and return the answer.

        Raises:
            RolloutError: no answer.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            try:
                connection.connect(str(self._path))
                connection.sendall(command.encode() + b"\n")
                answer = b""
                while received := connection.recv(65_536):
                    answer += received
            except OSError as error:
                reason = f"The balancer does not answer at {self._path} ({error})."
                raise RolloutError(reason) from None
        return answer.decode()

    def servers(self) -> list[Server]:
        """Return the workers in the order of the configuration."""
        lines = self.ask(f"show servers state {BACKEND}").splitlines()
        head = next(line for line in lines if line.startswith("# ")).removeprefix("# ").split()
        ports = {}
        for line in lines:
            if line and line[0].isdigit() and len(line.split()) == len(head):
                row = dict(zip(head, line.split(), strict=True))
                ports[row["srv_name"]] = int(row["srv_port"])
        stats = csv.DictReader(self.ask("show stat").lstrip("# ").splitlines())
        return [
            Server(row["svname"], ports[row["svname"]], row["status"], int(row["scur"]))
            for row in stats
            if row["pxname"] == BACKEND and row["svname"] in ports and row["svname"] != WAITING
        ]

    def server(self, name: str) -> Server:
        """Return the worker of this name."""
        return next(server for server in self.servers() if server.name == name)

    def set_state(self, name: str, state: str) -> None:
        """Set a worker to `drain` (no new requests) or `ready` (requests when healthy)."""
        answer = self.ask(f"set server {BACKEND}/{name} state {state}").strip()
        if answer:
            raise RolloutError(f"The balancer does not set {name} to {state}: {answer}")

    def process(self) -> str:
        """Return the `Pid:` line of the current process, which changes with a reload."""
        lines = self.ask("show info").splitlines()
        return next(line for line in lines if line.startswith("Pid:"))


def wait_until(done: Callable[[], bool], limit_s: float) -> bool:
    """Poll a condition and return whether it became true in time."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
