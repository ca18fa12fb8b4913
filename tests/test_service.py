"""The whole service through its one port: balancer, supervisor, workers, real clients."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from app.config import ROOT
from tests import models
from tests.client import TRANSCRIPTIONS, form
from tests.recordings import FORMS, encode, long_recording, recording, recordings, wav
from tests.stack import Stack, alive, bare_environment, children, ports, until
from tests.test_contract import SENTENCE, words

AUSTEN = recording("austen_0890.wav")
CLIENT_S = 120


def post(stack: Stack, content: bytes, **fields: object) -> httpx.Response:
    return httpx.post(
        stack.url + TRANSCRIPTIONS,
        data={"model": "whisper-1"} | fields,
        files={"file": ("recording", content)},
        timeout=CLIENT_S,
    )


def at_rest(stack: Stack) -> bool:
    return all(
        stack.metric(number, name) == 0
        for number in (1, 2)
        for name in ("transcription_slots_in_use", "transcription_waiting")
    )


@pytest.mark.parametrize("form_name", ["plain", *FORMS])
def test_one_sentence_in_every_form_has_the_same_words(stack, form_name):
    content = AUSTEN.path.read_bytes()
    if form_name != "plain":
        content = encode(AUSTEN.waveform(), form_name)

    answer = post(stack, content).json()

    assert answer["segments"]
    assert answer["segments"][0]["audio_start"] == answer["segments"][0]["start"]
    wrong = len(set(words(SENTENCE)) ^ set(words(answer["text"])))
    assert wrong <= (4 if "alaw" in form_name else 0), answer["text"]


class TestOpenAI:
    """The official Python client, pointed at the service."""

    @pytest.fixture
    def client(self, stack) -> Iterator[openai.OpenAI]:
        with openai.OpenAI(base_url=stack.url + "/v1", api_key="any", max_retries=0) as client:
            yield client

    @pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
    def test_texts(self, client, response_format):
        answer = client.audio.transcriptions.create(
            file=AUSTEN.path, model="whisper-1", response_format=response_format
        )

        assert "cold-hearted" in answer
        assert ("-->" in answer) is (response_format != "text")

    def test_json(self, client):
        answer = client.audio.transcriptions.create(
            file=AUSTEN.path, model="whisper-1", response_format="json"
        )

        assert words(answer.text) == words(SENTENCE)
        assert answer.usage.seconds == 6

    def test_verbose_json_with_word_times(self, client):
        answer = client.audio.transcriptions.create(
            file=AUSTEN.path,
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )

        assert answer.duration == pytest.approx(5.3)
        assert answer.language == "en"
        assert answer.words[0].word == "Unless"
        assert answer.segments[0].avg_logprob < 0

    def test_errors_are_the_clients_own(self, client):
        with pytest.raises(openai.BadRequestError) as refusal:
            client.audio.transcriptions.create(file=b"no audio", model="whisper-1")
        assert refusal.value.param == "file"
        with pytest.raises(openai.BadRequestError):
            client.audio.transcriptions.create(file=AUSTEN.path, model="m", language="klingon")
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-4o-transcribe")

    def test_models(self, client):
        assert [one.id for one in client.models.list()] == ["tiny.en", "whisper-1"]
        assert client.models.retrieve("tiny.en").object == "model"

    @pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
    def test_translation_by_an_english_model_is_a_bad_request(self, client):
        with pytest.raises(openai.BadRequestError):
            client.audio.translations.create(file=AUSTEN.path, model="whisper-1")


@pytest.fixture(scope="module")
def long() -> object:
    return long_recording(240)


@pytest.mark.parametrize("content_form", ["wav", "opus"])
def test_long_recording_comes_back_whole_with_its_times(stack, long, content_form):
    """4 minutes of known sentences: every one is there, within a second of where it was said."""
    content = wav(long.samples) if content_form == "wav" else encode(long.samples, "opus")
    answer = post(stack, content, **{"timestamp_granularities[]": "word"}).json()

    assert answer["duration"] == pytest.approx(long.samples.size / 16_000, abs=0.1)
    assert_sentences(answer["words"], long.spans)


def assert_sentences(found: list[dict], spans: list[tuple[float, float, str]]) -> None:
    """In each span of time the words said then were heard, within a second of its ends."""
    for start, end, text in spans:
        heard = [word for word in found if start - 0.2 < middle(word) < end + 0.2]
        said, understood = set(words(text)), set(words(" ".join(one["word"] for one in heard)))
        assert len(said & understood) >= 0.6 * len(said), (start, text, understood)
        assert heard[0]["start"] == pytest.approx(start, abs=1)
        assert heard[-1]["end"] == pytest.approx(end, abs=1)


def middle(word: dict) -> float:
    return (word["start"] + word["end"]) / 2


@pytest.mark.parametrize(
    "one",
    [one for one in recordings() if "utterances" in one.further],
    ids=lambda one: one.name,
)
def test_further_recordings_come_back_whole_with_their_times(stack, one):
    answer = post(stack, one.path.read_bytes(), **{"timestamp_granularities[]": "word"}).json()

    spans = [(line["start"], line["end"], line["text"]) for line in one.further["utterances"]]
    assert_sentences(answer["words"], spans)


def test_speech_after_silence_is_where_it_was_said(stack):
    one = recording("speech_after_20s_silence.flac")

    (segment, *_) = post(stack, one.path.read_bytes()).json()["segments"]

    assert segment["start"] == pytest.approx(one.further["speech"][0], abs=1)


def test_forty_requests_at_once(stack):
    """Each is answered or told to come again; health never waits; afterwards all is at rest."""
    answers: list[httpx.Response] = []
    content = AUSTEN.path.read_bytes()
    threads = [
        threading.Thread(target=lambda: answers.append(post(stack, content))) for _ in range(40)
    ]
    health_s = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        began = time.monotonic()
        assert httpx.get(stack.url + "/health", timeout=5).status_code == 200
        health_s.append(time.monotonic() - began)
        time.sleep(0.05)

    assert max(health_s) < 1
    assert len(answers) == 40
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 200:
            assert words(answer.json()["text"]) == words(SENTENCE)
        else:
            assert int(answer.headers["retry-after"]) >= 0
            assert answer.headers["content-type"] == "application/json"
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert until(lambda: at_rest(stack))


def test_balancers_pages(stack):
    status = httpx.get(stack.url + "/lb-status")
    statistics = f"http://127.0.0.1:{stack.settings['STATS_PORT']}"

    assert status.headers["content-type"].startswith("text/plain")
    assert "Load Balancer Status: Active" in status.text
    assert "Workers: 2 of 2 up" in status.text
    assert "Free slots: 4" in status.text
    assert "Statistics Report" in httpx.get(statistics).text
    assert "haproxy_backend_active_servers" in httpx.get(statistics + "/metrics").text


def test_outside_sees_no_metrics_and_all_errors_are_json(stack):
    for path in ("/metrics", "/nothing", "/v1/audio/nothing"):
        answer = httpx.get(stack.url + path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    wrong = httpx.put(stack.url + TRANSCRIPTIONS)
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]


def test_request_id_is_the_clients_own_on_every_answer(stack):
    for path in ("/health", "/lb-status", "/metrics", "/v1/models"):
        answer = httpx.get(stack.url + path, headers={"X-Request-ID": "meeting-7"})
        assert answer.headers["x-request-id"] == "meeting-7"
    assert len(httpx.get(stack.url + "/v1/models").headers["x-request-id"]) == 36


def test_chunked_upload_without_a_length(stack):
    """openai-node sends its uploads so."""
    sent = form(AUSTEN.path.read_bytes(), {"model": "whisper-1"})
    body = sent.read()
    chunks = (body[start : start + 7000] for start in range(0, len(body), 7000))

    answer = httpx.post(
        stack.url + TRANSCRIPTIONS,
        content=chunks,
        headers={"Content-Type": sent.headers["Content-Type"]},
        timeout=CLIENT_S,
    )

    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert words(answer.json()["text"]) == words(SENTENCE)


def test_curl_with_a_large_upload(stack, tmp_path):
    """Above 1 MB curl asks `Expect: 100-continue` first; such a body is no longer replayable."""
    large = tmp_path / "large.wav"
    large.write_bytes(wav(long_recording(70).samples))

    answer = subprocess.run(
        ["curl", "-sS", "-F", f"file=@{large}", "-F", "model=whisper-1", "-F",
         "response_format=text", stack.url + TRANSCRIPTIONS],
        stdout=subprocess.PIPE, text=True, check=True, timeout=CLIENT_S,
    )  # fmt: skip

    assert large.stat().st_size > 2 << 20
    assert answer.stdout.count("selfish") >= 3


def test_client_that_leaves_stops_its_work_through_the_balancer(stack, long):
    sent = form(wav(long.samples[: 16_000 * 120]), {"model": "whisper-1"})
    body = sent.read()
    before = sum(stack.metric(number, "transcription_cancelled_total") for number in (1, 2))
    with socket.create_connection(("127.0.0.1", int(stack.settings["LB_PORT"]))) as connection:
        connection.sendall(
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {sent.headers['Content-Type']}\r\n\r\n".encode()
            + body
        )
        assert until(lambda: not at_rest(stack))

    assert until(lambda: at_rest(stack), 20)
    after = sum(stack.metric(number, "transcription_cancelled_total") for number in (1, 2))
    assert after == before + 1


def test_killed_worker_loses_no_request_and_comes_back(stack):
    """Its request is sent again to the other worker; Supervisor starts a fresh one."""
    answers: list[httpx.Response] = []
    content = AUSTEN.path.read_bytes()

    def ask():
        for _ in range(4):
            answers.append(post(stack, content))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    os.kill(worker_child(stack, 1), signal.SIGKILL)
    for thread in threads:
        thread.join()

    assert [answer.status_code for answer in answers] == [200] * 8
    assert until(lambda: "2 of 2 up" in httpx.get(stack.url + "/lb-status").text, 30)


def worker_child(stack: Stack, number: int) -> int:
    """The process that holds a worker's model: its Gunicorn's one child."""
    (supervisor,) = children(stack.process.pid)
    for master in children(supervisor):
        if "gunicorn" in proc(master, "cmdline") and f"WORKER_ID={number}" in proc(
            master, "environ"
        ):
            (child,) = children(master)
            return child
    raise AssertionError(f"worker {number} does not run")


def proc(pid: int, name: str) -> list[str]:
    """The parts of one of a process's files."""
    return Path(f"/proc/{pid}/{name}").read_text().split("\0")


