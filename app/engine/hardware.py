"""Choose the model's device, GPU or CPU, and load the library that a GPU needs."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import logging
from pathlib import Path

import ctranslate2

from app.engine.cuda_driver import DriverError, driver

logger = logging.getLogger(__name__)

# In this order: the second depends on the first and finds it by name once it is loaded.
CUBLAS = ("libcublasLt.so.12", "libcublas.so.12")


class HardwareError(Exception):
    """Configured device that is not available."""


@functools.cache  # a broken driver is logged once
def gpu_count() -> int:
    """Return the number of GPUs this process can use; 0 without a driver.

    CTranslate2 is asked only after the driver is initialized; see `cuda_driver`.
    """
    try:
        gpu_driver = driver()
    except DriverError as error:
        logger.error("the GPU driver does not initialize error=%s", error)
        return 0
    if gpu_driver is None or not gpu_driver.count():
        return 0
    usable = int(ctranslate2.get_cuda_device_count())
    if not usable:
        logger.error(
            "the GPU driver is too old for CTranslate2, which needs CUDA 12; driver_cuda=%d",
            gpu_driver.version(),
        )
    return usable


def choose_device(wanted: str, gpus: int) -> str:
    """Return `cuda` or `cpu`; never fall back silently from a configured GPU to the CPU.

    Raises:
        HardwareError: a GPU is configured and none is visible.
    """
    if wanted == "cuda" and gpus == 0:
        raise HardwareError(
            "DEVICE is cuda and no CUDA GPU is visible. Check nvidia-smi, GPUS and "
            "CUDA_VISIBLE_DEVICES, or set DEVICE to auto or cpu."
        )
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    return wanted


def preload_cublas() -> None:
    """Load cuBLAS from its Python package, so that CTranslate2 finds it by name.

    CTranslate2 opens `libcublas.so.12` on first use, and no other CUDA library. Without the
    package the system's cuBLAS is used.
    """
    if importlib.util.find_spec("nvidia") is None:
        return
    spec = importlib.util.find_spec("nvidia.cublas")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for name in CUBLAS:
            library = Path(location) / "lib" / name
            if library.is_file():
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
