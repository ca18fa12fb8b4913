"""An entry that refuses what gets no slot within a moment, and its figures of it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.api.pages import FOLDER, POLICY, TYPES
from tests.support.entry import Entry
from tests.support.http import HTTP
from tests.support.recordings import recording, wav
from tests.support.refusals import retry_after_s
from tests.support.stub_worker import Reply
from tests.support.waiting import until

SPEECH = recording("goforward_16k.wav")
WINDOW = wav(SPEECH.waveform())


@pytest.fixture
def entry(tmp_path) -> Iterator[Entry]:
    """One worker with two slots, one of them kept for realtime."""
    with Entry.started(
        tmp_path, MAX_CONCURRENT_TRANSCRIPTIONS="2", QUEUE_TIMEOUT_S="0.5",
        DEFERRED_QUEUE_TIMEOUT_S="0.5",
    ) as running:  # fmt: skip
        yield running


def figure(entry: Entry, name: str) -> float:
    """The newest total of one counter."""
    return float(entry.figures()["history"][-1][name])


def test_reserve_and_refusals(entry):
    """Deferred requests leave the pool its reserve; refusals are counted by reason and tier, on the
    metrics, on /lb-status and in the log."""
    (worker,) = entry.workers
    deferred, realtime = worker.hold(), worker.hold()
    with ThreadPoolExecutor(2) as background:
        busy = background.submit(entry.send, WINDOW, "deferred")
        deferred.wait()

        refused = entry.send(WINDOW, "deferred")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "server_busy"
        assert retry_after_s(refused) >= 1
        assert "x-refused" not in refused.headers
        also_busy = background.submit(entry.send, WINDOW)
        realtime.wait()
        assert retry_after_s(entry.send(WINDOW)) >= 1
        assert "w1: up, 2 of 2 slots" in entry.status()
        deferred.release()
        realtime.release()
        assert busy.result().status_code == also_busy.result().status_code == 200
    assert until(lambda: "w1: up, 0 of 2 slots" in entry.status())
    assert entry.send(WINDOW, "deferred").status_code == 200

    assert worker.most_inside == 2
    assert entry.refused() == {("deadline", "deferred"): 1, ("deadline", "realtime"): 1}
    assert "Refused: 2" in entry.status()
    assert "  deadline, deferred: 1" in entry.status()
    assert until(lambda: len(refusals_in_log(entry)) == 2)
    assert {line["tier"] for line in refusals_in_log(entry)} == {"realtime", "deferred"}


def refusals_in_log(entry: Entry) -> list[dict[str, str]]:
    return [line for line in entry.requests if line["refused"] != "-"]


def test_slot_for_realtime_is_free_while_deferred_requests_are_refused(entry):
    (worker,) = entry.workers
    held = worker.hold()
    with ThreadPoolExecutor(1) as background:
        busy = background.submit(entry.send, WINDOW, "deferred")
        held.wait()

        for _ in range(3):
            assert until(lambda: "w1: up, 1 of 2 slots" in entry.status())
            assert entry.send(WINDOW).status_code == 200

        held.release()
        assert busy.result().status_code == 200


def test_slot_that_becomes_free_within_a_moment_is_waited_for(tmp_path):
    """Realtime waits 2 s at most, whatever the queue's limit; deferred as long as ever."""
    with (
        Entry.started(tmp_path, MAX_CONCURRENT_TRANSCRIPTIONS="1") as entry,
        ThreadPoolExecutor(3) as clients,
    ):
        held = entry.workers[0].hold()
        busy = clients.submit(entry.send, WINDOW)
        held.wait()
        deferred = clients.submit(entry.send, WINDOW, "deferred")
        began = time.monotonic()

        assert entry.send(WINDOW).status_code == 503
        assert time.monotonic() - began >= 2
        soon = clients.submit(entry.send, WINDOW)
        assert until(lambda: "Queue: 2" in entry.status()), "the deferred request still waits"
        held.release()

        assert [one.result().status_code for one in (busy, soon, deferred)] == [200] * 3


