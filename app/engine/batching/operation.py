"""An operation: one call on the device that one request waits for, and whose it is."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from app.engine.admission import Tier
from app.engine.cancellation import Cancellation


class Kind(IntEnum):
    """The device's calls, in the order in which waiting ones are served.

    What brings a request nearer to its end comes first, so that requests leave, and the
    encoded windows that they hold with them.
    """

    ALIGN = 0
    GENERATE = 1
    DETECT_LANGUAGE = 2
    ENCODE = 3


@dataclass(eq=False, slots=True)
class Operation:
    """One call, from the request's thread that waits for it to the device's that makes it.

    The request's thread creates it and waits; the device's thread finishes or fails it, once.

    Attributes:
        kind: which call.
        key: operations of one kind and one key may share a call.
        payload: what is this operation's own in a shared call.
        shared: what is the same for all of a call's members: the key, in the call's own form.
        tier: how urgent its request is.
        cancellation: when its request's client has left, it is dropped.
        arrived: seconds of the device's clock.
    """

    kind: Kind
    key: Hashable
    payload: Any
    shared: Any
    tier: Tier
    cancellation: Cancellation
    arrived: float
    _done: threading.Event = field(default_factory=threading.Event)
    _result: Any = None
    _error: BaseException | None = None

    def finish(self, result: Any) -> None:
        """Hand the result to the waiting thread."""
        self._result = result
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Have the waiting thread raise the error."""
        self._error = error
        self._done.set()

    def wait(self) -> Any:
        """The result; raises what the call raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result
