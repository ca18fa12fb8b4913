"""A simulated GPU: calls take the time that a GPU would, results are the real model's.

`SimulatedWhisper` takes the place of CTranslate2's `Whisper`. Each call sleeps for its time,
without the interpreter lock, and returns what the real model, on the CPU, computed for the same
window, prompt and options the first time that they were asked for. Results are kept in a folder,
which workers share.

The times are arithmetic, not measurements, for large-v3-turbo in float16 on an H100 SXM, from the
figures that NVIDIA's data sheet publishes (989 TFLOP/s dense in float16, 3.35 TB/s):

    encode    32 layers of width 1280 over 1500 positions are 2.3 TFLOP a window: 5 ms at 45 % of
              the peak, and 4 ms for launches and the copy of the features
    generate  a step reads 0.35 GB of weights, 0.1 ms, and launches some 150 kernels of 5 us: 0.8 ms
              for each token of the longest text, and 0.5 ms for each window's beams
    align     one pass over the text, and the attention's copy to the host
    detect    one step

Not simulated: the processor time that CUDA's driver takes for launches, and transfers of the
encoder's output.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import prometheus_client

from app.config import ROOT

RECORDED = ROOT / ".run" / "simulated-gpu"
FOLDER = Path(__file__).with_name("simulated_gpu")  # has the sitecustomize.py for workers
SLICE_S = 0.002  # of the GPU's time, where processes take turns
PROCESSES = 64
COMPUTED = prometheus_client.Counter(
    "simulated_gpu_computed", "Results that the real model computed, because none was recorded."
)


@dataclass(frozen=True)
class Times:
    """Milliseconds of each kind of call: fixed, and for each window; see the module."""

    encode: float = 4.0
    encode_window: float = 5.0
    detect: float = 3.0
    detect_window: float = 0.1
    step: float = 0.8  # for each token of the longest text
    generate_window: float = 0.5
    align: float = 5.0
    align_window: float = 0.3

    @classmethod
    def parsed(cls, text: str) -> Times:
        """Read `encode=4,step=0.8`; what is not named keeps its default."""
        names = {field.name for field in dataclasses.fields(cls)}
        pairs = [part.split("=") for part in text.replace(" ", "").split(",") if part]
        if unknown := {pair[0] for pair in pairs} - names:
            raise ValueError(f"SIMULATED_GPU: {unknown} is not among {sorted(names)}")
        return cls(**{name: float(value) for name, value in pairs})


@dataclass(frozen=True)
class Generated:
    """What the service reads of CTranslate2's `WhisperGenerationResult`."""

    sequences_ids: list[list[int]]
    scores: list[float]
    no_speech_prob: float


@dataclass(frozen=True)
class Aligned:
    """What the service reads of CTranslate2's `WhisperAlignmentResult`."""

    alignments: list[tuple[int, int]]
    text_token_probs: list[float]


class Turns:
    """One GPU among processes without MPS: each that has a call in progress gets an equal share.

    Args:
        path: a file that the processes share; each counts its calls in a byte of its own.
        number: this process's byte.
    """

    def __init__(self, path: Path, number: int) -> None:
        with path.open("a+b") as file:
            file.truncate(PROCESSES)
            self._calls = mmap.mmap(file.fileno(), PROCESSES)
        self._number = number
        self._calls[number] = 0
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> None:
        """Take so much of the GPU's time."""
        self._count(1)
        while seconds > 0:
            sharers = max(1, sum(map(bool, self._calls[:])))
            began = time.monotonic()
            time.sleep(min(seconds * sharers, SLICE_S))
            seconds -= (time.monotonic() - began) / sharers
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._calls[self._number] += change


class Recorded:
    """The real model's results, computed once and kept in a folder and in this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._kept: dict[bytes, Any] = {}
        self._lock = threading.Lock()

    def get(self, asked: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return the result for what is asked; computed by one thread at a time."""
        key = pickle.dumps(asked)
        if key not in self._kept:
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = self._load(key, compute)
        return self._kept[key]

    def _load(self, key: bytes, compute: Callable[[], Any]) -> Any:
        file = self._folder / hashlib.blake2b(key, digest_size=16).hexdigest()
        if file.exists():
            return pickle.loads(file.read_bytes())
        COMPUTED.inc()
        result = compute()
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(pickle.dumps(result))
        unfinished.rename(file)
        return result


