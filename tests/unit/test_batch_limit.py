"""How many windows share a call when memory ran out, and later."""

from __future__ import annotations

from app.engine.batching.batch_limit import GROW_AFTER_S, BatchLimit


def test_a_call_without_room_halves_the_limit():
    limit = BatchLimit(16)

    assert limit.halve(16, at=0) == 8
    assert limit.halve(5, at=1) == 2
    assert limit.halve(1, at=2) == 1


def test_a_smaller_limit_is_not_raised_by_a_larger_call():
    """Several calls run out at once; the later reports are about calls begun before."""
    limit = BatchLimit(16)
    limit.halve(4, at=0)

    assert limit.halve(16, at=1) == 2


def test_a_halved_limit_grows_step_by_step():
    limit = BatchLimit(16)
    limit.halve(16, at=0)
    limit.halve(8, at=0)

    assert not limit.grow(at=GROW_AFTER_S - 1)
    times = [at for at in range(0, 10_000, 10) if limit.grow(at)]

    assert limit.now == 16
    assert len(times) == 2
    assert not limit.grow(at=1e9), "there is nothing left to grow"


def test_a_limit_that_proves_too_large_again_is_tried_less_often():
    limit, at, waits = BatchLimit(2), 0.0, []
    for _ in range(9):
        limit.halve(2, at)
        began = at
        while not limit.grow(at):
            at += 60
        waits.append(at - began)

    assert waits[:3] == [300, 600, 1200]
    assert waits[-1] == waits[-2] == 4 * 3600


def test_a_limit_of_the_trial_is_never_exceeded():
    """The rest is other workers' memory."""
    limit = BatchLimit(16)
    limit.settle(4)
    limit.halve(4, at=0)

    assert [limit.grow(at) for at in (1000, 2000, 3000)] == [True, False, False]
    assert limit.now == 4
