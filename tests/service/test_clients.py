"""Other people's clients, unchanged, through the whole service.

Those whose requirements are not the suite's have an environment of their own under .run, made
once from pinned requirements with hashes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests

from app.config import ROOT
from tests.support.client import TRANSCRIPTIONS
from tests.support.event_stream import read_events
from tests.support.http import HTTP
from tests.support.openai_shapes import assert_shape
from tests.support.recordings import DATA, long_recording, recording, wav
from tests.support.stack import Stack
from tests.support.text import SENTENCE, words

SCRIPTS = Path(__file__).with_name("clients")
ENVIRONMENTS = ROOT / ".run" / "clients"
RECORDING = recording("austen_0890.wav").path
NO_RECORDING = DATA / "bad_text_named.wav"
INSTALL_S = 600
CLIENT_S = 240
NODE_6_NEEDS = 20  # Node's major version


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of several parts, so that its events come one after another."""
    path = tmp_path_factory.mktemp("clients") / "long.wav"
    path.write_bytes(wav(long_recording(60).samples))
    return path


@pytest.mark.parametrize("client", ["openai", "openai2", "node 4", "node 6"])
def test_openais_own_clients(stack: Stack, long_file: Path, client: str):
    files = [str(path) for path in (RECORDING, NO_RECORDING, long_file)]
    found = run([*command(client), f"{stack.url}/v1", *files])

    assert words(found["json"]["text"]) == words(found["text"]) == words(SENTENCE)
    assert_shape("json", found["json"])
    assert_shape("verbose_json", found["verbose_json"])
    assert found["verbose_json"]["words"][0]["word"] == "Unless"
    assert found["srt"].startswith("1\n00:00:00,000 --> ")
    assert found["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert_shape("json", found["logprobs"])
    assert len(found["logprobs"]["logprobs"]) > 10
    *deltas, done = found["events"]
    for event in deltas:
        assert_shape("delta", event)
        assert event["logprobs"]
    assert_shape("done", done)
    assert "".join(event["delta"] for event in deltas) == done["text"]
    assert len(deltas) > 5
    assert found["first_share"] < 0.9, "the client gives the events as they come"
    assert (found["models"], found["model"]) == (["tiny.en", "whisper-1"], "model")
    assert found["errors"] == {
        "bad_audio": ["BadRequestError", 400, "file"],
        "bad_audio_stream": ["BadRequestError", 400, "file"],
        "bad_field": ["BadRequestError", 400, "language"],
        "no_translation": ["BadRequestError", 400, "model"],
        "no_model": ["NotFoundError", 404, "model"],
    }


def test_litellm(stack: Stack):
    python = python_of("litellm")
    files = [str(path) for path in (RECORDING, NO_RECORDING)]
    found = run([python, str(SCRIPTS / "litellm_client.py"), f"{stack.url}/v1", *files])

    for name in ("json", "text"):
        assert words(found[name]) == words(SENTENCE)
    assert found["verbose_json"]["words"][0]["word"] == "Unless"
    assert found["srt"].startswith("1\n00:00:00,000 --> ")
    assert found["vtt"].startswith("WEBVTT\n\n00:00:00.000 --> ")
    assert found["errors"] == {
        "bad_audio": ["BadRequestError", 400],
        "bad_field": ["BadRequestError", 400],
    }


@pytest.mark.slow
@pytest.mark.parametrize("client", ["agents", "livekit", "pipecat"])
def test_live_transcription_in_frameworks_of_voice_agents(stack: Stack, client: str):
    """Each streams a recording in real time, as its users do."""
    script = str(SCRIPTS / f"{client}_client.py")
    found = run([python_of(client), script, f"{stack.url}/v1", str(RECORDING)])

    text = " ".join(found.get("turns") or found["final"])
    assert words(text)[-8:] == words(SENTENCE)[-8:]
    assert not found.get("errors")


@pytest.mark.alone
class TestMoreAtOnceThanSlots:
    """The pool refuses what gets no slot in time; clients that come back lose nothing."""

    def test_openais_node_client(self, stack: Stack):
        """Version 4 sends an empty body when it comes back, so it is not asked."""
        _, script, version = command("node 6")
        at_once = str(Path(script).with_name("at_once.mjs"))
        found = run(["node", at_once, version, f"{stack.url}/v1", str(RECORDING), "20", "8"])

        assert [words(text) for text in found["answers"]] == [words(SENTENCE)] * 20

    def test_litellm(self, stack: Stack):
        script = str(SCRIPTS / "litellm_at_once.py")
        found = run([python_of("litellm"), script, f"{stack.url}/v1", str(RECORDING), "8"])

        assert [words(text) for text in found["answers"]] == [words(SENTENCE)] * 8

    def test_bots_that_know_three_pauses(self, stack: Stack):
        """They wait 1, 2 and 4 s, whatever the answer says, and then the window is lost."""
        content = RECORDING.read_bytes()

        def window(_: int) -> int:
            for pause_s in (1, 2, 4, 0):
                status = requests.post(
                    stack.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
                    files={"file": ("window.wav", content)}, timeout=30,
                ).status_code  # fmt: skip
                if status != 503:
                    break
                time.sleep(pause_s)
            return status

        with ThreadPoolExecutor(10) as bots:
            assert list(bots.map(window, range(10))) == [200] * 10


class TestPlainClients:
    @pytest.mark.parametrize("response_format", ["json", "verbose_json", "text", "srt", "vtt"])
    def test_requests(self, stack: Stack, response_format: str):
        with RECORDING.open("rb") as file:
            answer = requests.post(
                stack.url + TRANSCRIPTIONS,
                data={"model": "whisper-1", "response_format": response_format},
                files={"file": file},
                timeout=CLIENT_S,
            )

        assert answer.status_code == 200
        assert "cold-hearted" in answer.text
        if "json" in response_format:
            assert_shape(response_format, answer.json())

    def test_requests_reads_a_stream(self, stack: Stack, long_file: Path):
        with (
            long_file.open("rb") as file,
            requests.post(
                stack.url + TRANSCRIPTIONS,
                data={"model": "whisper-1", "stream": True},
                files={"file": file},
                stream=True,
                timeout=CLIENT_S,
            ) as answer,
        ):
            answer.encoding = "utf-8"
            read = read_events(answer.iter_lines(decode_unicode=True))

        assert "".join(read.deltas) == read.last["text"]

    def test_curl_reads_a_stream(self, stack: Stack):
        answer = subprocess.run(
            ["curl", "-sSN", "-F", f"file=@{RECORDING}", "-F", "model=whisper-1", "-F",
             "stream=true", stack.url + TRANSCRIPTIONS],
            stdout=subprocess.PIPE, text=True, check=True, timeout=CLIENT_S,
        )  # fmt: skip

        read = read_events(answer.stdout.split("\n"))
        assert words(read.last["text"]) == words(SENTENCE)

    def test_balancers_own_errors_have_the_shape(self, stack: Stack):
        hidden = HTTP.get(stack.url + "/metrics")
        assert hidden.status_code == 404
        assert_shape("error", hidden.json())

        # No client sends less than it announces, so this one is made by hand.
        balancer = HTTPConnection("127.0.0.1", int(stack.settings["LB_PORT"]), timeout=30)
        with contextlib.closing(balancer):
            balancer.putrequest("POST", TRANSCRIPTIONS)
            balancer.putheader("Content-Length", str(1 << 30))
            balancer.endheaders()
            refused = balancer.getresponse()
            assert refused.status == 413
            assert refused.headers["x-request-id"]
            assert_shape("error", json.loads(refused.read()))


def command(client: str) -> list[str]:
    """Return the command of one of OpenAI's clients; skip the test if it cannot be had."""
    if client == "openai":
        return [sys.executable, str(SCRIPTS / "openai_client.py")]
    if client == "openai2":
        return [python_of(client), str(SCRIPTS / "openai_client.py")]
    version = client.removeprefix("node ")
    folder = node_folder()
    major = int(subprocess.check_output(["node", "--version"], text=True)[1:].split(".")[0])
    if version == "6" and major < NODE_6_NEEDS:
        pytest.skip(f"openai 6 needs Node {NODE_6_NEEDS}; here is {major}")
    return ["node", str(folder / "client.mjs"), version]


def python_of(name: str) -> str:
    """The interpreter of an environment with a client's pinned requirements."""
    wanted = SCRIPTS / f"{name}.txt"
    folder = ENVIRONMENTS / f"{name}-{fingerprint(wanted)}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        install([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        # A client imports a small part of its packages: compiling all of them takes longer.
        install(
            [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install",
             "--quiet", "--no-input", "--no-compile", "--disable-pip-version-check",
             "--require-hashes", "-r", str(wanted)]
        )  # fmt: skip
        (folder / "ready").touch()
    return str(folder / "bin/python")


def node_folder() -> Path:
    """A folder with the Node client's script and its pinned packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        if os.geteuid() or not shutil.which("apt-get"):
            pytest.skip("node and npm are not installed, and only root may install them")
        install(["apt-get", "install", "-y", "--no-install-recommends", "nodejs", "npm"])
    source = SCRIPTS / "node"
    folder = ENVIRONMENTS / f"node-{fingerprint(source / 'package-lock.json')}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        shutil.copy(path, folder)
    if not (folder / "ready").exists():
        install(["npm", "ci", "--prefix", str(folder), "--ignore-scripts", "--no-audit"])
        (folder / "ready").touch()
    return folder


def fingerprint(path: Path) -> str:
    """Eight letters that change with a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def install(arguments: list[str]) -> None:
    """Run an installer; skip with its last words where it fails."""
    done = subprocess.run(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=INSTALL_S
    )
    if done.returncode:
        pytest.skip(f"{arguments[0]} failed: {done.stdout.strip()[-300:]}")


def run(arguments: list[str]) -> dict[str, Any]:
    """Run a client's script and return the JSON that it prints."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=CLIENT_S)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))
