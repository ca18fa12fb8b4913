"""What samples or sends requests while a block runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.support.background import Background


class Two(Background):
    """Two loops: one runs to the end, the other raises the given failure."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.ended = threading.Event()

    def _loops(self) -> list[Callable[[], None]]:
        return [self._wait, self._fail]

    def _wait(self) -> None:
        self._stop.wait()
        self.ended.set()

    def _fail(self) -> None:
        if self.failure:
            raise self.failure


def test_loops_end_with_the_block():
    with Two() as work:
        assert not work.ended.is_set()

    assert work.ended.is_set()


def test_a_loop_that_fails_fails_the_block():
    with pytest.raises(OSError, match="no sample"), Two(OSError("no sample")) as work:
        pass

    assert work.ended.is_set()


def test_the_blocks_own_failure_comes_first():
    with pytest.raises(AssertionError, match="the block"), Two(OSError("no sample")):
        raise AssertionError("the block")
