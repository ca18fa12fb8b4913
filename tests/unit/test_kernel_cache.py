"""Workers that start together: one compiles the GPU's kernels, the others wait and say so."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.config import Config
from app.engine.engine import Engine
from app.engine.files import ModelError
from app.engine.kernel_cache import COMPILING, LOADING, WAITING, filled_once
from app.engine.model import Model
from tests.support.fakes import LIMIT_S
from tests.support.waiting import until


class Gpu:
    """As much of the driver as the cache asks for."""

    def __init__(self, version: int = 12080) -> None:
        self._version = version

    def version(self) -> int:
        return self._version

    def architecture(self) -> str:
        return "sm_90"


class Starting:
    """A worker that loads its model until the test lets it go on, or fail."""

    def __init__(self, gpu: Gpu) -> None:
        self.reports: list[str] = []
        self.inside = threading.Event()
        self.go = threading.Event()
        self.fails = False
        self._thread = threading.Thread(target=self._load, args=(gpu,), daemon=True)
        self._thread.start()

    def _load(self, gpu: Gpu) -> None:
        try:
            with filled_once(gpu, self.reports.append):  # type: ignore[arg-type]
                self.inside.set()
                assert self.go.wait(LIMIT_S)
                if self.fails:
                    raise RuntimeError("no room")
        except RuntimeError:
            pass

    def end(self) -> None:
        self.go.set()
        self._thread.join(LIMIT_S)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CUDA_CACHE_PATH", str(tmp_path / "cuda"))
    return tmp_path / "cuda"


def test_others_wait_until_the_first_has_compiled():
    first = Starting(Gpu())
    assert first.inside.wait(LIMIT_S)
    second = Starting(Gpu())

    assert until(lambda: second.reports == [WAITING])
    assert not second.inside.wait(0.2)
    assert first.reports == [WAITING, COMPILING]
    first.end()
    assert second.inside.wait(LIMIT_S)
    assert second.reports == [WAITING, LOADING]
    second.end()


def test_a_filled_cache_holds_nobody_back():
    first = Starting(Gpu())
    first.end()
    together = [Starting(Gpu()) for _ in range(3)]

    assert all(worker.inside.wait(LIMIT_S) for worker in together)
    assert [worker.reports for worker in together] == [[LOADING]] * 3
    for worker in together:
        worker.end()


def test_the_next_worker_compiles_after_one_that_failed():
    first = Starting(Gpu())
    assert first.inside.wait(LIMIT_S)
    second = Starting(Gpu())
    first.fails = True
    first.end()

    assert second.inside.wait(LIMIT_S)
    assert second.reports == [WAITING, COMPILING]
    second.end()


def test_another_driver_needs_another_cache():
    Starting(Gpu(12080)).end()
    later = Starting(Gpu(13000))

    assert later.inside.wait(LIMIT_S)
    assert later.reports == [WAITING, COMPILING]
    later.end()


def test_health_says_what_a_loading_worker_does(monkeypatch):
    go, reported = threading.Event(), threading.Event()

    def loaded(config, report):
        report(COMPILING)
        reported.set()
        assert go.wait(LIMIT_S)
        raise ModelError("enough")

    monkeypatch.setattr(Model, "loaded", loaded)
    engine = Engine(Config())
    assert engine.unready == LOADING
    engine.start()

    assert reported.wait(LIMIT_S)
    assert (engine.state, engine.unready) == ("loading", COMPILING)
    go.set()
    assert until(lambda: engine.unready == "enough")


def test_a_folder_that_cannot_be_written_costs_only_time(monkeypatch):
    monkeypatch.setenv("CUDA_CACHE_PATH", "/proc/nowhere")
    worker = Starting(Gpu())

    assert worker.inside.wait(LIMIT_S)
    worker.end()
