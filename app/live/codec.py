"""Decode the audio that a client sends, piece by piece, to 16-bit samples at 16 kHz."""

from __future__ import annotations

import av
import numpy as np

from app.audio.limits import SAMPLE_RATE
from app.live.options import AudioFormat


def mu_law() -> np.ndarray:
    """Return the 256 samples of G.711 mu-law: int16, shape (256,).

    Source: ITU-T G.711 (1988), table 2.
    """
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 15).astype(np.int32) << 3) + 132 << (code >> 4 & 7)) - 132
    return np.where(code & 128, -magnitude, magnitude).astype(np.int16)


def a_law() -> np.ndarray:
    """Return the 256 samples of G.711 A-law: int16, shape (256,).

    Source: ITU-T G.711 (1988), table 1.
    """
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    exponent = (code >> 4 & 7).astype(np.int32)
    mantissa = (code & 15).astype(np.int32) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, mantissa + 264 << np.maximum(exponent, 1) - 1)
    return np.where(code & 128, magnitude, -magnitude).astype(np.int16)


TABLES = {"audio/pcmu": mu_law(), "audio/pcma": a_law()}


class Codec:
    """Decoder of one session's audio; keeps the resampler's state between pieces.

    Args:
        form: the encoding; another one needs another decoder.
    """

    def __init__(self, form: AudioFormat) -> None:
        self._form = form
        self._odd = b""  # half a sample, if a piece ended within one
        self._resampler: av.AudioResampler | None = None
        if form.rate != SAMPLE_RATE:
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)

    def decode(self, piece: bytes) -> np.ndarray:
        """Return a piece's samples: int16, shape (n_samples,), 16 kHz."""
        samples = self._samples(piece)
        if self._resampler is None or not samples.size:
            return samples
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "mono")
        frame.sample_rate = self._form.rate
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate(parts) if parts else np.empty(0, np.int16)

    def _samples(self, piece: bytes) -> np.ndarray:
        if self._form.kind != "audio/pcm":
            return TABLES[self._form.kind][np.frombuffer(piece, np.uint8)]
        piece = self._odd + piece
        whole = len(piece) & ~1
        self._odd = piece[whole:]
        return np.frombuffer(piece[:whole], "<i2").astype(np.int16, copy=False)
