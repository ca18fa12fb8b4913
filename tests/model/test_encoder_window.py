"""The adaptive encoder window: how much is encoded, and what is done again in full."""

from __future__ import annotations

from dataclasses import dataclass, replace

import ctranslate2
import numpy as np
import pytest
from faster_whisper.audio import pad_or_trim

from app.audio.limits import SAMPLE_RATE
from app.engine.batching.batched_model import special
from app.engine.batching.request_model import max_length
from app.engine.encoder_window import FULL_FRAMES, encoder_frames, is_suspicious
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.observability import metrics
from tests.support.recordings import recording
from tests.support.text import SENTENCE, words


@dataclass
class Result:
    scores: tuple[float]
    sequences_ids: tuple[list[int]] = ([1],)


@pytest.mark.parametrize(
    ("sound", "encoded"),
    [(0, 1000), (800, 1000), (801, 1500), (1300, 1500), (1900, 3000), (3000, 3000)],
)
def test_lengths_are_rounded_up_to_a_few(sound, encoded):
    """So that windows meet in one call; long ones go in full at once."""
    assert encoder_frames(sound) == encoded


@pytest.mark.parametrize(
    ("score", "text", "tokens", "suspicious"),
    [
        (-0.3, "He was not an ill-disposed young man.", 11, False),
        (-0.9, "He was not an ill-disposed young man.", 11, True),
        (-0.3, "no no no no no no no no no no no no no no", 14, True),
        (-0.3, "He was not an ill-disposed young man.", 37, True),
        (-0.3, "", 0, False),
    ],
    ids=["sound", "unsure", "repetition", "too many tokens a second", "nothing"],
)
def test_runaway_results_are_suspicious(score, text, tokens, suspicious):
    assert is_suspicious(Result((score,)), text, tokens, sound_frames=300) is suspicious


def test_result_that_was_cut_off_is_suspicious():
    whole, cut = ([1] * 45,), ([1] * 46,)

    assert not is_suspicious(Result((-0.3,), whole), "Yes.", 2, sound_frames=300)
    assert is_suspicious(Result((-0.3,), cut), "Yes.", 2, sound_frames=300)


@pytest.mark.parametrize("prompt_tokens", [1, 30, 200])
@pytest.mark.parametrize("n_tokens", [12, 100])
def test_decoding_stops_where_it_is_told_to(adaptive, prompt_tokens, n_tokens):
    """However long the prompt is; without an end of text it would go on."""
    shared = adaptive._shared
    window = feature_view(adaptive, recording("austen_0890.wav").waveform())
    prompt = [shared.end_token - 1] * (prompt_tokens - 1) + [shared.start_token]

    (found,) = shared.model.generate(
        window, [prompt], beam_size=1, suppress_tokens=[-1, shared.end_token],
        max_length=max_length(n_tokens, len(prompt)),
    )  # fmt: skip

    assert len(found.sequences_ids[0]) == n_tokens


@pytest.fixture(scope="module")
def adaptive(tiny_config):
    return Model(replace(tiny_config, encoder_window="adaptive"))


@pytest.mark.parametrize("name", ["austen_0890.wav", "odd_no_extension", "goforward_16k.wav"])
def test_clear_speech_has_the_same_words(adaptive, tiny_engine, name):
    options = DecodeOptions(word_timestamps=True)
    waveform = recording(name).waveform()

    short = adaptive.decode(Job(waveform, options)).result()
    full = tiny_engine.decode(Job(waveform, options)).result()

    assert words(short.text) == words(full.text)
    for ours, theirs in zip(short.segments[0].words, full.segments[0].words, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=0.5)


def test_suspicious_window_is_done_again_in_full(adaptive, monkeypatch):
    """The answer is then the full window's."""
    monkeypatch.setattr("app.engine.encoder_window.MIN_AVG_LOGPROB", 0.0)
    redone = metrics.WINDOWS_REDONE._value.get()
    encoded = metrics.WINDOWS_ENCODED._value.get()

    found = adaptive.decode(Job(recording("austen_0890.wav").waveform(), DecodeOptions())).result()

    assert words(found.text) == words(SENTENCE)
    assert metrics.WINDOWS_REDONE._value.get() == redone + 1
    assert metrics.WINDOWS_ENCODED._value.get() == encoded + 2


def test_rest_that_is_suspicious_is_no_speech(adaptive, monkeypatch):
    """Little sound behind a recording's other windows is not looked into again; alone it is a
    recording like any other."""
    monkeypatch.setattr("app.engine.encoder_window.MIN_AVG_LOGPROB", 0.0)
    monkeypatch.setattr("app.engine.hallucination_filter.TAIL_MIN_AVG_LOGPROB", 0.0)
    speech = recording("austen_0890.wav").waveform()
    windows = [feature_view(adaptive, part) for part in (speech, speech[: SAMPLE_RATE // 2])]
    prompt = [start_token(adaptive)]

    def decoded(*views) -> list[list[int]]:
        request = adaptive._for_request(Job(speech, DecodeOptions())).model
        results = [
            request.generate(request.encode(one), [prompt], return_scores=True)[0] for one in views
        ]
        return [result.sequences_ids[0] for result in results]

    redone, dropped = (
        metrics.WINDOWS_REDONE._value.get(),
        metrics.TAIL_WINDOWS_DISCARDED._value.get(),
    )
    first, rest = decoded(*windows)
    assert len(first) > 5
    assert len(rest) == 1, "the end of text"
    assert metrics.WINDOWS_REDONE._value.get() == redone + 1
    assert metrics.TAIL_WINDOWS_DISCARDED._value.get() == dropped + 1

    decoded(windows[1])
    assert metrics.WINDOWS_REDONE._value.get() == redone + 2
    assert metrics.TAIL_WINDOWS_DISCARDED._value.get() == dropped + 1


def feature_view(model: Model, samples: np.ndarray) -> ctranslate2.StorageView:
    """A window as faster-whisper gives it to be encoded, padded to 30 s."""
    features = model._whisper.feature_extractor(samples)[:, :-1]
    padded = pad_or_trim(features, FULL_FRAMES)
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(padded[np.newaxis]))


def start_token(model: Model) -> int:
    return special(model._whisper.hf_tokenizer, "<|startoftranscript|>")


def test_silence_stays_silent(adaptive):
    options = DecodeOptions(speech=replace(DecodeOptions().speech, enabled=False))

    found = adaptive.decode(Job(np.zeros(32_000, np.float32), options)).result()

    assert len(found.text) < 20
