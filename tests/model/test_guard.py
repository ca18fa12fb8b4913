"""Hallucinations are filtered: windows too short for a word, and loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from app.engine.hallucination_filter import HallucinationFilter
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.observability import metrics
from tests.support.recordings import recording, without_speech
from tests.support.text import SENTENCE, words

GUARD = HallucinationFilter(min_window_ms=100, loop_max_tokens_per_s=12, max_compression_ratio=2.4)
LOOP = "Thank you. " * 40


@pytest.mark.parametrize(
    ("text", "tokens", "sound_s", "loop"),
    [
        (LOOP, 120, 5, True),
        (LOOP, 120, 15, False),
        (SENTENCE, 70, 5, False),
        ("No, no.", 14, 0.3, False),
        ("", 0, 0.1, False),
    ],
    ids=["loop", "long enough to be said", "no repetition", "short", "nothing"],
)
def test_a_loop_repeats_itself_for_longer_than_the_sound(text, tokens, sound_s, loop):
    assert GUARD.is_loop(text, tokens, round(sound_s * 100)) is loop


@pytest.mark.parametrize(
    ("text", "echo"),
    [
        ("the quarterly figures are good", True),
        ("The quarterly, figures ARE good!", True),
        ("The figures are good, I said.", False),
        ("good", False),
        ("", False),
    ],
)
def test_an_echo_stands_in_the_prompt(text, echo):
    guard = HallucinationFilter(prompt_echo_min_chars=12)

    assert guard.is_echo(text, "So, as I said, the quarterly figures are good.") is echo


@pytest.mark.parametrize(("tokens", "sparse"), [(9, True), (24, False), (0, True)])
def test_a_sparse_text_has_few_tokens_for_its_sound(tokens, sparse):
    assert HallucinationFilter(prompt_min_tokens_per_s=2.5).is_sparse(tokens, 600) is sparse


@pytest.mark.parametrize(
    ("sound_s", "tokens", "no_speech", "logprob", "noise"),
    [
        (0.83, 1, 0.95, -1.3, True),
        (0.59, 1, 0.72, -1.41, True),
        (0.56, 14, 0.6001, -1.31, True),
        (0.8, 1, 0.12, -0.99, False),
        (0.61, 3, 0.62, -1.11, False),
        (5.0, 1, 0.95, -1.3, False),
        (0.83, 1, 0.95, -0.4, False),
    ],
    ids=["a beat", "unlikely", "too fast", "a word", "a word in a sentence", "long", "sure"],
)
def test_noise_is_short_and_silence_to_the_model(sound_s, tokens, no_speech, logprob, noise):
    guard = HallucinationFilter(noise_max_ms=1200, loop_max_tokens_per_s=12)

    assert guard.is_noise(tokens, round(sound_s * 100), no_speech, logprob) is noise


@pytest.mark.parametrize(
    ("sound_s", "tokens", "logprob", "false"),
    [
        (0.27, 223, -0.3, True),
        (0.34, 5, -1.4, True),
        (0.72, 2, -0.78, False),
        (1.2, 5, -1.4, False),
    ],
    ids=["a loop", "unsure", "a word", "long"],
)
def test_unlikely_text_behind_the_last_word_is_false(sound_s, tokens, logprob, false):
    guard = HallucinationFilter(min_window_ms=100, loop_max_tokens_per_s=12)

    assert guard.is_false_tail(tokens, round(sound_s * 100), logprob) is false


def test_zero_believes_everything():
    assert not HallucinationFilter().is_false_tail(223, 27, -1.4)
    assert not HallucinationFilter().is_noise(1, 80, 0.95, -1.3)
    assert not HallucinationFilter().is_sparse(0, 3000)
    assert not HallucinationFilter().is_echo("the figures", "the figures")
    assert not HallucinationFilter().is_loop(LOOP, 120, 10)
    assert not HallucinationFilter().too_short(1)


@pytest.mark.parametrize(("shortest_ms", "decoded"), [(100, 0), (0, 1)])
def test_sound_too_short_for_a_word_is_not_decoded(tiny_config, shortest_ms, decoded):
    model = Model(replace(tiny_config, min_window_ms=shortest_ms))
    options = DecodeOptions(speech=replace(DecodeOptions().speech, enabled=False))
    encoded = metrics.WINDOWS_ENCODED._value.get()
    skipped = metrics.WINDOWS_TOO_SHORT._value.get()

    found = model.decode(Job(recording("austen_0890.wav").waveform()[8000:9000], options)).result()

    assert metrics.WINDOWS_ENCODED._value.get() == encoded + decoded
    assert metrics.WINDOWS_TOO_SHORT._value.get() == skipped + 1 - decoded
    if not decoded:
        assert found.text == ""
        assert found.segments == ()


def test_sound_that_may_hold_a_word_is_decoded(tiny_config):
    model = Model(replace(tiny_config, min_window_ms=100))
    encoded = metrics.WINDOWS_ENCODED._value.get()

    model.decode(Job(recording("austen_0890.wav").waveform(), DecodeOptions())).result()

    assert metrics.WINDOWS_ENCODED._value.get() >= encoded + 1


def test_a_loop_is_decoded_again_and_then_left_out(tiny_config, monkeypatch):
    """Every text is one here, so that the way is gone to its end."""
    monkeypatch.setattr(HallucinationFilter, "is_loop", lambda *_: True)
    model = Model(tiny_config)
    looped = metrics.REPETITION_LOOPS._value.get()
    encoded = metrics.WINDOWS_ENCODED._value.get()

    found = model.decode(
        Job(recording("austen_0890.wav").waveform(), DecodeOptions(word_timestamps=True))
    ).result()

    assert found.text == ""
    assert metrics.REPETITION_LOOPS._value.get() == looped + 1
    assert metrics.WINDOWS_ENCODED._value.get() == encoded + 1


def test_a_loop_that_ends_when_decoded_again_is_kept(tiny_config, monkeypatch):
    answers = iter((True, False))
    monkeypatch.setattr(HallucinationFilter, "is_loop", lambda *_: next(answers))
    model = Model(tiny_config)

    found = model.decode(
        Job(recording("austen_0890.wav").waveform(), DecodeOptions(token_scores=True))
    ).result()

    assert words(found.text) == words(SENTENCE)
    assert found.segments[0].token_scores


@pytest.mark.parametrize("prompt", [SENTENCE, f"He said: {SENTENCE} And she agreed."])
def test_words_that_are_said_again_are_kept(tiny_config, prompt):
    """They stand in the prompt and in the sound: the second answer has them too."""
    model = Model(tiny_config)
    echoed = metrics.PROMPT_ECHOES._value.get()
    encoded = metrics.WINDOWS_ENCODED._value.get()

    found = model.decode(
        Job(recording("austen_0890.wav").waveform(), DecodeOptions(prompt=prompt))
    ).result()

    assert words(found.text) == words(SENTENCE)
    assert metrics.PROMPT_ECHOES._value.get() == echoed + 1
    assert metrics.WINDOWS_ENCODED._value.get() == encoded + 1


def test_a_prompt_that_comes_back_gives_way_to_what_is_said(base_config):
    """Plain faster-whisper's answer to this Spanish sentence is the English prompt."""
    waveform = recording("synthetic_es.ogg").waveform()
    options = DecodeOptions(
        language="es", prompt="The sisters were left to their thoughts, and it was long. " * 8
    )

    found = {
        letters: Model(replace(base_config, prompt_echo_min_chars=letters))
        .decode(Job(waveform, options))
        .result()
        .text.lower()
        for letters in (0, 20)
    }

    assert "sisters" in found[0]
    assert "sisters" not in found[20]
    assert "kiwi" in found[20]


