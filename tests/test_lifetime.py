"""A worker's life over real sockets: clients that leave, drain, a model that is not there."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from app.config import ROOT
from app.pool import children
from app.starts import Starts
from tests import models
from tests.client import TRANSCRIPTIONS, form
from tests.load import cores
from tests.recordings import long_recording, recording, wav, wav_header
from tests.stack import alive, bare_environment, descendants, ports, until

AUSTEN = recording("austen_0890.wav").path.read_bytes()
LATE_S = 5


class Worker:
    """One Gunicorn worker on a free port, without Supervisor or balancer."""

    def __init__(self, **settings: str) -> None:
        own = ports(1)
        self.url = f"http://127.0.0.1:{own['WORKER_BASE_PORT']}"
        self.port = int(own["WORKER_BASE_PORT"])
        model = {"MODEL_SIZE": str(models.tiny_en()), "MODEL_NAME": "tiny.en", "WORKERS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:app.gunicorn_conf",
             "app.main:get_app()"],
            cwd=ROOT, env=bare_environment() | own | model | settings,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(lines)

    def health(self) -> httpx.Response | None:
        try:
            return httpx.get(self.url + "/health", timeout=5)
        except httpx.TransportError:
            return None

    def metric(self, name: str) -> float:
        text = httpx.get(self.url + "/metrics", timeout=5).text
        values = [
            line for line in text.splitlines() if line.startswith((name + " ", name + "{"))
        ]  # fmt: skip
        return sum(float(line.rsplit(" ", 1)[1]) for line in values)

    def process_id(self) -> int:
        """The process that holds the model: Gunicorn's one child."""
        (pid,) = children(self.process.pid)
        return pid

    def post(self, content: bytes = AUSTEN, **fields: str) -> httpx.Response:
        return httpx.post(
            self.url + TRANSCRIPTIONS,
            data={"model": "whisper-1"} | fields,
            files={"file": ("a.wav", content)},
            timeout=120,
        )

    def send(self, content: bytes) -> socket.socket:
        """Send a whole request and do not wait for its answer."""
        sent = form(content, {"model": "whisper-1"})
        body = sent.read()
        connection = socket.create_connection(("127.0.0.1", self.port))
        head = (
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {sent.headers['Content-Type']}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        return connection


@contextmanager
def worker(ready: bool = True, **settings: str) -> Iterator[Worker]:
    started = Worker(**settings)
    try:
        if ready:
            assert until(lambda: (found := started.health()) and found.status_code == 200, 60)
        yield started
    finally:
        if started.process.poll() is None:
            started.process.kill()
        started.process.wait(30)
        started.reader.join(30)


def test_requests_that_come_while_the_model_loads_wait_for_it():
    with worker(ready=False) as loading:
        assert until(lambda: loading.health() is not None, 30)
        answer = loading.post()

    assert answer.status_code == 200
    assert "cold" in answer.json()["text"]


def test_client_that_leaves_while_decoding_costs_no_more_work():
    """The request ends at its next window; its slot, thread and place are free again."""
    long = wav(long_recording(120).samples)
    with worker(MAX_CONCURRENT_TRANSCRIPTIONS="1") as busy:
        connection = busy.send(long)
        assert until(lambda: busy.metric("transcription_slots_in_use") == 1)
        connection.close()

        assert until(lambda: busy.metric("transcription_slots_in_use") == 0, 20)
        assert busy.metric("transcription_cancelled_total") == 1
        assert busy.metric("transcription_answers_total") == 1, "nothing else was counted"
        assert busy.post().status_code == 200


def test_client_that_leaves_while_waiting_frees_its_place():
    long = wav(long_recording(60).samples)
    with worker(MAX_CONCURRENT_TRANSCRIPTIONS="1", FAIL_FAST_WHEN_BUSY="false") as busy:
        decoding = busy.send(long)
        assert until(lambda: busy.metric("transcription_slots_in_use") == 1)
        waiting = busy.send(AUSTEN)
        assert until(lambda: busy.metric("transcription_waiting") == 1)

        waiting.close()

        assert until(lambda: busy.metric("transcription_waiting") == 0, 2)
        assert busy.metric("transcription_slots_in_use") == 1, "the other one goes on"
        decoding.close()
        assert until(lambda: busy.metric("transcription_slots_in_use") == 0, 20)


def test_many_clients_that_leave_at_random_leave_nothing_behind():
    with worker(FAIL_FAST_WHEN_BUSY="false") as busy:
        threads_before = thread_count(busy)
        for number in range(40):
            connection = busy.send(AUSTEN)
            time.sleep(0.013 * (number % 5))
            connection.close()

        assert until(
            lambda: (
                busy.metric("transcription_slots_in_use") == 0
                and busy.metric("transcription_waiting") == 0
            ),
            30,
        )
        assert busy.post().status_code == 200
        assert thread_count(busy) - threads_before <= 40
        assert open_sockets(busy) <= 8


def test_upload_that_kills_its_decoder_is_a_400_and_nothing_else():
    """In the middle of a long decode; a live window beside it does not notice."""
    head = bytearray(wav_header(60_000_000, rate=8_000))
    head[20:22], head[28:36] = b"\6\0", struct.pack("<IHH", 8_000, 1, 8)  # 2 h of a-law
    upload = bytes(head) + bytes(60_000_000)
    with worker() as hurt:
        answers: list[httpx.Response] = []
        long = threading.Thread(target=lambda: answers.append(hurt.post(upload)))
        pid = hurt.process_id()
        (nursery,) = children(pid)
        long.start()
        assert until(lambda: [one for one in children(nursery) if cores.own(one) > 0.2], 60)
        os.kill(next(one for one in children(nursery) if cores.own(one) > 0.2), signal.SIGSEGV)
        live = hurt.post()
        long.join(60)

        assert answers[0].status_code == 400
        assert answers[0].json()["error"]["param"] == "file"
        assert live.status_code == 200
        assert hurt.process_id() == pid
        assert hurt.metric("transcription_decoders_ended_total") == 1
        assert hurt.metric("transcription_slots_in_use") == 0
    assert until(lambda: "an upload cost its decoder: ended by SIGSEGV" in "".join(hurt.lines), 5)


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
    with worker() as stopping, httpx.Client(base_url=stopping.url, timeout=60) as kept:
        kept.get("/health")
        answers: list[httpx.Response] = []
        long = wav(long_recording(60).samples)
        request = threading.Thread(target=lambda: answers.append(stopping.post(long)))
        request.start()
        assert until(lambda: stopping.metric("transcription_slots_in_use") == 1)

        stopping.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        health = kept.get("/health")
        request.join(60)

        assert health.status_code == 503
        assert "stopping" in health.json()["reason"]
        assert answers[0].status_code == 200
        assert answers[0].json()["duration"] > 59
        assert stopping.process.wait(30) == 0


def test_worker_without_its_model_stays_and_says_why(tmp_path):
    with worker(ready=False, MODEL_SIZE=str(tmp_path)) as broken:
        assert until(
            lambda: (found := broken.health()) and found.json().get("state") == "broken", 30
        )
        health, answer = broken.health(), broken.post()

    assert health is not None
    assert str(tmp_path) in health.json()["reason"]
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert str(tmp_path) not in answer.text, "a path of the machine is not for clients"


@pytest.fixture
def slow_fork(tmp_path):
    """A folder for PYTHONPATH with which every forked process is late to do anything, as on a
    busy machine."""
    hook = f"import os, time\nos.register_at_fork(after_in_child=lambda: time.sleep({LATE_S}))\n"
    (tmp_path / "sitecustomize.py").write_text(hook)
    return tmp_path


def test_killed_worker_takes_its_port_with_it(slow_fork):
    """Supervisor starts a fresh one; nobody meets a master whose worker is still loading."""
    with worker(PYTHONPATH=str(slow_fork)) as killed:
        os.kill(killed.process_id(), signal.SIGKILL)

        killed.process.wait(10)
        assert killed.health() is None


def test_worker_that_is_told_to_stop_before_it_can_listen_stops(slow_fork):
    """The signal that meets it between its fork and its own handlers is not lost."""
    with worker(ready=False, PYTHONPATH=str(slow_fork)) as young:
        assert until(lambda: children(young.process.pid), 30)
        young.process.send_signal(signal.SIGTERM)

        assert young.process.wait(LATE_S + 10) == 0


def test_killed_master_leaves_no_orphan():
    with worker() as orphaned:
        below = descendants(orphaned.process.pid)
        assert len(below) >= 2, "the worker and its nursery of decoders"
        orphaned.process.kill()
        orphaned.process.wait(10)

        assert until(lambda: not any(map(alive, below)), 5)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"BEAM_SIZE": "many"}, "BEAM_SIZE is 'many'; it accepts a whole number from 1 to 64."),
        ({"WORKER_ID": "0"}, "WORKER_ID is '0'; it accepts a whole number from 1 to 10000."),
    ],
)
def test_bad_setting_stops_the_worker_with_its_sentence(settings, sentence):
    with worker(ready=False, **settings) as refused:
        assert refused.process.wait(30) != 0
        assert until(lambda: sentence in "".join(refused.lines), 5)
    assert "Traceback" not in "".join(refused.lines)


def test_file_of_keys_that_cannot_be_used_ends_the_worker_with_its_sentence(tmp_path):
    """Which the balancer tells, once the worker waits before its next start."""
    sentence = "Makefile: line 1 is not JSON"
    with worker(ready=False, API_KEYS_FILE="Makefile", RUN_DIR=str(tmp_path)) as refused:
        assert refused.process.wait(30) != 0
        assert until(lambda: sentence in "".join(refused.lines), 5)
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


def test_gpu_of_a_worker_is_set_before_anything_is_loaded():
    """CUDA reads the variable once; the settings file sets it in Gunicorn's master."""
    script = (
        "import os, sys; from app import gunicorn_conf; "
        "print(os.environ['CUDA_VISIBLE_DEVICES'], 'ctranslate2' in sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, env=bare_environment() | {"GPUS": "0,MIG-7a", "WORKER_ID": "2"},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip

    assert shown.stdout.split() == ["MIG-7a", "False"]
