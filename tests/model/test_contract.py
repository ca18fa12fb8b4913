"""The wire contract, rule by rule, on a worker with a real model."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import falcon.testing
import pytest

from app.api.form import MAX_FIELD_BYTES
from app.config import Config
from app.engine.cancellation import Cancellation
from app.engine.engine import Engine
from app.engine.model import Model
from tests.support.client import TRANSCRIPTIONS, TRANSLATIONS, Client, assert_error, form
from tests.support.event_stream import read_events
from tests.support.fakes import held_engine
from tests.support.recordings import recording, recordings, wav_header
from tests.support.text import SENTENCE, words

AUSTEN = recording("austen_0890.wav").path.read_bytes()
POST_ROUTES = (TRANSCRIPTIONS, TRANSLATIONS)


class TestRoutes:
    def test_health_says_what_runs_here(self, client):
        answer = client.get("/health")

        assert answer.status_code == 200
        assert set(answer.json) == {
            "status", "worker_id", "timestamp", "model", "device", "gpu_available", "compute_type",
        }  # fmt: skip
        assert (answer.json["status"], answer.json["worker_id"]) == ("healthy", "1")
        assert (answer.json["model"], answer.json["device"]) == ("tiny.en", "cpu")
        assert answer.json["gpu_available"] is False

    def test_health_is_503_with_a_reason_whenever_the_worker_could_not_transcribe(self):
        config = Config()
        engine = Engine(config)
        client = Client.of(config, engine)
        loading = client.get("/health")
        engine.admission.open()
        engine.admission.close()
        stopping = client.get("/health")

        for answer, reason in ((loading, "loading"), (stopping, "stopping")):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json["status"] == "unhealthy"
            assert reason in answer.json["reason"]

    def test_health_answers_while_every_slot_is_busy(self):
        config = Config(max_concurrent_transcriptions=1)
        engine, _ = held_engine(config)
        with engine.admission.slot(Cancellation()):
            assert Client.of(config, engine).get("/health").status_code == 200

    def test_root_describes_the_service(self, client):
        answer = client.get("/")

        assert answer.json["status"] == "ready"
        assert answer.json["worker_id"] == "1"
        assert answer.json["endpoints"]["transcriptions"] == TRANSCRIPTIONS
        assert Client.of(Config(), Engine(Config())).get("/").json["status"] == "initializing"

    def test_models_are_listed_in_openais_form(self, client):
        answer = client.get("/v1/models")

        assert answer.json["object"] == "list"
        assert [one["id"] for one in answer.json["data"]] == ["tiny.en", "whisper-1"]
        for one in answer.json["data"]:
            assert set(one) == {"id", "object", "created", "owned_by"}
            assert client.get("/v1/models/" + one["id"]).json == one

    def test_model_ids_may_hold_slashes(self, tiny_engine):
        client = Client.of(Config(model_name="Systran/faster-whisper-tiny"), tiny_engine)

        assert client.get("/v1/models/Systran/faster-whisper-tiny").status_code == 200
        assert_error(client.get("/v1/models/Systran/other"), 404, "model")

    def test_metrics_are_prometheus_text(self, client):
        answer = client.get("/metrics")

        assert answer.headers["content-type"].startswith("text/plain")
        assert "transcription_slots_in_use 0.0" in answer.text

    @pytest.mark.parametrize("path", POST_ROUTES)
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
    def test_other_methods_on_a_post_route_are_405_with_allow(self, client, path, method):
        answer = client.wsgi.simulate_request(method, path)

        assert answer.status_code == 405
        assert "POST" in answer.headers["allow"]
        if method != "HEAD":
            assert_error(answer, 405)

    @pytest.mark.parametrize(
        "path", ["/v1", "/v1/audio", "/v1/audio/speech", "/nothing", "/v1/x?y"]
    )
    def test_unknown_path_is_404(self, client, path):
        assert_error(client.get(path), 404)


def unread() -> None:
    """A form that must not be read."""
    raise AssertionError("the form was read")


@pytest.fixture
def guarded(tiny_engine):
    """A client of a worker that asks for a key."""
    return Client.of(Config(api_token="first", api_keys=("second",)), tiny_engine)


class TestKeys:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Bearer first"},
            {"Authorization": "bearer second"},
            {"X-API-Key": "second"},
        ],
    )
    def test_each_valid_key_opens(self, guarded, headers):
        assert guarded.get("/v1/models", headers=headers).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer "},
            {"Authorization": "Basic first"},
            {"Authorization": "first"},
            {"X-API-Key": "firs"},
            {"X-API-Key": "\u00e4"},
        ],
    )
    def test_wrong_or_missing_key_is_401_before_the_form_is_read(
        self, guarded, headers, monkeypatch
    ):
        """What was sent is thrown away unread, so that the client, still sending, sees why."""
        monkeypatch.setattr("app.api.transcriptions.Form", unread)
        environ = falcon.testing.create_environ(
            TRANSCRIPTIONS, method="POST", headers={"Content-Type": "multipart/form-data"} | headers
        )
        environ["wsgi.input"] = io.BytesIO(bytes(1_000_000))
        started = falcon.testing.StartResponseMock()

        body = b"".join(guarded.wsgi.app(environ, started))

        assert started.status.startswith("401")
        assert dict(started.headers)["www-authenticate"] == "Bearer"
        assert json.loads(body)["error"]["code"] == "invalid_api_key"

    @pytest.mark.parametrize("path", ["/", "/health", "/metrics"])
    def test_pages_about_the_worker_need_no_key(self, guarded, path):
        assert guarded.get(path).status_code == 200

    def test_without_a_key_the_service_is_open(self, client):
        assert client.get("/v1/models", headers={"X-API-Key": "any"}).status_code == 200


class TestFields:
    @pytest.mark.parametrize("model", ["whisper-1", "default", "large-v3-turbo", "test"])
    def test_any_model_is_accepted_and_the_answer_names_the_one_that_ran(self, client, model):
        answer = client.post(wav_header(0), {"model": model})

        assert answer.status_code == 200
        assert answer.headers["x-model"] == "tiny.en"

    def test_strict_model_refuses_the_unknown(self, tiny_engine):
        strict = Client.of(Config(model_name="tiny.en", strict_model=True), tiny_engine)

        assert strict.post(wav_header(0), {"model": "tiny.en"}).status_code == 200
        assert strict.post(wav_header(0), {"model": "whisper-1"}).status_code == 200
        assert_error(strict.post(wav_header(0), {"model": "gpt-4o-transcribe"}), 404, "model")

    @pytest.mark.parametrize(
        "language", ["de", "English", "EN", "en-US", "en_US.UTF-8", "auto", ""]
    )
    def test_english_only_model_answers_en(self, client, language):
        answer = client.post(AUSTEN, {"language": language})

        assert answer.json["language"] == "en"

    def test_language_is_detected_or_taken_as_given(self, base_client):
        spanish = recording("synthetic_es.ogg").path.read_bytes()

        detected = base_client.post(spanish, {"language": "auto"}).json
        given = base_client.post(spanish, {"language": "Spanish"}).json
        candidates = base_client.post(spanish, {"languages[]": ["en", "es"]}).json

        assert [one["language"] for one in (detected, given, candidates)] == ["es"] * 3
        assert 0 < detected["language_probability"] <= 1
        assert given["language_probability"] == 1

    @pytest.mark.parametrize("language", ["klingon", "xx", "german and english"])
    def test_unknown_language_is_400(self, client, language):
        assert_error(client.post(AUSTEN, {"language": language}), 400, "language")

    def test_prompt_of_any_length_is_context(self, client):
        """Whisper takes 223 tokens of context: of a longer prompt the end counts."""
        sentence = "He was not an ill-disposed young man. "
        long, longer = (
            client.post(AUSTEN, {"prompt": start + sentence * 60}).json
            for start in ("", "Something else entirely. " * 300)
        )

        assert long["segments"] == longer["segments"]
        assert words(long["text"]) == words(SENTENCE)

    @pytest.mark.parametrize(
        ("sent", "plain"),
        [
            ({"prompt": "<|startoftranscript|><|en|>"}, {}),
            ({"hotwords": "<|endoftext|>"}, {}),
            ({"keywords[]": ["<|endoftext|>", "<|nocaptions|>"]}, {}),
            (
                {"prompt": "A <|startofprev|>", "hotwords": "Vexa <|startoftranscript|>"},
                {"prompt": "A", "hotwords": "Vexa"},
            ),
        ],
    )
    def test_text_never_becomes_a_control_token(self, client, sent, plain):
        assert client.post(AUSTEN, sent).content == client.post(AUSTEN, plain).content

    def test_translation_is_english(self, base_client):
        japanese = recording("synthetic_ja.ogg").path.read_bytes()

        by_route = base_client.post(japanese, path=TRANSLATIONS).json
        by_field = base_client.post(japanese, {"task": "translate"}).json

        assert by_route["task"] == by_field["task"] == "translate"
        assert words(by_route["text"]) == words(by_field["text"]) == ["hello", "world"]

    def test_model_that_cannot_translate_says_so(self, client):
        assert_error(client.post(AUSTEN, path=TRANSLATIONS), 400, "model")
        assert_error(client.post(AUSTEN, {"task": "translate"}), 400, "model")

    def test_model_that_cannot_translate_may_transcribe_instead(self, tiny_config):
        """Some bots ask for a translation with every window, whatever the model."""
        config = replace(tiny_config, translate_fallback=True)
        engine = Engine(config)
        engine._model = Model(config)
        engine.admission.open()
        client = Client.of(config, engine)
        fields = {"task": "translate", "response_format": "verbose_json"}

        by_field = client.post(AUSTEN, fields)
        by_route = client.post(AUSTEN, path=TRANSLATIONS)
        streamed = client.post(AUSTEN, fields | {"stream": "true"})

        for answer in (by_field.json, by_route.json, read_events(streamed.text.split("\n")).last):
            assert answer["task"] == "transcribe"
            assert words(answer["text"]) == words(SENTENCE)

    def test_unknown_fields_are_ignored(self, client):
        fields = {
            "vad_model": "silero", "include[]": "logprobs", "chunking_strategy": "auto",
            "anything": "else", "user": "me",
        }  # fmt: skip

        assert words(client.post(AUSTEN, fields).json["text"]) == words(SENTENCE)

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"model": ""}, "model"),
            ({"model": None}, "model"),
            ({"temperature": "2"}, "temperature"),
            ({"response_format": "docx"}, "response_format"),
            ({"max_speech_duration_s": "fifteen"}, "max_speech_duration_s"),
            ({"min_silence_duration_ms": "a while"}, "min_silence_duration_ms"),
        ],
    )
    def test_bad_parameter_is_400_and_named(self, client, fields, param):
        assert_error(client.post(AUSTEN, fields), 400, param)

    def test_missing_file_is_400(self, client):
        assert_error(client.post(None), 400, "file")


@pytest.fixture(scope="module")
def answer(client):
    """A sentence of 7 s, with words."""
    return client.post(
        recording("odd_no_extension").path.read_bytes(), {"timestamp_granularities[]": ["word"]}
    ).json


class TestAnswer:
    def test_segments_are_there_also_when_only_words_were_asked_for(self, answer):
        assert answer["segments"]
        assert answer["words"]
        for segment in answer["segments"]:
            assert (segment["audio_start"], segment["audio_end"]) == (
                segment["start"], segment["end"],
            )  # fmt: skip

    def test_times_are_ordered_and_within_the_audio(self, answer):
        starts = [segment["start"] for segment in answer["segments"]]
        word_starts = [word["start"] for word in answer["words"]]

        assert starts == sorted(starts)
        assert word_starts == sorted(word_starts)
        for one in answer["segments"] + answer["words"]:
            assert 0 <= one["start"] <= one["end"] <= answer["duration"]

    def test_words_join_to_the_text(self, answer):
        for segment in answer["segments"]:
            assert "".join(word["word"] for word in segment["words"]) == segment["text"]
        assert "".join(one["text"] for one in answer["segments"]).strip() == answer["text"]

    def test_scores_are_the_models_own(self, answer):
        for segment in answer["segments"]:
            assert -1 < segment["avg_logprob"] < 0
            assert 0 < segment["no_speech_prob"] < 0.5
            assert 0.5 < segment["compression_ratio"] < 2.4
            assert all(0 < word["probability"] <= 1 for word in segment["words"])

    def test_the_same_request_has_the_same_answer(self, client):
        first, second = (client.post(AUSTEN, {"timestamp_granularities": "word"}) for _ in range(2))

        assert first.content == second.content

    def test_no_successful_body_has_an_error(self, answer):
        assert "error" not in answer

    @pytest.mark.parametrize(
        "one",
        [one for one in recordings() if one.text == ""],
        ids=lambda one: one.name,
    )
    def test_what_is_no_speech_is_an_empty_text(self, client, one):
        answer = client.post(one.path.read_bytes())

        assert answer.status_code == 200
        assert (answer.json["text"], answer.json["segments"]) == ("", [])
        assert answer.json["duration"] == pytest.approx(one.seconds, abs=0.05)

    @pytest.mark.parametrize(
        ("response_format", "content_type", "starts"),
        [
            ("json", "application/json", '{"text": "Unless'),
            ("verbose_json", "application/json", '{"task": "transcribe"'),
            (None, "application/json", '{"task": "transcribe"'),
            ("text", "text/plain; charset=utf-8", "Unless to be"),
            ("srt", "text/plain; charset=utf-8", "1\n00:00:00,000 --> 00:00:0"),
            ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00:00.000 --> "),
        ],
    )
    def test_each_format_has_its_type(self, client, response_format, content_type, starts):
        answer = client.post(AUSTEN, {"response_format": response_format})

        assert answer.headers["content-type"] == content_type
        assert answer.text.startswith(starts)

    def test_text_beyond_ascii_is_utf_8(self, base_client):
        japanese = recording("synthetic_ja.ogg").path.read_bytes()

        for response_format in ("text", "json", "verbose_json", "srt", "vtt"):
            answer = base_client.post(japanese, {"response_format": response_format})
            assert "こんにちは世界" in answer.content.decode("utf-8")


class TestErrors:
    @pytest.mark.parametrize(
        "one",
        [one for one in recordings() if one.kind == "invalid"],
        ids=lambda one: one.name,
    )
    def test_what_is_no_audio_is_400(self, client, one):
        assert_error(client.post(one.path.read_bytes(), name=one.name), 400, "file")

    def test_broken_multipart_is_400(self, client):
        answer = client.wsgi.simulate_post(
            TRANSCRIPTIONS,
            body=b"--B\r\nbroken",
            headers={"Content-Type": "multipart/form-data; boundary=B"},
        )

        assert_error(answer, 400)

    def test_too_large_a_field_is_400(self, client):
        assert_error(client.post(AUSTEN, {"prompt": "a" * (MAX_FIELD_BYTES + 1)}), 400)

    @pytest.mark.parametrize("content_type", ["application/json", "audio/wav", None])
    def test_other_bodies_are_415(self, client, content_type):
        headers = {"Content-Type": content_type} if content_type else {}
        answer = client.wsgi.simulate_post(TRANSCRIPTIONS, body=b"{}", headers=headers)

        assert_error(answer, 415)

    @pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "GZIP, gzip"])
    def test_compressed_body_is_415(self, client, encoding):
        """And not a form that is broken."""
        answer = client.post(AUSTEN, headers={"Content-Encoding": encoding})

        assert_error(answer, 415)
        assert "Content-Encoding" in answer.json["error"]["message"]

    def test_body_that_says_it_is_not_compressed_is_read(self, client):
        assert client.post(AUSTEN, headers={"Content-Encoding": "identity"}).status_code == 200

    def test_too_many_bytes_are_413_by_length_before_reading(self, tiny_engine):
        small = Client.of(Config(max_upload_bytes=4096), tiny_engine)

        assert_error(small.post(AUSTEN), 413, "file")

    def test_too_many_bytes_are_413_without_a_length(self, tiny_engine):
        small = Client.of(Config(max_upload_bytes=4096), tiny_engine)
        sent = form(AUSTEN, {"model": "m"})

        answer = small.wsgi.simulate_post(
            TRANSCRIPTIONS,
            body=sent.read(),
            headers={"Content-Type": sent.headers["Content-Type"], "Content-Length": ""},
        )

        assert_error(answer, 413, "file")

    def test_too_long_audio_is_413(self, tiny_engine):
        short = Client.of(Config(max_audio_duration_s=2), tiny_engine)

        assert_error(short.post(AUSTEN), 413, "file")
        assert_error(short.post(recording("austen_0870.ogg").path.read_bytes()), 413, "file")

    def test_busy_is_503_with_retry_after(self):
        config = Config(max_concurrent_transcriptions=1, busy_retry_after_s=3)
        engine, _ = held_engine(config)
        client = Client.of(config, engine)

        with engine.admission.slot(Cancellation()):
            answer = client.post(AUSTEN)

        assert_error(answer, 503)
        assert answer.headers["retry-after"] == "3"

    def test_full_house_refuses_before_any_audio_is_decoded(self):
        config = Config(max_concurrent_transcriptions=1)
        engine, _ = held_engine(config)

        with engine.admission.slot(Cancellation()):
            answer = Client.of(config, engine).post(b"not audio at all")

        assert_error(answer, 503)

    def test_draining_is_503_with_retry_after(self):
        config = Config()
        engine, _ = held_engine(config)
        engine.admission.close()

        answer = Client.of(config, engine).post(AUSTEN)

        assert_error(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert answer.json["error"]["code"] == "server_draining"

    def test_bug_is_500_without_its_cause(self, caplog):
        config = Config()
        engine, model = held_engine(config)
        model.failure = RuntimeError("secret detail")
        model.go.set()

        answer = Client.of(config, engine).post(AUSTEN)

        assert_error(answer, 500)
        assert "secret" not in answer.text
        assert "secret detail" in caplog.text

    def test_unforeseen_error_is_500_in_the_same_form(self, tiny_engine):
        client = Client.of(Config(), tiny_engine)
        client.wsgi.app.add_route("/broken", Broken())

        assert_error(client.get("/broken"), 500)


class Broken:
    def on_get(self, req, resp):
        raise KeyError("a bug")


class TestRequestId:
    @pytest.mark.parametrize("path", ["/health", "/nothing", "/v1/models"])
    def test_clients_own_id_comes_back(self, client, path):
        answer = client.get(path, headers={"X-Request-ID": "meeting-7.speaker_2"})

        assert answer.headers["x-request-id"] == "meeting-7.speaker_2"

    @pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "<script>"])
    def test_insane_id_is_replaced(self, client, sent):
        headers = {} if sent is None else {"X-Request-ID": sent}
        answer = client.get("/health", headers=headers)

        assert len(answer.headers["x-request-id"]) == 36


class TestMetrics:
    def test_answers_refusals_and_audio_are_counted(self):
        config = Config(max_concurrent_transcriptions=1)
        engine, model = held_engine(config)
        model.go.set()
        client = Client.of(config, engine)
        before = counts(client)

        client.post(AUSTEN, {"transcription_tier": "deferred"})
        client.post(b"no audio")
        with engine.admission.slot(Cancellation()):
            client.post(AUSTEN)
        after = counts(client)

        assert {name: after[name] - before.get(name, 0) for name in COUNTED} == pytest.approx(
            dict(zip(COUNTED, (1, 1, 1, 1, 5.3), strict=True))
        )


COUNTED = (
    'transcription_answers_total{status="200",tier="deferred"}',
    'transcription_answers_total{status="400",tier="realtime"}',
    'transcription_answers_total{status="503",tier="realtime"}',
    'transcription_refused_total{reason="busy",tier="realtime"}',
    'transcription_audio_seconds_total{tier="deferred"}',
)


def counts(client: Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }
