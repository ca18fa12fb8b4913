"""Alone or in company, the answer is plain faster-whisper's for that request alone."""

from __future__ import annotations

import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import faster_whisper
import pytest

from app.config import Config
from app.engine.job import Job, Tier
from app.engine.model import Model
from app.engine.options import DecodeOptions
from app.engine.results import Transcript
from app.observability import metrics
from tests.support import models
from tests.support.plain import transcribe
from tests.support.recordings import Recording, long_recording, recording, recordings

SHORT = [one for one in recordings() if one.kind != "invalid" and one.seconds < 60]
ENGLISH = [one for one in SHORT if one.language in ("en", None)]
PROMPTS = ("He said so.", "The sisters were left to their thoughts, and it was long. " * 8)
COIN_TOSS = 0.5  # a detected language below it is one
OPTIONS = [
    DecodeOptions(),
    DecodeOptions(language="en", word_timestamps=True),
    DecodeOptions(language="en", prompt=PROMPTS[0], word_timestamps=True),
    DecodeOptions(language="en", prompt=PROMPTS[1]),
    DecodeOptions(word_timestamps=True),
]


def answers(model: Model, requests: list[tuple[Recording, DecodeOptions]], company: int):
    """The model's transcripts, so many requests at a time, in random company."""
    jobs = [
        Job(one.waveform(), options, random.Random(n).choice(list(Tier)))
        for n, (one, options) in enumerate(requests)
    ]
    with ThreadPoolExecutor(company) as pool:
        return list(pool.map(lambda job: model.decode(job).result(), jobs))


def differences(found: Transcript, expected: list, info, batched: bool) -> list[str]:
    """Return what differs between an answer and faster-whisper's own.

    Texts, tokens and times are equal, the segments' scores within float32's rounding. In calls
    of several windows the words' probabilities are rounded in another order: most by 1e-7, and
    where the rounding tips an 8-bit number by 1e-3, on some processors by 0.013.
    """
    tolerance, word_tolerance = 2e-6, 0.03 if batched else 2e-6
    if found.segments == () and expected == []:
        return []
    if found.language != info.language:
        return [] if info.language_probability < COIN_TOSS else ["language"]
    wrong = []
    if [one.text for one in found.segments] != [one.text for one in expected]:
        wrong.append("text")
    if [list(one.tokens) for one in found.segments] != [one.tokens for one in expected]:
        wrong.append("tokens")
    for ours, theirs in zip(found.segments, expected, strict=False):
        if (ours.start, ours.end) != (theirs.start, min(theirs.end, found.duration)):
            wrong.append("times")
        for name in ("avg_logprob", "no_speech_prob", "compression_ratio"):
            if abs(getattr(ours, name) - getattr(theirs, name)) > tolerance:
                wrong.append(name)
        heard = [(word.word, word.probability) for word in theirs.words or ()]
        for word, (text, probability) in zip(ours.words or (), heard, strict=True):
            if word.word != text or abs(word.probability - probability) > word_tolerance:
                wrong.append("words")
    return wrong


@pytest.mark.parametrize(
    ("compute_type", "threads", "max_batch", "beam"),
    [
        ("int8", 2, 1, 5),
        ("int8", 1, 16, 5),
        ("int8", 1, 8, 1),
        pytest.param("float32", 1, 8, 5, marks=pytest.mark.slow),
    ],
)
def test_english_in_company(compute_type, threads, max_batch, beam):
    """The guards of prompts and tails are off: with a prompt, faster-whisper writes "Thank you very
    much." for the 0.1 s behind the last word of a recording."""
    config = Config(
        model_size=str(models.tiny_en()), compute_type=compute_type, beam_size=beam, workers=1,
        max_concurrent_transcriptions=threads, prompt_min_tokens_per_s=0, min_window_ms=0,
    )  # fmt: skip
    plain = faster_whisper.WhisperModel(
        str(models.tiny_en()), "cpu", compute_type=compute_type, cpu_threads=2
    )
    # Neither divides by three, so that each recording meets another of the three options.
    every = 4 if max_batch == 16 else 7
    requests = list(itertools.product(ENGLISH, OPTIONS[1:4]))[max_batch % every :: every]
    random.Random(max_batch).shuffle(requests)

    found = answers(Model(config, max_batch), requests, company=16)

    wrong = {
        (one.name, options.prompt, options.word_timestamps): difference
        for (one, options), answer in zip(requests, found, strict=True)
        if (
            difference := differences(
                answer, *transcribe(plain, one.waveform(), options, beam), max_batch > 1
            )
        )
    }
    assert wrong == {}


