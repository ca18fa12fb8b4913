"""Which waiting operations form the next call: a pure rule, without threads or a clock.

There is no timer in it: what gathered while the device was busy is the next batch. An idle
service adds no latency, a busy one batches by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping

from app.engine.admission import Tier
from app.engine.operations import Kind, Operation

# Deferred work that has had no call for so long gets the next one, and then is patient again; so
# under load it is slow and never stands still, and a realtime operation seldom meets its call.
DEFERRED_PATIENCE_S = 5.0


def next_batch(
    waiting: Iterable[Operation],
    max_batch: Mapping[Kind, int],
    now: float,
    deferred_served: float = float("-inf"),
    in_progress: Collection[tuple[Kind, Hashable]] = (),
) -> list[Operation]:
    """The most urgent operation and those that may share its call.

    Args:
        waiting: operations none of which is cancelled.
        max_batch: the most operations of one call, by its kind.
        now: the clock's seconds, as in the operations' `arrived`.
        deferred_served: when a deferred operation last was the most urgent.
        in_progress: kind and key of calls whose like must wait, so that it gathers meanwhile.

    Returns:
        Operations of one kind and key, no more than one call takes, most urgent first; none when
        nothing may be called now.
    """
    ready = (one for one in waiting if (one.kind, one.key) not in in_progress)
    by_urgency = sorted(ready, key=lambda operation: urgency(operation, now, deferred_served))
    if not by_urgency:
        return []
    first = by_urgency[0]
    sharing = (one for one in by_urgency if (one.kind, one.key) == (first.kind, first.key))
    return [one for one, _ in zip(sharing, range(max_batch[first.kind]), strict=False)]


def urgency(operation: Operation, now: float, deferred_served: float) -> tuple[bool, int, float]:
    """What is served first is smallest: realtime, then finishing, then first come."""
    waited = now - max(operation.arrived, deferred_served)
    patient = operation.tier is Tier.DEFERRED and waited < DEFERRED_PATIENCE_S
    return patient, operation.kind, operation.arrived
