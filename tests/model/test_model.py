"""The model: the words and scores of plain faster-whisper, and a clear word when it is missing."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import faster_whisper
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as some
from tokenizers import AddedToken

from app.config import ROOT, Config, ConfigError
from app.engine.cancellation import Cancellation
from app.engine.checksums import ChecksumError, verify_fetched
from app.engine.engine import Engine
from app.engine.files import ModelError, fetch_model, find_model
from app.engine.hardware import HardwareError, choose_device
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions, SpeechOptions, plain_text
from app.engine.transcription import length_in_steps
from app.errors import ClientDisconnected, InvalidRequest
from tests.support import models
from tests.support import plain as plain_whisper
from tests.support.environment import bare_environment
from tests.support.recordings import recording, speech

PIECES = some.sampled_from(
    ["<", "|", ">", "<|", "|>", "en", "0.00", " ", "<|en|>", "<|endoftext|>", "<|0.00|>", "\u200b"]
)
ENGLISH = [one for one in speech() if one.language == "en" and one.seconds < 60]
OTHERS = [one for one in speech() if one.language != "en"]


@pytest.fixture(scope="module")
def plain_tiny():
    """faster-whisper itself, with the model the engine has."""
    return faster_whisper.WhisperModel(str(models.tiny_en()), "cpu", compute_type="int8")


@pytest.fixture(scope="module")
def plain_base():
    return faster_whisper.WhisperModel(str(models.base()), "cpu", compute_type="int8")


def assert_same(engine: Engine, plain, waveform: np.ndarray, options: DecodeOptions) -> None:
    """Text, times, tokens and scores are those of one plain call for this request alone."""
    found = engine.decode(Job(waveform, options)).result()
    expected, info = plain_whisper.transcribe(plain, waveform, options)

    assert [one.text for one in found.segments] == [one.text for one in expected]
    assert [list(one.tokens) for one in found.segments] == [one.tokens for one in expected]
    assert found.language == info.language
    # The language is found on the window that is decoded; upstream encodes one frame more.
    assert found.language_probability == pytest.approx(info.language_probability, abs=0.1)
    for ours, theirs in zip(found.segments, expected, strict=True):
        end = min(theirs.end, found.duration)
        assert (ours.seek, ours.start, ours.end) == (theirs.seek, theirs.start, end)
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob)
        assert ours.no_speech_prob == pytest.approx(theirs.no_speech_prob)
        assert ours.compression_ratio == pytest.approx(theirs.compression_ratio)
        if options.word_timestamps:
            assert [word.word for word in ours.words] == [word.word for word in theirs.words]
            assert [word.probability for word in ours.words] == pytest.approx(
                [word.probability for word in theirs.words]
            )


@pytest.mark.parametrize("one", ENGLISH, ids=lambda one: one.name)
def test_english_equals_plain_faster_whisper(tiny_engine, plain_tiny, one):
    assert_same(tiny_engine, plain_tiny, one.waveform(), DecodeOptions(word_timestamps=True))


@pytest.mark.parametrize("one", OTHERS, ids=lambda one: one.name)
def test_other_languages_equal_plain_faster_whisper(base_engine, plain_base, one):
    """The language is detected, as most clients' first request asks."""
    assert_same(base_engine, plain_base, one.waveform(), DecodeOptions(word_timestamps=True))


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(prompt="Chapter one. A long prompt about ill-disposed men. " * 40),
        DecodeOptions(prompt="Sense and Sensibility.", hotwords="Dashwood"),
        DecodeOptions(language="en", speech=SpeechOptions(enabled=False), word_timestamps=True),
        DecodeOptions(speech=SpeechOptions(min_silence_duration_ms=50, max_speech_duration_s=3)),
        DecodeOptions(task="translate", language="en"),
    ],
    ids=["long prompt", "prompt and hotwords", "no vad", "short spans", "translate"],
)
def test_options_mean_what_they_mean_in_faster_whisper(base_engine, plain_base, options):
    assert_same(base_engine, plain_base, recording("austen_0870.ogg").waveform(), options)


def test_long_prompt_and_many_hotwords_leave_room_for_words(tiny_engine):
    """Each may fill Whisper's context alone; together they left none, and the text was empty."""
    waveform = recording("austen_0890.wav").waveform()
    options = DecodeOptions(prompt="He was not ill. " * 200, hotwords="Dashwood, selfish, " * 100)

    assert "selfish" in tiny_engine.decode(Job(waveform, options)).result().text


def test_detection_chooses_among_the_candidates(base_engine):
    waveform = recording("synthetic_es.ogg").waveform()

    def detected(*languages):
        options = DecodeOptions(languages=languages)
        return base_engine.decode(Job(waveform, options)).result()

    free, chosen, other = detected(), detected("de", "es"), detected("de", "pl")

    assert (free.language, chosen.language) == ("es", "es")
    assert chosen.language_probability == pytest.approx(free.language_probability, abs=0.05)
    assert other.language in ("de", "pl")
    assert other.language_probability < 0.3


