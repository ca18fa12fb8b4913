"""The encodings of a call's windows: where they are when they can be, else joined on the device."""

from __future__ import annotations

import gc

import ctranslate2
import numpy as np
import pytest

from app.engine import cuda_driver
from app.engine.batching.window import Area, Encoded, EncodedBatch, gather, join_on_host
from app.engine.cuda_driver import Driver
from app.engine.hardware import gpu_count
from tests.support.driver import built


def encoded(n_windows: int, kind: type = np.float32, first: int = 0) -> list[Encoded]:
    """Windows of one encoded batch; each holds its number."""
    numbers = np.arange(first, first + n_windows, dtype=kind)
    output = np.ascontiguousarray(np.broadcast_to(numbers[:, None, None], (n_windows, 15, 8)))
    batch = EncodedBatch(ctranslate2.StorageView.from_array(output))
    return [Encoded(batch, index) for index in range(n_windows)]


def address(view: ctranslate2.StorageView) -> int:
    return int(view.__array_interface__["data"][0])


def numbers(view: ctranslate2.StorageView) -> list[float]:
    return [float(window[3, 5]) for window in np.asarray(view)]


def never(pieces, n_bytes):
    raise AssertionError("copied")


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [2], [1, 2], [3]])
def test_neighbours_are_passed_on_without_a_copy(chosen, kind):
    windows = encoded(4, kind)

    view = gather([windows[index] for index in chosen], never)

    assert numbers(view) == chosen
    assert np.asarray(view).dtype == kind
    assert address(view) == windows[0].batch.address(chosen[0])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("chosen", [[0, 2], [1, 0], [3, 4], [5, 1, 3], [0, 0]])
def test_others_are_joined_in_their_order(chosen, kind):
    windows = encoded(4, kind) + encoded(2, kind, first=4)

    view = gather([windows[index] for index in chosen])

    assert numbers(view) == chosen
    assert np.asarray(view).dtype == kind


def test_others_are_joined_by_the_driver_on_a_gpu(tmp_path, monkeypatch):
    """With the driver's own calls; its memory is this machine's here."""
    monkeypatch.setattr(cuda_driver, "LIBRARY", str(built(tmp_path)))
    gpu = Driver()
    windows = encoded(3)
    before, _ = gpu.reserved_bytes()

    view = gather([windows[2], windows[0]], gpu.join)

    assert numbers(view) == [2, 0]
    assert gpu.reserved_bytes()[0] == before + 2 * windows[0].batch.window_bytes
    del view
    gc.collect()
    assert gpu.reserved_bytes()[0] == before, "freed with the view"


@pytest.mark.parametrize("chosen", [[1], [1, 0]])
def test_what_is_passed_on_outlives_its_batch(chosen):
    windows = encoded(2)
    view = gather([windows[index] for index in chosen], join_on_host)
    del windows
    gc.collect()
    encoded(64)  # would take the place

    assert numbers(view) == chosen


def test_a_type_without_an_array_interface_is_converted_on_its_device():
    output = ctranslate2.StorageView.from_array(np.full((2, 15, 8), 3, np.float32))
    batch = EncodedBatch(output.to(ctranslate2.DataType.bfloat16))

    assert numbers(gather([Encoded(batch, 1)], never)) == [3]


@pytest.mark.skipif(gpu_count() > 0, reason="there the memory would have to exist")
def test_ctranslate2_takes_memory_of_a_gpu_by_cudas_interface():
    """It looks for a GPU then, as this machine has none."""
    interface = {"shape": (1, 15, 8), "typestr": "<f2", "data": (4096, False), "version": 3}

    with pytest.raises(RuntimeError, match="CUDA"):
        ctranslate2.StorageView.from_array(Area("cuda", interface, None))
