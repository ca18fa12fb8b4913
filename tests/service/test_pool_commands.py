"""The pool's life: its commands, its end, and starts that cannot work."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.config import ROOT
from tests.support import models
from tests.support.client import TRANSCRIPTIONS
from tests.support.environment import bare_environment
from tests.support.http import HTTP
from tests.support.key_file import entry, write
from tests.support.ports import ports
from tests.support.processes import alive
from tests.support.recordings import long_recording, recording, wav
from tests.support.stack import KEY, Stack
from tests.support.victim import Victim
from tests.support.waiting import until

COMMAND_S = 300
DRAIN_S = 120
SLOTS_IN_USE = "transcription_slots_in_use"


def post(stack: Stack, content: bytes) -> httpx.Response:
    return HTTP.post(
        stack.url + TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": content},
        timeout=300,
    )  # fmt: skip


def pool(command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one of the pool's commands to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app.pool", command],
        cwd=ROOT, env=bare_environment() | settings,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMMAND_S,
    )  # fmt: skip


def failing(call: Callable[..., object], *arguments: object) -> None:
    """Make a call whose connection is about to be cut."""
    with contextlib.suppress(httpx.HTTPError):
        call(*arguments)


class TestPoolCommands:
    def test_stop_and_status(self, tmp_path):
        """In a shell that knows only RUN_DIR; and the terminal stays calm all the time."""
        with Stack.started(tmp_path, WORKERS="1") as running:
            settings = {"RUN_DIR": running.settings["RUN_DIR"]}
            example = running.shown[4]
            words = subprocess.check_output(shlex.split(example), cwd=ROOT, text=True)
            status = pool("status", **settings)
            second = pool("run", **settings)
            pids = running.processes()
            stopped = pool("stop", **settings)
            assert running.process.wait(COMMAND_S) == 0
            assert until(lambda: running.shown[-1] == "Stopped.\n"), running.terminal

        assert status.returncode == 0
        assert "worker_1" in status.stdout
        assert "Workers: 1 of 1 up" in status.stdout
        assert second.returncode == 1
        assert "already runs" in second.stdout
        assert stopped.returncode == 0
        assert stopped.stdout.splitlines()[-1] == "Stopped."
        assert len(stopped.stdout.splitlines()) == 2
        model, starting, workers, ready, _, pages, how_to_stop, _ = running.shown
        assert re.match(r"Model: tiny\.en, \d+ MB, on the CPU", model)
        assert f"log: {tmp_path}/service.log" in starting
        assert workers == "Workers ready: 1/1\n"
        assert ready.startswith("Ready after")
        assert "cold-hearted" in json.loads(words)["text"]
        assert f"{running.url.replace('http://', '')}/playground" in pages
        assert "Ctrl-C" in how_to_stop
        assert "supervisord started" in running.log
        assert not [pid for pid in pids if alive(pid)]
        assert pool("status", **settings).returncode == 1
        assert pool("stop", **settings).returncode == 0

    def test_killed_pool_leaves_no_process(self, tmp_path):
        with Stack.started(tmp_path, WORKERS="1") as killed:
            pids = killed.processes()
            killed.process.kill()
            killed.process.wait(COMMAND_S)

            assert until(lambda: not [pid for pid in pids if alive(pid)])

    def test_second_signal_ends_at_once(self, tmp_path):
        """Without the time that requests in progress would have."""
        with Stack.started(tmp_path, WORKERS="1", DRAIN_TIMEOUT_S=str(DRAIN_S)) as busy:
            long = wav(long_recording(600).samples)
            request = threading.Thread(target=lambda: failing(post, busy, long))
            request.start()
            assert until(lambda: busy.metric(1, SLOTS_IN_USE) == 1)
            pids = busy.processes()
            busy.process.send_signal(signal.SIGINT)
            assert until(lambda: "Ctrl-C again ends them" in busy.terminal)
            busy.process.send_signal(signal.SIGINT)
            busy.process.wait(DRAIN_S / 2)
            request.join(DRAIN_S / 2)

            assert until(lambda: not [pid for pid in pids if alive(pid)])

    @pytest.mark.slow
    def test_stop_takes_as_long_with_several_busy_workers_as_with_one(self, tmp_path):
        with Stack.started(tmp_path, WORKERS="3", DRAIN_TIMEOUT_S="10") as busy:
            long = wav(long_recording(600).samples)
            requests = [threading.Thread(target=failing, args=(post, busy, long)) for _ in range(3)]
            for request in requests:
                request.start()
            for number in (1, 2, 3):
                assert until(lambda number=number: busy.metric(number, SLOTS_IN_USE) == 1)
            began = time.monotonic()
            stopped = pool("stop", RUN_DIR=busy.settings["RUN_DIR"])
            elapsed_s = time.monotonic() - began
            for request in requests:
                request.join(COMMAND_S)

        assert stopped.returncode == 0, stopped.stdout
        assert 10 <= elapsed_s < 20

    def test_pool_ends_also_with_a_worker_that_stands_still(self, tmp_path):
        with Stack.started(tmp_path, WORKERS="1", DRAIN_TIMEOUT_S="3") as guarded:
            os.kill(Victim(guarded).child(0), signal.SIGSTOP)
            assert until(lambda: "0 of 1 up" in HTTP.get(guarded.url + "/lb-status").text)
            health = HTTP.get(guarded.url + "/health")
            pids = guarded.processes()
            assert guarded.stop() == 0

        assert health.json() == {"status": "unhealthy", "reason": "No worker is ready."}
        assert not [pid for pid in pids if alive(pid)]


@pytest.mark.slow
@pytest.mark.alone
def test_pool_in_a_folder_of_any_name(tmp_path_factory):
    """A space, an apostrophe, and what else shells, Supervisor, HAProxy and Lua could misread."""
    folder = tmp_path_factory.mktemp("""it's a "b";c,d?#$HOME 100%é\\""")
    for name in ("app", "deploy"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "模型 1").symlink_to(models.tiny_en())
    (folder / "a tmp").mkdir()
    write(folder / "the keys.json", meetings=entry(KEY))

    with Stack.started(
        Path(".run"), root=folder, WORKERS="1", MODEL_SIZE=str(folder / "模型 1"),
        TMPDIR=str(folder / "a tmp"), API_KEYS_FILE="the keys.json",
    ) as running:  # fmt: skip
        answer = HTTP.post(
            running.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
            files={"file": recording("goforward_16k.wav").content()},
            headers={"Authorization": f"Bearer {KEY}"}, timeout=COMMAND_S,
        )  # fmt: skip
        stopped = running.stop()

    assert answer.status_code == 200, answer.text
    assert "go forward" in answer.json()["text"].lower()
    assert answer.headers["x-model"] == "?? 1"
    assert stopped == 0


class TestStartsThatCannotWork:
    """One sentence each; the others are in tests/unit/test_pool_check.py."""

    def test_port_in_use(self, tmp_path):
        own = ports(1)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", int(own["LB_PORT"])))
            taken.listen()
            refused = pool("run", RUN_DIR=str(tmp_path), WORKERS="1", **own)

        assert refused.returncode == 1
        assert refused.stdout.startswith(f"LB_PORT: port {own['LB_PORT']} cannot be opened")
        assert len(refused.stdout.splitlines()) == 1

    def test_model_that_does_not_load(self, tmp_path):
        broken = tmp_path / "broken"
        broken.mkdir()
        for file in models.tiny_en().iterdir():
            (broken / file.name).write_bytes(file.read_bytes()[:1_000_000])

        refused = pool("run", RUN_DIR=str(tmp_path), MODEL_SIZE=str(broken), **ports(3))

        assert refused.returncode == 1
        assert refused.stdout.splitlines()[-1].startswith(
            f"The model in {broken} could not be loaded"
        )
