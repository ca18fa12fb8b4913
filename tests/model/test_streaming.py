"""Answers in events: as they are decoded, whole, and never in the way of others."""

from __future__ import annotations

from collections import Counter

import pytest

from app.config import Config
from app.engine.results import Segment
from tests.support.client import Client, assert_error
from tests.support.event_stream import Streamed, assert_whole, read_events
from tests.support.fakes import held_engine
from tests.support.openai_shapes import assert_shape
from tests.support.recordings import recording
from tests.support.text import SENTENCE, words

AUSTEN = recording("austen_0890.wav").path.read_bytes()
STREAM = {"stream": "true"}


def streamed(client: Client, content: bytes = AUSTEN, **fields: object) -> Streamed:
    """The events a worker in this process answers with."""
    answer = client.post(content, STREAM | fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-model"]
    return read_events(answer.text.split("\n"))


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
        engine.admission.close()

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
        assert engine.admission.inside == 0, "the slot is free again"

    def test_stream_that_fails_is_counted_once_and_as_a_failure(self, caplog):
        """Also by its key and in the log, although its head said 200."""
        caplog.set_level("INFO")
        config = Config(api_token="secret")
        engine, model = held_engine(config)
        model.found, model.later_failure = (some_segment(" Words."),), RuntimeError("secret")
        model.go.set()
        client = Client.of(config, engine)
        counted = ('key_requests_total{key="API_TOKEN",status=', "answers_total{status=")
        before = [count(client, name) for name in counted]

        answer = client.post(AUSTEN, STREAM, headers={"X-API-Key": "secret"})

        assert answer.status_code == 200
        assert "internal_error" in answer.text
        after = [count(client, name) for name in counted]
        assert [new - old for old, new in zip(before, after, strict=True)] == [
            {"5xx": 1}, {"500": 1},
        ]  # fmt: skip
        assert [one.fields["status"] for one in caplog.records if hasattr(one, "fields")] == [500]


def count(client: Client, name: str) -> Counter[str]:
    """A counter by its status; the tiers are added up."""
    found: Counter[str] = Counter()
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(f"transcription_{name}"):
            found[line.split('status="')[1].split('"')[0]] += int(float(line.split()[-1]))
    return found
