"""Admission: the slots of one worker; none leaks."""

from __future__ import annotations

import random
import threading
import time

import pytest

from app.engine.admission import PLACES, Admission
from app.engine.cancellation import Cancellation
from app.errors import Busy, ClientDisconnected, Draining, NotReady
from tests.support.fakes import LIMIT_S
from tests.support.waiting import until


def new_admission(slots: int = 2, wait_s: float = LIMIT_S, opened: bool = True) -> Admission:
    made = Admission(slots, wait_s)
    if opened:
        made.open()
    return made


class Visitor(threading.Thread):
    """A request that takes a slot, holds it until `go` is set, and keeps its failure."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(daemon=True)
        self.admission = admission
        self.cancellation = Cancellation()
        self.inside, self.go = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.admission.slot(self.cancellation):
                self.inside.set()
                assert self.go.wait(LIMIT_S)
        except Exception as error:
            self.failure = error

    def leave(self) -> None:
        self.go.set()
        self.join(LIMIT_S)
        assert not self.is_alive()


def at_rest(admission: Admission) -> bool:
    return (admission.inside, admission.waiting) == (0, 0)


def test_full_worker_lets_a_few_wait_and_refuses_the_others():
    admission = new_admission(slots=2)
    inside = [Visitor(admission) for _ in range(2)]
    assert until(lambda: admission.inside == 2)
    waiting = [Visitor(admission) for _ in range(PLACES)]
    assert until(lambda: admission.waiting == PLACES)

    with pytest.raises(Busy), admission.slot(Cancellation()):
        pass

    for visitor in inside + waiting:
        visitor.leave()
        assert visitor.failure is None
    assert at_rest(admission)


def test_first_come_is_served_first():
    admission, order = new_admission(slots=1), []
    first = Visitor(admission)
    assert first.inside.wait(LIMIT_S)

    def visit(number: int) -> None:
        with admission.slot(Cancellation()):
            order.append(number)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(PLACES)]
    for number, thread in enumerate(threads):
        thread.start()
        assert until(lambda number=number: admission.waiting == number + 1)
    first.leave()
    for thread in threads:
        thread.join(LIMIT_S)

    assert order == list(range(PLACES))


def test_wait_for_a_slot_has_an_end():
    admission = new_admission(slots=1, wait_s=0.3)

    with admission.slot(Cancellation()):
        with pytest.raises(Busy), admission.slot(Cancellation()):
            pass
        assert (admission.inside, admission.waiting) == (1, 0)


def test_client_that_leaves_waits_for_no_slot():
    admission = new_admission(slots=1)
    inside = Visitor(admission)
    assert inside.inside.wait(LIMIT_S)
    waiting = Visitor(admission)
    assert until(lambda: admission.waiting == 1)

    waiting.cancellation.cancel()

    waiting.join(LIMIT_S)
    assert isinstance(waiting.failure, ClientDisconnected)
    assert (admission.inside, admission.waiting) == (1, 0)
    inside.leave()


def test_requests_wait_while_the_model_loads():
    admission = new_admission(slots=2, opened=False)
    visitors = [Visitor(admission) for _ in range(3)]
    assert until(lambda: admission.waiting == 3)
    assert admission.inside == 0

    admission.open()

    assert until(lambda: (admission.inside, admission.waiting) == (2, 1))
    for visitor in visitors:
        visitor.go.set()
    for visitor in visitors:
        visitor.leave()
        assert visitor.failure is None
    assert at_rest(admission)


def test_model_that_takes_too_long_ends_the_wait():
    admission = new_admission(wait_s=0.05, opened=False)

    with pytest.raises(NotReady, match="still loading"), admission.slot(Cancellation()):
        pass
    assert at_rest(admission)


def test_model_that_fails_refuses_those_who_wait_and_all_after_them():
    admission = new_admission(opened=False)
    waiting = Visitor(admission)
    assert until(lambda: admission.waiting == 1)

    admission.fail("The model is broken.")

    waiting.join(LIMIT_S)
    assert isinstance(waiting.failure, NotReady)
    with pytest.raises(NotReady, match="The model is broken"), admission.slot(Cancellation()):
        pass
    assert at_rest(admission)


def test_client_that_leaves_while_it_waits_gives_up_its_place():
    admission = new_admission(opened=False)
    waiting = Visitor(admission)
    assert until(lambda: admission.waiting == 1)

    waiting.cancellation.cancel()

    waiting.join(LIMIT_S)
    assert isinstance(waiting.failure, ClientDisconnected)
    assert at_rest(admission)


def test_client_that_has_left_gets_no_slot():
    admission, gone = new_admission(), Cancellation()
    gone.cancel()

    with pytest.raises(ClientDisconnected), admission.slot(gone):
        pass
    assert at_rest(admission)


def test_drain_refuses_newcomers_and_waits_for_those_inside():
    admission = new_admission()
    inside = Visitor(admission)
    assert inside.inside.wait(LIMIT_S)

    assert admission.drain(0.05) == 1
    with pytest.raises(Draining), admission.slot(Cancellation()):
        pass
    threading.Timer(0.05, inside.go.set).start()

    assert admission.drain(LIMIT_S) == 0


def test_slot_is_free_again_after_a_failure():
    admission = new_admission(slots=1)

    for _ in range(3):
        with pytest.raises(RuntimeError), admission.slot(Cancellation()):
            raise RuntimeError("in the middle of it")
    assert at_rest(admission)


def test_nothing_leaks_whatever_happens():
    admission = new_admission(slots=3)
    dice = random.Random(5)

    def visit(number: int) -> None:
        cancellation = Cancellation()
        if number % 5 == 0:
            cancellation.cancel()
        try:
            with admission.slot(cancellation):
                assert admission.inside <= 3
                time.sleep(dice.random() / 500)
                if number % 7 == 0:
                    raise RuntimeError("on purpose")
        except (Busy, ClientDisconnected, RuntimeError):
            pass

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)

    assert at_rest(admission)
