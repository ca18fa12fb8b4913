"""Decode uploads of any common format to a waveform, in bounded time and memory."""

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

# The FFmpeg demuxers that may open an upload. Playlist formats are excluded: they make FFmpeg
# open other files and addresses.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,gsm,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,ogg,opus,rm,tta,voc,w64,wav,wv"
)
# The resampler receives frames in groups of about this many samples, as in faster-whisper, so
# that the resampled waveform is bit-identical.
GROUP_SAMPLES = 500_000
MAX_STREAMS = 64  # a container with more is not a recording
SILENT = 8  # of 32768; a lossy codec's silence is not all zeros

UNDECODABLE = "The file could not be decoded as audio."
EMPTY = "The file is empty."
NO_AUDIO_TRACK = "The file has no audio track."


def decode(file: BinaryIO, limits: Limits) -> np.ndarray:
    """Decode, resample to 16 kHz and mix down to one channel.

    The format is detected from the content; file name and content type are ignored. A truncated
    recording is decoded as far as it goes. Decoding stops as soon as the audio exceeds the
    duration limit, since a small compressed file can hold hours.

    Args:
        file: the upload, seekable.
        limits: the audio-duration limit.

    Returns:
        float32 in [-1, 1], shape (n_samples,); empty when the container is valid and has no
        samples.

    Raises:
        InvalidRequest: nothing in the file can be decoded as audio.
        TooLarge: the audio is longer than the limit.
    """
    if file.seek(0, 2) == 0:
        raise InvalidRequest(EMPTY, param="file")
    waveform = read_plain_wav(file, limits)
    return to_float(list(pcm(file, limits))) if waveform is None else waveform


def pcm(file: BinaryIO, limits: Limits) -> Iterator[np.ndarray]:
    """Decode with FFmpeg, one piece at a time, to bound memory.

    Args:
        file: the upload, seekable.
        limits: the audio-duration limit.

    Yields:
        int16, shape (n_samples,), mono 16 kHz.

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
    """Yield a file's samples, including chained Ogg links that FFmpeg cannot read on its own."""
    begin: int | None = 0
    while begin is not None:
        try:
            stopped_at = yield from _decode_container(Rest(file, begin), limits)
        except (InvalidRequest, *DAMAGE):
            if begin == 0:
                raise
            stopped_at = 0  # a bad link costs only itself
        begin = None if stopped_at is None else next_link(file, begin + stopped_at + 1)


def _decode_container(
    file: Rest, limits: Limits, choice: int = 0, n_silent: int = 0
) -> Generator[np.ndarray, None, int | None]:
    """Yield the samples of the track that players choose, or of the next one that is not silent.

    Args:
        choice: index into the tracks, by preference.
        n_silent: length in samples of the longest silent track before this one.

    Returns:
        The approximate byte offset at which reading an Ogg file failed; None: no failure.
    """
    # FFmpeg ignores streams beyond `max_streams`, so allow one more to detect too many.
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
    """Iterator over parts that withholds leading silence until a part with sound arrives.

    Attributes:
        held: number of samples withheld.
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
    """Yield frames joined into larger ones, and the gaps between them in seconds."""
    fifo = av.AudioFifo()
    for frame in track.frames():
        if gap_s := clock.gap_s(frame):
            yield from _emptied(fifo)
            yield gap_s
        frame.pts = None  # already used by the clock; the FIFO refuses gaps
        try:
            fifo.write(frame)
        except ValueError:  # the format differs from the previous frames
            yield from _emptied(fifo)
            fifo = av.AudioFifo()
            fifo.write(frame)
        if fifo.samples >= GROUP_SAMPLES:
            yield from _emptied(fifo)
    yield from _emptied(fifo)


def _emptied(fifo: av.AudioFifo) -> Iterator[av.AudioFrame]:
    """Yield the content of the FIFO as one frame."""
    if frame := fifo.read():
        yield frame
