"""Write the events that a session sends, in the shapes of OpenAI's Realtime API."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

from app.errors import ServiceError
from app.live.agreement import Word

TRANSCRIPTION = "conversation.item.input_audio_transcription"
Event = dict[str, Any]


def new_id(kind: str) -> str:
    """Return a random id, such as `event_…`."""
    return f"{kind}_{secrets.token_urlsafe(12)}"


def event(type: str, **members: Any) -> Event:
    """Return an event with an id of its own."""
    return {"type": type, "event_id": new_id("event"), **members}


def error(cause: ServiceError, client_event: str | None = None) -> Event:
    """Return an `error` event; the session goes on.

    Args:
        client_event: the id of the event that caused it.
    """
    return event("error", error=cause.body()["error"] | {"event_id": client_event})


def user_item(item_id: str) -> dict[str, Any]:
    """Return the conversation item of a turn."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }


def delta(item_id: str, text: str, words: Sequence[Word] | None) -> Event:
    """Return the event of confirmed words."""
    members = {"item_id": item_id, "content_index": 0, "delta": text}
    return event(f"{TRANSCRIPTION}.delta", **members, **scores(words))


def completed(item_id: str, text: str, seconds: float, words: Sequence[Word] | None) -> Event:
    """Return the event of a whole turn."""
    members = {
        "item_id": item_id,
        "content_index": 0,
        "transcript": text,
        "usage": {"type": "duration", "seconds": math.ceil(seconds)},
    }
    return event(f"{TRANSCRIPTION}.completed", **members, **scores(words))


def failed(item_id: str, cause: ServiceError) -> Event:
    """Return the event of a turn that cannot be transcribed."""
    body = cause.body()["error"]
    return event(f"{TRANSCRIPTION}.failed", item_id=item_id, content_index=0, error=body)


def behind(limit_s: float, behind_s: float, retry_after_s: float) -> Event:
    """Return the event of a session that waits for the pool.

    Its type is one that every client of OpenAI's knows. The limit is the audio that the gateway
    keeps, in seconds.
    """
    limits = {
        "limit": round(limit_s),
        "remaining": max(0, round(limit_s - behind_s)),
        "reset_seconds": round(retry_after_s, 1),
    }
    return event(
        "rate_limits.updated", rate_limits=[limits], audio_behind_seconds=round(behind_s, 1)
    )


def scores(words: Sequence[Word] | None) -> dict[str, Any]:
    """Return the member `logprobs`, one entry for each word; nothing without `words`."""
    if words is None:
        return {}
    return {
        "logprobs": [
            {"token": word.text, "logprob": word.logprob, "bytes": list(word.text.encode())}
            for word in words
        ]
    }
