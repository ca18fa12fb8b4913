"""The GPU driver through ctypes, with a library that has the driver's functions and no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.config import ROOT
from app.engine import cuda_driver, hardware
from app.engine.batching.device import is_device_failure, is_out_of_memory
from app.engine.cuda_driver import Driver, DriverError
from tests.support.driver import built

COUNT = "from app.engine.hardware import gpu_count; print(gpu_count())"


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def driver(library, monkeypatch) -> Driver:
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(library))
    return Driver()


def python(code: str, library: Path, **variables: str) -> tuple[str, str]:
    """Run Python with this driver and return what it prints, and its log."""
    code = f"from app.engine import cuda_driver; cuda_driver.LIBRARY = {str(library)!r}\n{code}"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | variables, text=True,
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout, run.stderr


def test_a_gpu_is_identified(driver):
    assert driver.count() == 1
    assert driver.uuid() == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (driver.architecture(), driver.version()) == ("sm_90", 12080)


def test_other_threads_run_while_the_driver_initializes(library):
    """Otherwise Gunicorn takes the worker for hung. CTranslate2 finds this driver too."""
    code = """if True:
        import threading, time
        from app.engine.hardware import gpu_count
        counting = threading.Thread(target=gpu_count)
        turns = 0
        counting.start()
        while counting.is_alive():
            time.sleep(0.01)
            turns += 1
        print(turns)
    """
    turns, _ = python(code, library, INIT_S="1", LD_LIBRARY_PATH=str(library.parent))

    assert int(turns) > 10


def test_a_driver_that_does_not_initialize_says_why(library):
    count, told = python(COUNT, library, INIT_ERROR="802")

    assert count == "0\n"
    assert "system not yet initialized" in told


def test_a_driver_without_gpus_is_no_error(library):
    assert python(COUNT, library, INIT_ERROR="100") == ("0\n", "")


def test_without_a_driver_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libno-such-driver.so.1")
    cuda_driver.driver.cache_clear()
    hardware.gpu_count.cache_clear()

    assert hardware.gpu_count() == 0
    cuda_driver.driver.cache_clear()
    hardware.gpu_count.cache_clear()


def test_pieces_of_device_memory_are_joined_there(driver):
    pieces = [np.full(100, number, np.int32) for number in range(3)]

    joined = driver.join([piece.ctypes.data for piece in pieces], pieces[0].nbytes)

    found = (np.ctypeslib.ctypes.c_int32 * 300).from_address(joined.address)
    assert list(found) == [0] * 100 + [1] * 100 + [2] * 100


def test_joined_memory_is_freed_and_its_peak_remembered(driver):
    now, _ = driver.reserved_bytes()
    driver.forget_peak()
    piece = np.zeros(1000, np.uint8)

    joined = driver.join([piece.ctypes.data] * 4, piece.nbytes)

    assert driver.reserved_bytes() == (now + 4000, now + 4000)
    del joined
    assert driver.reserved_bytes() == (now, now + 4000)
    driver.forget_peak()
    assert driver.reserved_bytes() == (now, now)


def test_failures_are_recognized_like_those_of_ctranslate2(driver):
    with pytest.raises(DriverError, match="CUDA failed with error out of memory") as told:
        driver.join([0], 2 << 20)
    assert is_out_of_memory(told.value)
    assert is_device_failure(told.value)
