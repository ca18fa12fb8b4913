"""Run the device threads: take the next batch, make one call, distribute the results."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.batching.batch_limit import BatchLimit
from app.engine.batching.operation import Kind, Operation
from app.engine.batching.schedule import is_deferred_turn, next_batch, next_turn
from app.engine.job import Tier
from app.errors import ClientDisconnected
from app.observability import metrics

logger = logging.getLogger(__name__)

# Text in CTranslate2's messages that shows a failure of the device itself, not of its input.
BROKEN_DEVICE = ("CUDA", "cuda", "CUBLAS", "cuBLAS")
# Text in CTranslate2's messages: the second when too little memory is left for CUDA to report it,
# the third when cuBLAS cannot allocate its own.
OUT_OF_MEMORY = ("out of memory", "cudaErrorInvalidDevice", "CUBLAS_STATUS_ALLOC_FAILED")
# Seconds before each retry of a single window that ran out of memory: concurrent calls end and free
# theirs, and fragmented memory may become contiguous.
ROOM_AFTER_S = (0.25, 1.0)

# A realtime request submits its next operation within a few milliseconds of a call; deferred work
# waits that long for it. Otherwise each call of a window could wait for a call of a long file.
COURTESY_S = 0.01

Call = Callable[[Sequence[Operation]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Running:
    """Call in progress: its start, by `time.monotonic()`, and what it may share."""

    began: float
    kind_and_key: tuple[Kind, Hashable]


class Device:
    """Threads that run operations and batch those of concurrent requests.

    Request threads call `run` and wait in it. The device threads, one for each concurrent call,
    wait on the condition until there is an operation. The condition's lock guards the waiting
    list, the batch limits, the calls in progress and the times of each tier's last call; no
    thread holds it during a call.

    Args:
        calls: for each kind, the function that makes one call for a batch of operations and
            returns a result for each, in order.
        threads: number of concurrent calls.
        max_batch: the most operations of one call.
        gathering: while a call is in progress, operations with its kind and key wait for the next
            one; so on a GPU other threads make only calls that batching could not save.
    """

    def __init__(
        self, calls: Mapping[Kind, Call], threads: int, max_batch: int, gathering: bool = False
    ) -> None:
        self._calls = calls
        self._limits = {kind: BatchLimit(max_batch) for kind in calls}
        self._waiting: list[Operation] = []
        self._work = threading.Condition()
        self._gathering = gathering
        self._running: dict[int, Running] = {}  # calls in progress, by thread number
        self._deferred_turn = float("-inf")  # time from which deferred work goes first
        self._realtime_served = float("-inf")  # end of the last realtime call
        self._failures = 0  # consecutive device failures
        for number in range(threads):
            threading.Thread(
                target=self._serve, args=(number,), name=f"device-{number}", daemon=True
            ).start()

    def run(self, operation: Operation) -> Any:
        """Run an operation and return its result; called on the request's thread.

        Raises: see `run_together`.
        """
        return self.run_together([operation])[0]

    def run_together(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations enqueued at the same moment, so that they share calls.

        Raises:
            ClientDisconnected: the client disconnected before the call.
            Exception: the exception that the call raised.
        """
        with self._work:
            self._waiting += operations
            self._work.notify(len(operations))
        return [operation.wait() for operation in operations]

    def largest_batch(self, kind: Kind) -> int:
        """Return the most operations of one call, as memory allows."""
        return self._limits[kind].now

    def settle(self, kind: Kind, most: int) -> None:
        """Never put more operations into one call, whatever memory is free later."""
        with self._work:
            self._limits[kind].settle(most)

    @property
    def failures(self) -> int:
        """Return the number of consecutive device failures; any other result resets it to 0."""
        return self._failures

    def longest_call_s(self) -> float:
        """Return how long the oldest call in progress has been running; 0 if there is none."""
        with self._work:
            now = time.monotonic()
            return now - min((call.began for call in self._running.values()), default=now)

    def _serve(self, number: int) -> None:
        while True:
            batch = self._take(number)
            self._call(batch)
            with self._work:
                now = time.monotonic()
                began = self._running.pop(number).began
                seconds = now - began
                if batch[0].tier is Tier.REALTIME:
                    self._realtime_served = now
                else:
                    self._deferred_turn = next_turn(began, now)
            metrics.DEVICE_BUSY_SECONDS.inc(seconds)
            metrics.DEVICE_CALL_SECONDS.labels(batch[0].kind.name.lower()).observe(seconds)

    def _take(self, number: int) -> list[Operation]:
        """Wait for operations and take the next batch."""
        with self._work:
            while True:
                self._drop_cancelled()
                now = time.monotonic()
                turn = is_deferred_turn(self._waiting, now, self._deferred_turn)
                batch = next_batch(self._waiting, self._sizes(now), turn, self._gathered())
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
                    self._running[number] = Running(now, (batch[0].kind, batch[0].key))
                    if self._gathering:
                        self._work.notify()  # operations held back until now may start
                    return batch
                self._work.wait()

    def _sizes(self, now: float) -> dict[Kind, int]:
        """Return the most operations of one call of each kind."""
        for kind, limit in self._limits.items():
            if limit.grow(now):
                logger.info("batch grows again kind=%s limit=%d", kind.name.lower(), limit.now)
        return {kind: limit.now for kind, limit in self._limits.items()}

    def _gathered(self) -> list[tuple[Kind, Hashable]]:
        """Return kind and key of running calls, whose like wait; empty unless gathering."""
        return [call.kind_and_key for call in self._running.values()] if self._gathering else []

    def _drop_cancelled(self) -> None:
        """Fail the operations of cancelled requests, so that they take no place in a batch."""
        kept = []
        for operation in self._waiting:
            if operation.cancellation.cancelled:
                metrics.DROPPED_OPERATIONS.inc()
                operation.fail(ClientDisconnected("The client closed the connection."))
            else:
                kept.append(operation)
        self._waiting = kept

    def _call(self, batch: Sequence[Operation]) -> None:
        """Make one call; fail all its operations on error, halve the batch if out of memory."""
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
        """Return the call's results; retry a single window that runs out of memory."""
        call = self._calls[batch[0].kind]
        for seconds in ROOM_AFTER_S if len(batch) == 1 else ():
            try:
                return call(batch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                metrics.OUT_OF_MEMORY.inc()
                logger.warning("out of memory windows=1 retry_in_s=%g", seconds)
            time.sleep(seconds)
        return call(batch)

    def _halve(self, batch: Sequence[Operation]) -> None:
        """Split the call in two, and limit later calls of its kind to half for a while."""
        half = len(batch) // 2
        with self._work:
            limit = self._limits[batch[0].kind].halve(len(batch), time.monotonic())
        metrics.OUT_OF_MEMORY.inc()
        logger.warning("out of memory windows=%d new_limit=%d", len(batch), limit)
        self._call(batch[:half])
        self._call(batch[half:])


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a call ran out of the device's memory."""
    return any(text in str(error) for text in OUT_OF_MEMORY)


def is_device_failure(error: Exception) -> bool:
    """Return whether the device itself failed, not its input."""
    return any(text in str(error) for text in BROKEN_DEVICE + OUT_OF_MEMORY)