def test_clients_are_told_to_come_back_at_different_moments(entry):
    """And the later the more there are of them: they would all meet again."""
    held = [entry.workers[0].hold() for _ in range(2)]
    with ThreadPoolExecutor(14) as clients:
        busy = [clients.submit(entry.send, WINDOW) for _ in held]
        for one in held:
            one.wait()

        refused = [one.result() for one in [clients.submit(entry.send, WINDOW) for _ in range(12)]]

        assert {answer.status_code for answer in refused} == {503}
        told_ms = [int(answer.headers["retry-after-ms"]) for answer in refused]
        assert all(1000 <= told < 7000 for told in told_ms)
        assert all(retry_after_s(answer) >= 1 for answer in refused)
        assert len(set(told_ms)) > 6
        assert max(told_ms) > 2000
        for one in held:
            one.release()
        assert {one.result().status_code for one in busy} == {200}


def test_figures_are_those_of_the_balancer_and_of_the_workers(entry):
    (worker,) = entry.workers
    audio_s = settled(entry)
    before = entry.figures()
    assert (before["workers"][0]["name"], before["workers"][0]["state"]) == ("w1", "up")
    assert before["totals"] == {"up": 1, "inside": 0, "free": 2, "slots": 2}

    assert entry.send(WINDOW).status_code == 200
    worker.reply = Reply(400, {"X-Error": "invalid_value"}, {"error": {}})
    bad = [entry.send(b"no audio") for _ in range(2)]

    assert until(lambda: figure(entry, "audio_s") > audio_s)
    assert figure(entry, "audio_s") - audio_s == pytest.approx(SPEECH.seconds, abs=0.11)
    after = entry.figures()
    counted = {name: figure(entry, name) for name in ("answered", "failed", "refused")}
    assert counted == {"answered": 1, "failed": 2, "refused": 0}
    assert figure(entry, "took_s") > 0
    assert figure(entry, "busy_s") > 0
    newest = after["faults"][0]
    assert (newest["status"], newest["code"], newest["worker"]) == (400, "invalid_value", "w1")
    assert newest["times"] == 2
    assert newest["id"] == bad[-1].headers["x-request-id"]


def test_figures_say_how_long_answers_take(entry):
    """Of each tier by itself; refusals, which are quick, do not count."""
    (worker,) = entry.workers
    for _ in range(18):
        assert entry.send(WINDOW).status_code == 200
    worker.delay_s = 0.4
    for tier in ("realtime", "realtime", "deferred"):
        assert entry.send(WINDOW, tier).status_code == 200
    worker.reply = Reply(503, {"X-Refused": "busy", "Retry-After": "1"})
    assert entry.send(WINDOW).status_code == 503

    latency = entry.figures()["latency"]

    assert latency["realtime"]["requests"] == 20
    assert 0 <= latency["realtime"]["p50_ms"] < latency["realtime"]["p95_ms"]
    assert latency["realtime"]["p95_ms"] >= 400
    assert latency["deferred"]["requests"] == 1
    assert latency["deferred"]["p50_ms"] == latency["deferred"]["p95_ms"] >= 400


def test_figures_name_what_runs_and_since_when(entry):
    (worker,) = entry.figures()["workers"]

    assert worker["figures"]["model"] == "large-v3"
    assert worker["figures"]["version"] == "1.10", "a text, though it looks like a number"
    assert 0 <= worker["since_s"] < 60
    assert 0 <= entry.figures()["uptime_s"] < 60


def test_refusals_for_load_are_no_faults(entry):
    held = [entry.workers[0].hold() for _ in range(2)]
    with ThreadPoolExecutor(2) as background:
        busy = [background.submit(entry.send, WINDOW) for _ in held]
        for one in held:
            one.wait()
        assert entry.send(WINDOW).status_code == 503
        for one in held:
            one.release()
        assert {one.result().status_code for one in busy} == {200}

    assert figure(entry, "refused") == 1
    assert entry.figures()["faults"] == []


def test_worker_that_is_restarted_loses_no_figure(entry):
    """It counts from 0 again."""
    before = settled(entry)

    entry.workers[0].audio_s = 7.0

    assert until(lambda: figure(entry, "audio_s") == before + 7)


def settled(entry: Entry) -> float:
    """Seconds of audio, once the balancer counts: what a worker had done when it was first seen
    counts for nothing."""
    (worker,) = entry.workers

    def grows() -> bool:
        worker.audio_s += 100
        return figure(entry, "audio_s") > 0

    assert until(grows)
    worker.audio_s += 0.5  # a mark by which the last figure is known
    assert until(lambda: figure(entry, "audio_s") % 100 == 0.5)
    return figure(entry, "audio_s")


