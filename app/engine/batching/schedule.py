"""Choose the operations of the next call: a pure rule, without threads or a clock.

There is no batching timer: operations that arrive while the device is busy form the next batch. An
idle service adds no latency, a busy one batches without waiting.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import islice

from app.engine.batching.operation import Kind, Operation
from app.engine.job import Tier

# Share of device time under constant realtime load: an hour of audio that needs 25 minutes of calls
# takes 100 minutes, and one realtime operation in four waits for a deferred call.
DEFERRED_SHARE = 0.25
# Shortest wait after which a deferred operation may go before realtime ones.
DEFERRED_PATIENCE_S = 1.0


def next_batch(
    waiting: Iterable[Operation],
    max_batch: Mapping[Kind, int],
    deferred_turn: bool = False,
    in_progress: Collection[tuple[Kind, Hashable]] = (),
) -> list[Operation]:
    """Return the most urgent operation and those that may share its call.

    Args:
        waiting: operations that are not cancelled.
        max_batch: the most operations of one call, by kind.
        deferred_turn: deferred operations go first.
        in_progress: kinds and keys of running calls; operations with the same must wait and gather.

    Returns:
        Operations of one kind and key, as many as one call takes, most urgent first; empty if no
        call may be made now.
    """
    ready = (
        operation for operation in waiting if (operation.kind, operation.key) not in in_progress
    )
    by_urgency = sorted(ready, key=lambda operation: urgency(operation, deferred_turn))
    if not by_urgency:
        return []
    first = by_urgency[0]
    same_call = (
        operation
        for operation in by_urgency
        if (operation.kind, operation.key) == (first.kind, first.key)
    )
    return list(islice(same_call, max_batch[first.kind]))


def urgency(operation: Operation, deferred_turn: bool) -> tuple[bool, int, float]:
    """Return a sort key, smallest first: the tier whose turn it is, then kind, then arrival."""
    waits = (operation.tier is Tier.DEFERRED) != deferred_turn
    return waits, operation.kind, operation.arrived


def is_deferred_turn(waiting: Iterable[Operation], now: float, next_turn_at: float) -> bool:
    """Return whether deferred work goes first: its turn has come, and it has waited enough."""
    return now >= next_turn_at and any(
        operation.tier is Tier.DEFERRED and now - operation.arrived >= DEFERRED_PATIENCE_S
        for operation in waiting
    )


def next_turn(began: float, ended: float) -> float:
    """Return when deferred work may go first again after its call, to keep to its share."""
    return ended + (ended - began) * (1 / DEFERRED_SHARE - 1)