def test_a_prompt_does_not_make_sentences_vanish(base_config):
    """Plain faster-whisper ends after the second of three sentences by three speakers."""
    pause = np.zeros(6400, np.float32)
    rest = recording("austen_0890.wav").waveform()[35_200:]
    others = [recording(name).waveform() for name in ("synthetic_en.ogg", "goforward_16k.wav")]
    waveform = np.concatenate([rest, pause, others[0], pause, others[1], pause])
    options = DecodeOptions(language="en", prompt="Unless to be rather cold-hearted")
    omissions = metrics.PROMPT_OMISSIONS._value.get()

    found = [
        Model(replace(base_config, **settings)).decode(Job(waveform, options)).result().text
        for settings in ({"prompt_min_tokens_per_s": 0}, {}, {"ignore_prompts": True})
    ]

    assert ["meters" in text for text in found] == [False, True, True]
    assert metrics.PROMPT_OMISSIONS._value.get() == omissions + 1


@pytest.mark.parametrize("one", without_speech(), ids=lambda one: one.name)
def test_nothing_is_heard_where_nobody_speaks(tiny_engine, one):
    """A prompt is not given back as text either."""
    options = DecodeOptions(language="en", prompt="So, as I said, the figures are good.")

    assert tiny_engine.decode(Job(one.waveform(), options)).result().text == ""


def test_what_replaces_a_loop_may_be_noise(tiny_config, monkeypatch):
    """The model is sure of a loop, and unsure of the text without it."""
    answers = [True, False]
    monkeypatch.setattr(HallucinationFilter, "is_loop", lambda *_: answers.pop(0))
    monkeypatch.setattr(HallucinationFilter, "is_noise", lambda *_: not answers)
    noise = metrics.NOISE_WINDOWS._value.get()

    found = (
        Model(tiny_config)
        .decode(Job(recording("austen_0890.wav").waveform(), DecodeOptions()))
        .result()
    )

    assert found.text == ""
    assert metrics.NOISE_WINDOWS._value.get() == noise + 1
