"""Uploaded bytes of any common format to a waveform, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np

from app.audio.limits import SAMPLE_RATE, Limits
from app.audio.wav import read_plain_wav, to_float
from app.errors import InvalidRequest

# FFmpeg's demuxers that may open an upload. Playlists and the like are left out on purpose:
# they make the library open other files and addresses.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,ogg,opus,voc,w64,wav"
)
# Frames are handed to the resampler in groups of about this many samples, as faster-whisper
# does, so that the resampled waveform is the same to the last bit.
GROUP_SAMPLES = 500_000
MAX_STREAMS = 64  # a container with more is not a recording

UNDECODABLE = "The file could not be decoded as audio."
EMPTY = "The file is empty."
NO_AUDIO_TRACK = "The file has no audio track."


def decode(file: BinaryIO, limits: Limits) -> np.ndarray:
    """Decode, resample to 16 kHz and mix down to one channel.

    The content decides, never a name or a content type. A recording that breaks off is
    decoded as far as it goes. Decoding stops as soon as the duration limit is passed, since a
    small compressed file can hold hours.

    Args:
        file: seekable, the upload.
        limits: the audio-duration limit.

    Returns:
        float32 in [-1, 1], shape (n_samples,); no samples when the container is sound and
        holds none.

    Raises:
        InvalidRequest: nothing in the file can be decoded as audio.
        TooLarge: the audio is longer than the limit.
    """
    if file.seek(0, 2) == 0:
        raise InvalidRequest(EMPTY, param="file")
    waveform = read_plain_wav(file, limits)
    return to_float(list(pcm(file, limits))) if waveform is None else waveform


def pcm(file: BinaryIO, limits: Limits) -> Iterator[np.ndarray]:
    """Decode with the general library, piece by piece, so that no more than one is in memory.

    Args:
        file: seekable, the upload.
        limits: the audio-duration limit.

    Yields:
        int16, shape (n_samples,), mono 16 kHz, one after the other.

    Raises:
        InvalidRequest: nothing in the file can be decoded as audio.
        TooLarge: the audio is longer than the limit.
    """
    file.seek(0)
    try:
        yield from _decode_container(file, limits)
    # PyAV raises its own tree for what FFmpeg reports, and these two for what it finds itself.
    except (av.error.FFmpegError, ValueError, OverflowError):
        raise InvalidRequest(UNDECODABLE, param="file") from None


def _decode_container(file: BinaryIO, limits: Limits) -> Iterator[np.ndarray]:
    # The library leaves out further streams, so it has to see one that is too many.
    options = {"format_whitelist": FORMATS, "max_streams": str(MAX_STREAMS + 1)}
    with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
        if len(container.streams) > MAX_STREAMS:
            raise InvalidRequest(UNDECODABLE, param="file")
        if not container.streams.audio:
            raise InvalidRequest(NO_AUDIO_TRACK, param="file")
        frames = SoundFrames(container)
        resampler = _resampler()
        n_samples = 0
        for group in _groups(frames):
            for resampled in resampler.resample(group):
                part = resampled.to_ndarray().reshape(-1)
                n_samples += part.size
                limits.check_samples(n_samples)
                yield part
            if group is None:
                resampler = _resampler()
    if frames.broken and n_samples == 0:
        raise InvalidRequest(UNDECODABLE, param="file")


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)


class SoundFrames:
    """The decoded frames of a container's first audio track; broken ones are left out.

    Attributes:
        broken: how many packets could not be decoded.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self._container = container
        self.broken = 0

    def __iter__(self) -> Iterator[av.AudioFrame]:
        for packet in self._packets():
            try:
                yield from packet.decode()
            except av.error.InvalidDataError:
                self.broken += 1

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        packets = self._container.demux(audio=0)
        while True:
            try:
                yield next(packets)
            except StopIteration:
                return
            except (av.error.InvalidDataError, av.error.EOFError):
                self.broken += 1
                return  # the file breaks off here


def _groups(frames: SoundFrames) -> Iterator[av.AudioFrame | None]:
    """Frames joined into large ones; None empties the resampler.

    None stands at the end, and where a track changes its rate or layout midway.
    """
    fifo = av.AudioFifo()
    for frame in frames:
        frame.pts = None  # gaps in the time stamps are no concern of ours
        try:
            fifo.write(frame)
        except ValueError:  # another format than the frames before
            yield fifo.read()
            yield None
            fifo = av.AudioFifo()
            fifo.write(frame)
        if fifo.samples >= GROUP_SAMPLES:
            yield fifo.read()
    if fifo.samples > 0:
        yield fifo.read()
    yield None
