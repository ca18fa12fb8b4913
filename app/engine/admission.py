"""Who may decode now: slots, tiers and the waiting room.

A request takes a slot before any of its audio is decoded, so refusing costs one comparison.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from app.config import Config
from app.engine.cancellation import Cancellation
from app.errors import Busy, DeadlinePassed, Draining, NotReady, Unavailable


class Tier(Enum):
    """How urgent a request is; the order is the order of service."""

    REALTIME = "realtime"
    DEFERRED = "deferred"


class House(Enum):
    """Whether slots are given out."""

    LOADING = "loading"  # requests wait: soon there will be slots
    OPEN = "open"
    BROKEN = "broken"  # there never will be
    DRAINING = "draining"  # what is inside is finished, nothing new comes in


@dataclass(eq=False)
class Ticket:
    """A request in the waiting room; `granted` changes only under the admission's lock."""

    tier: Tier
    # Set when there is something to look at: a slot, the client's leaving, a closed house.
    called: threading.Event = field(default_factory=threading.Event)
    reserve: bool = True
    granted: bool = False
    refused: Unavailable | None = None


class Admission:
    """Gives out the slots of one worker.

    Request threads call `slot`; the engine's own threads call `open`, `fail` and `drain`. The
    lock guards every field; nobody waits while holding it. A waiter waits on its own ticket,
    and whoever frees a slot hands it to the next ticket in order, so no slot is raced for.

    Args:
        slots: requests inside at once.
        deferred_slots: of these, how many deferred requests may hold.
        waiting_room: requests that may wait; counted over both tiers.
        fail_fast: refuse at once while every slot is taken. A request that comes while the
            model loads waits all the same.
        wait_s: the longest wait.
    """

    def __init__(
        self, slots: int, deferred_slots: int, waiting_room: int, fail_fast: bool, wait_s: float
    ) -> None:
        self._limits = {Tier.REALTIME: slots, Tier.DEFERRED: deferred_slots}
        self._slots = slots
        self._waiting_room = waiting_room
        self._fail_fast = fail_fast
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._opened = House.LOADING
        self._draining = False
        self._reason = ""
        self._inside = dict.fromkeys(Tier, 0)
        self._waiting: dict[Tier, deque[Ticket]] = {tier: deque() for tier in Tier}
        self._empty = threading.Condition(self._lock)  # notified when the last one leaves

    @classmethod
    def of(cls, config: Config) -> Admission:
        """The admission the settings describe."""
        return cls(
            config.slots,
            config.deferred_slots,
            config.max_queue_size,
            config.fail_fast_when_busy,
            config.queue_timeout_s,
        )

    @property
    def house(self) -> House:
        """Whether slots are given out now."""
        return House.DRAINING if self._draining else self._opened

    @property
    def inside(self) -> int:
        """Slots in use."""
        return sum(self._inside.values())

    @property
    def outside(self) -> int:
        """Requests in the waiting room."""
        return sum(map(len, self._waiting.values()))

    @contextmanager
    def slot(self, tier: Tier, cancellation: Cancellation, reserve: bool = True) -> Iterator[float]:
        """Hold a slot for the length of the block; yields the seconds waited for it.

        Args:
            reserve: a deferred request leaves the reserved slots free; false: the balancer,
                which sees the whole pool, has seen to that.

        Raises:
            Busy, DeadlinePassed, Draining, NotReady: there is no slot for this request.
            ClientGone: the client left while it waited.
        """
        began = time.monotonic()
        self._enter(Ticket(tier, reserve=reserve), cancellation)
        try:
            yield time.monotonic() - began
        finally:
            with self._lock:
                self._leave(tier)

    def open(self) -> None:
        """The model is ready: let the waiting in."""
        with self._lock:
            self._opened = House.OPEN
            self._call_next()

    def fail(self, reason: str) -> None:
        """There will be no model: refuse the waiting and everyone after them."""
        with self._lock:
            self._opened, self._reason = House.BROKEN, reason
            for waiting in self._waiting.values():
                while waiting:
                    ticket = waiting.popleft()
                    ticket.refused = self._refusal()
                    ticket.called.set()

    def drain(self, timeout_s: float) -> int:
        """Refuse newcomers and wait for those inside or waiting; returns how many are left."""
        self.close()
        with self._lock:
            self._empty.wait_for(lambda: self._present() == 0, timeout_s)
            return self._present()

    def close(self) -> None:
        """Refuse newcomers from now on, without waiting for anyone.

        Called in a signal handler, which may run inside any of the methods here: it takes no
        lock, and one assignment needs none.
        """
        self._draining = True

    def _enter(self, ticket: Ticket, cancellation: Cancellation) -> None:
        """Return when the slot is taken; raise when there is none to be had."""
        cancellation.check()
        with self._lock:
            if self.house in (House.BROKEN, House.DRAINING):
                raise self._refusal()
            waiting = self._waiting[ticket.tier]
            if self.house is House.OPEN and self._free(ticket) and not waiting:
                self._inside[ticket.tier] += 1
                return
            full = self.outside >= self._waiting_room
            if full or (self._fail_fast and self.house is House.OPEN):
                raise Busy("All slots are busy. Send the request again.")
            waiting.append(ticket)
        self._await(ticket, cancellation)

    def _await(self, ticket: Ticket, cancellation: Cancellation) -> None:
        """Wait to be called; leave no ticket and no slot behind when it ends otherwise."""
        cancellation.wake(ticket.called.set)
        ticket.called.wait(self._wait_s)
        cancellation.wake(None)
        with self._lock:
            if ticket.refused is not None:
                raise ticket.refused
            if ticket.granted:
                if cancellation.cancelled:
                    self._leave(ticket.tier)
                    cancellation.check()
                return
            self._waiting[ticket.tier].remove(ticket)
            self._empty.notify_all()
            cancellation.check()
            if self._opened is House.LOADING:
                raise NotReady("The model is still loading. Send the request again.")
            raise DeadlinePassed("No slot became free in time. Send the request again.")

    def _leave(self, tier: Tier) -> None:
        self._inside[tier] -= 1
        self._call_next()
        self._empty.notify_all()

    def _call_next(self) -> None:
        """Hand free slots to the waiting, realtime first, first come first served."""
        for tier in Tier:
            waiting = self._waiting[tier]
            while waiting and self._free(waiting[0]):
                ticket = waiting.popleft()
                ticket.granted = True
                self._inside[tier] += 1
                ticket.called.set()

    def _free(self, ticket: Ticket) -> bool:
        """Whether this request may come in now."""
        limit = self._limits[ticket.tier] if ticket.reserve else self._slots
        return self.inside < self._slots and self._inside[ticket.tier] < limit

    def _present(self) -> int:
        return self.inside + self.outside

    def _refusal(self) -> Unavailable:
        if self.house is House.DRAINING:
            return Draining("This worker is stopping. Send the request again.")
        return NotReady(self._reason)
