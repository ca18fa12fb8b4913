"""Define a job: one transcription to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from app.engine.cancellation import Cancellation
from app.engine.options import DecodeOptions


class Tier(Enum):
    """Priority of a request; members are listed in the order of service."""

    REALTIME = "realtime"
    DEFERRED = "deferred"


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """Transcription to do.

    Attributes:
        waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
        options: the request's decoding options.
        tier: priority of the job's calls.
        cancellation: checked before every call; a cancelled job stops there.
    """

    waveform: np.ndarray
    options: DecodeOptions
    tier: Tier = Tier.REALTIME
    cancellation: Cancellation = field(default_factory=Cancellation)
