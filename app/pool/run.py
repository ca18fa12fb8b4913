"""Run the pool in the foreground: fetch the model, start, announce that it is ready, and stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from app.config import ROOT, Config
from app.pool import preflight, probe, supervisor
from app.pool.environment import run_dir
from app.pool.haproxy_admin import POLL_S
from app.pool.keys_map import keep_keys
from app.pool.log_file import copy_lines, log_file
from app.pool.render import write_balancer
from app.pool.terminal import Terminal
from app.process import children, leave_no_core

EXAMPLE = "app/engine/warm_up.flac"
ENTRY_S = 60.0  # for the balancer and the gateway to answer, after the workers


def run(config: Config) -> int:
    """Start the pool, wait until it is stopped, and leave no process behind.

    The terminal gets a few lines; the output of every process goes to the log file.

    Returns:
        The exit status.

    Raises:
        ConfigError, PoolError: it cannot start.
    """
    terminal = Terminal()
    fetched = prepare(config)
    if fetched is None:
        return 1
    terminal.say(model_line(fetched, is_default="model_size" not in config.given))
    return supervise(fetched, terminal)


def prepare(config: Config) -> Config | None:
    """Check everything, the model last because fetching it may take long, and write the balancer's
    configuration. Return the settings with the model and the device; None: the model failed."""
    # Without WORKERS there is one for each GPU, and the GPUs are counted with the model.
    least = config if "workers" in config.given else replace(config, workers=1)
    preflight.check(least)
    if config.supervise_haproxy:
        write_balancer(least)
    fetched = with_model(config)
    if fetched and fetched.workers != least.workers:
        preflight.check_ports(fetched)
        if config.supervise_haproxy:
            write_balancer(fetched)
    return fetched


def supervise(config: Config, terminal: Terminal) -> int:
    """Start Supervisor, wait until it ends, and return the exit status."""
    leave_no_core()
    log = log_file(log_path(config))
    logging.raiseExceptions = False  # a full disk costs lines of the log, nothing else
    logging.getLogger().addHandler(log)  # also what this process logs
    entry = f" and HAProxy on port {config.lb_port}" if config.supervise_haproxy else ""
    terminal.say(f"Starting: {plural(config.workers, 'worker')}{entry}; log: {shown_log(config)}")
    process = supervisor.start(config)
    assert process.stdout is not None
    copier = threading.Thread(target=copy_lines, args=(process.stdout, log), daemon=True)
    copier.start()
    stopper = Stopper(process, config.drain_timeout_s, terminal)

    def running() -> bool:
        return process.poll() is None and not stopper.is_stopping

    if config.keys_path and config.supervise_haproxy:
        threading.Thread(target=keep_keys, args=(config, running), daemon=True).start()
    signal.signal(signal.SIGINT, stopper.on_signal)
    signal.signal(signal.SIGTERM, stopper.on_signal)
    failure = await_ready(config, running, terminal)
    if failure:
        stopper.stop()
    code = process.wait()
    copier.join(timeout=5)
    if not failure and code and not stopper.is_stopping:
        failure = f"Supervisor ended with status {code}; {shown_log(config)} says why."
    if failure:
        terminal.fail(failure)
        return 1
    terminal.say("Stopped.")
    return 0


def await_ready(config: Config, running: Callable[[], bool], terminal: Terminal) -> str | None:
    """Wait until the pool is ready and say so; return the reason if it never will be."""
    began = last_loading = time.monotonic()
    shown = 0
    while running():
        answers = [probe.worker_health(config, port) for port in config.worker_ports]
        states = [answer.state for answer in answers]
        healthy, broken = states.count("healthy"), states.count("broken")
        if broken == len(states):
            return answers[0].reason
        while shown < healthy:
            shown += 1
            terminal.grow(f"{'' if shown > 1 else 'Workers ready:'} {shown}/{config.workers}")
        now = time.monotonic()
        if healthy + broken < len(states):
            last_loading = now
        elif not (missing := missing_entry(config, healthy)):
            for line in ready_lines(config, healthy, now - began):
                terminal.say(line)
            return None
        elif now - last_loading > ENTRY_S:
            return f"{missing} {shown_log(config)} says why."
        time.sleep(POLL_S)
    return None


def missing_entry(config: Config, healthy: int) -> str:
    """Return a sentence on what does not pass requests to the healthy workers; empty: nothing."""
    up = f"Workers: {healthy} of "  # as the balancer's status has it
    if config.supervise_haproxy and up not in probe.balancer_status(config):
        return f"HAProxy on LB_PORT={config.lb_port} does not pass requests to the workers."
    if config.live_max_sessions and not probe.has_gateway(config):
        return (
            f"The gateway of live sessions does not answer on LIVE_PORT={config.live_port}; "
            "LIVE_MAX_SESSIONS=0 starts the service without it."
        )
    return ""


def log_path(config: Config) -> Path:
    """Return the path of the log file of all processes."""
    return run_dir(config) / "service.log"


def shown_log(config: Config) -> str:
    """Return the log file's path as the terminal shows it: within the project, the relative one."""
    path = log_path(config)
    return os.path.relpath(path, ROOT) if path.is_relative_to(ROOT) else str(path)


