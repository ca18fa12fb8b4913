"""OpenAI's published shapes of answers, as JSON Schema, written from its API reference.

Kept apart from the service's own description: the two say the same independently of each other.
What OpenAI's clients need is required here; what we say besides is not forbidden.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
STRING = {"type": "string"}
MAYBE_STRING = {"type": ["string", "null"]}


def shape(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """An object with these properties, others allowed."""
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
    }


def several(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


LOGPROBS = several(
    {
        "type": "object",
        "properties": {"token": STRING, "logprob": NUMBER, "bytes": several(INTEGER)},
        "required": ["token", "logprob", "bytes"],
        "additionalProperties": False,
    }
)
LANGUAGES = several(
    {
        "type": "object",
        "properties": {"code": STRING},
        "required": ["code"],
        "additionalProperties": False,
    }
)
USAGE_DURATION = shape({"type": {"const": "duration"}, "seconds": NUMBER})
USAGE_TOKENS = shape(
    {
        "type": {"const": "tokens"},
        "input_tokens": INTEGER,
        "output_tokens": INTEGER,
        "total_tokens": INTEGER,
    },
    {"input_token_details": shape({}, {"text_tokens": INTEGER, "audio_tokens": INTEGER})},
)
WORD = shape({"word": STRING, "start": NUMBER, "end": NUMBER})
SEGMENT = shape(
    {
        "id": INTEGER,
        "seek": INTEGER,
        "start": NUMBER,
        "end": NUMBER,
        "text": STRING,
        "tokens": several(INTEGER),
        "temperature": NUMBER,
        "avg_logprob": NUMBER,
        "compression_ratio": NUMBER,
        "no_speech_prob": NUMBER,
    }
)

SHAPES: dict[str, dict[str, Any]] = {
    "json": shape(
        {
            "text": STRING,
            "languages": LANGUAGES,
            "usage": {"oneOf": [USAGE_TOKENS, USAGE_DURATION]},
        },
        {"logprobs": LOGPROBS},
    ),
    "verbose_json": shape(
        {"language": STRING, "duration": NUMBER, "text": STRING, "segments": several(SEGMENT)},
        {"words": several(WORD), "usage": USAGE_DURATION},
    ),
    "translation": shape({"text": STRING}),
    "verbose_translation": shape(
        {"language": STRING, "duration": NUMBER, "text": STRING}, {"segments": several(SEGMENT)}
    ),
    "delta": shape(
        {"type": {"const": "transcript.text.delta"}, "delta": {"type": "string", "minLength": 1}},
        {"logprobs": LOGPROBS},
    ),
    "done": shape(
        {
            "type": {"const": "transcript.text.done"},
            "text": STRING,
            "languages": LANGUAGES,
            "usage": USAGE_TOKENS,
        },
        {"logprobs": LOGPROBS},
    ),
    "model": shape(
        {"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING}
    ),
    "error": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string", "minLength": 1, "maxLength": 300},
                    "type": STRING,
                    "param": MAYBE_STRING,
                    "code": MAYBE_STRING,
                },
                "required": ["message", "type", "param", "code"],
                "additionalProperties": False,
            }
        },
        "required": ["error"],
        "additionalProperties": False,
    },
}
SHAPES["models"] = shape({"object": {"const": "list"}, "data": several(SHAPES["model"])})
SHAPES["error_event"] = shape(
    {"type": {"const": "error"}, "error": SHAPES["error"]["properties"]["error"]}
)


def assert_shape(name: str, body: Any) -> None:
    """The body is what OpenAI publishes under this name."""
    jsonschema_rs.validate(SHAPES[name], body)
