"""The device's threads: batches form while it is busy, and every operation gets its result."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from app.config import Config
from app.engine.batching.device import Device
from app.engine.batching.operation import Kind, Operation
from app.engine.cancellation import Cancellation
from app.engine.engine import Engine
from app.engine.job import Job, Tier
from app.engine.options import DecodeOptions
from app.errors import ClientDisconnected, DeviceFailed, EngineFailed, NotReady
from app.observability import metrics
from tests.support.fakes import LIMIT_S, held_engine
from tests.support.waiting import until


class Doubler:
    """A device whose encoder doubles numbers; held, failing or short of memory as told."""

    def __init__(self, threads: int = 1, max_batch: int = 4, gathering: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None
        self.memory = 100
        self.device = Device({Kind.ENCODE: self._encode}, threads, max_batch, gathering)
        self.requests = ThreadPoolExecutor(32)

    def _encode(self, batch: Sequence[Operation]) -> list[int]:
        self.batches.append([one.payload for one in batch])
        assert self.go.wait(LIMIT_S)
        if len(batch) > self.memory:
            raise RuntimeError("CUDA failed with error out of memory")
        if self.error:
            raise self.error
        return [2 * one.payload for one in batch]

    def ask(
        self,
        number: int,
        cancellation: Cancellation | None = None,
        at: float = 0.0,
        key=0,
        tier=Tier.REALTIME,
    ):
        operation = Operation(
            Kind.ENCODE, key, number, None, tier, cancellation or Cancellation(), at
        )
        return self.requests.submit(self.device.run, operation)

    def gather(self, numbers: Sequence[int]) -> list:
        """Ask while the device is busy with something else, so that all of these wait."""
        self.go.clear()
        first = self.ask(0)
        assert until(lambda: self.batches)
        asked = [self.ask(number, at=number) for number in numbers]
        assert until(lambda: len(self.device._waiting) == len(numbers))
        self.go.set()
        first.exception(LIMIT_S)
        return asked


@pytest.fixture
def quick(monkeypatch) -> None:
    """What has no room is tried again without a pause."""
    monkeypatch.setattr("app.engine.batching.device.ROOM_AFTER_S", (0, 0))


@pytest.fixture
def doubler():
    made = Doubler()
    yield made
    made.go.set()
    made.requests.shutdown()


def results(futures) -> list:
    return [future.result(LIMIT_S) for future in futures]


def test_idle_device_calls_at_once(doubler):
    assert doubler.ask(21).result(LIMIT_S) == 42
    assert doubler.batches == [[21]]


def test_what_gathered_while_the_device_was_busy_is_the_next_batch(doubler):
    assert results(doubler.gather([1, 2, 3, 4, 5, 6])) == [2, 4, 6, 8, 10, 12]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_failed_call_answers_every_member(doubler):
    doubler.error = ValueError("broken")
    for future in doubler.gather([1, 2, 3]):
        with pytest.raises(ValueError, match="broken"):
            future.result(LIMIT_S)

    assert doubler.ask(1).exception(LIMIT_S) is doubler.error
    doubler.error = None
    assert doubler.ask(1).result(LIMIT_S) == 2


def test_failures_of_the_device_are_told_from_what_it_was_given(doubler):
    """A broken GPU ends the worker; a request that cannot be decoded must not."""
    for error, failures in (
        (RuntimeError("CUDA failed with error unspecified launch failure"), 1),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED"), 2),
        (ValueError("the prompt is too long"), 0),
        (RuntimeError("CUDA failed with error an illegal memory access was encountered"), 1),
    ):
        doubler.error = error
        assert doubler.ask(1).exception(LIMIT_S) is error
        assert until(lambda count=failures: doubler.device.failures == count)
    doubler.error = None
    assert doubler.ask(1).result(LIMIT_S) == 2
    assert doubler.device.failures == 0


def test_full_memory_halves_the_batch_and_is_remembered(doubler):
    doubler.memory = 1
    assert results(doubler.gather([1, 2, 3, 4])) == [2, 4, 6, 8]
    assert [len(batch) for batch in doubler.batches] == [1, 4, 2, 1, 1, 2, 1, 1]

    doubler.batches.clear()
    assert results(doubler.gather([1, 2])) == [2, 4]
    assert [len(batch) for batch in doubler.batches] == [1, 1, 1]


def test_a_halved_batch_grows_again_after_a_while(doubler):
    doubler.memory = 2
    assert results(doubler.gather([1, 2, 3, 4])) == [2, 4, 6, 8]
    assert doubler.device.largest_batch(Kind.ENCODE) == 2
    doubler.memory = 4
    doubler.device._limits[Kind.ENCODE]._grows_at = 0.0

    doubler.batches.clear()
    assert results(doubler.gather([1, 2, 3, 4])) == [2, 4, 6, 8]
    assert doubler.batches == [[0], [1, 2, 3, 4]]


def test_memory_too_small_for_one_is_an_error(doubler, quick):
    doubler.memory = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        doubler.ask(1).result(LIMIT_S)
    assert doubler.batches == [[1]] * 3
    assert doubler.device.failures == 1, "one request's, whatever the number of tries"


def test_memory_in_pieces_is_tried_again(doubler, monkeypatch):
    """Free as a whole and without a place for one window, until another call has ended."""
    monkeypatch.setattr("app.engine.batching.device.ROOM_AFTER_S", (0.2, 10.0))
    before = metrics.OUT_OF_MEMORY._value.get()
    doubler.memory = 0
    asked = doubler.ask(21)
    assert until(lambda: doubler.batches)
    doubler.memory = 1

    assert asked.result(LIMIT_S) == 42
    assert doubler.batches == [[21], [21]]
    assert (doubler.device.failures, metrics.OUT_OF_MEMORY._value.get()) == (0, before + 1)
    assert doubler.device.largest_batch(Kind.ENCODE) == 4, "one window says nothing of four"


def test_broken_device_is_not_tried_again(doubler):
    """Only another process helps, and until then another worker: quickly."""
    doubler.error = RuntimeError("CUDA failed with error unspecified launch failure")
    assert doubler.ask(1).exception(LIMIT_S) is doubler.error
    assert doubler.batches == [[1]]


def test_device_that_fails_within_a_halved_batch_fails_its_members_alone(doubler, quick):
    """Half of a batch has room, then memory is gone: who was answered stays answered."""

    def memory(batch):
        if len(batch) > 1 or batch[0].payload == 3:
            raise RuntimeError("CUDA failed with error out of memory")
        return [2 * one.payload for one in batch]

    doubler.device._calls[Kind.ENCODE] = memory
    operations = [
        Operation(Kind.ENCODE, 0, number, None, Tier.REALTIME, Cancellation(), number)
        for number in range(4)
    ]
    with pytest.raises(RuntimeError, match="out of memory"):
        doubler.device.run_together(operations)

    told = []
    for operation in operations:
        try:
            told.append(operation.wait())
        except RuntimeError as error:
            told.append(str(error))
    assert told == [0, 2, 4, "CUDA failed with error out of memory"]


def test_cancelled_operation_takes_no_place_in_a_batch(doubler):
    before = metrics.DROPPED_OPERATIONS._value.get()
    gone = Cancellation()
    doubler.go.clear()
    first = doubler.ask(0)
    assert until(lambda: doubler.batches)
    left, stays = doubler.ask(1, gone), doubler.ask(2)
    assert until(lambda: len(doubler.device._waiting) == 2)

    gone.cancel()
    doubler.go.set()

    assert results([first, stays]) == [0, 4]
    with pytest.raises(ClientDisconnected):
        left.result(LIMIT_S)
    assert doubler.batches == [[0], [2]]
    assert metrics.DROPPED_OPERATIONS._value.get() == before + 1


def test_too_few_results_are_never_paired(doubler):
    doubler.device._calls[Kind.ENCODE] = lambda batch: [1] * (len(batch) - 1)

    with pytest.raises(RuntimeError, match="This is a bug"):
        doubler.ask(1).result(LIMIT_S)


def test_call_that_hangs_is_seen(doubler):
    assert doubler.device.longest_call_s() == 0
    doubler.go.clear()
    doubler.ask(1)

    assert until(lambda: doubler.device.longest_call_s() > 0.1)
    doubler.go.set()
    assert until(lambda: doubler.device.longest_call_s() == 0)


def test_a_second_stream_takes_only_what_could_not_share():
    """While a call is in progress its like gather for the next; others need not wait for it."""
    streams = Doubler(threads=2, max_batch=4, gathering=True)
    streams.go.clear()
    first = streams.ask(0)
    assert until(lambda: streams.batches == [[0]])
    like = [streams.ask(number) for number in (1, 2)]
    other = streams.ask(7, key=1)

    assert until(lambda: streams.batches == [[0], [7]])
    assert len(streams.device._waiting) == 2
    streams.go.set()
    assert results([first, *like, other]) == [0, 2, 4, 14]
    assert sorted(map(len, streams.batches)) == [1, 1, 2]


def test_what_waits_for_a_call_is_seen_by_an_idle_stream():
    """The thread whose call has ended takes something more urgent; another takes what waited."""
    streams = Doubler(threads=2, max_batch=4, gathering=True)
    asked = [streams.ask(number, key=number % 3) for number in range(60)]

    assert results(asked) == [2 * number for number in range(60)]


def test_deferred_work_lets_a_realtime_request_go_on(doubler, monkeypatch):
    """Between two calls of a realtime request no deferred call slips in."""
    monkeypatch.setattr("app.engine.batching.device.COURTESY_S", 1)
    doubler.go.clear()
    first = doubler.ask(1)
    assert until(lambda: doubler.batches == [[1]])
    deferred = doubler.ask(9, at=time.monotonic(), tier=Tier.DEFERRED)
    assert until(lambda: len(doubler.device._waiting) == 1)
    order = []
    first.add_done_callback(lambda done: order.append(doubler.ask(2, key=1)))

    doubler.go.set()

    assert results([first]) == [2]
    assert until(lambda: order)
    assert results([*order, deferred]) == [4, 18]
    assert doubler.batches == [[1], [2], [9]]


def test_replicas_call_side_by_side():
    doubler = Doubler(threads=2, max_batch=1)
    doubler.go.clear()
    asked = [doubler.ask(number) for number in range(3)]

    assert until(lambda: len(doubler.batches) == 2)
    doubler.go.set()
    assert results(asked) == [0, 2, 4]


class TestWatch:
    """The engine looks at its device and gives the process up when only a new one helps."""

    @pytest.fixture
    def given_up(self, monkeypatch) -> list[str]:
        monkeypatch.setattr("app.engine.engine.WATCH_EVERY_S", 0.02)
        return []

    def engine(self, doubler: Doubler, reasons: list[str]) -> Engine:
        engine, model = held_engine(Config(device_call_limit_s=1), reasons.append)
        model.device_threads = doubler.device
        threading.Thread(target=engine._watch, daemon=True).start()
        return engine

    def test_call_that_hangs_ends_the_worker(self, doubler, given_up):
        engine = self.engine(doubler, given_up)
        doubler.go.clear()
        doubler.ask(1)

        assert until(lambda: given_up)
        assert "not returned for 1 s" in given_up[0]
        assert engine.unready == given_up[0]

    def test_failures_in_a_row_end_the_worker(self, doubler, given_up):
        engine = self.engine(doubler, given_up)
        doubler.error = RuntimeError("CUDA failed with error unspecified launch failure")
        for _ in range(3):
            assert engine.ready
            assert doubler.ask(1).exception(LIMIT_S) is doubler.error

        assert until(lambda: given_up)
        assert "failed 3 times in a row" in given_up[0]
        assert not engine.ready

    @pytest.mark.parametrize(
        ("cause", "refusal"),
        [
            ("CUDA failed with error an illegal memory access was encountered", DeviceFailed),
            ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", DeviceFailed),
            ("CUDA failed with error out of memory", DeviceFailed),
            ("the prompt is too long", EngineFailed),
        ],
    )
    def test_failure_of_the_device_is_one_to_send_again(self, cause, refusal, monkeypatch):
        """503, which the balancer sends to another worker; a bug would follow it there."""
        monkeypatch.setattr("app.engine.engine.HOLD_S", 0)
        engine, model = held_engine(Config())
        model.failure = RuntimeError(cause)
        model.go.set()

        with pytest.raises(refusal) as told:
            engine.decode(Job(np.zeros(16_000, np.float32), DecodeOptions())).result()
        assert told.value.status == (503 if refusal is DeviceFailed else 500)
        assert cause not in str(told.value.body())
        assert engine.ready is (refusal is EngineFailed), "no more requests until it has proved"

    def test_device_that_is_reset_keeps_its_worker(self, doubler, given_up):
        """Fewer failures than the limit, then it works: nothing is remembered against it."""
        engine = self.engine(doubler, given_up)
        for _ in range(3):
            doubler.error = RuntimeError("CUDA failed with error device is being reset")
            for _ in range(2):
                assert doubler.ask(1).exception(LIMIT_S) is doubler.error
            doubler.error = None
            assert doubler.ask(1).result(LIMIT_S) == 2
        time.sleep(0.1)

        assert engine.ready
        assert given_up == []

    def test_no_room_for_the_model_is_said_and_tried_again(self, tiny_config, monkeypatch):
        """A fresh process may find the memory that another one held."""

        def full(*arguments, **options):
            raise RuntimeError("CUDA failed with error out of memory")

        monkeypatch.setattr("faster_whisper.WhisperModel", full)
        monkeypatch.setattr("app.engine.engine.LOAD_AGAIN_AFTER_S", 0.1)
        reasons: list[str] = []
        engine = Engine(tiny_config, reasons.append)
        engine.start()

        assert until(lambda: reasons)
        assert reasons == ["The model could not be loaded; trying again."]
        assert engine.state == "broken"
        assert "out of memory" in str(engine.unready)
        with pytest.raises(NotReady), engine.admission.slot(Cancellation()):
            pass

    def test_worker_whose_device_failed_proves_at_once_that_it_works(
        self, doubler, given_up, monkeypatch
    ):
        """Not a minute later, and not by other people's requests."""
        monkeypatch.setattr("app.engine.engine.HOLD_S", 0)
        engine, model = held_engine(Config(), given_up.append)
        model.device_threads = doubler.device
        model.failure = RuntimeError("CUDA failed with error device is being reset")
        model.go.set()
        with pytest.raises(DeviceFailed):
            engine.decode(Job(np.zeros(16_000, np.float32), DecodeOptions())).result()
        assert not engine.ready
        model.failure = None
        threading.Thread(target=engine._watch, daemon=True).start()

        assert until(lambda: engine.ready)
        assert given_up == []

    def test_worker_without_requests_proves_that_it_could(self, doubler, given_up, monkeypatch):
        """Out while a recording of its own fails, back as soon as it does not."""
        monkeypatch.setattr("app.engine.engine.SELF_TEST_AFTER_S", 0.1)
        engine, model = held_engine(Config(), given_up.append)
        model.device_threads = doubler.device
        model.failure = RuntimeError("no words")
        threading.Thread(target=engine._watch, daemon=True).start()

        assert until(lambda: not engine.ready)
        assert engine.unready == "The worker cannot transcribe a recording of its own: no words"
        model.failure = None
        assert until(lambda: engine.ready)
        assert given_up == []
