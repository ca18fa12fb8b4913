"""A GPU's memory: how much there is, and how many windows of a model it has room for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pynvml  # type: ignore[import-untyped]

# Decoder layers of Whisper's models by their width; the later, smaller decoders (turbo, distil)
# are told by the layers their word times come from.
# Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, table 1.
DECODER_LAYERS = {384: 4, 512: 6, 768: 12, 1024: 24, 1280: 32}
HEAD_WIDTH = 64
ENCODED_FRAMES = 1500  # of one window, behind the encoder's convolution
CONTEXT_TOKENS = 448  # prompt and text together
KEPT_FREE = 0.1  # of what is free, for what the estimate does not see


@dataclass(frozen=True, slots=True)
class Memory:
    """A GPU's memory in bytes."""

    used: int
    free: int


class GpuMemory:
    """The memory of one GPU, all of its users together.

    Without NVIDIA's driver library there is no reading, and every answer is None.

    Args:
        gpu: its index as nvidia-smi counts, or its `GPU-…` or `MIG-…` identifier; None: the first.
    """

    def __init__(self, gpu: str | None = None) -> None:
        self._handle: Any = None
        try:
            pynvml.nvmlInit()
            gpu = gpu or "0"
            self._handle = (
                pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
                if gpu.isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(gpu)
            )
        except pynvml.NVMLError:
            return

    def read(self) -> Memory | None:
        """The memory now."""
        if self._handle is None:
            return None
        try:
            found = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
        except pynvml.NVMLError:
            return None
        return Memory(int(found.used), int(found.free))


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides how much memory a window takes.

    Attributes:
        width: numbers of one encoded frame.
        layers: of the decoder.
        beams: hypotheses kept.
        number_bytes: of one number of a result in between.
    """

    width: int
    layers: int
    beams: int
    number_bytes: int

    @classmethod
    def of(cls, folder: Path, width: int, beams: int, compute_type: str) -> Shape:
        """The shape of the model in a folder."""
        heads = json.loads((folder / "config.json").read_text()).get("alignment_heads", ())
        last = max((layer for layer, _ in heads), default=0)
        layers = DECODER_LAYERS.get(width, last + 1)
        if last < layers // 2:
            layers = last + 1
        return cls(width, layers, beams, 2 if "16" in compute_type else 4)

    @property
    def window_bytes(self) -> int:
        """What one window takes at its most: in the encoder, then in the decoder.

        The encoder's largest layer holds its attention's scores, its inner layer (four times as
        wide) and some copies of its frames; the decoder keeps keys and values of the encoded
        frames, and of every token for every hypothesis.
        """
        frames = ENCODED_FRAMES * self.width
        scores = self.width // HEAD_WIDTH * ENCODED_FRAMES**2
        encoder = scores + 4 * frames + 6 * frames
        decoder = self.layers * 2 * (frames + self.beams * CONTEXT_TOKENS * self.width)
        return self.number_bytes * (encoder + decoder)


def windows_with_room(shape: Shape, free_bytes: int, calls: int) -> int:
    """Windows of one call that fit, where so many calls share the GPU; one at least."""
    room = free_bytes * (1 - KEPT_FREE) / calls
    return max(1, int(room / shape.window_bytes))
