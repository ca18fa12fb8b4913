"""Engines with real models, made once; clients of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import Config
from app.engine.engine import Engine
from tests import models
from tests.client import Client
from tests.stack import Stack

LOAD_S = 120


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


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole service in processes of its own: HAProxy, Supervisor and two workers."""
    with Stack.started(tmp_path_factory.mktemp("stack"), WORKERS="2") as running:
        yield running
