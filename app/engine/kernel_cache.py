"""Let one worker compile the GPU's kernels while the others wait for its cache.

CTranslate2 has machine code up to sm_86. For later GPUs the driver compiles its kernels when they
are first loaded, and keeps the result in the folder `CUDA_CACHE_PATH`. Workers that start together
would each compile all of them.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ctranslate2

from app.engine.cuda_driver import Driver

logger = logging.getLogger(__name__)

LOADING = "The model is loading."
COMPILING = "The GPU's kernels are being compiled, which takes minutes the first time."
WAITING = "Another worker compiles the GPU's kernels; this one waits for them."


@contextmanager
def filled_once(gpu: Driver, report: Callable[[str], None]) -> Iterator[None]:
    """Hold back this worker until the cache is filled, or let it fill the cache.

    The caller loads the model and makes every kind of call inside. If that fails, or the process
    ends, the next worker does it.

    Args:
        gpu: the driver; a cache is filled for one version of it and one architecture.
        report: called with a sentence on what is going on.
    """
    folder = os.environ.get("CUDA_CACHE_PATH")
    if not folder:
        yield
        return
    stamp = Path(folder) / (
        f"filled-{ctranslate2.__version__}-{gpu.version()}-{gpu.architecture()}"
    )
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        lock = stamp.with_name(stamp.name + ".lock").open("w")
    except OSError as error:
        logger.warning("CUDA_CACHE_PATH cannot be written path=%s error=%s", folder, error)
        yield
        return
    with lock:
        if not stamp.exists():
            report(WAITING)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
            report(LOADING)
            yield
            return
        report(COMPILING)
        began = time.monotonic()
        yield
        try:
            stamp.touch()
        except OSError as error:  # the model is loaded; only the next worker compiles once more
            logger.warning("CUDA_CACHE_PATH cannot be written path=%s error=%s", folder, error)
        logger.info("kernels compiled seconds=%.0f", time.monotonic() - began)
