"""Generated models of the benchmarks: every decoder gives every window the same text."""

from __future__ import annotations

import faster_whisper
import pytest

from app.config import Config
from app.engine.job import Job
from app.engine.model import Model
from app.engine.options import DecodeOptions
from tests.measure.random_model import SIZES, WORDS, random_model
from tests.support import plain
from tests.support.recordings import recording


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_model("trial", tmp_path_factory.mktemp("models"))


def test_a_generated_model_says_its_sentence_with_any_prompt_beam_and_sound(folder):
    whisper = faster_whisper.WhisperModel(str(folder), "cpu", compute_type="int8")
    speech = recording("austen_0890.wav").waveform()
    options = DecodeOptions(language="en", word_timestamps=True)
    (segment,), _ = plain.transcribe(whisper, speech, options)

    assert len(segment.text.split()) == WORDS
    assert segment.avg_logprob > -0.5
    assert segment.compression_ratio < 2.4
    others = [
        plain.transcribe(whisper, speech, options, beam_size=1),
        plain.transcribe(whisper, speech[:32_000], options, beam_size=8),
        plain.transcribe(whisper, speech, DecodeOptions(language="en", prompt="as they said")),
        plain.transcribe(whisper, speech, DecodeOptions()),
    ]
    assert [[each.text for each in found] for found, _ in others] == [[segment.text]] * 4
    assert others[-1][1].language == "en"


def test_a_generated_model_has_all_weights_of_its_size(tmp_path):
    """CTranslate2 keeps equal weights once, which would change memory and speed."""
    size = SIZES["tiny"]
    attention, feed_forward = 4 * size.width**2, 8 * size.width**2
    layers = size.encoder_layers * (attention + feed_forward)
    layers += size.decoder_layers * (2 * attention + feed_forward)

    made = random_model("tiny", tmp_path) / "model.bin"

    assert made.stat().st_size > 2 * (layers + 2 * 51_865 * size.width)


def test_the_service_accepts_a_generated_model_and_its_text(folder):
    model = Model(Config(model_size=str(folder), workers=1, device="cpu"), max_batch=2)
    model.warm_up()
    speech = recording("austen_0890.wav").waveform()

    text = model.decode(Job(speech, DecodeOptions(prompt="as they said"))).result().text

    assert len(text.split()) == WORDS
