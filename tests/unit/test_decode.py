"""Audio: every form clients send becomes the same waveform faster-whisper would make."""

from __future__ import annotations

import io
import re

import av
import numpy as np
import pytest
from faster_whisper.audio import decode_audio

from app.audio.decode import decode
from app.audio.limits import Limits
from app.audio.wav import read_plain_wav
from app.errors import InvalidRequest, TooLarge
from tests.support.recordings import (
    DATA,
    FORMS,
    NO_LIMITS,
    encode,
    recording,
    recordings,
    wav,
    wav_header,
    waveform,
)

SOUND = [one for one in recordings() if one.kind != "invalid"]
INVALID = [one for one in recordings() if one.kind == "invalid"]


@pytest.mark.parametrize("one", SOUND, ids=lambda one: one.name)
def test_waveform_equals_faster_whispers(one):
    """Also on the direct path of plain WAV, to the last bit."""
    found = one.waveform()

    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, decode_audio(str(one.path)))
    assert found.size / 16_000 == pytest.approx(one.seconds, abs=0.1)


@pytest.mark.parametrize("one", INVALID, ids=lambda one: one.name)
def test_undecodable_file_is_the_clients_mistake(one):
    with pytest.raises(InvalidRequest) as refusal:
        one.waveform()

    assert refusal.value.param == "file"
    assert not re.search("token|key|auth", refusal.value.message.lower())


@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_the_recordings_length(form):
    samples = recording("austen_0890.wav").waveform()

    found = waveform(encode(samples, form))

    assert found.size / 16_000 == pytest.approx(samples.size / 16_000, abs=0.06)


def test_plain_wav_takes_the_direct_path_and_others_do_not():
    def direct(name):
        return read_plain_wav(io.BytesIO((DATA / name).read_bytes()), NO_LIMITS) is not None

    assert direct("austen_0890.wav")
    for name in ("austen_0880_24bit_48k.wav", "odd_8bit_11k.wav", "austen_0890_8k_alaw.wav"):
        assert not direct(name)


def test_extensible_header_and_further_chunks_are_read():
    """A WAVE_FORMAT_EXTENSIBLE header says PCM in a GUID; writers put lists before the samples."""
    samples = recording("goforward_16k.wav").waveform()
    pcm = wav(samples)[44:]
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = wav_header(0)[20:36] + (22).to_bytes(2, "little") + b"\x10\0\x04\0\0\0" + guid
    body = (
        b"WAVE" + b"LIST" + (5).to_bytes(4, "little") + b"hello\0"
        + b"fmt " + len(form).to_bytes(4, "little") + form
        + b"data" + len(pcm).to_bytes(4, "little") + pcm
    )  # fmt: skip
    file = io.BytesIO(b"RIFF" + len(body).to_bytes(4, "little") + body)

    found = read_plain_wav(file, NO_LIMITS)

    assert found is not None
    np.testing.assert_array_equal(found, samples)


def test_wav_without_an_end_of_chunks_is_not_read_for_ever():
    endless = b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000

    assert read_plain_wav(io.BytesIO(endless), NO_LIMITS) is None


@pytest.mark.parametrize("form", ["wav", "opus", "mp3"])
def test_decoding_stops_when_the_duration_limit_is_passed(form):
    """A small compressed file can hold hours: what is over the limit is never decoded."""
    samples = np.random.default_rng(1).normal(0, 0.1, 16_000 * 120).astype(np.float32)
    content = wav(samples) if form == "wav" else encode(samples, form)
    counted = CountingFile(content)

    with pytest.raises(TooLarge):
        decode(counted, Limits(upload_bytes=1 << 30, duration_s=10))

    assert counted.n_read < len(content) / 2


class CountingFile(io.BytesIO):
    """Knows how much of it was read."""

    n_read = 0

    def read(self, size=-1):
        content = super().read(size)
        self.n_read += len(content)
        return content


def test_track_that_changes_its_rate_is_decoded_to_its_end():
    """MP3 files are joined by appending them, and the second may have another rate."""
    first, second = (recording(name) for name in ("austen_0890.wav", "goforward_16k.wav"))
    joined = encode(first.waveform(), "mp3") + encode(second.waveform(), "mp3", rate=16_000)

    found = waveform(joined)

    assert found.size / 16_000 == pytest.approx(first.seconds + second.seconds, abs=0.3)


@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["hls", "concat", "sdp"],
)
def test_playlists_open_nothing(playlist):
    """Formats that make the library open other files or addresses are not accepted."""
    with pytest.raises(InvalidRequest):
        decode(io.BytesIO(playlist), NO_LIMITS)


@pytest.mark.parametrize("n_tracks", [3, 64, 65, 200])
def test_number_of_tracks_is_limited(n_tracks):
    """The library opens a decoder for each before anyone asks for it."""
    target = io.BytesIO()
    with av.open(target, "w", format="matroska") as output:
        tracks = [
            output.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(n_tracks)
        ]
        for track in tracks:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), "<i2"), "s16", "mono")
            frame.rate = 16_000
            for packet in [*track.encode(frame), *track.encode(None)]:
                output.mux(packet)

    if n_tracks <= 64:
        assert waveform(target.getvalue()).size == 160
    else:
        with pytest.raises(InvalidRequest):
            waveform(target.getvalue())
