"""Which track of a container is heard, when, and how much of a damaged one."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

from app.audio.decode import decode
from app.audio.limits import Limits
from app.errors import InvalidRequest, TooLarge
from tests.support.containers import Sound, Tracks
from tests.support.recordings import DATA, encode, recording, waveform

SPEECH = recording("goforward_16k.wav").waveform()
SECONDS = SPEECH.size / 16_000
OTHER = recording("austen_0890.wav").waveform()
SILENCE = np.zeros(32_000, np.float32)
# Container and codec; with a picture from the beginning, so that the clock begins there.
VIDEOS = [
    ("mp4", "aac"),
    ("mov", "pcm_s16le"),
    ("matroska", "flac"),
    ("matroska", "aac"),
    ("mpegts", "aac"),
    ("mpegts", "mp2"),
    ("flv", "aac"),
]


def begin_s(samples: np.ndarray) -> float:
    """When the first sound is heard."""
    return float(np.flatnonzero(np.abs(samples) > 0.02)[0]) / 16_000


def likeness(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the correlation of two waveforms' loudness, which a codec leaves as it is."""

    def loudness(samples: np.ndarray) -> np.ndarray:
        return np.abs(samples[: samples.size // 800 * 800]).reshape(-1, 800).mean(axis=1)

    a, b = loudness(found), loudness(expected)
    n = min(a.size, b.size)
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


@pytest.mark.parametrize(("container", "codec"), VIDEOS)
def test_sound_that_begins_late_is_heard_late(container, codec):
    content = Tracks(container, codec, [[Sound(SPEECH, 5.0)]], video_s=9).content()

    found = waveform(content)

    assert begin_s(found) == pytest.approx(5.0 + begin_s(SPEECH), abs=0.15)
    assert found.size / 16_000 == pytest.approx(5.0 + SECONDS, abs=0.2)


@pytest.mark.parametrize(
    ("container", "codec"), [one for one in VIDEOS if one != ("mov", "pcm_s16le")]
)
def test_silence_where_there_are_no_packets(container, codec):
    sounds = [Sound(SPEECH), Sound(SPEECH, 8.0)]
    content = Tracks(container, codec, [sounds], video_s=12).content()

    found = waveform(content)

    assert found.size / 16_000 == pytest.approx(8.0 + SECONDS, abs=0.2)
    assert begin_s(found[8 * 16_000 - 4000 :]) == pytest.approx(0.25 + begin_s(SPEECH), abs=0.15)
    assert np.abs(found[4 * 16_000 : 7 * 16_000]).max() < 0.001


@pytest.mark.parametrize("lost_s", [0.02, 0.05])
def test_small_gaps_add_up(lost_s):
    """Every tenth packet of a call got lost; none of the gaps is one by itself."""
    n = 3200
    sounds = [
        Sound(OTHER[at : at + n], at / 16_000 + number * lost_s)
        for number, at in enumerate(range(0, OTHER.size, n))
    ]

    found = waveform(Tracks("matroska", "pcm_s16le", [sounds]).content())

    assert found.size / 16_000 == pytest.approx(sounds[-1].at_s + 0.1, abs=0.25)


def test_recording_cut_out_of_a_longer_one_begins_at_once():
    """Its time stamps go on from there."""
    content = Tracks("matroska", "pcm_s16le", [[Sound(SPEECH, 3600.0)]]).content()

    assert waveform(content).size == pytest.approx(SPEECH.size, abs=200)


def test_time_stamps_beyond_the_longest_recording_are_errors():
    sounds = [Sound(SPEECH), Sound(SPEECH, 40 * 3600.0)]
    content = Tracks("matroska", "flac", [sounds], is_live=True).content()

    found = decode_within(content, 60)

    assert found.size / 16_000 == pytest.approx(2 * SECONDS, abs=0.1)


def decode_within(content: bytes, seconds: float) -> np.ndarray:
    return decode(io.BytesIO(content), Limits(1 << 30, seconds))


def test_gaps_count_as_length():
    content = Tracks("mp4", "aac", [[Sound(SPEECH), Sound(SPEECH, 100.0)]], video_s=104).content()

    with pytest.raises(TooLarge):
        decode_within(content, 30)


@pytest.mark.parametrize("container", ["matroska", "mp4"])
@pytest.mark.parametrize("default", [0, 1])
def test_default_track_is_heard(container, default):
    tracks = [[Sound(SPEECH)], [Sound(OTHER)]]
    codec = "flac" if container == "matroska" else "aac"

    found = waveform(Tracks(container, codec, tracks, default=default).content())

    assert likeness(found, (SPEECH, OTHER)[default]) > 0.99


@pytest.mark.parametrize("n_silent", [1, 2])
def test_silent_track_gives_way_to_one_with_a_sound(n_silent):
    """A recorder's unused microphone often is the first track."""
    tracks = [*[[Sound(SILENCE)]] * n_silent, [Sound(SPEECH)]]

    found = waveform(Tracks("matroska", "flac", tracks, default=0).content())

    np.testing.assert_array_equal(found, SPEECH)


def test_track_that_begins_with_silence_is_kept_whole():
    tracks = [[Sound(np.concatenate([SILENCE, SPEECH]))], [Sound(OTHER)]]

    found = waveform(Tracks("matroska", "flac", tracks, default=0).content())

    np.testing.assert_array_equal(found, np.concatenate([SILENCE, SPEECH]))


def test_only_silent_tracks_are_silence():
    found = waveform(Tracks("matroska", "flac", [[Sound(SILENCE)]] * 2).content())

    np.testing.assert_array_equal(found, SILENCE)


@pytest.mark.parametrize("form", ["m4a", "mp3", "webm", "opus", "flac"])
@pytest.mark.parametrize("n_bytes", [1, 20, 200])
@pytest.mark.parametrize("where", [0.3, 0.6, 0.97])
def test_damage_costs_what_is_damaged(form, n_bytes, where):
    content = bytearray(encode(OTHER, form))
    # MP4 has its table of contents at the end; without it there is nothing left to be read.
    end = content.find(b"moov") - 4 if form == "m4a" else len(content)
    dice = random.Random(n_bytes)
    begin = int(where * (end - 2 * n_bytes))
    for _ in range(n_bytes):
        content[begin + dice.randrange(2 * n_bytes)] = dice.randrange(256)

    found = waveform(bytes(content))

    assert found.size > 0.8 * OTHER.size


def test_nothing_that_can_be_decoded_is_an_error():
    content = bytearray(encode(OTHER, "m4a"))
    begin, end = content.find(b"mdat") + 4, content.find(b"moov") - 4
    content[begin:end] = random.Random(1).randbytes(end - begin)

    with pytest.raises(InvalidRequest):
        waveform(bytes(content))


def test_every_link_of_a_chained_file_is_heard():
    """Radio streams begin a new link with each title."""
    links = [Tracks("ogg", "flac", [[Sound(one)]]).content() for one in (OTHER, SPEECH, OTHER)]

    found = waveform(b"".join(links))

    assert found.size == pytest.approx(2 * OTHER.size + SPEECH.size, abs=1600)


def test_links_may_have_other_channels():
    found = waveform((DATA / "cases" / "chain_channels.ogg").read_bytes())

    assert found.size / 16_000 == pytest.approx(8.1, abs=0.1)
    assert np.abs(found[6 * 16_000 :]).max() > 0.1


def test_link_without_sound_costs_only_itself():
    """Also the links behind it are heard."""
    content = (DATA / "cases" / "chain_channels.ogg").read_bytes()
    second = content.index(b"OggS\0\2", 100)
    picture = Tracks("ogg", "flac", [], video_s=1).content()

    found = waveform(content[second:] + picture + content[:second])

    assert found.size / 16_000 == pytest.approx(8.1, abs=0.1)