def test_english_model_answers_english_whatever_is_asked(tiny_engine):
    waveform = recording("austen_0890.wav").waveform()

    found = tiny_engine.decode(Job(waveform, DecodeOptions(language="de"))).result()

    assert (found.language, found.language_probability) == ("en", 1.0)
    assert "cold" in found.text


def test_language_the_model_does_not_know_is_the_clients_mistake(base_engine):
    """Cantonese came with large-v3."""
    for options in (DecodeOptions(language="yue"), DecodeOptions(languages=("en", "yue"))):
        with pytest.raises(InvalidRequest, match="yue"):
            base_engine.check(options)


def test_english_model_does_not_translate(tiny_engine):
    with pytest.raises(InvalidRequest, match="translate"):
        tiny_engine.check(DecodeOptions(task="translate"))


@pytest.mark.parametrize(
    "name",
    ["silence_3s.wav", "silence_35s.flac", "noise_white_6s.flac", "noise_brown_20s.ogg",
     "tone_440hz_5s.flac", "music_16s.ogg", "bad_header_only.wav", "odd_10ms.wav"],
)  # fmt: skip
def test_what_is_no_speech_is_no_text(tiny_engine, base_engine, name):
    for engine in (tiny_engine, base_engine):
        found = engine.decode(Job(recording(name).waveform(), DecodeOptions())).result()

        assert (found.text, found.segments) == ("", ())


def test_cancelled_request_is_not_decoded_further(tiny_engine):
    cancellation = Cancellation()
    cancellation.cancel()

    with pytest.raises(ClientDisconnected):
        tiny_engine.decode(
            Job(recording("austen_0890.wav").waveform(), DecodeOptions(), cancellation=cancellation)
        ).result()


def test_gpu_that_is_asked_for_and_absent_is_an_error():
    with pytest.raises(HardwareError, match="DEVICE is cuda"):
        choose_device("cuda", 0)
    assert [choose_device(wanted, 0) for wanted in ("auto", "cpu")] == ["cpu", "cpu"]
    assert [choose_device(wanted, 2) for wanted in ("auto", "cpu", "cuda")] == [
        "cuda",
        "cpu",
        "cuda",
    ]


@pytest.mark.parametrize("missing", ["model.bin", "tokenizer.json", "vocabulary.txt"])
def test_incomplete_folder_is_named_with_the_remedy(tmp_path, missing):
    folder = tmp_path / "model"
    shutil.copytree(models.tiny_en(), folder, ignore=shutil.ignore_patterns(missing))

    with pytest.raises(ModelError, match=rf"{folder}.*{missing.split('.')[0]}.*set MODEL_SIZE"):
        find_model(Config(model_size=str(folder)))


