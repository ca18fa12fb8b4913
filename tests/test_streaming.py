"""Answers in events: as they are decoded, whole, and never in the way of others."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import pytest

from app.config import Config
from app.engine.results import Segment
from tests.client import TRANSCRIPTIONS, Client, assert_error, form
from tests.event_stream import Streamed, read_events
from tests.fakes import held_engine
from tests.openai_shapes import assert_shape
from tests.recordings import long_recording, recording, wav
from tests.stack import Stack, until
from tests.test_contract import SENTENCE, words
from tests.test_lifetime import Worker, worker

AUSTEN = recording("austen_0890.wav").path.read_bytes()
STREAM = {"stream": "true"}


def streamed(client: Client, content: bytes = AUSTEN, **fields: object) -> Streamed:
    """The events a worker in this process answers with."""
    answer = client.post(content, STREAM | fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-model"]
    return read_events(answer.text.split("\n"))


def post_stream(url: str, content: bytes, **fields: str) -> Streamed:
    """The events as they come over a socket."""
    with httpx.stream(
        "POST",
        url + TRANSCRIPTIONS,
        data={"model": "whisper-1"} | STREAM | fields,
        files={"file": ("recording", content)},
        timeout=240,
    ) as answer:
        assert answer.status_code == 200, answer.read()
        return read_events(answer.iter_lines())


def assert_whole(read: Streamed) -> None:
    """Deltas, then one `done` whose text they join to, each in OpenAI's shape."""
    for event in read.events[:-1]:
        assert_shape("delta", event)
    assert_shape("done", read.last)
    assert "".join(read.deltas) == read.last["text"]


def some_segment(text: str, start: float = 0.0) -> Segment:
    return Segment(0, 0, start, start + 1, text, (1,), 0.0, -0.2, 1.0, 0.0)


class TestEvents:
    def test_deltas_join_to_the_text_of_a_plain_answer(self, client):
        plain = client.post(AUSTEN).json

        read = streamed(client)

        assert_whole(read)
        assert read.last["text"] == plain["text"]
        assert words(read.last["text"]) == words(SENTENCE)

    def test_usage_is_counted_in_tokens(self, client):
        usage = streamed(client).last["usage"]
        written = len(client.post(AUSTEN).json["segments"][0]["tokens"])

        assert usage["input_token_details"]["audio_tokens"] == 265, "5.3 s at 50 a second"
        assert usage["output_tokens"] == written
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]

    def test_silence_is_one_event_without_text(self, client):
        read = streamed(client, recording("silence_3s.wav").path.read_bytes())

        assert [event["type"] for event in read.events] == ["transcript.text.done"]
        assert read.last["text"] == ""

    @pytest.mark.parametrize(
        "texts", [(" A b.", " C."), ("  ", " A", " ", " b "), ("\n",), (" ä ", " ö")]
    )
    def test_space_between_segments_is_in_the_deltas_and_none_at_the_ends(self, texts):
        config = Config()
        engine, model = held_engine(config)
        model.found = tuple(some_segment(text) for text in texts)
        model.go.set()

        read = streamed(Client.of(config, engine))

        assert_whole(read)
        assert read.last["text"] == "".join(texts).strip()

    def test_verbose_events_say_all_that_verbose_json_does(self, client):
        fields = {"response_format": "verbose_json", "timestamp_granularities[]": "word"}
        plain = client.post(AUSTEN, fields).json

        read = streamed(client, **fields)

        assert_whole(read)
        assert [event["segment"] for event in read.events[:-1]] == plain["segments"]
        assert {name: read.last[name] for name in plain if name != "usage"} == {
            name: value for name, value in plain.items() if name != "usage"
        }

    @pytest.mark.parametrize("response_format", ["srt", "vtt"])
    def test_subtitles_cannot_come_in_events(self, client, response_format):
        answer = client.post(AUSTEN, STREAM | {"response_format": response_format})

        assert_error(answer, 400, "response_format")

    @pytest.mark.parametrize("value", ["True", "1", "TRUE"])
    def test_true_is_read_in_every_spelling(self, client, value):
        answer = client.post(recording("silence_3s.wav").path.read_bytes(), {"stream": value})

        assert answer.headers["content-type"].startswith("text/event-stream")
        assert_error(client.post(AUSTEN, {"stream": "maybe"}), 400, "stream")

    def test_translation_comes_in_events_too(self, base_client):
        japanese = recording("synthetic_ja.ogg").path.read_bytes()

        read = streamed(base_client, japanese, task="translate")

        assert words(read.last["text"]) == ["hello", "world"]

    def test_characters_are_whole_in_every_event(self, base_client):
        japanese = recording("synthetic_ja.ogg").path.read_bytes()

        read = streamed(base_client, japanese, **{"include[]": "logprobs"})

        assert_whole(read)
        assert "こんにちは世界" in read.last["text"]
        spelled = b"".join(bytes(token["bytes"]) for token in read.last["logprobs"])
        assert spelled.decode() == read.last["text"]


