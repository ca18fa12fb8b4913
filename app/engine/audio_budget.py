"""Limit how much decoded audio one worker holds at once: one second takes 64 kB of memory.

An upload of a few MB can contain hours of audio. Its duration is known only after decoding; until
then the upload counts as the longest audio that fits in its bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.config import Config
from app.engine.cancellation import Cancellation
from app.errors import Busy

# Lower bounds on bytes per second: FLAC has 48 for digital silence, WAV 1625 (GSM 06.10).
LEAST_BYTES_PER_S = 40
LEAST_WAV_BYTES_PER_S = 1000


class Reservation:
    """Share of the budget that one request holds; only the request's thread uses it."""

    def __init__(self, budget: AudioBudget, seconds: float) -> None:
        self._budget = budget
        self.seconds = seconds

    def decoded(self, seconds: float) -> None:
        """Replace the estimate by the duration of the decoded audio."""
        self._budget.change(self, seconds)


class AudioBudget:
    """Budget of decoded audio, granted to requests in order of arrival.

    Request threads call `reserve`; the lock guards every field.

    Args:
        seconds: the most audio at once.
        longest_s: the most audio of one request.
        wait_s: queue timeout.
    """

    def __init__(self, seconds: float, longest_s: float, wait_s: float) -> None:
        self._seconds = seconds
        self._longest_s = longest_s
        self._wait_s = wait_s
        self._held = 0.0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @classmethod
    def of(cls, config: Config) -> AudioBudget:
        """Return the budget that the settings describe."""
        return cls(config.audio_budget_s, config.max_audio_duration_s, config.queue_timeout_s)

    @contextmanager
    def reserve(self, head: bytes, size: int, cancellation: Cancellation) -> Iterator[Reservation]:
        """Reserve budget for an upload's audio for the duration of the block.

        Args:
            head: the upload's first bytes.
            size: the upload's length in bytes.

        Raises:
            Busy: the budget stayed exhausted until the queue timeout.
            ClientDisconnected: the client disconnected during the wait.
        """
        least = LEAST_WAV_BYTES_PER_S if head.startswith(b"RIFF") else LEAST_BYTES_PER_S
        reservation = Reservation(self, min(size / least, self._longest_s, self._seconds))
        self._take(reservation, cancellation)
        try:
            yield reservation
        finally:
            self.change(reservation, 0.0)

    def change(self, reservation: Reservation, seconds: float) -> None:
        """Resize a reservation and wake the requests that wait."""
        with self._changed:
            self._held += seconds - reservation.seconds
            reservation.seconds = seconds
            self._changed.notify_all()

    def _take(self, reservation: Reservation, cancellation: Cancellation) -> None:
        def fits() -> bool:
            first = self._waiting[0] is reservation
            return first and self._held + reservation.seconds <= self._seconds

        with self._changed:
            self._waiting.append(reservation)
            try:
                if not cancellation.wait_for(self._changed, fits, self._wait_s):
                    raise Busy("There is no memory for this recording now. Send it again.")
                self._held += reservation.seconds
            finally:
                self._waiting.remove(reservation)
                self._changed.notify_all()
