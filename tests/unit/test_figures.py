"""What a worker tells the balancer of its work: short, true, and not for clients."""

from __future__ import annotations

import pytest

from app import __version__
from app.api.worker_stats import HEADER, KEPT_BYTES, figures
from app.config import Config
from app.engine.gpu_memory import Memory
from app.observability import metrics
from tests.support.client import Client
from tests.support.fakes import held_engine


class FullGpu:
    """A card of 141 GB, nearly full."""

    def read(self) -> Memory:
        return Memory(used=150_000_000_000, free=1 << 20)


def pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split(" "))


def test_health_brings_the_figures():
    config = Config()
    engine, model = held_engine(config)
    model.go.set()
    client = Client.of(config, engine)
    before = pairs(client.get("/health").headers[HEADER])

    assert client.post(b"RIFF\x24\0\0\0WAVEfmt no audio").status_code == 400
    same = pairs(client.get("/health").headers[HEADER])
    metrics.AUDIO_SECONDS.labels("deferred").inc(3600)
    metrics.STAGE_SECONDS.labels("inference").observe(60)
    metrics.STAGE_SECONDS.labels("receive").observe(1000)
    after = pairs(client.get("/health").headers[HEADER])

    # What the device does is the whole process's: another test's engine may be at work.
    for name in ("audio", "took"):
        assert before[name] == same[name], "what is no transcript counts for nothing"
    assert {"device": "cpu", "calls": "1", "version": __version__}.items() <= after.items()
    assert after["model"] == config.name
    grown = {name: float(after[name]) - float(before[name]) for name in ("audio", "took")}
    assert grown["audio"] == pytest.approx(3600)
    assert grown["took"] == pytest.approx(60), "a slow client's sending is not work"


@pytest.fixture
def busy_engine(monkeypatch):
    """An engine after 30 years on a large card."""
    engine, model = held_engine(Config())
    monkeypatch.setattr(model, "device", "cuda")
    monkeypatch.setattr(model, "replicas", 64)
    monkeypatch.setattr(model, "gpu_memory", FullGpu())
    monkeypatch.setattr(metrics, "counted", lambda *of: 1e9)
    return engine


def test_only_a_long_models_name_is_cut_off(busy_engine):
    told = figures(busy_engine, "large-v3-turbo-of-a-long-name")

    assert len(told) == KEPT_BYTES
    assert pairs(told)["used"] == "143051"
    assert pairs(told)["free"] == "1"
    assert pairs(told)["version"] == __version__
    assert pairs(told)["model"].startswith("large")


def test_model_is_one_word_whatever_its_name(busy_engine):
    assert pairs(figures(busy_engine, "a b\nü"))["model"] == "a_b_"