def test_internal_headers_stay_inside(entry):
    (worker,) = entry.workers
    for answer in (HTTP.get(entry.url + "/health"), entry.send(WINDOW)):
        assert answer.status_code == 200
        assert not [
            name
            for name in answer.headers
            if name.startswith(("x-figures", "x-error", "x-refused"))
        ]
        assert "x-served-by" not in answer.headers
    assert worker.heard[-1]["x-outside"] == "true"


def test_request_id_is_the_clients_own_on_every_answer(entry):
    for path in ("/health", "/lb-status", "/metrics", "/v1/models"):
        answer = HTTP.get(entry.url + path, headers={"X-Request-ID": "meeting-7"})
        assert answer.headers["x-request-id"] == "meeting-7"
        assert len(HTTP.get(entry.url + path).headers["x-request-id"]) == 36
    assert entry.send(WINDOW, headers={"X-Request-ID": "a b"}).headers["x-request-id"] != "a b"


def read(name: str) -> str:
    """A file that pages are made of."""
    return (FOLDER / name).read_text()


def test_balancer_serves_every_part_of_the_status_page(entry):
    page = HTTP.get(entry.url + "/status")
    parts = set(re.findall(r'(?:src|href)="(/status[^"]+)"', page.text))
    for part in ("status.js", "figures.js", "chart.js"):
        parts |= {"/status/" + name for name in re.findall(r'from "./(.+?)"', read(part))}

    for path in ("/status", *sorted(parts)):
        answer = HTTP.get(entry.url + path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        if path != "/status":
            assert answer.text == read(path.rpartition("/")[2])
            assert answer.headers["content-type"] == TYPES["." + path.rpartition(".")[2]]
    assert len(parts) >= 7
    assert HTTP.get(entry.url + "/status/pages.py").status_code == 404
    assert HTTP.post(entry.url + "/status").status_code == 405


def test_entry_without_workers_says_so(entry):
    """And /lb-status says why, in the worker's own words from its health check."""
    (worker,) = entry.workers
    worker.reason = "MODEL_SIZE: the folder holds no model."
    assert until(lambda: any(worker.reason in line for line in entry.status()))

    refused = entry.send(WINDOW)

    assert refused.status_code == 503
    assert retry_after_s(refused) >= 1
    health = HTTP.get(entry.url + "/health")
    assert health.json() == {"status": "unhealthy", "reason": "No worker is ready."}
    assert retry_after_s(health) == 1
    assert entry.refused() == {("no_worker", "realtime"): 1}
    assert entry.figures()["faults"][0]["code"] == "no_worker"
    assert worker.reason in entry.figures()["workers"][0]["reason"]
    assert HTTP.get(entry.url + "/status").status_code == 200
    assert "Workers: 0 of 1 up" in entry.status()
    assert worker.heard == []

    worker.reason = ""
    assert until(lambda: "Workers: 1 of 1 up" in entry.status())
    assert entry.send(WINDOW).status_code == 200


def test_program_that_is_no_worker_gets_no_requests(tmp_path):
    """Another program on a worker's port may answer 200 to anything."""
    with Entry.started(tmp_path, workers=2) as entry:
        first, second = entry.workers
        health = first.health

        def of_another_program() -> Reply:
            return Reply(200, {}, health().body)

        first.health = of_another_program  # type: ignore[method-assign]
        assert until(lambda: "Workers: 1 of 2 up" in entry.status())
        assert any("Another program answers" in line for line in entry.status())

        before = len(first.heard)
        assert {entry.send(WINDOW).status_code for _ in range(4)} == {200}
        assert len(first.heard) == before
        assert len(second.heard) == 4


def test_deferred_and_realtime_are_told_apart_in_the_log(entry):
    for number, tier in enumerate(("realtime", "deferred", "Deferred", "nonsense")):
        entry.send(WINDOW, tier)
        assert until(lambda number=number: len(entry.requests) > number)

    tiers = [line["tier"] for line in entry.requests]
    assert tiers == ["realtime", "deferred", "deferred", "realtime"]
