"""A worker's life over real sockets: clients that leave, drain, a model that is not there."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from app.config import ROOT
from app.engine.admission import PLACES
from app.process import children
from app.worker.starts import Starts
from tests.support import cores
from tests.support.environment import bare_environment
from tests.support.processes import alive, descendants
from tests.support.recordings import long_recording, recording, wav, wav_header
from tests.support.waiting import LIMIT_S, until
from tests.support.worker import Worker, worker

AUSTEN = recording("austen_0890.wav").path.read_bytes()
LATE_S = 5


def test_requests_that_come_while_the_model_loads_wait_for_it():
    with worker(ready=False) as loading:
        assert until(lambda: loading.health() is not None)
        answer = loading.post()

    assert answer.status_code == 200
    assert "cold" in answer.json()["text"]


@pytest.fixture(scope="module")
def busy() -> Iterator[Worker]:
    """A worker with two slots."""
    with worker(MAX_CONCURRENT_TRANSCRIPTIONS="2") as running:
        yield running


def test_client_that_leaves_while_decoding_costs_no_more_work(busy):
    """The request ends at its next window; its slot, thread and place are free again."""
    cancelled = busy.metric("transcription_cancelled_total")
    answers = busy.metric("transcription_answers_total")
    connection = busy.send(wav(long_recording(240).samples))
    assert until(lambda: busy.metric("transcription_slots_in_use") == 1)
    connection.close()

    assert until(lambda: busy.metric("transcription_slots_in_use") == 0)
    assert busy.metric("transcription_cancelled_total") == cancelled + 1
    assert busy.metric("transcription_answers_total") == answers + 1, "nothing else was counted"
    assert busy.post().status_code == 200


def test_full_worker_refuses(busy):
    """Requests wait in the balancer, which knows when any worker has a slot."""
    long = wav(long_recording(600).samples)
    decoding = [busy.send(long) for _ in range(2)]
    assert until(lambda: busy.metric("transcription_slots_in_use") == 2)
    waiting = [busy.send(AUSTEN) for _ in range(PLACES)]
    assert until(lambda: busy.metric("transcription_waiting") == PLACES)

    refused = busy.post()

    assert refused.status_code == 503
    assert refused.headers["x-refused"] == "busy"
    assert refused.headers["retry-after"] == "1"
    waiting.pop().close()
    assert until(lambda: busy.metric("transcription_waiting") == PLACES - 1)
    assert busy.metric("transcription_slots_in_use") == 2, "the others go on"
    for connection in decoding + waiting:
        connection.close()
    assert until(lambda: busy.metric("transcription_slots_in_use") == 0)


def test_many_clients_that_leave_at_random_leave_nothing_behind(busy):
    threads_before, sockets_before = thread_count(busy), open_sockets(busy)
    for number in range(40):
        connection = busy.send(AUSTEN)
        time.sleep(0.013 * (number % 5))
        connection.close()

    assert until(
        lambda: (
            busy.metric("transcription_slots_in_use") == 0
            and busy.metric("transcription_waiting") == 0
        )
    )
    assert busy.post().status_code == 200
    assert thread_count(busy) - threads_before <= 40
    assert until(lambda: open_sockets(busy) <= sockets_before + 1)


def test_upload_that_kills_its_decoder_is_a_400_and_nothing_else(busy):
    """In the middle of a long decode; a live window sent meanwhile gets its transcript."""
    head = bytearray(wav_header(60_000_000, rate=8_000))
    head[20:22], head[28:36] = b"\6\0", struct.pack("<IHH", 8_000, 1, 8)  # 2 h of a-law
    upload = bytes(head) + bytes(60_000_000)
    answers: list[httpx.Response] = []
    long = threading.Thread(target=lambda: answers.append(busy.post(upload)))
    ended = busy.metric("transcription_decoders_ended_total")
    pid = busy.process_id()
    (fork_server,) = children(pid)

    def at_work() -> list[int]:
        return [child for child in children(fork_server) if cores.own(child) > 0.2]

    long.start()
    assert until(at_work)
    os.kill(at_work()[0], signal.SIGSEGV)
    live = busy.post()
    long.join()

    assert answers[0].status_code == 400
    assert answers[0].json()["error"]["param"] == "file"
    assert live.status_code == 200
    assert busy.process_id() == pid
    assert busy.metric("transcription_decoders_ended_total") == ended + 1
    assert busy.metric("transcription_slots_in_use") == 0
    assert until(lambda: "an upload cost its decoder: ended by SIGSEGV" in "".join(busy.lines))


def thread_count(running: Worker) -> int:
    return len(os.listdir(f"/proc/{running.process_id()}/task"))


def open_sockets(running: Worker) -> int:
    pid = running.process_id()
    return sum(is_socket(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))


def is_socket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except FileNotFoundError:
        return False  # closed since it was listed


def test_stopping_worker_finishes_what_it_has_begun_and_refuses_the_new():
    """On connections that were there before; its port takes no new ones."""
    with worker() as stopping, ExitStack() as clients:
        kept = [
            clients.enter_context(httpx.Client(base_url=stopping.url, timeout=LIMIT_S))
            for _ in range(8)
        ]
        for client in kept:
            assert client.get("/health").status_code == 200
        answers: list[httpx.Response] = []
        long = wav(long_recording(120).samples)
        request = threading.Thread(target=lambda: answers.append(stopping.post(long)))
        request.start()
        assert until(lambda: stopping.metric("transcription_slots_in_use") == 1)

        stopping.process.send_signal(signal.SIGTERM)
        health = first_refusal(kept)
        request.join()

        assert health is not None
        assert "stopping" in health.json()["reason"]
        assert answers[0].status_code == 200
        assert answers[0].json()["duration"] > 119
        assert stopping.process.wait(LIMIT_S) == 0


def first_refusal(kept: list[httpx.Client]) -> httpx.Response | None:
    """The first 503 that one of these clients gets; each asks once, a moment after the other."""
    for client in kept:
        time.sleep(0.3)
        answer = client.get("/health")
        if answer.status_code == 503:
            return answer
    return None


def test_worker_without_its_model_stays_and_says_why(tmp_path):
    with worker(ready=False, MODEL_SIZE=str(tmp_path)) as broken:
        assert until(lambda: (found := broken.health()) and found.json().get("state") == "broken")
        health, answer = broken.health(), broken.post()

    assert health is not None
    assert str(tmp_path) in health.json()["reason"]
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert str(tmp_path) not in answer.text, "a path of the machine is not for clients"


@pytest.fixture
def slow_fork(tmp_path):
    """A library for LD_PRELOAD with which every forked process is late to do anything, as on a
    busy machine: it sleeps inside `fork`, before Python does its part."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is needed for the late fork")
    source, library = tmp_path / "late.c", tmp_path / "late.so"
    source.write_text(
        "#include <pthread.h>\n#include <unistd.h>\n"
        f"static void late(void) {{ sleep({LATE_S}); }}\n"
        "__attribute__((constructor)) static void begin(void) { pthread_atfork(0, 0, late); }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def test_killed_worker_takes_its_port_with_it(slow_fork):
    """Supervisor starts a new worker; no client reaches a master whose worker is still loading."""
    with worker(LD_PRELOAD=str(slow_fork), DRAIN_TIMEOUT_S="600") as killed:
        os.kill(killed.process_id(), signal.SIGKILL)

        killed.process.wait(LIMIT_S)
        assert killed.health() is None


def test_worker_that_is_told_to_stop_before_it_can_listen_stops(slow_fork):
    """The signal that meets it between its fork and its own handlers is not lost."""
    with worker(ready=False, LD_PRELOAD=str(slow_fork), DRAIN_TIMEOUT_S="600") as young:
        assert until(lambda: children(young.process.pid))
        young.process.send_signal(signal.SIGTERM)

        assert young.process.wait(LIMIT_S) == 0


def test_killed_master_leaves_no_orphan():
    with worker() as orphaned:
        below = descendants(orphaned.process.pid)
        assert len(below) >= 2, "the worker and its fork server"
        orphaned.process.kill()
        orphaned.process.wait(LIMIT_S)

        assert until(lambda: not any(map(alive, below)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"BEAM_SIZE": "many"}, "BEAM_SIZE is 'many'; it accepts a whole number from 1 to 64."),
        ({"WORKER_ID": "0"}, "WORKER_ID is '0'; it accepts a whole number from 1 to 10000."),
    ],
)
def test_bad_setting_stops_the_worker_with_its_sentence(settings, sentence):
    with worker(ready=False, **settings) as refused:
        assert refused.process.wait(LIMIT_S) != 0
        assert until(lambda: sentence in "".join(refused.lines))
    assert "Traceback" not in "".join(refused.lines)


