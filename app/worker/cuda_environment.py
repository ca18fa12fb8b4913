"""Choose the environment variables that CUDA and CTranslate2 read in a worker."""

from __future__ import annotations

from collections.abc import Mapping

from app.config import ROOT, Config, ConfigError

ALLOCATOR = "cuda_malloc_async"


def cuda_environment(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables to set.

    Those that the operator set keep their value, except `CUDA_VISIBLE_DEVICES` if GPUS is set.

    Raises:
        ConfigError: a variable selects what does not work here.
    """
    if (environ.get("CT2_CUDA_ALLOCATOR") or ALLOCATOR) != ALLOCATOR:
        raise ConfigError(
            f"CT2_CUDA_ALLOCATOR is {environ['CT2_CUDA_ALLOCATOR']!r}; it accepts {ALLOCATOR}. "
            "The other allocator corrupts memory that one thread allocates and another frees."
        )
    wanted = {
        # Returns memory to the device after each call, for other workers.
        "CT2_CUDA_ALLOCATOR": ALLOCATOR,
        # Number GPUs in nvidia-smi's order, not fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # CTranslate2 has no machine code for architectures after sm_86: the driver compiles each
        # kernel and keeps it here. RUN_DIR lasts under `make run`; the systemd unit names a folder
        # that lasts there.
        "CUDA_CACHE_PATH": str(ROOT / config.run_dir / "cuda"),
        # Compile all kernels at the start, not one in a request.
        "CUDA_MODULE_LOADING": "EAGER",
    }
    chosen = {name: value for name, value in wanted.items() if not environ.get(name)}
    if config.worker_gpu is not None:
        chosen["CUDA_VISIBLE_DEVICES"] = config.worker_gpu
    return chosen
