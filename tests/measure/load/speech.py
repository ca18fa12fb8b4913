"""What the users of load tests say: the recordings' English sentences, one after another."""

from __future__ import annotations

import random
from functools import cache

import numpy as np

from tests.support.recordings import SAMPLE_RATE, encode, utterances, wav

# Lengths of single windows, in seconds: what bots send, short ones more often.
WINDOWS_S = (2, 3, 4, 5, 6, 8, 10, 14, 20, 30)
PAUSES_S = (0.2, 0.35, 0.5, 0.8, 1.2)


@cache
def sentences() -> tuple[np.ndarray, ...]:
    """Every sentence at hand; float32, 16 kHz."""
    return tuple(samples for samples, _ in utterances())


@cache
def talk(seed: int, seconds: float) -> np.ndarray:
    """Somebody who talks for so long, with short pauses; float32, shape (n_samples,), 16 kHz."""
    dice = random.Random(seed)
    parts: list[np.ndarray] = []
    size, wanted = 0, int(seconds * SAMPLE_RATE)
    while size < wanted:
        order = list(sentences())
        dice.shuffle(order)
        for samples in order:
            pause = np.zeros(int(dice.choice(PAUSES_S) * SAMPLE_RATE), np.float32)
            parts += [samples, pause]
            size += samples.size + pause.size
    return np.concatenate(parts)[:wanted]


@cache
def window(seed: int, seconds: float) -> bytes:
    """A piece of somebody's talk as a bot sends it: 16 kHz mono s16 WAV."""
    return wav(talk(seed, seconds))


@cache
def long_file(seconds: float) -> bytes:
    """A recording as deferred jobs send it: Ogg Opus."""
    return encode(talk(0, seconds), "opus")
