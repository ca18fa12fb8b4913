"""Count a worker's processor time by stage, as metrics that `/metrics` shows.

Each stage is a function, or several, whose own processor time on its thread is counted: without
the stages that it calls, and without waiting. What no stage counts is the rest: the HTTP server,
garbage, and threads of libraries.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import GeneratorType
from typing import Any

import prometheus_client

# Functions by stage: module, then the name within it. A name that a release lacks is left out.
STAGES = {
    "api": ("falcon:App.__call__",),
    "form and audio": ("app.api.form:Form.read", "app.audio.sandbox.client:Sandbox.decode"),
    "speech": ("app.engine.speech:find_speech",),
    "features": (
        "faster_whisper.feature_extractor:FeatureExtractor.__call__",
        "app.engine.features:LogMel.__call__",
    ),
    "token tables": ("faster_whisper.transcribe:get_suppressed_tokens",),
    "faster-whisper": (
        "faster_whisper.transcribe:WhisperModel.transcribe",
        "faster_whisper.transcribe:WhisperModel.generate_segments",
    ),
    "words": ("faster_whisper.transcribe:WhisperModel.add_word_timestamps",),
    "operations": tuple(
        f"app.engine.batching.request_model:RequestModel.{name}"
        for name in ("encode", "detect_language", "generate", "align")
    ),
    "device threads": (
        "app.engine.batching.device:Device._take",
        "app.engine.batching.device:Device._call",
    ),
    "simulation": tuple(
        f"tests.support.simulated:SimulatedWhisper.{name}"
        for name in ("encode", "detect_language", "generate", "align")
    ),
}
COUNTED = "bench_stage_cpu_seconds"


class Clock:
    """Own processor time of nested stages, for each thread."""

    def __init__(self) -> None:
        self._counter = prometheus_client.Counter(COUNTED, "Own processor time.", ["stage"])
        self._inside = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a stage's time; nested ones stop its clock."""
        stack = self._inside.__dict__.setdefault("stack", [])
        outer = stack[-1] if stack else None
        own = [0.0]  # of the stages within
        stack.append(own)
        began = time.thread_time()
        try:
            yield
        finally:
            took = time.thread_time() - began
            stack.pop()
            self._counter.labels(name).inc(took - own[0])
            if outer is not None:
                outer[0] += took

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        """Count a function as a stage; a generator function, each time that it goes on."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.stage(stage):
                result = function(*args, **kwargs)
            return self._counted(result, stage) if isinstance(result, GeneratorType) else result

        setattr(owner, name, counted)

    def _counted(self, generator: Iterator[Any], stage: str) -> Iterator[Any]:
        while True:
            with self.stage(stage):
                try:
                    value = next(generator)
                except StopIteration as end:
                    return end.value
            yield value


def install() -> None:
    """Count the stages of this process."""
    clock = Clock()
    for stage, places in STAGES.items():
        for place in places:
            module, _, path = place.partition(":")
            try:
                owner: Any = importlib.import_module(module)
                *classes, name = path.split(".")
                for each in classes:
                    owner = getattr(owner, each)
                clock.wrap(owner, name, stage)
            except (ImportError, AttributeError):
                continue
