"""One audio track of a container: which one is heard, its frames, and where they lie in time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.stream import Discard, Disposition

# Time stamps are rounded and jitter, so only a longer gap is one. FFmpeg's `aresample` filter has
# the same limit (`min_hard_comp`).
MIN_GAP_S = 0.1
# A frame this long before the end of the one before it has another clock, and so has one this long
# after it where the format allows time stamps to jump. FFmpeg's `dts_delta_threshold`.
MAX_STEP_BACK_S = 1.0
MAX_JUMP_S = 10.0
TIMES_JUMP = 0x0200  # AVFMT_TS_DISCONT: of MPEG streams and Ogg
# What damaged data raises: FFmpeg's own errors, and PyAV's for numbers it does not expect.
DAMAGE = (av.error.FFmpegError, ArithmeticError, LookupError, ValueError)
MAX_FAILURES = 10  # of a demuxer in a row: it makes no progress
LINK = re.compile(rb"OggS\0[\x02\x06]")  # the first page of a stream


def by_preference(container: av.container.InputContainer) -> list[av.AudioStream]:
    """Return the audio tracks in the order in which players choose them.

    The default track comes first, comments and descriptions for the blind last.
    """

    def rank(track: av.AudioStream) -> tuple[bool, bool]:
        further = Disposition.comment | Disposition.visual_impaired | Disposition.descriptions
        return bool(track.disposition & further), not track.disposition & Disposition.default

    return sorted(container.streams.audio, key=rank)


class Track:
    """The decoded frames of one track; what is damaged is left out.

    Attributes:
        broken: how many packets could not be read or decoded.
        stopped_at: the byte near which the container could not be read any further; None: it was
            read to its end.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.AudioStream) -> None:
        self._container = container
        self._stream = stream
        # Damage to a picture then costs no sound, and a large one no time.
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        self.broken = 0
        self.stopped_at: int | None = None

    def frames(self) -> Iterator[av.AudioFrame]:
        """Yield each frame that can be decoded."""
        for packet in self._packets():
            try:
                frames = packet.decode()
            except DAMAGE:
                self.broken += 1
                continue
            yield from frames

    def _packets(self) -> Iterator[av.Packet[av.AudioStream]]:
        packets = self._container.demux(self._stream)
        position = failures = 0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except DAMAGE:
                self.broken += 1
                failures += 1
                if failures > MAX_FAILURES:
                    self.stopped_at = position
                    return
                packets = self._container.demux(self._stream)
            else:
                failures = 0
                position = max(position, packet.pos or 0)
                yield packet


class Clock:
    """Where frames lie in time, as a player shows them: from the container's start on.

    Args:
        longest_s: of a recording. A frame beyond it, or beyond the length that the container
            claims, has a damaged time stamp.
    """

    def __init__(self, container: av.container.InputContainer, longest_s: float) -> None:
        start, duration = container.start_time, container.duration
        self._start_s = None if start is None else start / av.time_base
        self._longest_s = longest_s if duration is None else duration / av.time_base
        self._jumps = bool(container.format.flags & TIMES_JUMP)
        self._elapsed_s = 0.0

    def gap_s(self, frame: av.AudioFrame) -> float:
        """Return the seconds without sound before the next frame, and move on past it."""
        gap_s = 0.0
        if frame.time is not None:
            if self._start_s is None:
                self._start_s = frame.time
            gap_s = frame.time - self._start_s - self._elapsed_s
            is_jump = self._jumps and self._elapsed_s > 0 and gap_s > MAX_JUMP_S
            is_late = gap_s > MIN_GAP_S and self._elapsed_s + gap_s > self._longest_s
            if is_jump or is_late or gap_s < -MAX_STEP_BACK_S:
                self._start_s += gap_s
                gap_s = 0.0
            elif gap_s < MIN_GAP_S:
                gap_s = 0.0
        self._elapsed_s += gap_s + frame.samples / frame.rate
        return gap_s


class Rest:
    """A file from one of its bytes on, for a library that takes what reads and seeks.

    Args:
        file: seekable.
    """

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file = file
        self._begin = begin
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Read from the current position."""
        return self._file.read(size)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell() - self._begin

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to another position."""
        if whence == 0:
            offset += self._begin
        return self._file.seek(offset, whence) - self._begin


def next_link(file: BinaryIO, position: int) -> int | None:
    """Return where the next link of a chained Ogg file begins; None: there is none.

    Args:
        position: where to begin the search, within the link before it.
    """
    overlap = b""
    file.seek(position)
    while piece := file.read(1 << 20):
        if found := LINK.search(overlap + piece):
            return position - len(overlap) + found.start()
        position += len(piece)
        overlap = piece[-5:]
    return None


def silence(n_samples: int) -> Iterator[np.ndarray]:
    """Yield so many int16 zeros, in pieces of bounded size."""
    while n_samples > 0:
        piece = np.zeros(min(n_samples, 1 << 20), np.int16)
        n_samples -= piece.size
        yield piece
