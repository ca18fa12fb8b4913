"""How much decoded audio one worker holds at once: a second of it is 64 kB of memory.

An upload of a few MB can hold hours of audio. How much is known once it is decoded, so until then
it counts as the most that its bytes can hold.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.config import Config
from app.engine.cancellation import Cancellation
from app.errors import Busy

# Fewer bytes a second than any of them: FLAC has 48 for digital silence, WAV 1625 (GSM 06.10).
LEAST_BYTES_PER_S = 40
LEAST_WAV_BYTES_PER_S = 1000
LOOK_EVERY_S = 0.2  # for a client that leaves while it waits


class Reservation:
    """What one request holds of the budget; it belongs to the request's thread."""

    def __init__(self, budget: AudioBudget, seconds: float) -> None:
        self._budget = budget
        self.seconds = seconds

    def decoded(self, seconds: float) -> None:
        """The audio is decoded, and this long."""
        self._budget.change(self, seconds)


class AudioBudget:
    """Lets requests decode as far as there is room for their audio, first come first served.

    Request threads call `reserve`; the lock guards every field.

    Args:
        seconds: of audio at once.
        longest_s: of one request.
        wait_s: the longest that a request waits for room.
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
        """The budget the settings describe."""
        return cls(config.audio_budget_s, config.max_audio_duration_s, config.queue_timeout_s)

    @contextmanager
    def reserve(self, head: bytes, size: int, cancellation: Cancellation) -> Iterator[Reservation]:
        """Hold room for an upload's audio for the length of the block.

        Args:
            head: the upload's first bytes.
            size: all its bytes.

        Raises:
            Busy: there was no room in time.
            ClientDisconnected: the client left while it waited.
        """
        least = LEAST_WAV_BYTES_PER_S if head.startswith(b"RIFF") else LEAST_BYTES_PER_S
        reservation = Reservation(self, min(size / least, self._longest_s, self._seconds))
        self._take(reservation, cancellation)
        try:
            yield reservation
        finally:
            self.change(reservation, 0.0)

    def change(self, reservation: Reservation, seconds: float) -> None:
        """Hold so much for a request instead of what it holds now."""
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
                left_s = self._wait_s
                while not self._changed.wait_for(fits, min(LOOK_EVERY_S, left_s)):
                    cancellation.check()
                    left_s -= LOOK_EVERY_S
                    if left_s <= 0:
                        raise Busy("There is no memory for this recording now. Send it again.")
                self._held += reservation.seconds
            finally:
                self._waiting.remove(reservation)
                self._changed.notify_all()
