"""The multipart body: read as it comes, counted, bounded, and checked field by field."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest

from app.api import fields
from app.api.form import MAX_FIELD_BYTES, SPOOL_BYTES, Form
from app.api.request import transcription_request
from app.audio.limits import Limits
from app.config import Config
from app.engine.job import Tier
from app.errors import InvalidRequest, StorageFull, TooLarge, UnsupportedBody
from tests.support.client import form

LIMITS = Limits(upload_bytes=1 << 20, duration_s=60)
TYPE = "multipart/form-data; boundary=B"


def read(body: bytes, content_type: str = TYPE, limits: Limits = LIMITS) -> Form:
    with Form() as found:
        found.read(io.BytesIO(body), content_type, limits)
        return found


def request(fields=None, headers=None, config=None, task=None):
    sent = form(b"audio", {"model": "m"} | (fields or {}))
    with Form() as found:
        found.read(io.BytesIO(sent.read()), sent.headers["Content-Type"], LIMITS)
        return transcription_request(found, headers or {}, config or Config(), task)


@pytest.mark.parametrize("file_first", [True, False])
def test_file_may_stand_before_or_after_the_fields(file_first):
    file = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nAUDIO\r\n'
    model = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    parts = file + model if file_first else model + file

    with Form() as found:
        found.read(io.BytesIO(parts + b"--B--\r\n"), TYPE, LIMITS)
        found.file.seek(0)

        assert found.file.read() == b"AUDIO"
        assert found.fields == {"model": ["whisper-1"]}


class Drip(io.RawIOBase):
    """A stream that gives one byte a time, as a slow client does."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def read(self, size: int = -1) -> bytes:
        return self._rest.read(1)


def test_every_split_of_the_stream_gives_the_same_form():
    sent = form(b"\r\n--B\r\nnot a boundary", {"model": "m", "prompt": "ä ö\r\nü"})

    with Form() as found:
        found.read(Drip(sent.read()), sent.headers["Content-Type"], LIMITS)
        found.file.seek(0)

        assert found.file.read() == b"\r\n--B\r\nnot a boundary"
        assert found.text(fields.PROMPT) == "ä ö\r\nü"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--B",
        b"no boundary at all",
        b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\ncut off',
        b"--B\r\nContent-Disposition\r\n\r\nx\r\n--B--\r\n",
        b"--B\r\n" + b"X-Long: " + b"a" * 20_000 + b"\r\n\r\nx\r\n--B--\r\n",
        b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\xfe\r\n--B--\r\n',
        b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
        + b"a" * 300_000 + b"\r\n--B--\r\n",
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 300 + b"--B--\r\n",
        b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n' * 2 + b"--B--\r\n",
    ],
    ids=[
        "empty", "start", "text", "cut off", "no colon", "long header", "not utf-8",
        "large field", "many parts", "two files",
    ],
)  # fmt: skip
def test_broken_body_is_refused(body):
    with pytest.raises(InvalidRequest):
        read(body)


@pytest.mark.parametrize("kind", ["", "application/json", "multipart/mixed; boundary=B", "x" * 99])
def test_other_bodies_are_unsupported(kind):
    with pytest.raises(UnsupportedBody):
        read(b"{}", kind)


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 300}"]
)
def test_boundary_must_be_usable(kind):
    with pytest.raises(InvalidRequest):
        read(b"", kind)


class Endless:
    """A file part without end, and how much of it was taken."""

    taken = 0

    def read(self, size: int) -> bytes:
        start = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        chunk = start if self.taken == 0 else b"\0" * size
        self.taken += len(chunk)
        return chunk


def test_bytes_are_counted_as_they_arrive():
    """A chunked body announces no length; it is refused where it passes the limit."""
    body = Endless()

    with Form() as found, pytest.raises(TooLarge):
        found.read(body, TYPE, LIMITS)

    assert body.taken < LIMITS.upload_bytes + 2 * 64 * 1024