class TestErrors:
    @pytest.mark.parametrize(
        ("content", "fields", "param"),
        [(b"no audio", {}, "file"), (AUSTEN, {"task": "translate"}, "model")],
    )
    def test_error_before_the_first_event_has_its_status(self, client, content, fields, param):
        assert_error(client.post(content, STREAM | fields), 400, param)

    def test_refusal_is_no_stream(self):
        config = Config()
        engine, _ = held_engine(config)
        engine.close()

        assert_error(Client.of(config, engine).post(AUSTEN, STREAM), 503)

    @pytest.mark.parametrize("failure", [RuntimeError("secret"), KeyError("secret")])
    def test_error_after_the_first_event_is_the_last_event(self, failure):
        config = Config(max_concurrent_transcriptions=1)
        engine, model = held_engine(config)
        model.found, model.later_failure = (some_segment(" Some words."),), failure
        model.go.set()
        client = Client.of(config, engine)

        first, second = (streamed(client) for _ in range(2))

        for read in (first, second):
            assert read.deltas == ["Some words."]
            assert_shape("error_event", read.last)
            assert read.last["error"]["code"] == "internal_error"
            assert "secret" not in str(read.events)
        assert engine._admission.inside == 0, "the slot is free again"


class TestClientsThatLeave:
    def test_between_two_events_the_work_ends_and_the_slot_is_free(self):
        long = wav(long_recording(120).samples)
        with worker(MAX_CONCURRENT_TRANSCRIPTIONS="1") as busy:
            connection = send(busy, long)
            assert b"transcript.text.delta" in receive(connection)
            assert busy.metric("transcription_slots_in_use") == 1
            connection.close()

            assert until(lambda: busy.metric("transcription_slots_in_use") == 0, 20)
            assert busy.metric("transcription_cancelled_total") == 1
            assert busy.metric("transcription_answers_total") == 1, "nothing else was counted"
            assert busy.metric("transcription_audio_seconds_total") == 0, "it was not finished"
            assert busy.post().status_code == 200

    def test_before_the_first_event(self):
        long = wav(long_recording(120).samples)
        with worker(MAX_CONCURRENT_TRANSCRIPTIONS="1") as busy:
            connection = send(busy, long)
            assert until(lambda: busy.metric("transcription_slots_in_use") == 1)
            connection.close()

            assert until(lambda: busy.metric("transcription_slots_in_use") == 0, 20)
            assert busy.metric("transcription_cancelled_total") == 1
            assert busy.post().status_code == 200


def send(running: Worker, content: bytes) -> socket.socket:
    """Send a whole request for a stream."""
    sent = form(content, {"model": "whisper-1"} | STREAM)
    body = sent.read()
    connection = socket.create_connection(("127.0.0.1", running.port))
    head = (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: worker\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: {sent.headers['Content-Type']}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    connection.settimeout(60)
    return connection


def receive(connection: socket.socket) -> bytes:
    """The head of an answer and its first event."""
    received = b""
    while b"data: " not in received:
        chunk = connection.recv(65_536)
        assert chunk, received
        received += chunk
    return received


class TestThroughTheBalancer:
    def test_four_minutes_begin_before_a_quarter_of_the_time(self, stack: Stack):
        content = wav(long_recording(240).samples)
        began = time.monotonic()

        read = post_stream(stack.url, content)

        assert_whole(read)
        first_s, total_s = read.at[0] - began, read.at[-1] - began
        assert first_s < total_s / 4, (first_s, total_s)
        assert len({round(at, 1) for at in read.at}) > 5, "they come one after another"
        plain = httpx.post(
            stack.url + TRANSCRIPTIONS,
            data={"model": "whisper-1", "response_format": "json"},
            files={"file": ("recording", content)},
            timeout=240,
        )
        assert read.last["text"] == plain.json()["text"]

    def test_fifty_at_once(self, tmp_path):
        answers: list[Streamed] = []
        inside: set[float] = set()
        with Stack.started(tmp_path, WORKERS="2", MAX_CONCURRENT_TRANSCRIPTIONS="25") as wide:
            threads = [
                threading.Thread(target=lambda: answers.append(post_stream(wide.url, AUSTEN)))
                for _ in range(50)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                inside.add(sum(wide.metric(n, "transcription_slots_in_use") for n in (1, 2)))
                time.sleep(0.1)
            left = sum(wide.metric(n, "transcription_slots_in_use") for n in (1, 2))

        assert len(answers) == 50
        assert max(inside) >= 40, "they were there at the same time"
        assert left == 0
        for read in answers:
            assert_whole(read)
        assert len({read.last["text"] for read in answers}) == 1
