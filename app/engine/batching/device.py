"""The threads that own the device: take the next batch, make one call, hand out the parts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from app.engine.admission import Tier
from app.engine.batching.operation import Kind, Operation
from app.engine.batching.schedule import is_deferred_turn, next_batch, next_turn
from app.errors import ClientDisconnected
from app.observability import metrics

logger = logging.getLogger(__name__)

# What CTranslate2's messages hold when the device itself failed, not what it was given.
BROKEN_DEVICE = ("CUDA", "cuda", "CUBLAS", "cuBLAS")
# How CTranslate2 spells it; the second when so little memory is left that CUDA cannot say so, the
# third when cuBLAS finds none for itself.
OUT_OF_MEMORY = ("out of memory", "cudaErrorInvalidDevice", "CUBLAS_STATUS_ALLOC_FAILED")
# One window that has no room is tried again: the calls beside it end and give their memory back,
# and what was in pieces may be whole. Seconds before each try.
ROOM_AFTER_S = (0.25, 1.0)

# A realtime request whose call has ended asks for its next one within a few milliseconds; deferred
# work lets it go first. Else each of a window's calls could wait for one of a long file's.
COURTESY_S = 0.01

Call = Callable[[Sequence[Operation]], Sequence[Any]]


class Device:
    """Runs operations, sharing calls between requests.

    Request threads call `run` and wait in it. The device's own threads, one for each call the
    device makes at a time, sleep on the condition until something waits. The lock behind it
    guards the waiting list, the batch limits, the calls in progress and when each tier had one;
    it is never held during a call.

    Args:
        calls: for each kind, the function that makes one call for a batch of operations and
            returns a result for each, in order.
        threads: calls at a time.
        max_batch: the most operations of one call.
        gathering: while a call is in progress, operations that could have shared it wait for the
            next one; so on a GPU other threads make only calls that no batch would have saved.
    """

    def __init__(
        self, calls: Mapping[Kind, Call], threads: int, max_batch: int, gathering: bool = False
    ) -> None:
        self._calls = calls
        self._max_batch = dict.fromkeys(calls, max_batch)
        self._waiting: list[Operation] = []
        self._work = threading.Condition()
        self._gathering = gathering
        self._began: dict[int, float] = {}  # calls in progress: thread number to its start
        self._in_progress: dict[int, tuple[Kind, Hashable]] = {}  # the same: what they call
        self._deferred_turn = float("-inf")  # from when on deferred work goes first
        self._realtime_served = float("-inf")  # when its last call ended
        self._failures = 0  # calls in a row in which the device failed
        for number in range(threads):
            threading.Thread(
                target=self._serve, args=(number,), name=f"device-{number}", daemon=True
            ).start()

    def run(self, operation: Operation) -> Any:
        """Have the operation done and return its result; called on the request's thread.

        Raises: see `run_together`.
        """
        return self.run_together([operation])[0]

    def run_together(self, operations: Sequence[Operation]) -> list[Any]:
        """Have operations done that wait from the same moment on, so that they share calls.

        Raises:
            ClientDisconnected: its client left before its call was made.
            Exception: what the call raised.
        """
        with self._work:
            self._waiting += operations
            self._work.notify(len(operations))
        return [operation.wait() for operation in operations]

    def largest_batch(self, kind: Kind) -> int:
        """The most operations of one call, as memory allows."""
        return self._max_batch[kind]

    @property
    def failures(self) -> int:
        """Calls in a row in which the device failed; 0 after one in which it did not."""
        return self._failures

    def longest_call_s(self) -> float:
        """How long the oldest call in progress has been running; 0: none is."""
        with self._work:
            now = time.monotonic()
            return now - min(self._began.values(), default=now)

    def _serve(self, number: int) -> None:
        while True:
            batch = self._take(number)
            self._call(batch)
            with self._work:
                now = time.monotonic()
                began = self._began.pop(number)
                seconds = now - began
                if batch[0].tier is Tier.REALTIME:
                    self._realtime_served = now
                else:
                    self._deferred_turn = next_turn(began, now)
                self._in_progress.pop(number, None)
            metrics.DEVICE_BUSY_SECONDS.inc(seconds)
            metrics.DEVICE_CALL_SECONDS.labels(batch[0].kind.name.lower()).observe(seconds)

    def _take(self, number: int) -> list[Operation]:
        """Wait for work and take the next batch."""
        with self._work:
            while True:
                self._drop_cancelled()
                now = time.monotonic()
                turn = is_deferred_turn(self._waiting, now, self._deferred_turn)
                batch = next_batch(self._waiting, self._max_batch, turn, self._in_progress.values())
                if batch and batch[0].tier is Tier.DEFERRED:
                    courtesy = self._realtime_served + COURTESY_S - now
                    if courtesy > 0 and not turn:
                        self._work.wait(courtesy)
                        continue
                    self._deferred_turn = float("inf")  # until this call has ended
                if batch:
                    for operation in batch:
                        self._waiting.remove(operation)
                        metrics.OPERATION_WAIT_SECONDS.labels(operation.kind.name.lower()).observe(
                            now - operation.arrived
                        )
                    self._began[number] = now
                    if self._gathering:
                        self._in_progress[number] = batch[0].kind, batch[0].key
                        self._work.notify()  # what waited for the call before may go elsewhere
                    return batch
                self._work.wait()

    def _drop_cancelled(self) -> None:
        """Nobody waits for these any more: they take no place in a batch."""
        kept = []
        for operation in self._waiting:
            if operation.cancellation.cancelled:
                metrics.DROPPED_OPERATIONS.inc()
                operation.fail(ClientDisconnected("The client closed the connection."))
            else:
                kept.append(operation)
        self._waiting = kept

    def _call(self, batch: Sequence[Operation]) -> None:
        """Make one call; its failure is every member's, a full memory halves the batch."""
        kind = batch[0].kind
        metrics.BATCH_SIZE.labels(kind.name.lower()).observe(len(batch))
        try:
            results = self._results(batch)
            if len(results) != len(batch):
                raise RuntimeError(
                    f"{kind.name} gave {len(results)} of {len(batch)}. This is a bug."
                )
        except Exception as error:
            if len(batch) > 1 and is_out_of_memory(error):
                self._halve(batch)
                return
            self._failures = self._failures + 1 if is_device_failure(error) else 0
            for operation in batch:
                operation.fail(error)
        else:
            self._failures = 0
            for operation, result in zip(batch, results, strict=True):
                operation.finish(result)

    def _results(self, batch: Sequence[Operation]) -> Sequence[Any]:
        """The call's results; one window that has no room is tried again."""
        call = self._calls[batch[0].kind]
        for seconds in ROOM_AFTER_S if len(batch) == 1 else ():
            try:
                return call(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                metrics.OUT_OF_MEMORY.inc()
                logger.warning("out of memory with one window; once more in %g s", seconds)
            time.sleep(seconds)
        return call(batch)

    def _halve(self, batch: Sequence[Operation]) -> None:
        """Make the call in two, and no such large one again."""
        half = len(batch) // 2
        kind = batch[0].kind
        with self._work:
            self._max_batch[kind] = min(self._max_batch[kind], half)
        metrics.OUT_OF_MEMORY.inc()
        logger.warning("out of memory with %d windows; at most %d from now on", len(batch), half)
        self._call(batch[:half])
        self._call(batch[half:])


def is_out_of_memory(error: Exception) -> bool:
    """Whether a call had no room in the device's memory."""
    return any(text in str(error) for text in OUT_OF_MEMORY)


def is_device_failure(error: Exception) -> bool:
    """Whether the device itself failed, not what it was given."""
    return any(text in str(error) for text in BROKEN_DEVICE + OUT_OF_MEMORY)
