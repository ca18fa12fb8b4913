"""Part `environment` of `make bench-gpu`: what is measured on, and how long a first call takes."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import subprocess
import time
from typing import Any

import ctranslate2
import faster_whisper

from app.engine import cuda_driver
from app.engine.options import DecodeOptions
from app.pool.environment import find_haproxy
from tests.measure.gpu.part import CUBLAS_VARIABLE, DEVICE, GPU, MODELS, SIZE, TYPES, Part
from tests.measure.load import about
from tests.measure.random_model import random_model
from tests.support import plain
from tests.support.recordings import recording

PACKAGES = ("ctranslate2", "faster-whisper", "av", "onnxruntime", "numpy", "tokenizers")
QUERY = "name,driver_version,memory.total,compute_cap,mig.mode.current,power.limit"


def facts() -> dict[str, Any]:
    """Return what figures depend on."""
    found = about.hardware() | {
        "gpus": asked("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"),
        "cuInit": cu_init(),
        "GPUs that CTranslate2 sees": ctranslate2.get_cuda_device_count(),
        "cuBLAS": os.environ.get(CUBLAS_VARIABLE, "as found"),
        "compute types": ", ".join(sorted(ctranslate2.get_supported_compute_types(DEVICE))),
        "revision": about.revision() or asked("cat", ".run/revision"),
    }
    try:
        found["HAProxy"] = asked(find_haproxy(), "-v").split("\n")[0]
    except Exception as error:
        found["HAProxy"] = f"none ({error})"
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def cu_init() -> str:
    """Return the driver's own answer; nvidia-smi can work where CUDA does not."""
    try:
        driver = ctypes.CDLL(cuda_driver.LIBRARY)
    except OSError as error:
        return str(error)
    return f"{driver.cuInit(0)} (0: it works)"


def asked(*command: str) -> str:
    """Return what a command prints; why not, where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"none ({error})"
    return (done.stdout or done.stderr).strip()


def main() -> None:
    part = Part("environment")
    for name, value in facts().items():
        part.add("What figures were measured on", fact=name, value=value)
    folder = random_model("tiny" if GPU else SIZE, MODELS)
    samples = recording("austen_0890.wav").waveform()
    options = DecodeOptions(language="en", word_timestamps=True)
    for compute_type in ("float32", *TYPES) if GPU else TYPES:
        began = time.monotonic()
        model = faster_whisper.WhisperModel(str(folder), DEVICE, compute_type=compute_type)
        loaded = time.monotonic()
        times = []
        for _ in range(2):
            at = time.monotonic()
            plain.text(model, samples, options)
            times.append(time.monotonic() - at)
        part.add(
            "Seconds to load a small model, of its first request, which compiles kernels that are "
            "not in the cache, and of its next",
            type=compute_type, load=loaded - began, first=times[0], next=times[1],
        )  # fmt: skip
    part.finish()


if __name__ == "__main__":
    main()
