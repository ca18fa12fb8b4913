"""Admit requests to the slots of one worker.

Requests queue in the balancer, which should never send a worker more requests than it has slots.
While servers change state, HAProxy 2.6 was observed to send one more, and to retry it a dozen times
in a row as it was refused. So a few requests may wait here for a slot; any further one is refused.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from app.config import Config
from app.engine.cancellation import Cancellation
from app.errors import Busy, Draining, NotReady, Unavailable


class ServiceState(Enum):
    """State of the worker that decides whether requests get slots."""

    LOADING = "loading"  # requests wait for the model
    OPEN = "open"
    BROKEN = "broken"  # the model could not be loaded, or the device failed
    DRAINING = "draining"  # admitted requests finish, new ones are refused


PLACES = 4  # in the queue for a slot


class Admission:
    """Slots of one worker, granted in order of arrival.

    Request threads call `slot`; the engine's own threads call `open`, `fail` and `drain`. The
    lock guards every field; no thread holds it while waiting.

    Args:
        slots: number of requests that may hold a slot at once.
        wait_s: queue timeout, for the model and for a slot each.
    """

    def __init__(self, slots: int, wait_s: float) -> None:
        self._slots = slots
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._opened = ServiceState.LOADING
        self._draining = False
        self._reason = ""
        self._inside = 0
        self._waiting: set[threading.Event] = set()  # requests that wait for the model
        self._queue: deque[object] = deque()  # requests that wait for a slot
        self._freed = threading.Condition(self._lock)  # notified when a slot is released

    @classmethod
    def of(cls, config: Config) -> Admission:
        """Return the admission that the settings describe."""
        return cls(config.slots, config.queue_timeout_s)

    @property
    def state(self) -> ServiceState:
        """Return the current state."""
        return ServiceState.DRAINING if self._draining else self._opened

    @property
    def inside(self) -> int:
        """Return the number of slots in use."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait for the model or for a slot."""
        return len(self._waiting) + len(self._queue)

    @contextmanager
    def slot(self, cancellation: Cancellation) -> Iterator[None]:
        """Hold a slot for the duration of the block.

        Raises:
            Busy, Draining, NotReady: no slot is available for this request.
            ClientDisconnected: the client disconnected during the wait.
        """
        cancellation.check()
        self._await_model(cancellation)
        with self._lock:
            self._take(cancellation)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                self._freed.notify_all()

    def open(self) -> None:
        """Grant slots from now on: the model is loaded."""
        self._decide(ServiceState.OPEN)

    def fail(self, reason: str) -> None:
        """Refuse waiting and new requests: the model is unavailable."""
        self._reason = reason
        self._decide(ServiceState.BROKEN)

    def drain(self, timeout_s: float) -> int:
        """Refuse new requests and wait for admitted ones; return how many are left."""
        self.close()
        with self._lock:
            self._freed.wait_for(lambda: self._inside == 0, timeout_s)
            return self._inside

    def close(self) -> None:
        """Refuse new requests from now on, without waiting for admitted ones.

        Called in a signal handler, which may interrupt any method of this class. So it takes no
        lock; a single assignment needs none.
        """
        self._draining = True

    def _decide(self, state: ServiceState) -> None:
        with self._lock:
            self._opened = state
            for event in self._waiting:
                event.set()

    def _await_model(self, cancellation: Cancellation) -> None:
        """Wait until loading has succeeded or failed, or until the queue timeout."""
        loaded = threading.Event()
        with self._lock:
            if self.state is not ServiceState.LOADING:
                return
            self._waiting.add(loaded)
        cancellation.wake(loaded.set)
        loaded.wait(self._wait_s)
        cancellation.wake(None)
        with self._lock:
            self._waiting.discard(loaded)
        cancellation.check()

    def _take(self, cancellation: Cancellation) -> None:
        """Take a slot in order of arrival; the caller holds the lock, waiting releases it."""
        if self.state is not ServiceState.OPEN:
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
            if not cancellation.wait_for(self._freed, turn, self._wait_s):
                raise Busy("No slot became free in time. Send the request again.")
        finally:
            self._queue.remove(ticket)
            self._freed.notify_all()

    def _refusal(self) -> Unavailable:
        match self.state:
            case ServiceState.DRAINING:
                return Draining("This worker is stopping. Send the request again.")
            case ServiceState.LOADING:
                return NotReady("The model is still loading. Send the request again.")
            case _:
                return NotReady(self._reason)
