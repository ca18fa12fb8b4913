"""Run work on threads of its own while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self


class Background:
    """Base of a context manager that samples, or sends requests, until its block ends.

    Each loop of `_loops` runs on a thread and returns soon after `_stop` is set. The end of the
    block waits for all of them and raises what one of them raised.
    """

    _stop: threading.Event

    def _loops(self) -> Sequence[Callable[[], None]]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        loops = self._loops()
        self._pool = ThreadPoolExecutor(len(loops))
        self._running = [self._pool.submit(loop) for loop in loops]
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        if kind is None:
            for loop in self._running:
                loop.result()
