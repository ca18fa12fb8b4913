"""Configure Gunicorn: one process on one GPU that drains, and leaves no orphans.

Gunicorn's master loads this module before it forks; neither it nor its imports may use CUDA or
CTranslate2.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from app.config import Config, ConfigError
from app.keys.keyring import Keyring
from app.observability import log
from app.process import close_memory, die_with_parent, leave_no_core
from app.worker.cuda_environment import cuda_environment
from app.worker.starts import LastErrorHandler, Starts, wait_in_view

STOP = {signal.SIGTERM}
SPARE_THREADS = 16  # for health, models and refusals while all slots are in use

try:
    service = Config.from_env()
    os.environ.update(cuda_environment(service, os.environ))
except ConfigError as error:
    sys.exit(str(error))

# NumPy multiplies on the request's thread: the matrices are small, and further threads would only
# wait for each other. CTranslate2 gets its number of threads from the engine.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

bind = f"{service.worker_address}:{service.worker_port}"
workers = 1  # one model per process; Supervisor runs several of them
worker_class = "app.worker.gunicorn_worker.Worker"
threads = service.slots + SPARE_THREADS
preload_app = False  # CUDA does not survive a fork
timeout = 15  # a process that hangs this long is killed, well before bots give up; long requests
# are not hangs
graceful_timeout = service.drain_timeout_s
keepalive = 15  # longer than the balancer's, so that the balancer closes idle connections first
control_socket_disable = True  # all workers of a user share its default path
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None
proc_name = f"transcription-worker-{service.worker_id}"
loglevel = "warning"


starts = Starts.of(service)


def on_starting(server: Any) -> None:
    """Make the master end with Supervisor, so that its port is free for the next one. Wait for the
    back-off in a crash loop."""
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
        starts.ended(str(error))  # the balancer shows it as the reason
        sys.exit(str(error))
    logging.getLogger("gunicorn.error").addHandler(LastErrorHandler(starts, logging.WARNING))
    os.register_at_fork(after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP))


def pre_fork(server: Any, worker: Any) -> None:
    """Block SIGTERM until the fork has returned; see `post_fork`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP)


def post_fork(server: Any, worker: Any) -> None:
    """Make the worker end with its master, so that no orphan holds the port, and close its memory
    to other processes.

    Python discards signals that arrive before a forked process runs its first instruction, and the
    master's handler, which the fork copies, would only queue later ones. A stop would then wait for
    the drain timeout. So SIGTERM stays blocked until its default action can end this process.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP)
    die_with_parent(signal.SIGKILL)
    close_memory()


def post_worker_init(worker: Any) -> None:
    """Drain on SIGTERM: refuse new requests at once; Gunicorn waits for the admitted ones."""
    engine = worker.wsgi.engine

    def drain(number: int, frame: FrameType | None) -> None:
        engine.admission.close()
        worker.handle_exit(number, frame)

    signal.signal(signal.SIGTERM, drain)


def stop_waiting(number: int, frame: FrameType | None) -> None:
    """Exit on SIGTERM during the back-off, and reset it for the next start."""
    starts.ready()
    sys.exit(0)


def worker_exit(server: Any, worker: Any) -> None:
    """Log the requests left unanswered at the drain timeout, and end the decoders."""
    application = getattr(worker, "wsgi", None)
    if application is None:  # the application was never loaded
        return
    if left := application.engine.admission.drain(0):
        worker.log.warning("stopped with %d requests unanswered", left)
    application.sandbox.close()


def child_exit(server: Any, worker: Any) -> None:
    """End the master when its worker ends: the port closes, so the balancer sees a refused
    connection, not a worker that loads, and Supervisor starts a new one."""
    if not server.LISTENERS:  # a stop closes them first
        starts.ready()
        return
    server.num_workers = 0  # or Gunicorn would start another worker and stop it at once
    os.kill(os.getpid(), signal.SIGTERM)
