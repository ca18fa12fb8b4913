"""How the suite runs: engines made once, pools shared, and some tests alone on the machine.

With `-n` tests run in several processes (pytest-xdist). Those that share a pool go to one of them,
whose session fixture it is; so do those of one file, but for tests that start no process.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from app.config import Config
from app.engine.engine import Engine
from tests.support import models
from tests.support.client import Client

LOAD_S = 300
IN_PROCESS = ("unit", "model")
# The session's pools that files of tests/service share; the others share `stack`.
POOL_OF = {
    "test_browser.py": "keyed",
    "test_keys.py": "keyed",
    "test_live_keys.py": "keyed",
    "test_privacy.py": "keyed",
    "test_faults.py": "victim",
    "test_pool.py": "victim",
    "test_pool_commands.py": "none",
}


class ByPool(LoadScopeScheduling):
    """Gives tests of one pool to one process, and each of those without processes to any."""

    def _split_scope(self, nodeid: str) -> str:
        path, *_ = nodeid.split("::")
        _, folder, *_, file = path.split("/")
        if folder in IN_PROCESS:
            return nodeid
        return POOL_OF.get(file, "stack") if folder == "service" else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPool:
    return ByPool(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hold back all other tests while one that is marked `alone` runs, its fixtures included."""
    with the_machine(item.config, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def the_machine(config: pytest.Config, alone: bool) -> Iterator[None]:
    """Hold the machine's lock: shared with the suite's other processes, or exclusively."""
    if not hasattr(config, "workerinput"):  # there is no other process
        yield
        return
    folder = Path(config.option.basetemp).parent  # which all of them share
    # A test that wants the machine alone holds the turnstile while it waits, so no other begins.
    with (folder / "turnstile").open("w") as turnstile, (folder / "machine").open("w") as machine:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield


def config(model: Path, name: str, **settings: object) -> Config:
    """The default settings on a small model."""
    return Config(model_size=str(model), model_name=name, workers=1, **settings)  # type: ignore[arg-type]


def loaded(settings: Config) -> Engine:
    """An engine whose model is ready."""
    engine = Engine(settings)
    engine.start()
    deadline = time.monotonic() + LOAD_S
    while engine.state == "loading" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert engine.ready, engine.unready
    return engine


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    return config(models.tiny_en(), "tiny.en")


@pytest.fixture(scope="session")
def base_config() -> Config:
    return config(models.base(), "base")


@pytest.fixture(scope="session")
def tiny_engine(tiny_config: Config) -> Engine:
    """Whisper tiny.en: English only."""
    return loaded(tiny_config)


@pytest.fixture(scope="session")
def base_engine(base_config: Config) -> Engine:
    """Whisper base: 99 languages."""
    return loaded(base_config)


@pytest.fixture(scope="session")
def client(tiny_config: Config, tiny_engine: Engine) -> Client:
    """A client of a worker with the English model."""
    return Client.of(tiny_config, tiny_engine)


@pytest.fixture(scope="session")
def base_client(base_config: Config, base_engine: Engine) -> Client:
    """A client of a worker with the multilingual model."""
    return Client.of(base_config, base_engine)