def test_large_upload_goes_to_disk():
    limits = Limits(upload_bytes=64 << 20, duration_s=60)
    body = Endless()
    tracemalloc.start()
    with Form() as found, pytest.raises(TooLarge):
        found.read(body, TYPE, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert body.taken > 60 << 20
    assert peak < 3 * SPOOL_BYTES


def test_full_disk_is_no_fault_of_the_client():
    """Noticed while the body comes, or when the last of it is written."""
    for size in (10, 500_000):
        sent = form(bytes(size), {"model": "m"})
        with Form() as found:
            found.file.close()
            found.file = Path("/dev/full").open("wb")  # noqa: SIM115, closed by the form
            with pytest.raises(StorageFull) as refused:
                found.read(io.BytesIO(sent.read()), sent.headers["Content-Type"], LIMITS)
        assert refused.value.code == "storage_full"


def test_absent_format_is_verbose_json():
    """Real clients that send none read `segments`."""
    assert request().response_format == "verbose_json"


@pytest.mark.parametrize(
    ("fields", "headers", "tier"),
    [
        ({}, {}, Tier.REALTIME),
        ({"transcription_tier": "Deferred"}, {}, Tier.DEFERRED),
        ({}, {"X-TRANSCRIPTION-TIER": "DEFERRED"}, Tier.DEFERRED),
        ({"transcription_tier": "realtime"}, {"X-TRANSCRIPTION-TIER": "deferred"}, Tier.REALTIME),
        ({"transcription_tier": "whenever"}, {}, Tier.REALTIME),
    ],
)
def test_tier_comes_from_the_field_else_the_header(fields, headers, tier):
    assert request(fields, headers).tier is tier


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, False),
        ({"timestamp_granularities": "segment"}, False),
        ({"timestamp_granularities": "word"}, True),
        ({"timestamp_granularities[]": ["segment", "word"]}, True),
        ({"timestamp_granularities": "word, segment"}, True),
    ],
)
def test_granularities_are_read_in_either_spelling(fields, words):
    assert request(fields).options.word_timestamps is words


LISTS = {
    "timestamp_granularities": (["segment", "word"], lambda asked: asked.options.word_timestamps),
    "include": (["item", "logprobs"], lambda asked: asked.options.token_scores),
    "languages": (["fr", "de"], lambda asked: asked.options.languages == ("fr", "de")),
    "keywords": (["Vexa", "Falcon"], lambda asked: asked.options.hotwords == "Vexa Falcon"),
}


def spellings(name: str, first: str, second: str) -> list[dict[str, str | list[str]]]:
    """A list of two values, in each form in which frameworks and SDKs send it."""
    return [
        {name: [first, second]},
        {f"{name}[]": [first, second]},
        {f"{name}[0]": first, f"{name}[1]": second},
        {f"{name}.0": first, f"{name}.1": second},
        {name: first, f"{name}[]": second},
        {name: json.dumps([first, second])},
        {f"{name}[]": f'  [ "{first}" ,\n"{second}" ]\t'},
        {name: json.dumps(f"{first},{second}")},
        {name: [json.dumps([first]), json.dumps([second])]},
        {name: str([first, second])},
        {name: f"[{first}, {second}]"},
        {name: f"{first},{second}"},
        {f"{name}[]": f" {first} , {second} "},
        {name: f"'{first}', \"{second}\""},
    ]


@pytest.mark.parametrize("number", range(len(spellings("", "", ""))))
@pytest.mark.parametrize("name", LISTS)
def test_lists_are_read_in_every_spelling(name, number):
    (first, second), is_read = LISTS[name]

    asked = request({"response_format": "json"} | spellings(name, first, second)[number])

    assert is_read(asked)


@pytest.mark.parametrize("suffix", ["", "[]", "[0]"])
@pytest.mark.parametrize("value", ["", " ", "[]", " [ ] ", '[""]', '""', ","])
@pytest.mark.parametrize("name", LISTS)
def test_empty_list_is_none(name, value, suffix):
    assert request({name + suffix: value}).options == request().options


@pytest.mark.parametrize(
    "value",
    ["[1]", '["word", null]', '[["word"]]', "{}", '{"0": "word"}', '["\\ud800"]', '"\\udfff"',
     "[" * 50_000],
)  # fmt: skip
@pytest.mark.parametrize("name", LISTS)
def test_json_that_is_no_list_of_texts_is_refused(name, value):
    with pytest.raises(InvalidRequest, match="a JSON list of strings") as refusal:
        request({f"{name}[]": value})

    assert refusal.value.param == name


@pytest.mark.parametrize(
    ("value", "hotwords"),
    [
        ("[laughter", "[laughter"),
        ('["laughter', '["laughter'),
        ("{x", "{x"),
        ("rock 'n' roll", "rock 'n' roll"),
        ("[\"it's\", 'so']", "it's so"),
        ('["Smith, John"]', "Smith, John"),
        ("2024", "2024"),
    ],
)
def test_what_is_no_list_is_text(value, hotwords):
    assert request({"keywords": value}).options.hotwords == hotwords


@pytest.mark.parametrize("name", ["languages[x]", "languages[0][1]", "languagesX", "model[0]"])
def test_other_names_are_not_read_as_a_list(name):
    assert request({name: "de"}).options == request().options


