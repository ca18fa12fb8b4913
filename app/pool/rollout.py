"""Change a running pool without interrupting requests: restart, scale, reload.

The balancer drains a worker before it is changed: admitted requests finish and new ones go to
other workers, including uploads too large to be retried.

This module imports nothing from the project: Ansible copies it alone to balancer hosts.
"""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.2
ANSWER_S = 5.0  # for the balancer to answer a command
READY_S = 900.0  # for a worker to load its model
TAKEN_UP_S = 30.0  # for the balancer to see that a worker is ready
BACKEND = "workers"
WAITING = "waiting"  # the only server of the backend that is not a worker


class RolloutError(Exception):
    """A change was stopped; the other workers keep serving. The message says where and why."""


@dataclass(frozen=True)
class Server:
    """A worker as the balancer sees it."""

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


@dataclass(frozen=True)
class Rollout:
    """A change of the workers, one at a time, with progress messages.

    Args:
        balancer: the balancer of the workers.
        supervisorctl: the supervisorctl command with its options.
        environment: the environment of that command.
        forget: resets a program's back-off.
        health: returns the state of the worker on a port: `healthy`, or a reason.
        drain_s: the longest time a worker may drain.
        say: prints a progress message.
    """

    balancer: Balancer
    supervisorctl: list[str]
    environment: dict[str, str]
    forget: Callable[[str], None]
    health: Callable[[int], str]
    drain_s: float
    say: Callable[[str], None]

    def restart(self) -> None:
        """Restart every worker, one at a time.

        Raises:
            RolloutError: a worker did not become ready; the later ones are unchanged.
        """
        servers = self.balancer.servers()
        if len(servers) == 1:
            self.say("With a single worker, requests are refused while it loads.")
        for number, server in enumerate(servers, start=1):
            began = time.monotonic()
            self.say(f"{server.name} ({number} of {len(servers)}): finishing its requests …")
            self.drain(server.name)
            program = f"worker_{server.name.removeprefix('w')}"
            self.forget(program)
            self.supervise("restart", program)
            self.await_ready(server)
            self.say(f"{server.name}: back after {time.monotonic() - began:.1f} s")

    def drain(self, name: str) -> None:
        """Drain a worker, and wait until it has finished or `drain_s` has passed."""
        self.balancer.set_state(name, "drain")
        if not wait_until(lambda: self.balancer.server(name).requests == 0, self.drain_s):
            self.say(f"{name}: has not finished within {self.drain_s:.0f} s; ending it")

    def await_healthy(self, name: str, port: int) -> None:
        """Wait until a worker is healthy.

        Raises:
            RolloutError: the worker is broken, or not healthy within `READY_S`.
        """
        state = ""

        def healthy() -> bool:
            nonlocal state
            state = self.health(port)
            if state.startswith("broken"):
                raise RolloutError(f"{name} does not serve; {state}")
            return state == "healthy"

        if not wait_until(healthy, READY_S):
            raise RolloutError(f"{name} is not ready after {READY_S:.0f} s; {state}")

    def await_ready(self, server: Server) -> None:
        """Wait until a worker is healthy and the balancer sends it requests.

        Raises:
            RolloutError: it is not healthy, or the balancer does not see it, in time.
        """
        try:
            self.await_healthy(server.name, server.port)
        finally:
            # The health check keeps requests from it until it is ready.
            self.balancer.set_state(server.name, "ready")
        up = wait_until(lambda: self.balancer.server(server.name).status == "UP", TAKEN_UP_S)
        if not up:
            raise RolloutError(f"The balancer does not take {server.name} up.")

    def reload(self) -> None:
        """Make the balancer reread its configuration; requests in progress finish.

        Raises:
            RolloutError: the balancer did not load it in time.
        """
        before = self.balancer.process()
        master = int(self.supervise("pid", "haproxy").strip())
        os.kill(master, signal.SIGUSR2)
        if not wait_until(lambda: self._process() not in ("", before), TAKEN_UP_S):
            raise RolloutError("The balancer has not taken its new configuration.")

    def _process(self) -> str:
        try:
            return self.balancer.process()
        except RolloutError:  # between two processes
            return ""

    def supervise(self, *command: str) -> str:
        """Run a supervisorctl command and return its output.

        Raises:
            RolloutError: Supervisor refuses, or does not run.
        """
        result = subprocess.run(
            [*self.supervisorctl, *command],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise RolloutError(f"supervisorctl {' '.join(command)}: {result.stdout.strip()}")
        return result.stdout


def wait_until(done: Callable[[], bool], limit_s: float) -> bool:
    """Poll a condition and return whether it became true in time."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
