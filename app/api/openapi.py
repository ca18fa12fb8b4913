"""Generate `/openapi.json` from the tables that the code itself reads.

Fields come from `app/api/fields.py`, formats from `app/formats`, errors from `app/errors.py`. The
response schemas are written here, and the tests validate real responses against them.
"""

from __future__ import annotations

from typing import Any

from app import __version__
from app.api.fields import FIELDS, Field
from app.errors import (
    EngineFailed,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedBody,
)
from app.formats import EVENT_STREAM, FORMATS

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
STRING: Schema = {"type": "string"}
WHEN_LOADED: Schema = {"type": ["boolean", "null"]}
SECONDS: Schema = {"type": "number", "minimum": 0, "description": "seconds of the audio"}

ABOUT = """\
OpenAI's audio API. Any client made for it works unchanged: set its base address to `/v1` here.

A list is read in every spelling: `name`, `name[]` or `name[0]`, repeated, between commas, or as
one list in JSON. A field that is not listed is ignored.

Speakers are not told apart: `response_format=diarized_json`, `known_speaker_names[]` and
`known_speaker_references[]` are refused (400). A model's name such as `gpt-4o-transcribe-diarize`
is accepted like any other and has no effect.

An error is always JSON. 503 and 429 mean: send the same request again after `Retry-After` seconds
(`Retry-After-Ms` milliseconds).
"""


def described(schema: Schema, text: str) -> Schema:
    """Return a schema with a description."""
    return schema | {"description": text}


def an_object(
    properties: dict[str, Schema], optional: tuple[str, ...] = (), open: bool = False
) -> Schema:
    """Return an object schema; `open` allows properties that are not listed."""
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": open,
    }


def a_list(schema: Schema) -> Schema:
    """Return the schema of an array."""
    return {"type": "array", "items": schema}