def test_languages_in_company():
    """Detected and known languages, translation, words, prompts: one mixture.

    One recording of each language and one without speech; `test_english_in_company` has the others.
    The guards are off: with an English prompt faster-whisper gives it back for a Spanish sentence,
    and writes a loop for a Polish one.
    """
    config = Config(
        model_size=str(models.base()), model_name="base", workers=1,
        prompt_echo_min_chars=0, prompt_min_tokens_per_s=0, loop_max_tokens_per_s=0,
    )  # fmt: skip
    plain = faster_whisper.WhisperModel(
        str(models.base()), "cpu", compute_type="int8", cpu_threads=2
    )
    chosen = {one.language: one for one in reversed(SHORT)}.values()
    mixture = zip(itertools.cycle(OPTIONS[:0:-1]), itertools.cycle(("translate", "transcribe")))
    requests = [(one, OPTIONS[0]) for one in chosen]
    for one, (options, task) in zip(chosen, mixture, strict=False):
        requests.append((one, replace(options, language=one.language, task=task)))
    random.Random(3).shuffle(requests)

    found = answers(Model(config, max_batch=4), requests, company=8)

    wrong = {
        (one.name, options): difference
        for (one, options), answer in zip(requests, found, strict=True)
        if (difference := differences(answer, *transcribe(plain, one.waveform(), options), True))
    }
    assert wrong == {}


class TestEncodeOnce:
    """No window goes through the encoder twice."""

    def windows(self, engine, waveform, options) -> int:
        before = metrics.WINDOWS_ENCODED._value.get()
        engine.decode(Job(waveform, options)).result()
        return int(metrics.WINDOWS_ENCODED._value.get() - before)

    @pytest.mark.parametrize(
        "options",
        [
            DecodeOptions(word_timestamps=True),
            DecodeOptions(languages=("en", "de"), word_timestamps=True),
            DecodeOptions(language="en", temperatures=(0.0, 0.2, 0.4)),
        ],
        ids=["detected", "candidates", "known"],
    )
    def test_detection_decoding_and_alignment_share_it(self, base_engine, options):
        assert self.windows(base_engine, recording("austen_0890.wav").waveform(), options) == 1

    def test_further_temperatures_share_it(self, base_config):
        """A threshold that no window passes makes each be decoded at every temperature."""
        strict = Model(replace(base_config, log_prob_threshold=-0.001))
        options = DecodeOptions(language="en", temperatures=(0.0, 0.2, 0.4))
        waveform = recording("austen_0890.wav").waveform()
        calls = metrics.BATCH_SIZE.labels("generate")._sum.get()

        assert self.windows(strict, waveform, options) == 1
        assert metrics.BATCH_SIZE.labels("generate")._sum.get() - calls == 3

    def test_each_part_of_a_long_recording_detects_on_its_only_encoding(self, base_engine):
        waveform = long_recording(40).samples
        known = self.windows(base_engine, waveform, DecodeOptions(language="en"))

        assert self.windows(base_engine, waveform, DecodeOptions()) == known


def test_batches_form_under_load():
    """Eight requests on one device thread: calls are shared without any timer."""
    config = Config(model_size=str(models.tiny_en()), workers=1, max_concurrent_transcriptions=1)
    encode = metrics.BATCH_SIZE.labels("encode")
    before = encode._sum.get(), sum(bucket.get() for bucket in encode._buckets)
    requests = [(recording("austen_0890.wav"), OPTIONS[1])] * 8

    answers(Model(config, max_batch=8), requests, company=8)

    windows = encode._sum.get() - before[0]
    calls = sum(bucket.get() for bucket in encode._buckets) - before[1]
    assert windows == 8
    assert calls <= 4