def test_file_of_keys_that_cannot_be_used_ends_the_worker_with_its_sentence(tmp_path):
    """Which the balancer tells, once the worker waits before its next start."""
    sentence = "Makefile: line 1 is not JSON"
    with worker(ready=False, API_KEYS_FILE="Makefile", RUN_DIR=str(tmp_path)) as refused:
        assert refused.process.wait(LIMIT_S) != 0
        assert until(lambda: sentence in "".join(refused.lines))
    assert "Traceback" not in "".join(refused.lines)
    again = Starts(tmp_path / "worker_1.starts")
    again.begin()
    assert sentence in again.reason


def test_worker_tells_nobody_that_it_runs(tmp_path, monkeypatch):
    """onnxruntime would keep an identifier in the folder for temporary files, and send reports;
    not where CI is set, so that must not be."""
    monkeypatch.delenv("CI", raising=False)
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    with worker(**home) as silent:
        assert silent.post().status_code == 200

        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_gpu_and_threads_of_a_worker_are_set_before_anything_is_loaded():
    """CUDA and NumPy read the variables once; the settings file sets them in Gunicorn's master."""
    script = (
        "import os, sys; from app.worker import gunicorn_conf; "
        "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OPENBLAS_NUM_THREADS']); "
        "print({'ctranslate2', 'numpy'} & set(sys.modules))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, env=bare_environment() | {"GPUS": "0,MIG-7a", "WORKER_ID": "2"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip

    assert shown.stdout.split() == ["MIG-7a", "1", "set()"]
