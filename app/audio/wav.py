"""The direct path for the commonest upload: 16 kHz mono 16-bit PCM in a WAV file.

Such samples need a change of type and nothing else; a general decoder costs 30 ms for them.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from app.audio.limits import SAMPLE_RATE, Limits

PCM = 1
EXTENSIBLE = 0xFFFE
# The rest of the GUID that says a WAVE_FORMAT_EXTENSIBLE file holds PCM after all.
PCM_GUID = b"\x01\x00\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
# Sizes that writers of streams leave in the header: the samples go on to the end of the file.
UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF)
MAX_CHUNKS = 64  # before the samples; a real file has a handful


def read_plain_wav(file: BinaryIO, limits: Limits) -> np.ndarray | None:
    """Read the samples of a 16 kHz mono 16-bit WAV file.

    A header that promises more than the file holds is read as far as the file goes; a data
    size of 0 with samples behind it is a stream's header and is read to the end.

    Args:
        file: positioned anywhere; left anywhere.
        limits: the audio-duration limit, applied before the samples are read.

    Returns:
        float32 in [-1, 1), shape (n_samples,), the same numbers the general decoder gives;
        None when the file is anything else.

    Raises:
        TooLarge: the audio is longer than the limit.

    Source: Microsoft, Multimedia Programming Interface and Data Specifications 1.0 (1991).
    """
    file.seek(0)
    riff = file.read(12)
    if len(riff) < 12 or riff[:4] != b"RIFF" or riff[8:] != b"WAVE":
        return None
    plain = False
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return None
        kind, size = head[:4], struct.unpack("<I", head[4:])[0]
        if kind == b"data":
            return _samples(file, size, limits) if plain else None
        if kind == b"fmt ":
            plain = _is_plain(file.read(min(size, 64)))
            file.seek(max(0, size - 64) + size % 2, 1)
        else:
            file.seek(size + size % 2, 1)
    return None


def _is_plain(form: bytes) -> bool:
    """Whether a `fmt ` chunk says 16 kHz, one channel, 16-bit PCM."""
    if len(form) < 16:
        return False
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", form[:16])
    if tag == EXTENSIBLE:
        tag = PCM if form[24:40] == PCM_GUID else tag
    return bool((tag, channels, rate, block, bits) == (PCM, 1, SAMPLE_RATE, 2, 16))


def _samples(file: BinaryIO, size: int, limits: Limits) -> np.ndarray:
    """The samples from here on, `size` bytes of them or as many as there are."""
    start = file.tell()
    here = file.seek(0, 2) - start
    n_bytes = here if size in UNKNOWN_SIZES else min(size, here)
    limits.check_samples(n_bytes // 2)
    file.seek(start)
    raw = file.read(n_bytes - n_bytes % 2)
    return to_float([np.frombuffer(raw, dtype="<i2")])


def to_float(parts: list[np.ndarray]) -> np.ndarray:
    """16-bit samples as one waveform, float32 in [-1, 1).

    It may be hours, so each part is given up as soon as it is copied; the list is empty then.
    """
    waveform = np.empty(sum(part.size for part in parts), dtype=np.float32)
    begin = 0
    parts.reverse()
    while parts:
        part = parts.pop()
        waveform[begin : begin + part.size] = part
        begin += part.size
    waveform *= 1 / 32768  # a power of two: exact
    return waveform