def test_keys_are_asked_for_through_the_balancer(tmp_path):
    with Stack.started(
        tmp_path, WORKERS="1", API_TOKEN="secret", BUSY_RETRY_AFTER_S="2", DRAIN_TIMEOUT_S="3"
    ) as guarded:
        assert "Authorization: Bearer YOUR_KEY" in guarded.log
        wrong = openai.OpenAI(base_url=guarded.url + "/v1", api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.audio.transcriptions.create(file=AUSTEN.path, model="whisper-1")
        for _ in range(5):  # refused before its body was read, and told so all the same
            assert post(guarded, bytes(10_000_000)).status_code == 401
        right = openai.OpenAI(base_url=guarded.url + "/v1", api_key="secret", max_retries=0)
        with right:
            answer = right.audio.transcriptions.create(file=AUSTEN.path, model="whisper-1")
        assert words(answer.text) == words(SENTENCE)
        assert "secret" not in guarded.log
        hidden = httpx.get(guarded.url + "/status/figures")
        assert (hidden.status_code, hidden.json()["error"]["code"]) == (403, "figures_not_public")
        own = f"http://127.0.0.1:{guarded.settings['STATS_PORT']}/status/figures"
        assert httpx.get(own).json()["faults"][0]["code"] == "invalid_api_key"
        for pid in guarded.processes():
            assert "secret" not in " ".join(proc(pid, "cmdline")), "in the process list"

        os.kill(worker_child(guarded, 1), signal.SIGSTOP)
        assert until(lambda: httpx.get(guarded.url + "/health", timeout=20).status_code == 503)
        assert until(lambda: "0 of 1 up" in httpx.get(guarded.url + "/lb-status").text)
        down = httpx.get(guarded.url + "/health")
        nobody = post(guarded, AUSTEN.path.read_bytes())
        pids = guarded.processes()
        assert guarded.stop() == 0

    assert down.json() == {"status": "unhealthy", "reason": "No worker is ready."}
    assert nobody.status_code == 503
    assert nobody.headers["retry-after"] == down.headers["retry-after"] == "2"
    assert nobody.json()["error"]["code"] == "server_busy"
    assert not [pid for pid in pids if alive(pid)]


def test_queue_in_the_balancer_waits_when_not_failing_fast(tmp_path):
    """Ten requests on one slot: none is refused, and none waits inside a worker."""
    settings = {
        "WORKERS": "1",
        "MAX_CONCURRENT_TRANSCRIPTIONS": "1",
        "FAIL_FAST_WHEN_BUSY": "false",
        "QUEUE_TIMEOUT_S": "120",
    }
    with Stack.started(tmp_path, **settings) as queued:
        answers: list[int] = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(post(queued, AUSTEN.path.read_bytes()).status_code)
            )
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        waiting = set()
        while any(thread.is_alive() for thread in threads):
            waiting.add(queued.metric(1, "transcription_waiting"))
            time.sleep(0.05)

    assert answers == [200] * 10
    assert waiting == {0}


