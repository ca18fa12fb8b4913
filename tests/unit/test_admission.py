"""Admission: slots, tiers and the waiting room; nothing leaks."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from app.engine.admission import Admission, Tier
from app.engine.cancellation import Cancellation
from app.errors import Busy, ClientGone, DeadlinePassed, Draining, NotReady
from tests.support.fakes import LIMIT_S
from tests.support.waiting import until


def admission(slots=2, deferred=1, room=10, fail_fast=False, wait_s=LIMIT_S, opened=True):
    made = Admission(slots, deferred, room, fail_fast, wait_s)
    if opened:
        made.open()
    return made


class Visitor(threading.Thread):
    """A request that enters, stays until told to go, and keeps what became of it."""

    def __init__(self, house: Admission, tier: Tier = Tier.REALTIME, order: list | None = None):
        super().__init__(daemon=True)
        self.house, self.tier, self.order = house, tier, order
        self.cancellation = Cancellation()
        self.inside, self.go = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.start()

    def run(self):
        try:
            with self.house.slot(self.tier, self.cancellation):
                if self.order is not None:
                    self.order.append(self.tier)
                self.inside.set()
                assert self.go.wait(LIMIT_S)
        except Exception as error:
            self.failure = error

    def leave(self):
        self.go.set()
        self.join(LIMIT_S)


def at_rest(house: Admission) -> bool:
    return (house.inside, house.outside) == (0, 0)


def test_full_house_refuses_at_once_when_told_to_fail_fast():
    house = admission(slots=1, fail_fast=True)

    with house.slot(Tier.REALTIME, Cancellation()) as waited_s:
        began = time.monotonic()
        with pytest.raises(Busy), house.slot(Tier.REALTIME, Cancellation()):
            pass
        refused_after_s = time.monotonic() - began

    assert waited_s < 0.1
    assert refused_after_s < 0.1
    assert at_rest(house)


def test_waiting_room_has_its_size():
    house = admission(slots=1, room=1)
    inside, waiting = Visitor(house), None
    assert inside.inside.wait(LIMIT_S)
    waiting = Visitor(house)
    assert until(lambda: house.outside == 1)

    with pytest.raises(Busy), house.slot(Tier.REALTIME, Cancellation()):
        pass

    inside.leave()
    assert waiting.inside.wait(LIMIT_S)
    waiting.leave()
    assert at_rest(house)


def test_deadline_ends_the_wait():
    house = admission(slots=1, wait_s=0.05)

    with house.slot(Tier.REALTIME, Cancellation()):
        with pytest.raises(DeadlinePassed), house.slot(Tier.REALTIME, Cancellation()):
            pass

        assert (house.inside, house.outside) == (1, 0)
    assert at_rest(house)


def test_realtime_is_served_before_deferred_and_each_in_its_order():
    house = admission(slots=1)
    first = Visitor(house)
    assert first.inside.wait(LIMIT_S)
    order: list[Tier] = []
    visitors = []
    for tier in (Tier.DEFERRED, Tier.REALTIME, Tier.DEFERRED, Tier.REALTIME):
        visitors.append(Visitor(house, tier, order))
        assert until(lambda: house.outside == len(visitors))
    for visitor in visitors:
        visitor.go.set()

    first.leave()
    for visitor in visitors:
        visitor.join(LIMIT_S)

    assert order == [Tier.REALTIME, Tier.REALTIME, Tier.DEFERRED, Tier.DEFERRED]
    assert at_rest(house)


def test_deferred_requests_leave_the_reserved_slots_free():
    house = admission(slots=3, deferred=1, fail_fast=True)

    with ExitStack() as slots:
        slots.enter_context(house.slot(Tier.DEFERRED, Cancellation()))
        with pytest.raises(Busy):
            slots.enter_context(house.slot(Tier.DEFERRED, Cancellation()))
        slots.enter_context(house.slot(Tier.REALTIME, Cancellation()))
        slots.enter_context(house.slot(Tier.REALTIME, Cancellation()))

    assert at_rest(house)


def test_client_that_leaves_while_waiting_frees_its_place():
    house = admission(slots=1)
    inside = Visitor(house)
    assert inside.inside.wait(LIMIT_S)
    waiting = Visitor(house)
    assert until(lambda: house.outside == 1)

    waiting.cancellation.cancel()
    waiting.join(LIMIT_S)

    assert isinstance(waiting.failure, ClientGone)
    assert house.outside == 0
    inside.leave()
    assert at_rest(house)


def test_client_that_has_left_takes_no_slot():
    house, gone = admission(), Cancellation()
    gone.cancel()

    with pytest.raises(ClientGone), house.slot(Tier.REALTIME, gone):
        pass

    assert at_rest(house)


def test_slot_is_freed_when_its_block_fails():
    house = admission(slots=1)

    with pytest.raises(RuntimeError), house.slot(Tier.REALTIME, Cancellation()):
        raise RuntimeError

    assert at_rest(house)


def test_requests_wait_while_the_model_loads_also_when_failing_fast():
    """A worker that loads is soon free; answering 503 would draw every retry to it."""
    house = admission(fail_fast=True, opened=False)
    visitor = Visitor(house)
    assert until(lambda: house.outside == 1)

    house.open()

    assert visitor.inside.wait(LIMIT_S)
    visitor.leave()
    assert at_rest(house)


def test_model_that_takes_too_long_is_not_ready():
    house = admission(opened=False, wait_s=0.05)

    with pytest.raises(NotReady), house.slot(Tier.REALTIME, Cancellation()):
        pass

    assert at_rest(house)


def test_model_that_cannot_be_loaded_refuses_the_waiting_and_the_next():
    house = admission(opened=False)
    waiting = Visitor(house)
    assert until(lambda: house.outside == 1)

    house.fail("no model")
    waiting.join(LIMIT_S)

    assert isinstance(waiting.failure, NotReady)
    with pytest.raises(NotReady, match="no model"), house.slot(Tier.REALTIME, Cancellation()):
        pass
    assert at_rest(house)


def test_drain_refuses_the_new_and_finishes_the_admitted():
    house = admission(slots=1)
    inside = Visitor(house)
    assert inside.inside.wait(LIMIT_S)
    waiting = Visitor(house)
    assert until(lambda: house.outside == 1)

    assert house.drain(0.05) == 2, "two are left when the time is up"
    with pytest.raises(Draining), house.slot(Tier.REALTIME, Cancellation()):
        pass
    inside.go.set()
    waiting.go.set()

    assert house.drain(LIMIT_S) == 0
    assert waiting.inside.is_set()
    assert at_rest(house)


def test_nothing_leaks_when_many_come_and_go():
    """Visitors of both tiers that finish, fail, time out and leave, all at once."""
    house = admission(slots=3, deferred=2, room=50, wait_s=0.2)

    def visit(number: int) -> None:
        cancellation = Cancellation()
        if number % 3 == 0:
            threading.Timer(0.002 * (number % 7), cancellation.cancel).start()
        tier = Tier.DEFERRED if number % 2 else Tier.REALTIME
        try:
            with house.slot(tier, cancellation):
                assert house.inside <= 3
                time.sleep(0.002 * (number % 5))
                if number % 4 == 0:
                    raise RuntimeError
        except (Busy, ClientGone, DeadlinePassed, RuntimeError):
            pass

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert at_rest(house)
    with house.slot(Tier.REALTIME, Cancellation()):
        assert house.inside == 1
