"""Who may decode now: the slots of one worker.

Requests wait in the balancer, which sends a worker no more than it has slots: nearly. While servers
change their state HAProxy 2.6 was seen to send one more, a dozen times in a row as it was refused.
So a few requests may wait here for a slot; everyone else is refused.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from app.config import Config
from app.engine.cancellation import Cancellation
from app.errors import Busy, Draining, NotReady, Unavailable


class Tier(Enum):
    """How urgent a request is; the order is the order of service."""

    REALTIME = "realtime"
    DEFERRED = "deferred"


class ServiceState(Enum):
    """Whether slots are given out."""

    LOADING = "loading"  # requests wait: soon there will be slots
    OPEN = "open"
    BROKEN = "broken"  # there never will be
    DRAINING = "draining"  # what is inside is finished, nothing new comes in


PLACES = 4  # for those that wait
LOOK_EVERY_S = 0.2  # for a client that leaves while it waits


class Admission:
    """Gives out the slots of one worker.

    Request threads call `slot`; the engine's own threads call `open`, `fail` and `drain`. The
    lock guards every field; nobody waits while holding it.

    Args:
        slots: requests inside at once.
        wait_s: the longest that a request waits, for the model or for a slot.
    """

    def __init__(self, slots: int, wait_s: float) -> None:
        self._slots = slots
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._opened = ServiceState.LOADING
        self._draining = False
        self._reason = ""
        self._inside = 0
        self._waiting: set[threading.Event] = set()  # for the model
        self._queue: deque[object] = deque()  # for a slot
        self._freed = threading.Condition(self._lock)  # notified when one leaves

    @classmethod
    def of(cls, config: Config) -> Admission:
        """The admission the settings describe."""
        return cls(config.slots, config.queue_timeout_s)

    @property
    def house(self) -> ServiceState:
        """Whether slots are given out now."""
        return ServiceState.DRAINING if self._draining else self._opened

    @property
    def inside(self) -> int:
        """Slots in use."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Requests that wait, for the model or for a slot."""
        return len(self._waiting) + len(self._queue)

    @contextmanager
    def slot(self, cancellation: Cancellation) -> Iterator[float]:
        """Hold a slot for the length of the block; yields the seconds waited for it.

        Raises:
            Busy, Draining, NotReady: there is no slot for this request.
            ClientDisconnected: the client left while it waited.
        """
        began = time.monotonic()
        cancellation.check()
        self._await_model(cancellation)
        with self._lock:
            self._take(cancellation)
        try:
            yield time.monotonic() - began
        finally:
            with self._lock:
                self._inside -= 1
                self._freed.notify_all()

    def open(self) -> None:
        """The model is ready."""
        self._decide(ServiceState.OPEN)

    def fail(self, reason: str) -> None:
        """There will be no model: refuse the waiting and everyone after them."""
        self._reason = reason
        self._decide(ServiceState.BROKEN)

    def drain(self, timeout_s: float) -> int:
        """Refuse newcomers and wait for those inside; returns how many are left."""
        self.close()
        with self._lock:
            self._freed.wait_for(lambda: self._inside == 0, timeout_s)
            return self._inside

    def close(self) -> None:
        """Refuse newcomers from now on, without waiting for anyone.

        Called in a signal handler, which may run inside any of the methods here: it takes no
        lock, and one assignment needs none.
        """
        self._draining = True

    def _decide(self, house: ServiceState) -> None:
        with self._lock:
            self._opened = house
            for waiting in self._waiting:
                waiting.set()

    def _await_model(self, cancellation: Cancellation) -> None:
        """Return when it is known whether there will be a model, or when the time is up."""
        called = threading.Event()
        with self._lock:
            if self.house is not ServiceState.LOADING:
                return
            self._waiting.add(called)
        cancellation.wake(called.set)
        called.wait(self._wait_s)
        cancellation.wake(None)
        with self._lock:
            self._waiting.discard(called)
        cancellation.check()

    def _take(self, cancellation: Cancellation) -> None:
        """Take a slot, first come first served; the lock is held, but for the waiting."""
        if self.house is not ServiceState.OPEN:
            raise self._refusal()
        if self._inside >= self._slots or self._queue:
            if len(self._queue) >= PLACES:
                raise Busy("All slots are busy. Send the request again.")
            self._await_turn(cancellation)
        self._inside += 1

    def _await_turn(self, cancellation: Cancellation) -> None:
        ticket = object()
        self._queue.append(ticket)

        def turn() -> bool:
            return self._queue[0] is ticket and self._inside < self._slots

        try:
            left_s = self._wait_s
            while not self._freed.wait_for(turn, min(LOOK_EVERY_S, left_s)):
                cancellation.check()
                left_s -= LOOK_EVERY_S
                if left_s <= 0:
                    raise Busy("No slot became free in time. Send the request again.")
        finally:
            self._queue.remove(ticket)
            self._freed.notify_all()

    def _refusal(self) -> Unavailable:
        match self.house:
            case ServiceState.DRAINING:
                return Draining("This worker is stopping. Send the request again.")
            case ServiceState.LOADING:
                return NotReady("The model is still loading. Send the request again.")
            case _:
                return NotReady(self._reason)
