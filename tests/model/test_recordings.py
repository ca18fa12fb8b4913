"""Words of recordings as people really send them: late, broken, chained, quiet."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest

from app.engine.engine import Engine
from app.engine.job import Job
from app.engine.options import DecodeOptions
from tests.support.recordings import DATA, recording, waveform, without_speech

COLD = "unless to be rather cold hearted and rather selfish"
FORWARD = "go forward"
DASHWOOD = "had then leisure to consider how much there might be"
# Each case's words, and the seconds from which they are heard.
CASES = {
    "off5.mp4": [(COLD, 5.2)],
    "gap.mp4": [(COLD, 0.3), (FORWARD, 15.1)],
    "default_second.mkv": [(COLD, 0.3)],
    "damaged.m4a": [(DASHWOOD, None)],
    "chain_channels.ogg": [(COLD, 0.3), (FORWARD, None)],
    "quiet60.flac": [(COLD, 0.3)],
}


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


@pytest.mark.parametrize("name", CASES)
def test_what_a_player_makes_audible_becomes_words(tiny_engine, name):
    samples = waveform((DATA / "cases" / name).read_bytes())

    found = tiny_engine.decode(Job(samples, DecodeOptions(word_timestamps=True))).result()

    words = [word for segment in found.segments for word in segment.words or ()]
    for said, begin_s in CASES[name]:
        assert said in plain(found.text)
        if begin_s is not None:
            first = said.split()[0]
            starts = [word.start for word in words if plain(word.word) == first]
            assert any(start == pytest.approx(begin_s, abs=0.6) for start in starts)
    assert found.duration == pytest.approx(samples.size / 16_000)


@pytest.mark.parametrize("below_db", [20, 40, 55])
def test_words_do_not_depend_on_the_level(tiny_engine, below_db):
    samples = recording("austen_0890.wav").waveform()
    quiet = np.round(samples * 10 ** (-below_db / 20) * 32768).astype(np.float32) / 32768

    found = tiny_engine.decode(Job(quiet, DecodeOptions())).result()

    assert plain(found.text).startswith(COLD)


@pytest.mark.parametrize("one", without_speech(), ids=lambda one: one.name)
@pytest.mark.parametrize("below_db", [40, 60])
def test_quiet_sound_without_speech_stays_empty(tiny_engine, one, below_db):
    samples = one.waveform() * np.float32(10 ** (-below_db / 20))
    quiet = np.round(samples * 32768).astype(np.float32) / 32768

    assert tiny_engine.decode(Job(quiet, DecodeOptions())).result().text == ""


def test_speech_in_a_silent_recording_is_not_amplified(tiny_engine):
    """A minute of silence around a sentence makes nothing of it quiet."""
    silence = np.zeros(30 * 16_000, np.float32)
    speech = recording("austen_0890.wav").waveform()

    found = tiny_engine.decode(
        Job(np.concatenate([silence, speech, silence]), DecodeOptions())
    ).result()

    assert plain(found.text).startswith(COLD)


def test_no_segment_ends_after_the_next_one_begins(tiny_engine):
    """Also where a long recording is cut into parts."""
    names = ("austen_0890.wav", "austen_0870_vorbis.ogg", "goforward_16k.wav")
    sentences = [recording(name).waveform() for name in names] * 4

    found = tiny_engine.decode(Job(np.concatenate(sentences), DecodeOptions())).result()

    assert len(found.segments) > 5
    assert all(before.end <= after.start for before, after in pairwise(found.segments))


SENTENCE = "Drop the two when you add the figures. "


@pytest.mark.parametrize(
    "prompt", [SENTENCE * 40, "Thank you. " * 60, "no " * 100, "Okay, so, " * 60]
)
@pytest.mark.parametrize("name", ["goforward_16k.wav", "austen_0890.wav"])
def test_prompt_that_repeats_itself_does_not_replace_the_speech(
    base_engine: Engine, name: str, prompt: str
):
    said = {"goforward_16k.wav": FORWARD, "austen_0890.wav": "rather selfish"}[name]

    found = base_engine.decode(
        Job(recording(name).waveform(), DecodeOptions(language="en", prompt=prompt))
    ).result()

    assert said in plain(found.text)
    assert len(found.text) < 120
