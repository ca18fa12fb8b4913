"""Change a running pool without interrupting requests: restart, scale, reload.

The balancer drains a worker before it is changed: admitted requests finish and new ones go to
other workers, including uploads too large to be retried.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from app.config import Config
from app.pool import probe, supervisor
from app.pool.environment import run_dir
from app.pool.haproxy_admin import TAKEN_UP_S, Balancer, RolloutError, Server, wait_until
from app.pool.render import write_balancer, write_supervisor

READY_S = 900.0  # for a worker to load its model


@dataclass(frozen=True)
class Rollout:
    """A change of the workers, one at a time, with progress messages.

    Args:
        config: the settings of the running pool.
        say: prints a progress message.
    """

    config: Config
    say: Callable[[str], None]

    @property
    def balancer(self) -> Balancer:
        """Return the balancer of the workers."""
        return Balancer(run_dir(self.config) / "admin.sock")

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
            self.supervise("restart", program)
            self.await_ready(server)
            self.say(f"{server.name}: back after {time.monotonic() - began:.1f} s")
        self.say("All workers are restarted.")

    def scale(self, wanted: int) -> None:
        """Change the number of workers: new ones get requests once they are healthy; removed
        ones are drained.

        Raises:
            RolloutError: a new worker did not become ready, or the balancer did not reload.
        """
        scaled = replace(self.config, workers=wanted)
        servers = self.balancer.servers()
        first = servers[0].port
        if wanted > len(servers):
            write_supervisor(scaled)
            added = [f"w{number}" for number in range(len(servers) + 1, wanted + 1)]
            self.say(f"Starting {', '.join(added)} …")
            self.supervise("update")
            for port, name in enumerate(added, start=first + len(servers)):
                self.await_healthy(name, port)
        for server in servers[wanted:]:
            self.say(f"{server.name}: finishing its requests …")
            self.drain(server.name)
        self._reload([first + number for number in range(wanted)])
        if wanted < len(servers):
            write_supervisor(scaled)
            self.supervise("update")
        self.say(f"{wanted} workers serve.")

    def reload(self) -> None:
        """Make the balancer reread its configuration; requests in progress finish.

        Raises:
            RolloutError: the balancer did not load it in time.
        """
        self._reload([server.port for server in self.balancer.servers()])
        self.say("The balancer has read its configuration.")

    def _reload(self, ports: list[int]) -> None:
        write_balancer(self.config, ports)
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

    def drain(self, name: str) -> None:
        """Drain a worker, and wait until it has finished or the longest request has."""
        limit_s = self.config.longest_request_s
        self.balancer.set_state(name, "drain")
        if not wait_until(lambda: self.balancer.server(name).requests == 0, limit_s):
            self.say(f"{name}: has not finished within {limit_s} s; ending it")

    def await_healthy(self, name: str, port: int) -> None:
        """Wait until a worker is healthy.

        Raises:
            RolloutError: the worker is broken, or not healthy within `READY_S`.
        """
        health = probe.Health("starting")

        def healthy() -> bool:
            nonlocal health
            health = probe.worker_health(self.config, port)
            if health.state == "broken":
                raise RolloutError(f"{name} does not serve: {health.reason}")
            return health.state == "healthy"

        if not wait_until(healthy, READY_S):
            raise RolloutError(f"{name} is not ready after {READY_S:.0f} s: {health.reason}")

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

    def supervise(self, *words: str) -> str:
        """Run a supervisorctl command and return its output.

        Raises:
            RolloutError: Supervisor refuses, or does not run.
        """
        result = supervisor.control(self.config, *words, stdout=subprocess.PIPE)
        if result.returncode != 0:
            raise RolloutError(f"supervisorctl {' '.join(words)}: {result.stdout.strip()}")
        return result.stdout