class SimulatedWhisper:
    """CTranslate2's `Whisper` on a simulated GPU.

    An encoded window is its number among the windows seen, as a real `StorageView` that can be
    gathered like any other; so what it costs to copy real encodings is not part of a measurement.

    Args:
        path: the model's folder.
        real: CTranslate2's class.
        times: see `Times`.
        wait: sleeps for a call's time.
    """

    device = "cuda"
    device_index = (0,)

    def __init__(
        self,
        path: str,
        real: Callable[..., Any],
        times: Times,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._real = real(path, device="cpu", compute_type="int8", intra_threads=1)
        self._start = 50258 if self._real.is_multilingual else 50257
        self._times = times
        self._wait = wait
        weights = Path(path, "model.bin").stat()
        self.recorded = Recorded(RECORDED / f"{weights.st_size}-{weights.st_mtime_ns}")
        self._numbers: dict[bytes, int] = {}
        self._features: list[tuple[bytes, np.ndarray]] = []
        self._lock = threading.Lock()
        self._encoded = lru_cache(32)(self._encode_one)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> Any:
        windows = np.asarray(features)
        numbers = [self._number(window) for window in windows]
        self._sleep(self._times.encode, self._times.encode_window, len(windows))
        encoded = np.array(numbers, np.float32).reshape(-1, 1, 1)
        return ctranslate2.StorageView.from_array(encoded)

    def detect_language(self, encoded: ctranslate2.StorageView) -> list[Any]:
        found = [
            self._recorded(number, (), lambda view: self._real.detect_language(view)[0])
            for number in self._windows(encoded)
        ]
        self._sleep(self._times.detect, self._times.detect_window, len(found))
        return found

    def generate(
        self, encoded: ctranslate2.StorageView, prompts: list[list[int]], **options: Any
    ) -> list[Generated]:
        numbers = self._windows(encoded)
        if len({prompt.index(self._start) for prompt in prompts}) > 1:
            raise ValueError("The start token must have the same position in all prompts.")

        def compute(view: Any, prompt: list[int]) -> Generated:
            (result,) = self._real.generate(view, [prompt], **options)
            return Generated(result.sequences_ids, result.scores, result.no_speech_prob)

        asked = sorted(options.items())
        found = [
            self._recorded(
                number, (prompt, asked), lambda view, prompt=prompt: compute(view, prompt)
            )
            for number, prompt in zip(numbers, prompts, strict=True)
        ]
        longest = max(len(ids) for result in found for ids in result.sequences_ids)
        self._sleep(longest * self._times.step, self._times.generate_window, len(found))
        return found

    def align(
        self,
        encoded: ctranslate2.StorageView,
        start_sequence: Sequence[int],
        text_tokens: list[list[int]],
        num_frames: list[int],
        **options: Any,
    ) -> list[Aligned]:
        start = list(start_sequence)

        def compute(view: Any, tokens: list[int], frames: int) -> Aligned:
            (result,) = self._real.align(view, start, [tokens], [frames], **options)
            return Aligned(result.alignments, result.text_token_probs)

        found = [
            self._recorded(
                number,
                ("align", start, tokens, frames, sorted(options.items())),
                lambda view, tokens=tokens, frames=frames: compute(view, tokens, frames),
            )
            for number, tokens, frames in zip(
                self._windows(encoded), text_tokens, num_frames, strict=True
            )
        ]
        self._sleep(self._times.align, self._times.align_window, len(found))
        return found

    def _sleep(self, fixed_ms: float, window_ms: float, windows: int) -> None:
        self._wait((fixed_ms + window_ms * windows) / 1000)

    def _number(self, window: np.ndarray) -> int:
        """Return a window's number; windows with the same sample of features share it."""
        sample = np.ascontiguousarray(window[::8, ::4])
        digest = hashlib.blake2b(sample, digest_size=16, key=str(window.shape).encode()).digest()
        with self._lock:
            if digest not in self._numbers:
                self._numbers[digest] = len(self._features)
                self._features.append((digest, window.copy()))
            return self._numbers[digest]

    def _windows(self, encoded: ctranslate2.StorageView) -> list[int]:
        return np.asarray(encoded).ravel().astype(int).tolist()

    def _recorded(self, number: int, asked: tuple[Any, ...], compute: Callable[[Any], Any]) -> Any:
        digest, _ = self._features[number]
        return self.recorded.get((digest, asked), lambda: compute(self._encoded(number)))

    def _encode_one(self, number: int) -> Any:
        _, features = self._features[number]
        return self._real.encode(ctranslate2.StorageView.from_array(features[np.newaxis].copy()))


def install() -> None:
    """Have this process's models run on the simulated GPU.

    Environment: SIMULATED_GPU, see `Times.parsed`; SIMULATED_GPU_TURNS: a file shared by the
    processes that take turns on one GPU; without it each has a GPU, or MPS.
    """
    times = Times.parsed(os.environ.get("SIMULATED_GPU", ""))
    wait: Callable[[float], None] = time.sleep
    if shared := os.environ.get("SIMULATED_GPU_TURNS"):
        wait = Turns(Path(shared), int(os.environ.get("WORKER_ID", "0"))).wait
    real = ctranslate2.models.Whisper
    ctranslate2.models.Whisper = lambda path, **_: SimulatedWhisper(path, real, times, wait)


def show() -> None:
    """Have this process see one GPU; its driver library is not there."""
    from app.engine import hardware

    hardware.gpu_count = lambda: 1
