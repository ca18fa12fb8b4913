"""Part `memory` of `make bench-gpu`: MiB of a model and one full batch.

Texts are as long as Whisper allows. `python -m tests.measure.gpu.memory SIZE TYPE BATCH` prints one
figure in bytes: each is measured in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from app.config import ROOT, Config
from app.engine.gpu_memory import GpuMemory
from app.engine.model import Model
from tests.measure.gpu.part import DEVICE, GPU, MODELS, SIZE, TYPES, Part
from tests.measure.random_model import random_model

SIZES = (SIZE, "base", "small") if GPU else (SIZE,)
BATCHES = (1, 16) if GPU else (1, 2)


def bytes_taken() -> int:
    """Return memory in use: the GPU's, or this process's."""
    memory = GpuMemory().read() if GPU else None
    if memory:
        return memory.used
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def taken_by(size: str, compute_type: str, batch: int) -> int:
    """Return the bytes that a model takes after full batches of that many windows."""
    before = bytes_taken()
    config = Config(
        model_size=str(random_model(size, MODELS)), workers=1, device=DEVICE,
        compute_type=compute_type, max_batch_size=batch, beam_size=5 if GPU else 1,
    )  # fmt: skip
    model = Model(config, max_batch=batch)
    model.try_full_batch()
    return bytes_taken() - before


def main() -> None:
    if len(sys.argv) == 4:
        size, compute_type, batch = sys.argv[1:]
        print(taken_by(size, compute_type, int(batch)))
        return
    part = Part("memory")
    for size in SIZES:
        for compute_type in TYPES:
            cells: dict[str, int | None] = {}
            for batch in BATCHES:
                command = [sys.executable, "-m", "tests.measure.gpu.memory", size, compute_type]
                done = subprocess.run(
                    [*command, str(batch)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
                )
                last = done.stdout.split()[-1:]
                cells[f"batch of {batch}"] = int(last[0]) >> 20 if done.returncode == 0 else None
            part.add(f"MiB on {DEVICE}", model=size, type=compute_type, **cells)
    part.finish()


if __name__ == "__main__":
    main()