def ref(name: str) -> Schema:
    """Return a reference to a named schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


DURATION_USAGE = an_object(
    {"type": {"const": "duration"}, "seconds": described(INTEGER, "of audio, a begun one counted")}
)
TOKEN_USAGE = an_object(
    {
        "type": {"const": "tokens"},
        "input_tokens": described(INTEGER, "what the encoder makes of the audio: 50 a second"),
        "input_token_details": an_object({"audio_tokens": INTEGER}),
        "output_tokens": described(INTEGER, "written by the decoder, time stamps included"),
        "total_tokens": INTEGER,
    }
)
LOGPROB = an_object(
    {
        "token": described(STRING, "its text; part of a character is shown as U+FFFD"),
        "logprob": described(
            {"type": "number", "maximum": 0},
            "natural logarithm of its probability after the tokens before it",
        ),
        "bytes": a_list({"type": "integer", "minimum": 0, "maximum": 255}),
    }
)
WORD = an_object(
    {"word": STRING, "start": SECONDS, "end": SECONDS, "probability": NUMBER},
)
SEGMENT = an_object(
    {
        "id": INTEGER,
        "seek": described(INTEGER, "where its window begins, in hundredths of a second of speech"),
        "start": SECONDS,
        "end": SECONDS,
        "text": STRING,
        "tokens": a_list(INTEGER),
        "temperature": NUMBER,
        "avg_logprob": NUMBER,
        "compression_ratio": NUMBER,
        "no_speech_prob": NUMBER,
        "audio_start": described(SECONDS, "the same as start"),
        "audio_end": described(SECONDS, "the same as end"),
        "language": described(STRING, "where it is not the transcript's"),
        "words": described(a_list(ref("Word")), "when words were asked for"),
    },
    optional=("language", "words"),
)
LANGUAGES = described(
    a_list(an_object({"code": described(STRING, "ISO 639 code, as Whisper writes it")})),
    "what is spoken: the language of the beginning, then others; none where none was detected",
)
VERBOSE: dict[str, Schema] = {
    "task": {"enum": ["transcribe", "translate"]},
    "language": described(STRING, "ISO 639 code of what is spoken"),
    "language_probability": {"type": "number", "minimum": 0, "maximum": 1},
    "duration": SECONDS,
    "text": STRING,
    "segments": a_list(ref("Segment")),
    "words": described(a_list(ref("Word")), "when words were asked for"),
}
SCHEMAS: dict[str, Schema] = {
    "Transcription": an_object(
        {
            "text": STRING,
            "languages": LANGUAGES,
            "logprobs": described(a_list(ref("Logprob")), "when asked for with include[]"),
            "usage": DURATION_USAGE,
        },
        optional=("logprobs",),
    ),
    "VerboseTranscription": an_object(VERBOSE | {"usage": DURATION_USAGE}, optional=("words",)),
    "Segment": SEGMENT,
    "Word": WORD,
    "Logprob": LOGPROB,
    "TextDelta": an_object(
        {
            "type": {"const": "transcript.text.delta"},
            "delta": described(STRING, "all deltas join to the whole text"),
            "logprobs": a_list(ref("Logprob")),
            "segment": described(ref("Segment"), "with verbose_json"),
        },
        optional=("logprobs", "segment"),
    ),
    "TextDone": an_object(
        {"type": {"const": "transcript.text.done"}}
        | VERBOSE
        | {
            "languages": LANGUAGES,
            "logprobs": a_list(ref("Logprob")),
            "usage": TOKEN_USAGE,
        },
        optional=("logprobs", *(name for name in VERBOSE if name != "text")),
    ),
    "StreamError": an_object({"type": {"const": "error"}, "error": ref("ErrorDetail")}),
    "ErrorDetail": an_object(
        {
            "message": described(STRING, "one sentence for a person"),
            "type": STRING,
            "param": described({"type": ["string", "null"]}, "the field that is wrong"),
            "code": {"type": ["string", "null"]},
        }
    ),
    "Error": an_object({"error": ref("ErrorDetail")}),
    "Model": an_object(
        {"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING}
    ),
    "ModelList": an_object({"object": {"const": "list"}, "data": a_list(ref("Model"))}),
    "Health": an_object(
        {
            "status": {"enum": ["healthy", "unhealthy"]},
            "worker_id": STRING,
            "timestamp": STRING,
            "model": STRING,
            "device": STRING,
            "gpu_available": {"type": "boolean"},
            "compute_type": STRING,
            "gpu_memory": an_object({"used_bytes": INTEGER, "free_bytes": INTEGER}),
            "state": STRING,
            "reason": described(STRING, "why no request could be served now"),
        },
        optional=(
            "worker_id", "timestamp", "model", "device", "gpu_available", "compute_type",
            "gpu_memory", "state", "reason",
        ),
    ),
    "ClientSecret": {"type": "object"},  # two shapes; see OpenAI's reference
    "Service": an_object(
        {
            "service": STRING,
            "version": STRING,
            "worker_id": STRING,
            "model": STRING,
            "device": STRING,
            "multilingual": described(WHEN_LOADED, "whether the model knows more than English"),
            "translates": described(WHEN_LOADED, "whether the model translates into English"),
            "status": {"enum": ["ready", "initializing"]},
            "endpoints": {"type": "object", "additionalProperties": STRING},
        }
    ),
}  # fmt: skip

# The `data:` field of an event.
EVENT: Schema = {
    "type": "string",
    "contentMediaType": "application/json",
    "contentSchema": {"anyOf": [ref("TextDelta"), ref("TextDone"), ref("StreamError")]},
}

HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Request-ID": ("the request's id, the client's own where it is sane", STRING),
    "X-Model": ("the model that answers", STRING),
    "Server-Timing": ("receive, queue, decode, inference and total, in milliseconds", STRING),
    "OpenAI-Processing-Ms": ("the total, in milliseconds", INTEGER),
    "Retry-After": ("seconds after which to send the same request again", INTEGER),
    "Retry-After-Ms": ("the same in milliseconds", INTEGER),
    "X-Should-Retry": ("`true`: send the same request again", STRING),
    "Allow": ("the methods of this path", STRING),
    "WWW-Authenticate": ("`Bearer`", STRING),
}
AGAIN = ("Retry-After", "Retry-After-Ms", "X-Should-Retry")
OF_ERRORS = {401: ("WWW-Authenticate",), 429: AGAIN, 503: AGAIN}

# Descriptions by status; 408 is the balancer's.
ERRORS: dict[int, str] = {
    InvalidRequest.status: "A field is missing or wrong, or the audio cannot be decoded.",
    Unauthorized.status: "The key is missing or wrong.",
    NotFound.status: "There is nothing at this path, or no such model.",
    MethodNotAllowed.status: "Not this method.",
    408: "The request did not arrive in time.",
    TooLarge.status: "Too many bytes, or too long a recording.",
    UnsupportedBody.status: "The body is not multipart/form-data.",
    RateLimited.status: "One client's limit is reached: requests a minute or at once.",
    EngineFailed.status: "A bug.",
    Unavailable.status: "Not now: busy, stopping, loading, or a worker failed.",
}
OF_AUDIO = (400, 401, 404, 408, 413, 415, 429, 500, 503)
OF_THE_REST = (400, 401, 404, 500, 503)


def errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    """Return the error responses by status."""
    return {
        str(status): answer(
            ERRORS[status],
            {"application/json": ref("Error")},
            OF_ERRORS.get(status, ()),
        )
        for status in statuses
    }


def answer(text: str, content: dict[str, Schema], headers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return one response of a route."""
    names = ("X-Request-ID", *headers)
    return {
        "description": text,
        "headers": {
            name: {"description": HEADERS[name][0], "schema": HEADERS[name][1]} for name in names
        },
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
    }


def form_schema(route: str) -> Schema:
    """Return the form's schema for an audio route."""
    fields = [field for field in FIELDS if route in field.routes]
    return {
        "type": "object",
        "properties": {field.name: field_schema(field) for field in fields},
        "required": [field.name for field in fields if field.required],
    }


def field_schema(field: Field) -> Schema:
    """Return a field's JSON Schema; forms carry text, so limits apply to the parsed value."""
    schema: Schema = {"type": field.kind}
    if field.kind == "file":
        schema = {"type": "string", "format": "binary"}
    if field.kind == "string" and field.choices and not field.open:
        schema["enum"] = list(field.choices)
    if field.kind == "string" and field.open:
        schema["examples"] = list(field.choices)
    if field.required and field.kind == "string":
        schema["minLength"] = 1
    if field.minimum is not None:
        schema |= {"minimum": field.minimum, "maximum": field.maximum}
    return described(a_list(schema) if field.many else schema, field.meaning)


