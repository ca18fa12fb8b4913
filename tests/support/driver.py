"""NVIDIA's driver library as far as a machine without a GPU can have it: compiled from driver.c.

The service calls it through the same ctypes calls as the real one, so that arguments, their sizes
and the errors' texts are tested. What it stands for, the GPU, is not.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("driver.c")


def built(folder: Path) -> Path:
    """Compile the library into a folder and return its path."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is needed for the stand-in of the GPU driver")
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    return library
