"""Start, find and command the Supervisor of a run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from app.config import ROOT, Config
from app.pool.environment import PoolError, environment, run_dir, unit_environment
from app.pool.render import supervisor_conf, write_supervisor
from app.process import die_with_parent
from app.worker.starts import Starts

SUPERVISORD = "app.pool.supervisord"


def command(config: Config, module: str) -> list[str]:
    """Return the command line of a module of Supervisor for this pool."""
    return [sys.executable, "-W", "ignore", "-m", module, "-c", str(supervisor_conf(config))]


def start(config: Config) -> subprocess.Popen[bytes]:
    """Start Supervisor, whose output and that of its programs is a pipe to this process."""
    write_supervisor(config)
    for number in range(1, config.workers + 1):
        forget(config, f"worker_{number}")  # the back-off of an earlier run
    return subprocess.Popen(
        command(config, SUPERVISORD),
        cwd=ROOT,
        env=environment(config),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # Its own session: Ctrl-C reaches only this process, which stops the others in order.
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(signal.SIGTERM),
    )


def become(config: Config) -> int:
    """Become Supervisor, for a parent that keeps the log and stops it."""
    write_supervisor(config)
    words = command(config, SUPERVISORD)
    os.chdir(ROOT)
    os.execve(words[0], words, unit_environment(config))


def update(config: Config, programs: list[str]) -> int:
    """Update these programs, or all, of a running Supervisor to this version."""
    write_supervisor(config)
    return control(config, "update", *programs).returncode


def control(
    config: Config, *words: str, stdout: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a supervisorctl command.

    Args:
        words: the command and its arguments.
        stdout: `subprocess.PIPE` to capture the output; None: print it.
    """
    if words[:1] in (("restart",), ("update",)):
        for program in words[1:]:
            forget(config, program)
    return subprocess.run(
        [*command(config, "supervisor.supervisorctl"), *words],
        cwd=ROOT, env=unit_environment(config), stdout=stdout, text=True, check=False,
    )  # fmt: skip


def forget(config: Config, program: str) -> None:
    """Reset the back-off of a worker that is restarted deliberately."""
    Starts.at(run_dir(config), program).ready()


def pid_of(config: Config) -> int | None:
    """Return the pid of the run folder's Supervisor; None: it does not run."""
    try:
        pid = int((run_dir(config) / "supervisord.pid").read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(supervisor_conf(config)).encode() in words.split(b"\0") else None


def running(config: Config) -> tuple[int, Config]:
    """Return the pid of the run folder's Supervisor, and the settings that it was started with.

    They are read from the process, because they include secrets and values that were worked out
    at the start, such as the device. A later shell need only know RUN_DIR.

    Raises:
        PoolError: no pool runs in this folder, or it is another user's.
    """
    pid = pid_of(config)
    if pid is None:
        raise PoolError(
            f"No service runs in RUN_DIR={config.run_dir}. Start one with `make run`, or set "
            "RUN_DIR as it was at the start."
        )
    try:
        lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        raise PoolError(
            f"The service in RUN_DIR={config.run_dir} belongs to another user; run this as that "
            "user."
        ) from None
    environ = dict(os.fsdecode(line).split("=", 1) for line in lines if b"=" in line)
    return pid, Config.from_env(environ)
