"""Uploaded bytes of any common format to a waveform, in bounded time and memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import BinaryIO

import av
import numpy as np

from app.audio.limits import SAMPLE_RATE, Limits
from app.audio.mixdown import Mixdown
from app.audio.track import DAMAGE, Clock, Rest, Track, by_preference, next_link, silence
from app.audio.wav import read_plain_wav, to_float
from app.errors import InvalidRequest

# FFmpeg's demuxers that may open an upload. Playlists and the like are left out on purpose:
# they make the library open other files and addresses.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,ogg,opus,rm,tta,voc,w64,wav,wv"
)
# Frames are handed to the resampler in groups of about this many samples, as faster-whisper
# does, so that the resampled waveform is the same to the last bit.
GROUP_SAMPLES = 500_000
MAX_STREAMS = 64  # a container with more is not a recording
SILENT = 8  # of 32768; a lossy codec's silence is not all zeros

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
    n_samples = 0
    try:
        for part in _links(file, limits):
            n_samples += part.size
            limits.check_samples(n_samples)
            yield part
    except DAMAGE:
        if n_samples == 0:
            raise InvalidRequest(UNDECODABLE, param="file") from None


def _links(file: BinaryIO, limits: Limits) -> Iterator[np.ndarray]:
    """Yield the samples of a file, and of an Ogg file's links that the library cannot chain."""
    begin: int | None = 0
    while begin is not None:
        stopped_at = yield from _decode_container(Rest(file, begin), limits)
        begin = None if stopped_at is None else next_link(file, begin + stopped_at + 1)


def _decode_container(
    file: Rest, limits: Limits, choice: int = 0, n_silent: int = 0
) -> Generator[np.ndarray, None, int | None]:
    """Yield the samples of the track that players choose, or of the next one that has a sound.

    Args:
        choice: which of the tracks, by preference.
        n_silent: the samples of a track before it that is silent throughout.

    Returns:
        The byte near which an Ogg file could not be read any further; None: there is no such.
    """
    # The library leaves out further streams, so it has to see one that is too many.
    options = {"format_whitelist": FORMATS, "max_streams": str(MAX_STREAMS + 1)}
    file.seek(0)
    with av.open(file, mode="r", metadata_errors="ignore", options=options) as container:
        if len(container.streams) > MAX_STREAMS:
            raise InvalidRequest(UNDECODABLE, param="file")
        if not container.streams.audio:
            raise InvalidRequest(NO_AUDIO_TRACK, param="file")
        tracks = by_preference(container)
        track = Track(container, tracks[choice])
        parts = _mono(track, Clock(container, limits.duration_s))
        is_last = choice + 1 == len(tracks)
        if not is_last:
            sound = Sound(parts, limits)
            parts = iter(sound)
        n_samples = 0
        for part in parts:
            n_samples += part.size
            yield part
        is_ogg = container.format.name == "ogg"
    if n_samples:
        return track.stopped_at if is_ogg else None
    if not is_last:
        return (yield from _decode_container(file, limits, choice + 1, max(n_silent, sound.held)))
    if n_silent:
        yield from silence(n_silent)
    elif track.broken:
        raise InvalidRequest(UNDECODABLE, param="file")
    return None


class Sound:
    """Parts of which silent ones at the beginning are held back until there is a sound.

    Attributes:
        held: samples held back.
    """

    def __init__(self, parts: Iterator[np.ndarray], limits: Limits) -> None:
        self._parts = parts
        self._limits = limits
        self.held = 0

    def __iter__(self) -> Iterator[np.ndarray]:
        is_silent = True
        for part in self._parts:
            if is_silent and max(part.max(), -int(part.min())) <= SILENT:
                self.held += part.size
                self._limits.check_samples(self.held)
                continue
            if is_silent:
                yield from silence(self.held)
            is_silent = False
            yield part


def _mono(track: Track, clock: Clock) -> Iterator[np.ndarray]:
    """Yield a track's samples, int16 mono 16 kHz, with silence where it has no packets."""
    mixdown = Mixdown()
    for group in _groups(track, clock):
        if isinstance(group, float):
            yield from mixdown.flush()
            yield from silence(round(group * SAMPLE_RATE))
        else:
            yield from mixdown.add(group)
    yield from mixdown.flush()


def _groups(track: Track, clock: Clock) -> Iterator[av.AudioFrame | float]:
    """Yield frames joined into large ones, and the seconds of the gaps between them."""
    fifo = av.AudioFifo()
    for frame in track.frames():
        if gap_s := clock.gap_s(frame):
            yield from _emptied(fifo)
            yield gap_s
        frame.pts = None  # the clock has seen it; the queue refuses gaps
        try:
            fifo.write(frame)
        except ValueError:  # another format than the frames before
            yield from _emptied(fifo)
            fifo = av.AudioFifo()
            fifo.write(frame)
        if fifo.samples >= GROUP_SAMPLES:
            yield from _emptied(fifo)
    yield from _emptied(fifo)


def _emptied(fifo: av.AudioFifo) -> Iterator[av.AudioFrame]:
    """Yield all that the queue holds as one frame."""
    if frame := fifo.read():
        yield frame
