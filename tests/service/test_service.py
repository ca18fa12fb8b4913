"""The whole service through its one port: balancer, supervisor, workers, real clients."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.support.client import TRANSCRIPTIONS, form
from tests.support.http import HTTP
from tests.support.recordings import FORMS, encode, long_recording, recording, recordings, wav
from tests.support.stack import Stack
from tests.support.text import SENTENCE, words
from tests.support.victim import Victim
from tests.support.waiting import until

AUSTEN = recording("austen_0890.wav")
CLIENT_S = 120


def post(stack: Stack, content: bytes, **fields: object) -> httpx.Response:
    return HTTP.post(
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


@pytest.mark.parametrize(
    ("content_form", "seconds"),
    [("wav", 60), pytest.param("opus", 240, marks=pytest.mark.slow)],
)
def test_long_recording_comes_back_whole_with_its_times(stack, content_form, seconds):
    """Known sentences: every one is there, within a second of where it was said."""
    long = long_recording(seconds)
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


TALKS = [one for one in recordings() if "utterances" in one.further]

if TALKS:  # among those that RECORDINGS adds

    @pytest.mark.slow
    @pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.name)
    def test_talks_come_back_whole_with_their_times(stack, talk):
        answer = post(stack, talk.path.read_bytes(), **{"timestamp_granularities[]": "word"}).json()

        spans = [(line["start"], line["end"], line["text"]) for line in talk.further["utterances"]]
        assert_sentences(answer["words"], spans)


def test_speech_after_silence_is_where_it_was_said(stack):
    one = recording("speech_after_20s_silence.flac")

    (segment, *_) = post(stack, one.path.read_bytes()).json()["segments"]

    assert segment["start"] == pytest.approx(one.further["speech"][0], abs=1)


@pytest.mark.alone
def test_forty_requests_at_once(stack):
    """Each is answered or refused; /health answers meanwhile; afterwards all is at rest."""
    answers: list[httpx.Response] = []
    content = AUSTEN.path.read_bytes()
    threads = [
        threading.Thread(target=lambda: answers.append(post(stack, content))) for _ in range(40)
    ]
    checks = 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert HTTP.get(stack.url + "/health", timeout=60).status_code == 200
        checks += 1
        time.sleep(0.05)

    assert checks > 5, "it does not wait for them"
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
    status = HTTP.get(stack.url + "/lb-status")
    statistics = f"http://127.0.0.1:{stack.settings['STATS_PORT']}"

    assert status.headers["content-type"].startswith("text/plain")
    assert "Load Balancer Status: Active" in status.text
    assert "Workers: 2 of 2 up" in status.text
    assert "Free slots: 4" in status.text
    assert "Statistics Report" in HTTP.get(statistics).text
    assert "haproxy_backend_active_servers" in HTTP.get(statistics + "/metrics").text


def test_outside_sees_no_metrics_and_all_errors_are_json(stack):
    for path in ("/metrics", "/nothing", "/v1/audio/nothing"):
        answer = HTTP.get(stack.url + path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"
    wrong = HTTP.put(stack.url + TRANSCRIPTIONS)
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]


def test_request_id_is_the_clients_own_on_every_answer(stack):
    for path in ("/health", "/lb-status", "/metrics", "/v1/models"):
        answer = HTTP.get(stack.url + path, headers={"X-Request-ID": "meeting-7"})
        assert answer.headers["x-request-id"] == "meeting-7"
    assert len(HTTP.get(stack.url + "/v1/models").headers["x-request-id"]) == 36


def test_chunked_upload_without_a_length(stack):
    """openai-node sends its uploads so."""
    sent = form(AUSTEN.path.read_bytes(), {"model": "whisper-1"})
    body = sent.read()
    chunks = (body[start : start + 7000] for start in range(0, len(body), 7000))

    answer = HTTP.post(
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


def test_client_that_leaves_stops_its_work_through_the_balancer(stack):
    sent = form(wav(long_recording(120).samples), {"model": "whisper-1"})
    body = sent.read()
    before = sum(stack.metric(number, "transcription_cancelled_total") for number in (1, 2))
    with socket.create_connection(("127.0.0.1", int(stack.settings["LB_PORT"]))) as connection:
        connection.sendall(
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {sent.headers['Content-Type']}\r\n\r\n".encode()
            + body
        )
        assert until(lambda: not at_rest(stack))

    assert until(lambda: at_rest(stack))
    after = sum(stack.metric(number, "transcription_cancelled_total") for number in (1, 2))
    assert after == before + 1


@pytest.mark.alone
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
    os.kill(Victim(stack).child(0), signal.SIGKILL)
    for thread in threads:
        thread.join()

    assert [answer.status_code for answer in answers] == [200] * 8
    assert until(lambda: "2 of 2 up" in HTTP.get(stack.url + "/lb-status").text)