def test_broken_weights_are_named_with_the_remedy(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(models.tiny_en(), folder)
    with (folder / "model.bin").open("r+b") as weights:
        weights.truncate(1_000_000)

    with pytest.raises(ModelError, match=rf"{folder} could not be loaded.*choose another"):
        Model(Config(model_size=str(folder)))


class TestChecksums:
    """The model is the one that was meant, or nothing starts."""

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        """A copy of tiny.en."""
        return Path(shutil.copytree(models.tiny_en(), tmp_path / "model"))

    @pytest.mark.parametrize("name", ["", "model.bin=", "tokenizer.json="])
    def test_setting(self, folder, name):
        right = name + sha256(folder / (name.rstrip("=") or "model.bin")).upper()
        wrong = name + 64 * "0"

        assert find_model(Config(model_size=str(folder), model_sha256=(right,))) == folder
        with pytest.raises(ModelError, match=r"not the file that MODEL_SHA256 means: its SHA-256"):
            find_model(Config(model_size=str(folder), model_sha256=(right, wrong)))

    def test_file_in_the_folder(self, folder):
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        text = subprocess.check_output(["sha256sum", *names], cwd=folder, text=True)
        (folder / "SHA256SUMS").write_text(text)
        settings = Config(model_size=str(folder))
        assert find_model(settings) == folder

        with (folder / "vocabulary.txt").open("ab") as file:
            file.write(b"\n")
        with pytest.raises(ModelError, match=r"vocabulary.txt is not the file that .*SHA256SUMS"):
            find_model(settings)
        (folder / "SHA256SUMS").write_text(f"{64 * 'a'}  gone.bin\n")
        with pytest.raises(ModelError, match=r"SHA256SUMS names .*gone.bin, and there is no such"):
            find_model(settings)
        (folder / "SHA256SUMS").write_text(f"{64 * 'a'}  ../elsewhere\n")
        with pytest.raises(ModelError, match=r"SHA256SUMS: line 1 is not a SHA-256"):
            find_model(settings)

    def test_file_that_is_named_and_missing(self, folder):
        named = (f"gone.json={64 * 'a'}",)
        with pytest.raises(ModelError, match=r"MODEL_SHA256 names .*gone.json, and there is no"):
            find_model(Config(model_size=str(folder), model_sha256=named))

    def test_setting_of_another_form(self):
        for wrong in ("abc", 63 * "a", f"../model.bin={64 * 'a'}", f"{64 * 'g'}"):
            with pytest.raises(ConfigError, match="MODEL_SHA256 holds"):
                Config(model_sha256=(wrong,))

    def test_worker_and_pool_refuse_another_model(self, folder):
        """Each of them looks: the file may have changed since the other one did."""
        environment = bare_environment() | {
            "MODEL_SIZE": str(folder), "MODEL_SHA256": 64 * "0", "DEVICE": "cpu"
        }  # fmt: skip
        told = subprocess.run(
            [sys.executable, "-m", "app.engine.files"],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == 1
        assert "MODEL_SHA256 means" in told.stderr
        assert "Traceback" not in told.stderr
        with pytest.raises(ModelError, match="MODEL_SHA256"):
            Model(Config(model_size=str(folder), model_sha256=(64 * "0",)))

    def test_fetched_files_are_those_the_hub_announced(self, folder):
        """Its client names each file by the hub's own sum, and looks at the length alone."""
        weights = folder / "model.bin"
        blob = folder / sha256(weights)
        weights.rename(blob)
        weights.symlink_to(blob)
        (folder / "small").write_text("x")
        (folder / "config.link").symlink_to(folder / "small")  # named otherwise: not looked at
        verify_fetched(folder)

        with blob.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"?")
        with pytest.raises(ChecksumError, match=r"model.bin is not the file that its hub means"):
            verify_fetched(folder)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_unknown_size_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"MODEL_SIZE is 'gigantic'.*large-v3-turbo"):
        fetch_model(Config(model_size="gigantic", model_dir=tmp_path))


def test_size_that_was_not_fetched_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"small is not in .*Fetch it"):
        find_model(Config(model_size="small", model_dir=tmp_path))


@pytest.mark.parametrize(
    ("n_tokens", "kept"), [(0, 0), (1, 1), (7, 4), (15, 8), (16, 16), (40, 32), (223, 208)]
)
def test_prompts_meet_at_few_lengths(n_tokens, kept):
    assert length_in_steps(n_tokens, 16) == kept
    assert length_in_steps(n_tokens, 1) == n_tokens


def test_cut_prompt_keeps_its_end(tiny_config):
    """A prompt of many words is context as its last ones are."""
    model = Model(replace(tiny_config, prompt_length_multiple=16))
    waveform = recording("austen_0890.wav").waveform()
    whole = "The weather was fine. " * 3 + "He said so to the sisters."

    def transcribed(prompt):
        return model.decode(Job(waveform, DecodeOptions(prompt=prompt))).result()

    tokens = model._whisper.hf_tokenizer.encode(" " + whole, add_special_tokens=False).ids
    assert len(tokens) > 16
    kept = model._whisper.hf_tokenizer.decode(tokens[-(len(tokens) // 16 * 16) :]).strip()
    assert transcribed(whole) == transcribed(kept)


class TestControlTokens:
    """Those that the tokenizer knows, in a client's text."""

    @pytest.fixture(scope="class")
    @classmethod
    def tokenizer(cls) -> tokenizers.Tokenizer:
        """Base's, with time stamps, which larger models' files list as tokens that are not
        special."""
        found = tokenizers.Tokenizer.from_file(str(models.base() / "tokenizer.json"))
        found.add_tokens([AddedToken(f"<|{n * 0.02:.2f}|>", normalized=False) for n in range(1501)])
        return found

    @pytest.fixture(scope="class")
    @classmethod
    def control(cls, tokenizer) -> dict[int, str]:
        return {number: one.content for number, one in tokenizer.get_added_tokens_decoder().items()}

    def test_every_one_is_taken_out(self, tokenizer, control):
        assert len(control) > 1600
        for number, content in control.items():
            assert tokenizer.encode(content, add_special_tokens=False).ids == [number]
            assert plain_text(content) == ""

    @settings(max_examples=300, deadline=None)
    @given(some.lists(PIECES, max_size=12).map("".join))
    def test_none_is_made_of_what_is_left(self, tokenizer, control, text):
        tokens = tokenizer.encode(" " + plain_text(text), add_special_tokens=False).ids

        assert not control.keys() & set(tokens)
