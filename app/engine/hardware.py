"""What the model runs on: GPU or cores, and the one library a GPU needs."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import ctranslate2

# In this order: the second needs the first, and then finds it by name.
CUBLAS = ("libcublasLt.so.12", "libcublas.so.12")


class HardwareError(Exception):
    """The settings ask for a device that is not there."""


def gpu_count() -> int:
    """GPUs this process can use; 0 without a driver."""
    return int(ctranslate2.get_cuda_device_count())


def choose_device(wanted: str, gpus: int) -> str:
    """`cuda` or `cpu`; a GPU that is asked for and absent is an error, never a silent CPU.

    Raises:
        HardwareError: no GPU is visible.
    """
    if wanted == "cuda" and gpus == 0:
        raise HardwareError(
            "DEVICE is cuda and no CUDA GPU is visible. Check nvidia-smi and GPUS, or set "
            "DEVICE to auto or cpu."
        )
    if wanted == "auto":
        return "cuda" if gpus else "cpu"
    return wanted


def preload_cublas() -> None:
    """Load cuBLAS from its Python package, so that CTranslate2 finds it by name.

    CTranslate2 opens `libcublas.so.12` when it first needs it, and no other CUDA library.
    Without the package the system's own is used.
    """
    if importlib.util.find_spec("nvidia") is None:
        return
    spec = importlib.util.find_spec("nvidia.cublas")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for name in CUBLAS:
            library = Path(place) / "lib" / name
            if library.is_file():
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
