"""The scheduling rule: no threads, no sleeping; operations in, the next batch out."""

from __future__ import annotations

import random

from app.engine.admission import Tier
from app.engine.cancellation import Cancellation
from app.engine.operations import Kind, Operation
from app.engine.schedule import DEFERRED_PATIENCE_S, next_batch

NOW = 100.0


def waiting(kind: Kind, arrived: float = NOW, key: object = 0, tier: Tier = Tier.REALTIME):
    return Operation(kind, key, None, None, tier, Cancellation(), arrived)


def limits(n: int) -> dict[Kind, int]:
    """The same limit for every kind of call."""
    return dict.fromkeys(Kind, n)


def test_nothing_waits():
    assert next_batch([], limits(16), NOW) == []


def test_all_that_may_share_a_call_share_it():
    operations = [waiting(Kind.ENCODE, NOW - number) for number in range(5)]

    assert next_batch(operations, limits(16), NOW) == sorted(
        operations, key=lambda one: one.arrived
    )


def test_batch_has_its_limit_and_the_first_come_are_in_it():
    operations = [waiting(Kind.ENCODE, NOW - number) for number in range(20)]

    batch = next_batch(operations, limits(16), NOW)

    assert len(batch) == 16
    assert {one.arrived for one in batch} == {NOW - number for number in range(4, 20)}


def test_each_kind_has_its_own_limit():
    """A kind of call that ran out of memory is limited, the others are not."""
    operations = [waiting(Kind.ENCODE) for _ in range(8)]

    assert len(next_batch(operations, limits(8) | {Kind.ENCODE: 2}, NOW)) == 2
    assert len(next_batch(operations, limits(8) | {Kind.ALIGN: 2}, NOW)) == 8


def test_finishing_comes_before_starting():
    operations = [waiting(kind, NOW - kind) for kind in Kind]

    assert [next_batch(operations[start:], limits(16), NOW)[0].kind for start in range(4)] == list(
        Kind
    )


def test_different_keys_are_different_calls():
    first, second, third = (waiting(Kind.GENERATE, NOW - 3 + n, key=n % 2) for n in range(3))

    assert next_batch([first, second, third], limits(16), NOW) == [first, third]
    assert next_batch([second], limits(16), NOW) == [second]


def test_realtime_comes_before_deferred_whatever_its_kind():
    deferred = waiting(Kind.ALIGN, NOW - 1, tier=Tier.DEFERRED)
    realtime = waiting(Kind.ENCODE)

    assert next_batch([deferred, realtime], limits(16), NOW) == [realtime]


def test_deferred_work_shares_a_realtime_call():
    """It costs the realtime request next to nothing and is done the sooner."""
    deferred = waiting(Kind.ENCODE, NOW - 1, tier=Tier.DEFERRED)
    realtime = waiting(Kind.ENCODE)

    assert next_batch([deferred, realtime], limits(16), NOW) == [realtime, deferred]
    assert next_batch([deferred, realtime], limits(1), NOW) == [realtime]


def test_old_deferred_work_is_not_starved():
    deferred = waiting(Kind.ENCODE, NOW - DEFERRED_PATIENCE_S, tier=Tier.DEFERRED)
    newcomer = waiting(Kind.ENCODE, NOW)

    assert next_batch([newcomer, deferred], limits(1), NOW) == [deferred]


def test_deferred_work_has_one_call_in_its_patience():
    """However much of it is old: a long file must not overtake everyone once it has waited."""
    deferred = [waiting(Kind.ENCODE, NOW - 60, tier=Tier.DEFERRED) for _ in range(3)]
    newcomer = waiting(Kind.ENCODE, NOW)
    just_now, long_ago = NOW - 1, NOW - DEFERRED_PATIENCE_S

    assert next_batch([newcomer, *deferred], limits(1), NOW, just_now) == [newcomer]
    assert next_batch([newcomer, *deferred], limits(1), NOW, long_ago) == [deferred[0]]
    assert next_batch(deferred, limits(1), NOW, just_now) == [deferred[0]]


def test_what_could_share_a_call_in_progress_waits_for_the_next():
    operations = [waiting(Kind.GENERATE, NOW - 3 + n, key=n % 2) for n in range(4)]
    busy = [(Kind.GENERATE, 0)]

    assert next_batch(operations, limits(16), NOW, in_progress=busy) == operations[1::2]
    assert next_batch(operations[::2], limits(16), NOW, in_progress=busy) == []


def test_every_batch_is_of_one_kind_and_key_and_everything_is_served():
    """Whatever waits, in whatever order, with newcomers all the while."""
    dice = random.Random(7)
    pool = [
        waiting(dice.choice(list(Kind)), NOW - dice.random() * 9, dice.randrange(3),
                dice.choice(list(Tier)))
        for _ in range(300)
    ]  # fmt: skip
    left = list(pool)
    served = []
    while left:
        limit = dice.randint(1, 8)
        batch = next_batch(left, limits(limit), NOW)
        assert 0 < len(batch) <= limit
        assert len({(one.kind, one.key) for one in batch}) == 1
        served += batch
        left = [one for one in left if one not in batch]

    assert len(served) == len(pool)
    assert set(map(id, served)) == set(map(id, pool))
