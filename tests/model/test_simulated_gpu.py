"""The simulated GPU takes a GPU's time and has the real model's results."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import ctranslate2
import pytest

import app.engine.model
from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.support import models, simulated
from tests.support.recordings import recording

NAMES = ("austen_0890.wav", "goforward_16k.wav")
OPTIONS = DecodeOptions(language="en", word_timestamps=True)


@pytest.fixture
def simulated_gpu(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(simulated, "RECORDED", tmp_path)
    # `install` replaces it; this puts it back.
    monkeypatch.setattr(ctranslate2.models, "Whisper", ctranslate2.models.Whisper)
    monkeypatch.setattr(app.engine.model, "gpu_count", lambda: 1)
    monkeypatch.setenv("SIMULATED_GPU", "encode=150,step=0,generate_window=0,align=0")
    simulated.install()


def test_answers_are_the_real_models_and_take_the_gpus_time(simulated_gpu, tiny_engine):
    config = Config(model_size=str(models.tiny_en()), workers=1, device="cuda")
    model = Model(config)
    waveforms = [recording(name).waveform() for name in NAMES] * 4

    def answer(waveform):
        return model.decode(Job(waveform, OPTIONS)).result()

    with ThreadPoolExecutor(len(waveforms)) as pool:
        found = list(pool.map(answer, waveforms))
    computed = simulated.COMPUTED._value.get()
    began = time.monotonic()
    again = answer(waveforms[0])
    took_s = time.monotonic() - began

    for waveform, transcript in zip(waveforms[:2], found, strict=False):
        real = tiny_engine.decode(Job(waveform, OPTIONS)).result()
        assert transcript.text == real.text
        assert [word.word for word in transcript.segments[0].words or ()] == [
            word.word for word in real.segments[0].words or ()
        ]
    assert [one.text for one in found] == [found[0].text, found[1].text] * 4
    assert again == found[0]
    assert took_s > 0.15
    assert simulated.COMPUTED._value.get() == computed, "known windows are not computed again"


def test_unknown_time_is_refused():
    with pytest.raises(ValueError, match="speed"):
        simulated.Times.parsed("speed=2")


def test_processes_that_take_turns_share_the_gpus_time(tmp_path):
    turns = [simulated.Turns(tmp_path / "turns", number) for number in range(2)]

    def seconds(used: list[simulated.Turns]) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda one: one.wait(0.2), used))
        return time.monotonic() - began

    assert seconds(turns) > 0.38
    assert not any(turns[0]._calls[:]), "no call is in progress afterwards"
