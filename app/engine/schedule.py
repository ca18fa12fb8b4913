"""Which waiting operations form the next call: a pure rule, without threads or a clock.

There is no timer in it: what gathered while the device was busy is the next batch. An idle
service adds no latency, a busy one batches by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.engine.admission import Tier
from app.engine.operations import Kind, Operation

# A deferred operation that has waited this long is as urgent as a realtime one; so deferred
# work is slow under load and never stands still.
DEFERRED_PATIENCE_S = 5.0


def next_batch(
    waiting: Iterable[Operation], max_batch: Mapping[Kind, int], now: float
) -> list[Operation]:
    """The most urgent operation and those that may share its call.

    Args:
        waiting: operations none of which is cancelled.
        max_batch: the most operations of one call, by its kind.
        now: the clock's seconds, as in the operations' `arrived`.

    Returns:
        Operations of one kind and key, no more than one call takes, most urgent first; none when
        nothing waits.
    """
    by_urgency = sorted(waiting, key=lambda operation: urgency(operation, now))
    if not by_urgency:
        return []
    first = by_urgency[0]
    sharing = (one for one in by_urgency if (one.kind, one.key) == (first.kind, first.key))
    return [one for one, _ in zip(sharing, range(max_batch[first.kind]), strict=False)]


def urgency(operation: Operation, now: float) -> tuple[bool, int, float]:
    """What is served first is smallest: realtime, then finishing, then first come."""
    patient = operation.tier is Tier.DEFERRED and now - operation.arrived < DEFERRED_PATIENCE_S
    return patient, operation.kind, operation.arrived
