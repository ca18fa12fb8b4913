"""Choose a container's audio track, decode its frames, and place them in time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from av.stream import Discard, Disposition

# Timestamps are rounded and jitter, so shorter gaps are ignored. FFmpeg's `aresample` filter has
# the same limit (`min_hard_comp`).
MIN_GAP_S = 0.1
# A frame that starts this long before the end of the previous one begins a new timeline, as does
# one this long after it where the format allows discontinuities. FFmpeg's `dts_delta_threshold`.
MAX_STEP_BACK_S = 1.0
MAX_JUMP_S = 10.0
TIMES_JUMP = 0x0200  # AVFMT_TS_DISCONT, set for MPEG streams and Ogg
# Exceptions from damaged data: FFmpeg's own, and PyAV's for unexpected numbers.
DAMAGE = (av.error.FFmpegError, ArithmeticError, LookupError, ValueError)
MAX_FAILURES = 10  # consecutive demuxer failures that mean no progress
LINK = re.compile(rb"OggS\0[\x02\x06]")  # the first page of a stream


def by_preference(container: av.container.InputContainer) -> list[av.AudioStream]:
    """Return the audio tracks in the order of players' preference.

    The default track comes first, commentary and audio description last.
    """

    def rank(track: av.AudioStream) -> tuple[bool, bool]:
        further = Disposition.comment | Disposition.visual_impaired | Disposition.descriptions
        return bool(track.disposition & further), not track.disposition & Disposition.default

    return sorted(container.streams.audio, key=rank)


class Track:
    """The decoded frames of one track, without damaged packets.

    Attributes:
        broken: number of packets that could not be read or decoded.
        stopped_at: approximate byte offset at which reading failed; None: the container was read
            to its end.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.AudioStream) -> None:
        self._container = container
        self._stream = stream
        # Video then costs no time, and damage to it no audio.
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
    """The playback time of frames, relative to the container's start.

    Args:
        longest_s: the longest duration of a recording. A frame beyond it, or beyond the duration
            in the container's header, has a damaged timestamp.
    """

    def __init__(self, container: av.container.InputContainer, longest_s: float) -> None:
        start, duration = container.start_time, container.duration
        self._start_s = None if start is None else start / av.time_base
        self._longest_s = longest_s if duration is None else duration / av.time_base
        self._jumps = bool(container.format.flags & TIMES_JUMP)
        self._elapsed_s = 0.0

    def gap_s(self, frame: av.AudioFrame) -> float:
        """Return the gap before the next frame in seconds, and advance past the frame."""
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
    """A file-like view of a file from an offset to its end, as PyAV reads it.

    Args:
        file: the whole file, seekable.
        begin: the offset in bytes.
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
    """Return the offset of the next link of a chained Ogg file; None: there is none.

    Args:
        position: where the search begins, within the previous link.
    """
    overlap = b""
    file.seek(position)
    while piece := file.read(1 << 20):
        if match := LINK.search(overlap + piece):
            return position - len(overlap) + match.start()
        position += len(piece)
        overlap = piece[-5:]
    return None


def silence(n_samples: int) -> Iterator[np.ndarray]:
    """Yield `n_samples` int16 zeros in pieces of bounded size."""
    while n_samples > 0:
        piece = np.zeros(min(n_samples, 1 << 20), np.int16)
        n_samples -= piece.size
        yield piece
