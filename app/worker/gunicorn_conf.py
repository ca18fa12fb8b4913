"""Gunicorn's settings and hooks: one process on one GPU, its drain, no orphans.

Read in Gunicorn's master before it forks; nothing here, and nothing it imports, may touch CUDA
or CTranslate2.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from app.config import Config, ConfigError
from app.keys.keyring import Keyring
from app.observability import log
from app.process import close_memory, die_with_parent, leave_no_core
from app.worker.starts import LastErrorHandler, Starts, wait_in_view

SPARE_THREADS = 16  # for health, models and refusals while every slot is taken

try:
    service = Config.from_env()
except ConfigError as error:
    sys.exit(str(error))

# GPUs are counted as nvidia-smi counts them, not fastest first.
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
# Freed memory goes back to the device when a call has ended; the other allocator keeps it.
os.environ.setdefault("CT2_CUDA_ALLOCATOR", "cuda_malloc_async")
if service.worker_gpu is not None:
    os.environ["CUDA_VISIBLE_DEVICES"] = service.worker_gpu

bind = f"{service.worker_address}:{service.worker_port}"
workers = 1  # one model a process; Supervisor counts the processes
worker_class = "app.worker.gunicorn_worker.Worker"
threads = service.slots + SPARE_THREADS
preload_app = False  # CUDA does not survive a fork
timeout = 15  # a process that stands still this long is killed, well before bots give up; long
# requests do not count
graceful_timeout = service.drain_timeout_s
keepalive = 15  # longer than the balancer keeps idle connections, so that it closes them first
control_socket_disable = True  # its default path is one for all workers of a user
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
proc_name = f"transcription-worker-{service.worker_id}"
loglevel = "warning"


starts = Starts.of(service)


def on_starting(server: Any) -> None:
    """The master goes when Supervisor does, so that its port is free for the next one. In a crash
    loop it first waits, longer each time."""
    die_with_parent(signal.SIGTERM)
    leave_no_core()
    log.configure(service.worker_id, service.log_level, service.log_format)
    signal.signal(signal.SIGTERM, stop_waiting)
    if seconds := starts.begin():
        server.log.error("%s Next try in %g s.", starts.reason, seconds)
        address = (service.worker_address, service.worker_port)
        wait_in_view(seconds, address, starts.reason, service.worker_id)
    try:
        Keyring(service)
    except ConfigError as error:
        starts.ended(str(error))  # also for whoever asks the balancer why it is not there
        sys.exit(str(error))
    logging.getLogger("gunicorn.error").addHandler(LastErrorHandler(starts, logging.WARNING))


def post_fork(server: Any, worker: Any) -> None:
    """The worker goes when its master does, so that no orphan holds the port. What it hears is
    for nobody else.

    Until here a signal met the handler of the master's that the fork copied: it lies in a copied
    queue which nobody reads, and a stop would wait for this worker until its drain was over.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if told_to_stop(server.SIG_QUEUE):
        sys.exit(0)
    die_with_parent(signal.SIGKILL)
    close_memory()


def told_to_stop(signals: SimpleQueue[int]) -> bool:
    """Whether a stop is among these; empties the queue."""
    with contextlib.suppress(Empty):
        while True:
            if signals.get_nowait() == signal.SIGTERM:
                return True
    return False


def post_worker_init(worker: Any) -> None:
    """On TERM refuse new requests at once; Gunicorn then waits for the ones inside."""
    engine = worker.wsgi.engine

    def drain(number: int, frame: FrameType | None) -> None:
        engine.close()
        worker.handle_exit(number, frame)

    signal.signal(signal.SIGTERM, drain)


def stop_waiting(number: int, frame: FrameType | None) -> None:
    """Told to stop before the start: the next one is a fresh one."""
    starts.ready()
    sys.exit(0)


def worker_exit(server: Any, worker: Any) -> None:
    """The last thing a worker says: whom it leaves unanswered when its time is up."""
    application = getattr(worker, "wsgi", None)
    if application is None:  # it did not begin
        return
    if left := application.engine.drain(0):
        worker.log.warning("stopped with %d requests unanswered", left)
    application.sandbox.close()


def child_exit(server: Any, worker: Any) -> None:
    """A worker that ends takes its port with it: the balancer sees a refused connection, not a
    worker that loads, and Supervisor starts a fresh one."""
    if not server.LISTENERS:  # closed first when it was told to stop
        starts.ready()
        return
    server.num_workers = 0  # or one more would be started, and at once told to stop
    os.kill(os.getpid(), signal.SIGTERM)
