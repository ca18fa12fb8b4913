"""Frames of any rate and number of channels to 16 kHz mono."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

from app.audio.limits import SAMPLE_RATE

# The library knows where the channels of up to this many are heard; it fails for some more.
MAX_PLACED = 8
# Two channels whose sum has less than this share of their energy were wired with opposite signs;
# mixed they would be silent. Of unlike sounds the share is 1, of equal ones 2.
CANCELLED = 0.1
FULL_SCALE = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63, "f4": 1.0, "f8": 1.0}


class Mixdown:
    """A resampler that begins again wherever the form of the frames changes."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None

    def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Yield int16 samples, shape (n_samples,), that are complete with this frame."""
        frame = mixable(frame)
        form = (frame.format.name, frame.layout.name, frame.rate)
        if form != self._form:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self._form = form
        assert self._resampler is not None
        yield from samples(self._resampler.resample(frame))

    def flush(self) -> Iterator[np.ndarray]:
        """Yield what the resampler still holds; the next frame begins anew."""
        if self._resampler is not None:
            yield from samples(self._resampler.resample(None))
        self._resampler = self._form = None


def samples(frames: list[av.AudioFrame]) -> Iterator[np.ndarray]:
    """Yield each frame's samples, shape (n_samples,)."""
    for frame in frames:
        yield frame.to_ndarray().reshape(-1)


def mixable(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the frame itself, or a mono one where the library's mix would lose the sound."""
    n_channels = frame.layout.nb_channels
    if n_channels > MAX_PLACED:
        mean = channels(frame).mean(axis=0, dtype=np.float32)
        return mono(mean / FULL_SCALE[frame.to_ndarray().dtype.str[1:]], "flt", frame.rate)
    if n_channels == 2:
        left_right = channels(frame)
        # einsum, because a decoder's process may start no threads, as other products do.
        energies = np.einsum("ij,ij->i", left_right, left_right)
        mixed = left_right.sum(axis=0)
        if np.einsum("i,i->", mixed, mixed) < CANCELLED * energies.sum():
            louder = left_right[int(np.argmax(energies))]
            scale = FULL_SCALE[frame.to_ndarray().dtype.str[1:]]
            return mono(louder / scale, "flt", frame.rate)
    return frame


def channels(frame: av.AudioFrame) -> np.ndarray:
    """Return float32, shape (n_channels, n_samples), in the frame's own scale."""
    found = frame.to_ndarray()
    if not frame.format.is_planar:
        found = found.reshape(-1, frame.layout.nb_channels).T
    offset = 128 if found.dtype == np.uint8 else 0
    return found.astype(np.float32) - offset


def mono(waveform: np.ndarray, format: str, rate: int) -> av.AudioFrame:
    """Return a frame of one channel."""
    frame = av.AudioFrame.from_ndarray(waveform.reshape(1, -1).astype(np.float32), format, "mono")
    frame.rate = rate
    return frame
