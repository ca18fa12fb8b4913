"""Limit the size and the audio duration of uploads."""

from __future__ import annotations

from dataclasses import dataclass

from app.config import Config
from app.errors import TooLarge

SAMPLE_RATE = 16_000  # Hz; Whisper was trained on this rate


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one request, enforced while its body is read and its audio decoded."""

    upload_bytes: int
    duration_s: float

    @classmethod
    def of(cls, config: Config) -> Limits:
        """Return the limits from the settings."""
        return cls(config.max_upload_bytes, config.max_audio_duration_s)

    def check_bytes(self, n_bytes: int) -> None:
        """Raise `TooLarge` when a body of this size exceeds the limit."""
        if n_bytes > self.upload_bytes:
            raise TooLarge(
                f"The upload is larger than {self.upload_bytes} bytes, the largest accepted.",
                param="file",
            )

    def check_samples(self, n_samples: int) -> None:
        """Raise `TooLarge` when this many 16 kHz samples exceed the limit."""
        if n_samples > self.samples:
            raise self.too_long()

    def too_long(self) -> TooLarge:
        """Return the error for audio that exceeds the limit."""
        return TooLarge(
            f"The audio is longer than {self.duration_s:g} s, the longest accepted.", param="file"
        )

    @property
    def samples(self) -> int:
        """Return the maximum number of 16 kHz samples in a recording."""
        return int(self.duration_s * SAMPLE_RATE)