def ready_lines(config: Config, healthy: int, elapsed_s: float) -> list[str]:
    """Return the lines that end a start: what to try, where the pages are, how to stop."""
    missing = "" if healthy == config.workers else f" with {healthy} of {config.workers} workers"
    ready = f"Ready after {elapsed_s:.0f} s{missing}."
    stop = "Stop: Ctrl-C or `make stop`"
    if missing:
        ready += " `make status` says what the others lack."
    if not config.supervise_haproxy:
        return [ready, stop]
    scheme = "https" if config.tls_certificate else "http"
    url = f"{scheme}://127.0.0.1:{config.lb_port}"
    key = "-H 'Authorization: Bearer YOUR_KEY' " if config.asks_for_key else ""
    return [
        f"{ready} Transcribe a recording:",
        f"  curl {key}-F file=@{EXAMPLE} -F model=whisper-1 {url}/v1/audio/transcriptions",
        f"Pages: {url}/playground, {url}/docs, {url}/status",
        stop,
    ]


def with_model(config: Config) -> Config | None:
    """Fetch the model and return the settings with the model and the device; None: that failed,
    and standard error has the reason.

    In a process of its own, because CTranslate2 would keep its memory as long as the pool runs.
    """
    process = subprocess.run(
        [sys.executable, "-m", "app.engine.files"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if process.returncode != 0:
        return None
    name, folder, device, n_gpus = process.stdout.splitlines()[-4:]
    config = replace(config, model_name=name, model_size=folder, device=device)
    if device == "cuda":
        gpus = config.gpus or tuple(map(str, range(int(n_gpus))))
        workers = config.workers if "workers" in config.given else len(gpus)
        config = replace(config, gpus=gpus, workers=workers)
    return config


def model_line(config: Config, is_default: bool) -> str:
    """Return the line about the model: its name, size and device, and how to choose another."""
    files = (path for path in Path(config.model_size).glob("*") if path.is_file())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    device = plural(len(config.gpus), "GPU") if config.device == "cuda" else "the CPU"
    line = f"Model: {config.name}, {megabytes:.0f} MB, on {device}"
    if is_default and config.device == "cpu":
        line += "; small, English only. Better: MODEL_SIZE=small make run"
    return line


def plural(count: int, noun: str) -> str:
    """Return a count and its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


class Stopper:
    """Signal handler that stops Supervisor in order; a second signal kills everything at once.

    All methods run on the main thread; a handler may run between any two of its steps.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], drain_timeout_s: int, terminal: Terminal
    ) -> None:
        self._process = process
        self._drain_timeout_s = drain_timeout_s
        self._terminal = terminal
        self.is_stopping = False

    def on_signal(self, number: int, frame: object) -> None:
        """Handle SIGINT or SIGTERM."""
        if self.is_stopping:
            self._terminal.say("Ending at once.")
            for pid in children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        self._terminal.say(
            f"Stopping: requests in progress are finished, for {self._drain_timeout_s} s at "
            "most. Ctrl-C again ends them."
        )
        self.stop()

    def stop(self) -> None:
        """Ask Supervisor to stop the gateway, the workers, the balancer and itself, in order."""
        self.is_stopping = True
        if self._process.poll() is None:
            self._process.terminate()
