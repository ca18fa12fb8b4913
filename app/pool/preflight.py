"""Find every reason why a pool cannot start before anything is started."""

from __future__ import annotations

import os
import shutil
import socket

from app.config import ROOT, Config
from app.keys.keyring import Keyring
from app.pool.environment import PoolError, run_dir
from app.pool.supervisor import pid_of

# The kernel's limit less the longest name: Supervisor creates its socket with a pid suffix first.
SOCKET_FOLDER_BYTES = 107 - len("/supervisor.sock.4194304")
# Characters that HAProxy interprets even in a quoted value; in a socket's path there are more.
HAPROXY_SYNTAX = {"RUN_DIR": ',$"\\', "TLS_CERTIFICATE": '"\\', "STATS_PASSWORD": '"\\'}
FREE_BYTES = 200 * 1024 * 1024  # for spooled uploads and logs


def check(config: Config) -> None:
    """Check the folder, the settings of HAProxy, the disk and the ports.

    Raises:
        ConfigError: the key file cannot be used.
        PoolError: anything else keeps the pool from starting.
    """
    check_folder(config)
    Keyring(config)  # otherwise each worker would report an unusable file
    check_haproxy_values(config)
    check_certificate(config)
    if pid_of(config) is not None:
        raise PoolError("The service already runs from this folder; `make stop` ends it.")
    check_ports(config)


def check_folder(config: Config) -> None:
    """Raise `PoolError` unless the run folder can be written, has room, and holds sockets."""
    folder = run_dir(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError as error:
        raise PoolError(f"RUN_DIR: {folder} cannot be written ({error.strerror}).") from None
    if len(os.fsencode(folder)) > SOCKET_FOLDER_BYTES:
        raise PoolError(f"RUN_DIR: {folder} is too long for a socket's path; set a shorter one.")
    if shutil.disk_usage(folder).free < FREE_BYTES:
        raise PoolError(f"Less than {FREE_BYTES >> 20} MB are free in {folder}.")


def check_haproxy_values(config: Config) -> None:
    """Raise `PoolError` when a value holds characters that HAProxy would interpret."""
    values = config.environment()
    for name, syntax in HAPROXY_SYNTAX.items():
        if set(values[name]) & set(syntax):
            raise PoolError(
                f"{name} has one of {' '.join(syntax)} in it, which HAProxy would "
                "misread; choose another value."
            )


def check_certificate(config: Config) -> None:
    """Raise `PoolError` when TLS_CERTIFICATE cannot be read. HAProxy checks what is in it."""
    if not (config.tls_certificate and config.supervise_haproxy):
        return
    path = ROOT / config.tls_certificate
    try:
        if not path.is_dir():
            path.open("rb").close()
        elif not any(path.iterdir()):
            raise PoolError(f"TLS_CERTIFICATE: the folder {path} holds no PEM file.")
    except OSError as error:
        raise PoolError(f"TLS_CERTIFICATE: {path} cannot be read ({error.strerror}).") from None


def check_ports(config: Config) -> None:
    """Raise `PoolError` when a port of the balancer, the gateway or a worker cannot be opened."""
    if config.supervise_haproxy:
        check_port("LB_PORT", config.lb_port, "")
        check_port("STATS_PORT", config.stats_port, "127.0.0.1")
    if config.live_max_sessions:
        check_port("LIVE_PORT", config.live_port, config.worker_address)
    for port in config.worker_ports:
        check_port("WORKER_BASE_PORT", port, config.worker_address)


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