def test_speech_options_come_from_the_request_where_it_has_them():
    options = request({"max_speech_duration_s": "7.5", "min_silence_duration_ms": "300"}).options
    chunking = request(
        {
            "chunking_strategy[type]": "server_vad",
            "chunking_strategy[threshold]": "0.7",
            "chunking_strategy[prefix_padding_ms]": "100",
            "chunking_strategy[silence_duration_ms]": "250",
        }
    ).options

    assert options.speech.max_speech_duration_s == 7.5
    assert options.speech.min_silence_duration_ms == 300
    assert options.speech.threshold == Config().vad_filter_threshold
    assert chunking.speech.threshold == 0.7
    assert chunking.speech.padding_ms == 100
    assert chunking.speech.min_silence_duration_ms == 250


def test_temperature_zero_is_the_servers_ladder():
    ladder = Config(temperature=(0.0, 0.4))

    assert request({"temperature": "0"}, config=ladder).options.temperatures == (0.0, 0.4)
    assert request({"temperature": "0.3"}, config=ladder).options.temperatures == (0.3,)
    assert request({}, config=ladder).options.temperatures == (0.0, 0.4)


def test_hotwords_and_keywords_are_one_list():
    fields = {"hotwords": "Vexa Falcon", "keywords[]": ["Gunicorn", "HAProxy"]}

    assert request(fields).options.hotwords == "Vexa Falcon Gunicorn HAProxy"
    assert request({}).options.hotwords is None


@pytest.mark.parametrize(
    ("sent", "plain"),
    [
        ("<|startoftranscript|>", None),
        (" <|en|><|notimestamps|> <|0.00|>\n", None),
        ("Hello<|30.00|>world", "Hello world"),
        ("<|<|en|>en|>", "< | en|>"),
        ("<<|en|>|en|>", "< |en|>"),
        ("<|<|<|en|>|>", "< |< | |>"),
        ("a <| b |> c < |d| > |e|", "a < | b |> c < |d| > |e|"),
    ],
)
@pytest.mark.parametrize("name", ["prompt", "hotwords", "keywords", "keywords[]"])
def test_no_text_becomes_a_control_token(name, sent, plain):
    options = request({name: sent}).options

    assert (options.prompt if name == "prompt" else options.hotwords) == plain


def test_no_control_token_is_made_of_two_texts():
    """Hotwords and keywords are put together."""
    options = request({"hotwords": "<|", "keywords": ["en|>", "<", "|en|>"]}).options

    assert "<|" not in (options.hotwords or "")


def test_languages_are_candidates():
    assert request({"languages[]": ["English", "de-AT", "en"]}).options.languages == ("en", "de")


def test_translation_route_overrides_the_task_and_detects_the_language():
    options = request({"task": "transcribe", "language": "de"}, task="translate").options

    assert (options.task, options.language) == ("translate", None)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"response_format": "xml"}, "response_format"),
        ({"language": "klingon"}, "language"),
        ({"languages[]": "auto"}, "languages"),
        ({"temperature": "1.5"}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": "nan"}, "temperature"),
        ({"timestamp_granularities[]": "letter"}, "timestamp_granularities"),
        ({"task": "summarise"}, "task"),
        ({"max_speech_duration_s": "long"}, "max_speech_duration_s"),
        ({"min_silence_duration_ms": "-1"}, "min_silence_duration_ms"),
    ],
)
def test_wrong_field_is_named(fields, param):
    with pytest.raises(InvalidRequest) as refusal:
        request(fields)

    assert refusal.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "diarized_json", "stream": "true"}, "response_format"),
        ({"known_speaker_names[]": ["agent", "customer"]}, "known_speaker_names"),
        ({"known_speaker_names[0]": "agent"}, "known_speaker_names"),
        ({"known_speaker_names": '["agent"]'}, "known_speaker_names"),
        ({"known_speaker_references[]": "data:audio/wav;base64,UklGR"}, "known_speaker_references"),
        (
            {"known_speaker_references[]": "data:audio/wav;base64," + "A" * MAX_FIELD_BYTES},
            "known_speaker_references",
        ),
    ],
)
def test_request_for_speakers_is_refused(fields, param):
    with pytest.raises(InvalidRequest, match="does not tell speakers apart") as refusal:
        request(fields)

    assert refusal.value.param == param


def test_name_of_a_model_that_tells_speakers_apart_is_a_name_like_any_other():
    """Empty lists of speakers count as none."""
    fields = {"model": "gpt-4o-transcribe-diarize", "response_format": "json"}
    no_speakers = {"known_speaker_names[]": "", "known_speaker_references": "[]"}

    assert request(fields | no_speakers).options == request(fields).options


def test_missing_file_is_named():
    body = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--B--\r\n'
    with pytest.raises(InvalidRequest) as refusal:
        transcription_request(read(body), {}, Config())

    assert refusal.value.param == "file"
