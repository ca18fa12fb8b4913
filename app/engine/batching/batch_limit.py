"""Limit the windows of one call to what the device's memory holds."""

from __future__ import annotations

from dataclasses import dataclass

# Memory ran out because several calls, workers or other programs needed it at once, which passes.
GROW_AFTER_S = 300.0
LONGEST_S = 4 * 3600.0


@dataclass(slots=True)
class BatchLimit:
    """Most operations of one call of one kind.

    It is halved when memory runs out, and doubled again after a while. A limit that proves too
    large again is tried half as often.

    Attributes:
        most: the upper limit: the setting, or less if the trial exceeded this worker's share of the
            memory.
        now: the current limit.
    """

    most: int
    now: int = 0
    _patience_s: float = GROW_AFTER_S
    _grows_at: float = float("inf")

    def __post_init__(self) -> None:
        self.now = self.most

    def halve(self, size: int, at: float) -> int:
        """Lower the limit after a call of this size ran out of memory; return it.

        Args:
            at: the time, by `time.monotonic()`.
        """
        if size // 2 < self.now:
            self.now = max(1, size // 2)
            self._grows_at = at + self._patience_s
            self._patience_s = min(2 * self._patience_s, LONGEST_S)
        return self.now

    def grow(self, at: float) -> bool:
        """Double the limit if its time has come; return whether it has."""
        if at < self._grows_at:
            return False
        self.now = min(2 * self.now, self.most)
        self._grows_at = at + self._patience_s if self.now < self.most else float("inf")
        return True

    def settle(self, most: int) -> None:
        """Set the largest limit, to which it may grow."""
        self.most = most
        self.now = min(self.now, most)
        if self.now == most:
            self._grows_at = float("inf")
