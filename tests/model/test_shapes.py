"""Every kind of answer has OpenAI's published shape and its headers."""

from __future__ import annotations

import math

import pytest
from openai.types.audio import Transcription, TranscriptionTextDoneEvent

from app.config import Config
from app.engine.cancellation import Cancellation
from tests.support.client import TRANSCRIPTIONS, TRANSLATIONS, Client
from tests.support.event_stream import read_events
from tests.support.fakes import held_engine
from tests.support.openai_shapes import assert_shape
from tests.support.recordings import recording, wav_header

AUSTEN = recording("austen_0890.wav").path.read_bytes()
SILENCE = recording("silence_3s.wav").path.read_bytes()
JAPANESE = recording("synthetic_ja.ogg").path.read_bytes()


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
@pytest.mark.parametrize(
    "content", [AUSTEN, SILENCE, wav_header(0)], ids=["speech", "silence", "0"]
)
def test_transcriptions(client, response_format, content):
    fields = {
        "response_format": response_format,
        "timestamp_granularities[]": ["word", "segment"],
        "include[]": "logprobs",
    }

    body = client.post(content, fields).json

    assert_shape(response_format, body)
    assert body["usage"]["type"] == "duration"
    assert ("logprobs" in body) is (response_format == "json")


def test_openais_own_types_read_the_languages(base_client):
    """Strictly: each field is what the openai package declares."""
    fields = {"response_format": "json", "include[]": "logprobs"}
    spanish = recording("synthetic_es.ogg").path.read_bytes()

    whole = Transcription.model_validate(base_client.post(spanish, fields).json, strict=True)
    answer = base_client.post(spanish, {"stream": "true"})
    last = read_events(answer.text.split("\n")).last
    done = TranscriptionTextDoneEvent.model_validate(last, strict=True)

    for read in (whole, done):
        assert [language.code for language in read.languages] == ["es"]
        assert read.usage is not None


@pytest.mark.parametrize("response_format", ["json", "verbose_json", "text", "srt", "vtt"])
def test_translations(base_client, response_format):
    answer = base_client.post(JAPANESE, {"response_format": response_format}, path=TRANSLATIONS)

    assert answer.status_code == 200
    assert "hello" in answer.text.lower()
    if response_format == "json":
        assert_shape("translation", answer.json)
    if response_format == "verbose_json":
        assert_shape("verbose_translation", answer.json)


def test_models(client):
    assert_shape("models", client.get("/v1/models").json)
    assert_shape("model", client.get("/v1/models/whisper-1").json)
    unknown = client.get("/v1/models/none")
    assert unknown.status_code == 404
    assert_shape("error", unknown.json)
    assert unknown.json["error"]["code"] == "model_not_found"


def test_every_error(client):
    config = Config(api_token="key", max_upload_bytes=100_000)
    engine, model = held_engine(config)
    model.failure = RuntimeError("a bug")
    model.go.set()
    guarded = Client.of(config, engine)
    key = {"X-API-Key": "key"}
    json_body = {"Content-Type": "application/json"}
    answers = {
        400: client.post(AUSTEN, {"temperature": "hot"}),
        401: guarded.post(SILENCE),
        404: client.get("/v1/audio/speech"),
        405: client.get(TRANSCRIPTIONS),
        413: guarded.post(AUSTEN * 2, headers=key),
        415: client.wsgi.simulate_post(TRANSCRIPTIONS, body=b"{}", headers=json_body),
        500: guarded.post(SILENCE, headers=key),
    }
    engine.admission.close()
    answers[503] = guarded.post(SILENCE, headers=key)

    for status, answer in answers.items():
        assert answer.status_code == status
        assert_shape("error", answer.json)
        assert ("retry-after" in answer.headers) is (status == 503)


def test_unavailable_says_when_to_come_again():
    config = Config(max_concurrent_transcriptions=1, busy_retry_after_s=3)
    engine, _ = held_engine(config)
    with engine.admission.slot(Cancellation()):
        answer = Client.of(config, engine).post(AUSTEN)

    assert answer.headers["retry-after"] == "3", "the balancer adds what OpenAI's clients obey"


def test_time_is_told_by_stage(client):
    answer = client.post(AUSTEN)

    stages = dict(one.split(";dur=") for one in answer.headers["server-timing"].split(", "))
    assert list(stages) == ["receive", "queue", "decode", "inference", "total"]
    spent = {name: float(milliseconds) for name, milliseconds in stages.items()}
    total = spent.pop("total")
    assert sum(spent.values()) <= total + 1
    assert spent["inference"] > 10
    assert abs(float(answer.headers["openai-processing-ms"]) - total) <= 1
    assert answer.headers["x-model"] == "tiny.en"


class TestLogprobs:
    def test_tokens_spell_the_text(self, client):
        body = client.post(AUSTEN, {"response_format": "json", "include[]": "logprobs"}).json

        spelled = b"".join(bytes(token["bytes"]) for token in body["logprobs"])
        assert spelled.decode().strip() == body["text"]
        assert "".join(token["token"] for token in body["logprobs"]).strip() == body["text"]
        assert all(-10 < token["logprob"] <= 0 for token in body["logprobs"])

    def test_they_are_the_models_own(self, client):
        """A word's probability, which faster-whisper finds in another way, is the mean of its
        tokens' probabilities; and they leave the text as it is."""
        scored = client.post(AUSTEN, {"response_format": "json", "include[]": "logprobs"}).json
        timed = client.post(AUSTEN, {"timestamp_granularities[]": "word"}).json

        assert scored["text"] == timed["text"]
        first = timed["segments"][0]["words"][0]
        assert scored["logprobs"][0]["token"] == first["word"]
        assert math.exp(scored["logprobs"][0]["logprob"]) == pytest.approx(
            first["probability"], abs=1e-3
        )

    @pytest.mark.parametrize(
        "fields",
        [{"include[]": "something"}, {}, {"include[]": "logprobs", "response_format": "text"}],
    )
    def test_there_are_none_where_they_were_not_asked_for(self, client, fields):
        answer = client.post(SILENCE, {"response_format": "json"} | fields)

        assert answer.status_code == 200
        assert "logprobs" not in answer.text


class TestChunkingStrategy:
    def test_json_object_is_read_like_fields(self, client):
        strategy = '{"type": "server_vad", "threshold": 2}'
        answer = client.post(AUSTEN, {"chunking_strategy": strategy})

        assert answer.status_code == 400
        assert answer.json["error"]["param"] == "chunking_strategy[threshold]"

    @pytest.mark.parametrize("value", ["none", "{", '{"type": "other"}', "[1]"])
    def test_anything_else_is_refused(self, client, value):
        answer = client.post(AUSTEN, {"chunking_strategy": value})

        assert answer.status_code == 400
        assert answer.json["error"]["param"] == "chunking_strategy"
