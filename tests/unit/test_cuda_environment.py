"""What a worker sets for CUDA before CUDA is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import ROOT, Config, ConfigError
from app.worker.cuda_environment import cuda_environment


def test_kernels_are_compiled_at_the_start_and_kept():
    chosen = cuda_environment(Config(run_dir=Path(".run")), {})

    assert chosen["CUDA_MODULE_LOADING"] == "EAGER"
    assert chosen["CUDA_CACHE_PATH"] == str(ROOT / ".run" / "cuda")
    assert "CUDA_VISIBLE_DEVICES" not in chosen


def test_what_the_operator_chose_stays():
    environ = {
        "CUDA_CACHE_PATH": "/var/lib/transcription/cuda",
        "CUDA_DEVICE_ORDER": "FASTEST_FIRST",
    }

    assert not set(environ) & set(cuda_environment(Config(), environ))


def test_each_worker_sees_its_own_gpu():
    config = Config(gpus=("2", "MIG-7a"), worker_id=2)

    assert cuda_environment(config, {"CUDA_VISIBLE_DEVICES": "2,MIG-7a"})[
        "CUDA_VISIBLE_DEVICES"
    ] == ("MIG-7a")


def test_an_allocator_that_threads_cannot_share_stops_the_start():
    with pytest.raises(ConfigError, match="CT2_CUDA_ALLOCATOR is 'cub_caching'; it accepts"):
        cuda_environment(Config(), {"CT2_CUDA_ALLOCATOR": "cub_caching"})
