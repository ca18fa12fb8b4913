"""Changes to a running pool that no request notices: restart, scale, reload.

A worker is taken out by the balancer before anything is done to it, so what is inside is
finished and what comes goes elsewhere, uploads too large to be sent again included.

Nothing of the project is imported here: Ansible puts this file alone on hosts that balance.
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
ANSWER_S = 5.0  # the balancer's for one command
READY_S = 900.0  # a worker's for loading its model
TAKEN_UP_S = 30.0  # the balancer's for seeing that a worker is ready
BACKEND = "workers"
WAITING = "waiting"  # the backend's one server that is no worker


class RolloutError(Exception):
    """A change that was stopped; the others go on serving. The message says where and why."""


@dataclass(frozen=True)
class Server:
    """A worker as the balancer sees it."""

    name: str
    port: int
    status: str
    requests: int


class Balancer:
    """HAProxy's admin socket: what it knows of the workers, and what it is told.

    Args:
        path: the socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, command: str) -> str:
        """The answer to one command.

        Raises:
            RolloutError: nobody answers.
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
                told = f"The balancer does not answer at {self._path} ({error})."
                raise RolloutError(told) from None
        return answer.decode()

    def servers(self) -> list[Server]:
        """The workers, in their order."""
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
        """One worker."""
        return next(one for one in self.servers() if one.name == name)

    def set_state(self, name: str, state: str) -> None:
        """`drain`: nothing new goes to this worker; `ready`: it takes requests when healthy."""
        answer = self.ask(f"set server {BACKEND}/{name} state {state}").strip()
        if answer:
            raise RolloutError(f"The balancer does not set {name} to {state}: {answer}")

    def process(self) -> str:
        """The process that serves now; another one after a reload."""
        lines = self.ask("show info").splitlines()
        return next(line for line in lines if line.startswith("Pid:"))


@dataclass(frozen=True)
class Rollout:
    """Changes one worker after the other, telling what it does.

    Args:
        balancer: in front of the workers.
        supervisorctl: the command, with its options, that speaks to Supervisor.
        environment: what that command needs.
        forget: has a program's crash loop forgotten.
        health: a worker's state on a port: `healthy`, or a reason.
        drain_s: the longest a worker is given to finish.
        say: tells the person who waits.
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
            RolloutError: a worker did not come back; the ones after it were left as they are.
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
        """Send nothing new to a worker and wait until it has finished, as long as it may take."""
        self.balancer.set_state(name, "drain")
        if not wait_until(lambda: self.balancer.server(name).requests == 0, self.drain_s):
            self.say(f"{name}: has not finished within {self.drain_s:.0f} s; ending it")

    def await_healthy(self, name: str, port: int) -> None:
        """Wait until a worker says that it could transcribe.

        Raises:
            RolloutError: its model cannot be loaded, or it takes too long.
        """
        told = ""

        def healthy() -> bool:
            nonlocal told
            told = self.health(port)
            if told.startswith("broken"):
                raise RolloutError(f"{name} does not serve; {told}")
            return told == "healthy"

        if not wait_until(healthy, READY_S):
            raise RolloutError(f"{name} is not ready after {READY_S:.0f} s; {told}")

    def await_ready(self, server: Server) -> None:
        """Wait until a worker serves again and the balancer knows.

        Raises:
            RolloutError: it does not.
        """
        try:
            self.await_healthy(server.name, server.port)
        finally:
            # Its health check keeps it out as long as it is not ready.
            self.balancer.set_state(server.name, "ready")
        up = wait_until(lambda: self.balancer.server(server.name).status == "UP", TAKEN_UP_S)
        if not up:
            raise RolloutError(f"The balancer does not take {server.name} up.")

    def reload(self) -> None:
        """Have the balancer read its configuration anew; requests in progress are finished.

        Raises:
            RolloutError: the balancer has not taken it.
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
        """Tell Supervisor; returns what it says.

        Raises:
            RolloutError: it refuses, or is not there.
        """
        told = subprocess.run(
            [*self.supervisorctl, *command],
            env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode != 0:
            raise RolloutError(f"supervisorctl {' '.join(command)}: {told.stdout.strip()}")
        return told.stdout


def wait_until(done: Callable[[], bool], limit_s: float) -> bool:
    """Ask again and again; returns whether it came true in time."""
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
