"""Which waiting operations form the next call: a pure rule, without threads or a clock.

There is no timer in it: what gathered while the device was busy is the next batch. An idle
service adds no latency, a busy one batches by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping

from app.engine.admission import Tier
from app.engine.batching.operation import Kind, Operation

# Of the device's time under constant realtime load: an hour of audio that needs 25 minutes of calls
# is done in 100, and a realtime operation meets a deferred call one time in four.
DEFERRED_SHARE = 0.25
# A deferred operation that has waited less lets realtime go first all the same.
DEFERRED_PATIENCE_S = 1.0


def next_batch(
    waiting: Iterable[Operation],
    max_batch: Mapping[Kind, int],
    deferred_turn: bool = False,
    in_progress: Collection[tuple[Kind, Hashable]] = (),
) -> list[Operation]:
    """The most urgent operation and those that may share its call.

    Args:
        waiting: operations none of which is cancelled.
        max_batch: the most operations of one call, by its kind.
        deferred_turn: deferred work has had less than its share, and goes first.
        in_progress: kind and key of calls whose like must wait, so that it gathers meanwhile.

    Returns:
        Operations of one kind and key, no more than one call takes, most urgent first; none when
        nothing may be called now.
    """
    ready = (one for one in waiting if (one.kind, one.key) not in in_progress)
    by_urgency = sorted(ready, key=lambda operation: urgency(operation, deferred_turn))
    if not by_urgency:
        return []
    first = by_urgency[0]
    sharing = (one for one in by_urgency if (one.kind, one.key) == (first.kind, first.key))
    return [one for one, _ in zip(sharing, range(max_batch[first.kind]), strict=False)]


def urgency(operation: Operation, deferred_turn: bool) -> tuple[bool, int, float]:
    """What is served first is smallest: the tier whose turn it is, then finishing, then first
    come."""
    waits = (operation.tier is Tier.DEFERRED) != deferred_turn
    return waits, operation.kind, operation.arrived


def is_deferred_turn(waiting: Iterable[Operation], now: float, next_turn_at: float) -> bool:
    """Whether deferred work goes first: it has had less than its share, and has waited."""
    return now >= next_turn_at and any(
        operation.tier is Tier.DEFERRED and now - operation.arrived >= DEFERRED_PATIENCE_S
        for operation in waiting
    )


def next_turn(began: float, ended: float) -> float:
    """When deferred work has its next turn after a call of its own, so that it gets its share."""
    return ended + (ended - began) * (1 / DEFERRED_SHARE - 1)
