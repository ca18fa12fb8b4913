"""Convert frames of any sample rate and channel count to 16 kHz mono."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

from app.audio.limits import SAMPLE_RATE

# FFmpeg knows the channel layouts up to this channel count; it fails for some larger ones.
MAX_PLACED = 8
# Two channels whose sum has less than this share of their energy have opposite polarity; their
# mix would be silent. The share is 1 for uncorrelated channels and 2 for equal ones.
CANCELLED = 0.1
FULL_SCALE = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63, "f4": 1.0, "f8": 1.0}


class Mixdown:
    """A resampler that restarts whenever the format of the frames changes."""

    def __init__(self) -> None:
        self._resampler: av.AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None

    def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Yield the int16 samples, shape (n_samples,), that this frame completes."""
        frame = mixable(frame)
        form = (frame.format.name, frame.layout.name, frame.rate)
        if form != self._form:
            yield from self.flush()
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            self._form = form
        assert self._resampler is not None
        yield from samples(self._resampler.resample(frame))

    def flush(self) -> Iterator[np.ndarray]:
        """Yield the samples that the resampler still buffers, then reset it."""
        if self._resampler is not None:
            yield from samples(self._resampler.resample(None))
        self._resampler = self._form = None


def samples(frames: list[av.AudioFrame]) -> Iterator[np.ndarray]:
    """Yield each frame's samples, shape (n_samples,)."""
    for frame in frames:
        yield frame.to_ndarray().reshape(-1)


def mixable(frame: av.AudioFrame) -> av.AudioFrame:
    """Return the frame, or a mono frame where FFmpeg's mix would lose the sound."""
    n_channels = frame.layout.nb_channels
    if n_channels > MAX_PLACED:
        return mono(channels(frame).mean(axis=0), frame.rate)
    if n_channels == 2:
        left_right = channels(frame)
        # einsum, because other products start threads, which the sandbox forbids.
        energies = np.einsum("ij,ij->i", left_right, left_right)
        mixed = left_right.sum(axis=0)
        if np.einsum("i,i->", mixed, mixed) < CANCELLED * energies.sum():
            return mono(left_right[int(np.argmax(energies))], frame.rate)
    return frame


def channels(frame: av.AudioFrame) -> np.ndarray:
    """Return float32 in [-1, 1], shape (n_channels, n_samples)."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    offset = 128 if values.dtype == np.uint8 else 0
    return (values.astype(np.float32) - offset) / np.float32(FULL_SCALE[values.dtype.str[1:]])


def mono(waveform: np.ndarray, rate: int) -> av.AudioFrame:
    """Return a frame with one channel."""
    planar = np.ascontiguousarray(waveform[np.newaxis])
    frame = av.AudioFrame.from_ndarray(planar, "flt", "mono")
    frame.rate = rate
    return frame
