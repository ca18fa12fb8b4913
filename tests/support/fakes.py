"""What a real part cannot show on demand: a decode that takes as long as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

from app.config import Config
from app.engine.batching.device import Device
from app.engine.decoding import Decoding
from app.engine.engine import Engine
from app.engine.job import Job
from app.engine.options import DecodeOptions
from app.engine.results import Segment, Transcript

LIMIT_S = 30  # no test waits longer


class HeldModel:
    """Stands where the model stands; each decode is held until the test lets it go."""

    device = "cpu"
    gpus = 0
    replicas = 1
    gpu_memory = None
    multilingual = True
    translates = True
    device_threads: Device

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.decoded = 0
        self.failure: Exception | None = None
        self.found: tuple[Segment, ...] = ()
        self.later_failure: Exception | None = None  # after the segments

    def self_test(self) -> None:
        if self.failure:
            raise self.failure

    def check(self, options: DecodeOptions) -> None:
        pass

    def decode(self, job: Job) -> Decoding:
        return Decoding(self._segments(job))

    def _segments(self, job: Job) -> Generator[Segment, None, Transcript]:
        self.started.release()
        assert self.go.wait(LIMIT_S)
        job.cancellation.check()
        if self.failure:
            raise self.failure
        yield from self.found
        if self.later_failure:
            raise self.later_failure
        self.decoded += 1
        return Transcript(job.options.task, "en", 1.0, job.waveform.size / 16_000, self.found)


def held_engine(
    config: Config, on_fatal: Callable[[str], None] | None = None
) -> tuple[Engine, HeldModel]:
    """An engine that is ready with a held model."""
    engine, model = Engine(config, on_fatal), HeldModel()
    engine._model = model  # type: ignore[assignment]
    engine.admission.open()
    return engine, model