def pool(command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run one of the pool's commands to its end."""
    return subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-m", "app.pool", command],
        cwd=ROOT, env=bare_environment() | settings,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90,
    )  # fmt: skip


def failing(call: Callable[..., object], *arguments: object) -> None:
    """Make a call whose connection is about to be cut."""
    with contextlib.suppress(httpx.HTTPError):
        call(*arguments)


class TestPoolCommands:
    def test_stop_and_status(self, tmp_path):
        with Stack.started(tmp_path, WORKERS="1") as running:
            settings = running.settings
            status = pool("status", **settings)
            second = pool("run", **settings)
            pids = running.processes()
            stopped = pool("stop", **settings)
            assert running.process.wait(30) == 0

        assert status.returncode == 0
        assert "worker_1" in status.stdout
        assert "Workers: 1 of 1 up" in status.stdout
        assert second.returncode == 1
        assert "already runs" in second.stdout
        assert stopped.returncode == 0
        assert not [pid for pid in pids if alive(pid)]
        assert pool("status", **settings).returncode == 1
        assert pool("stop", **settings).returncode == 0

    def test_killed_pool_leaves_no_process(self, tmp_path):
        with Stack.started(tmp_path, WORKERS="1") as killed:
            pids = killed.processes()
            killed.process.kill()
            killed.process.wait(10)

            assert until(lambda: not [pid for pid in pids if alive(pid)], 30)

    def test_second_signal_ends_at_once(self, tmp_path):
        with Stack.started(tmp_path, WORKERS="1") as busy:
            long = wav(long_recording(240).samples)
            request = threading.Thread(target=lambda: failing(post, busy, long))
            request.start()
            assert until(lambda: busy.metric(1, "transcription_slots_in_use") == 1)
            pids = busy.processes()
            busy.process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            began = time.monotonic()
            busy.process.send_signal(signal.SIGINT)
            busy.process.wait(20)
            request.join(20)

            assert time.monotonic() - began < 10
            assert until(lambda: not [pid for pid in pids if alive(pid)], 10)

    @pytest.mark.parametrize("name", ["LB_PORT", "STATS_PORT", "WORKER_BASE_PORT"])
    def test_port_in_use_is_a_sentence(self, tmp_path, name):
        own = ports(1)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", int(own[name])))
            taken.listen()
            refused = pool("run", RUN_DIR=str(tmp_path), WORKERS="1", **own)

        assert refused.returncode == 1
        assert refused.stdout.startswith(f"{name}: port {own[name]} cannot be opened")
        assert len(refused.stdout.splitlines()) == 1

    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"WORKERS": "none"}, "WORKERS is 'none'"),
            ({"DEVICE": "cuda"}, "DEVICE is cuda and no CUDA GPU is visible"),
            ({"MODEL_SIZE": "gigantic"}, "MODEL_SIZE is 'gigantic'"),
            ({"MODEL_SIZE": "/nowhere"}, "the folder /nowhere holds no complete"),
            ({"API_KEYS_FILE": "/nowhere"}, "API_KEYS_FILE: /nowhere cannot be read"),
            ({"API_KEYS_FILE": "Makefile"}, "Makefile: line 1 is not JSON"),
            ({"RUN_DIR": "/proc/nowhere"}, "RUN_DIR: /proc/nowhere cannot be written"),
            ({"RUN_DIR": "/tmp/" + "long/" * 20}, "too long for a socket"),
        ],
    )
    def test_what_cannot_work_is_a_sentence(self, tmp_path, settings, sentence):
        refused = pool("run", **({"RUN_DIR": str(tmp_path)} | ports(3) | settings))

        assert refused.returncode == 1
        assert sentence in refused.stdout
        assert "Traceback" not in refused.stdout

    def test_model_that_does_not_load_stops_the_start(self, tmp_path):
        broken = tmp_path / "broken"
        broken.mkdir()
        for file in models.tiny_en().iterdir():
            (broken / file.name).write_bytes(file.read_bytes()[:1_000_000])

        refused = pool("run", RUN_DIR=str(tmp_path), MODEL_SIZE=str(broken), **ports(3))

        assert refused.returncode == 1
        assert f"The model in {broken} could not be loaded" in refused.stdout
