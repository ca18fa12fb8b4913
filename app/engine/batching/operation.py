"""Define an operation: one device call that a request waits for."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from app.engine.cancellation import Cancellation
from app.engine.job import Tier


class Kind(IntEnum):
    """Kind of device call, in order of service.

    Calls closest to the end of a request come first, so that requests finish and release the
    encoded windows that they hold.
    """

    ALIGN = 0
    GENERATE = 1
    DETECT_LANGUAGE = 2
    ENCODE = 3


@dataclass(eq=False, slots=True)
class Operation:
    """Device call that one request waits for.

    The request's thread creates it and waits; a device thread finishes or fails it, once.

    Attributes:
        kind: the call to make.
        key: operations of the same kind and key may share a call.
        payload: this operation's own arguments in a shared call.
        shared: arguments common to the batch: the key in the form that the call takes.
        tier: the request's tier.
        cancellation: the request's; a cancelled operation is dropped.
        arrived: time of creation, from `time.monotonic()`.
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
        """Pass the result to the waiting thread."""
        self._result = result
        self._done.set()

    def fail(self, error: BaseException) -> None:
        """Make the waiting thread raise the error."""
        self._error = error
        self._done.set()

    def wait(self) -> Any:
        """Return the result, or raise the exception that the call raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._result
