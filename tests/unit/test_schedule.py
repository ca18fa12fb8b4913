"""The scheduling rule: no threads, no sleeping; operations in, the next batch out."""

from __future__ import annotations

import random

from app.engine.batching.operation import Kind, Operation
from app.engine.batching.schedule import (
    DEFERRED_PATIENCE_S,
    DEFERRED_SHARE,
    is_deferred_turn,
    next_batch,
    next_turn,
)  # fmt: skip
from app.engine.cancellation import Cancellation
from app.engine.job import Tier

NOW = 100.0


def waiting(kind: Kind, arrived: float = NOW, key: object = 0, tier: Tier = Tier.REALTIME):
    return Operation(kind, key, None, None, tier, Cancellation(), arrived)


def limits(n: int) -> dict[Kind, int]:
    """The same limit for every kind of call."""
    return dict.fromkeys(Kind, n)


def test_nothing_waits():
    assert next_batch([], limits(16)) == []


def test_all_that_may_share_a_call_share_it():
    operations = [waiting(Kind.ENCODE, NOW - number) for number in range(5)]

    assert next_batch(operations, limits(16)) == sorted(operations, key=lambda one: one.arrived)


def test_batch_has_its_limit_and_the_first_come_are_in_it():
    operations = [waiting(Kind.ENCODE, NOW - number) for number in range(20)]

    batch = next_batch(operations, limits(16))

    assert len(batch) == 16
    assert {one.arrived for one in batch} == {NOW - number for number in range(4, 20)}


def test_each_kind_has_its_own_limit():
    """A kind of call that ran out of memory is limited, the others are not."""
    operations = [waiting(Kind.ENCODE) for _ in range(8)]

    assert len(next_batch(operations, limits(8) | {Kind.ENCODE: 2})) == 2
    assert len(next_batch(operations, limits(8) | {Kind.ALIGN: 2})) == 8


def test_finishing_comes_before_starting():
    operations = [waiting(kind, NOW - kind) for kind in Kind]

    assert [next_batch(operations[start:], limits(16))[0].kind for start in range(4)] == list(Kind)


def test_different_keys_are_different_calls():
    first, second, third = (waiting(Kind.GENERATE, NOW - 3 + n, key=n % 2) for n in range(3))

    assert next_batch([first, second, third], limits(16)) == [first, third]
    assert next_batch([second], limits(16)) == [second]


def test_realtime_comes_before_deferred_whatever_its_kind():
    deferred = waiting(Kind.ALIGN, NOW - 1, tier=Tier.DEFERRED)
    realtime = waiting(Kind.ENCODE)

    assert next_batch([deferred, realtime], limits(16)) == [realtime]


def test_deferred_work_shares_a_realtime_call():
    """It costs the realtime request next to nothing and is done the sooner."""
    deferred = waiting(Kind.ENCODE, NOW - 1, tier=Tier.DEFERRED)
    realtime = waiting(Kind.ENCODE)

    assert next_batch([deferred, realtime], limits(16)) == [realtime, deferred]
    assert next_batch([deferred, realtime], limits(1)) == [realtime]


def test_deferred_work_goes_first_in_its_turn():
    """Whatever kinds of calls wait, the oldest of it."""
    deferred = [waiting(Kind.ENCODE, NOW - n, tier=Tier.DEFERRED) for n in range(3)]
    realtime = waiting(Kind.ALIGN, NOW - 60)

    assert next_batch([realtime, *deferred], limits(1), deferred_turn=True) == [deferred[2]]
    assert next_batch([realtime, *deferred], limits(1)) == [realtime]
    assert next_batch(deferred, limits(1)) == [deferred[2]], "an idle device waits for nobody"


def test_deferred_work_has_its_share_of_the_time():
    """Calls of 0.5 s on a device for which realtime work always waits."""
    now, turn, deferred_s = 0.0, 0.0, 0.0
    while now < 1000:
        (first,) = next_batch(
            [waiting(Kind.ENCODE, now), waiting(Kind.ENCODE, 0.0, tier=Tier.DEFERRED)],
            limits(1),
            now >= turn,
        )
        now += 0.5
        if first.tier is Tier.DEFERRED:
            deferred_s += 0.5
            turn = next_turn(now - 0.5, now)

    assert abs(deferred_s / now - DEFERRED_SHARE) < 0.01


def test_turn_is_for_deferred_work_that_has_waited():
    patient = waiting(Kind.ENCODE, NOW, tier=Tier.DEFERRED)
    old = waiting(Kind.ENCODE, NOW - DEFERRED_PATIENCE_S, tier=Tier.DEFERRED)
    realtime = waiting(Kind.ENCODE, NOW - 60)

    assert not is_deferred_turn([realtime, patient], NOW, NOW)
    assert is_deferred_turn([realtime, patient, old], NOW, NOW)
    assert not is_deferred_turn([old], NOW, NOW + 1), "it had its share"


def test_what_could_share_a_call_in_progress_waits_for_the_next():
    operations = [waiting(Kind.GENERATE, NOW - 3 + n, key=n % 2) for n in range(4)]
    busy = [(Kind.GENERATE, 0)]

    assert next_batch(operations, limits(16), in_progress=busy) == operations[1::2]
    assert next_batch(operations[::2], limits(16), in_progress=busy) == []


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
        batch = next_batch(left, limits(limit))
        assert 0 < len(batch) <= limit
        assert len({(one.kind, one.key) for one in batch}) == 1
        served += batch
        left = [one for one in left if one not in batch]

    assert len(served) == len(pool)
    assert set(map(id, served)) == set(map(id, pool))