def audio_content() -> dict[str, Schema]:
    """Return the schemas of a successful response by content type."""
    by_type: dict[str, Schema] = {
        form.content_type.partition(";")[0]: STRING for form in FORMATS.values()
    }
    by_type["application/json"] = {"anyOf": [ref("VerboseTranscription"), ref("Transcription")]}
    by_type[EVENT_STREAM.partition(";")[0]] = described(
        an_object({"data": EVENT, "event": STRING}, optional=("event",)),
        "each event; deltas, and last the whole text or an error",
    )
    return by_type


def audio(route: str, summary: str) -> dict[str, Any]:
    """Return the path item of an audio route."""
    return {
        "post": {
            "operationId": route,
            "summary": summary,
            "tags": ["Audio"],
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": form_schema(route),
                        "encoding": {"file": {"contentType": "application/octet-stream"}},
                    }
                },
            },
            "responses": {
                "200": answer(
                    "The text, in the form that was asked for.",
                    audio_content(),
                    ("X-Model", "Server-Timing", "OpenAI-Processing-Ms"),
                )
            }
            | errors(OF_AUDIO),
        }
    }


def secrets(name: str, summary: str) -> dict[str, Any]:
    """Return the path item of a route that creates client secrets."""
    an_object_of_json = {"application/json": {"schema": {"type": "object"}}}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "tags": ["Live"],
            "requestBody": {"required": False, "content": an_object_of_json},
            "responses": {
                "200": answer("The secret, and the session that it opens.", json_of("ClientSecret"))
            }
            | errors((*OF_THE_REST, 413)),
        }
    }


def reading(
    name: str,
    tag: str,
    summary: str,
    content: dict[str, Schema],
    statuses: tuple[int, ...],
    **further: Any,
) -> dict[str, Any]:
    """Return the path item of a GET route."""
    operation = {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "responses": {"200": answer("It is there.", content)} | errors(statuses),
    }
    return {"get": operation | further}


MODEL_ID = {
    "name": "model_id",
    "in": "path",
    "required": True,
    "description": "may hold slashes",
    "schema": STRING | {"minLength": 1},
}


def paths() -> dict[str, Any]:
    """Return the path items of every route that the balancer forwards to a worker."""
    page = {"text/html": STRING}
    health = reading(
        "health",
        "Service",
        "Whether requests can be served now",
        json_of("Health"),
        (400,),
        security=[],
    )
    health["get"]["responses"]["503"] = answer(ERRORS[503], json_of("Health"))
    service = reading(
        "service", "Service", "What this is; a browser is sent to `/playground`",
        json_of("Service"), OF_THE_REST, security=[],
    )  # fmt: skip
    service["get"]["responses"]["302"] = answer("A browser is sent to `/playground`.", {})
    return {
        "/v1/audio/transcriptions": audio("transcriptions", "A recording to its text"),
        "/v1/audio/translations": audio(
            "translations", "Speech of any language to English text; not every model can"
        ),
        "/v1/realtime/client_secrets": secrets(
            "client_secrets", "A client secret, with which a browser opens a live session"
        ),
        "/v1/realtime/transcription_sessions": secrets(
            "transcription_sessions", "The same in the earlier shape of OpenAI's API"
        ),
        "/v1/models": reading(
            "models", "Models", "The model that runs, and `whisper-1`, which stands for it",
            json_of("ModelList"), OF_THE_REST,
        ),
        "/v1/models/{model_id}": reading(
            "model", "Models", "One of them", json_of("Model"), OF_THE_REST, parameters=[MODEL_ID]
        ),
        "/health": health,
        "/": service,
        "/openapi.json": reading(
            "openapi", "Service", "This document",
            {"application/json": {"type": "object"}}, OF_THE_REST, security=[],
        ),
        "/docs": reading(
            "docs", "Service", "This document as a page", page, OF_THE_REST, security=[]
        ),
        "/playground": reading(
            "playground", "Service", "A page to try it: a recording or a microphone, and the text",
            page, OF_THE_REST, security=[],
        ),
    }  # fmt: skip


def json_of(name: str) -> dict[str, Schema]:
    """Return JSON content with a named schema."""
    return {"application/json": ref(name)}


def document(asks_for_a_key: bool) -> dict[str, Any]:
    """Return the whole document; OpenAPI 3.1.

    Args:
        asks_for_a_key: Whether the routes under /v1 require a key.
    """
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Transcription service",
            "version": __version__,
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": described(
                    {"type": "http", "scheme": "bearer"},
                    "one of the service's keys; in the URL it is refused",
                ),
                "header": described(
                    {"type": "apiKey", "in": "header", "name": "X-API-Key"}, "the same key"
                ),
            },
        },
    }
    if asks_for_a_key:
        description["security"] = [{"bearer": []}, {"header": []}]
    return description
