"""Send windows through the balancer, as ordinary realtime requests."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from app.errors import DeviceFailed, InvalidRequest, ServiceError, Unauthorized
from app.live.agreement import Word
from app.live.options import Options

TRANSCRIPTIONS = "/v1/audio/transcriptions"
ANSWER_S = 120.0  # a window waits 20 s at most for a slot; a CPU takes seconds for a long one
CONNECT_S = 2.0
AGAIN_S = 1.0  # without Retry-After


class Busy(Exception):
    """The pool has no room for a window now, or no worker answers.

    Args:
        retry_after_s: when to send it again.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """A window's words, with times relative to its start, and its language."""

    words: list[Word]
    language: str | None


class Balancer:
    """Client of the balancer for all sessions of a gateway.

    Args:
        url: the balancer's address.
        sessions: connections at most: a session sends one window at a time.
    """

    def __init__(self, url: str, sessions: int) -> None:
        # Unverified: the certificate is for the service's public name, not for this address.
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        self._client = httpx2.AsyncClient(
            base_url=url,
            verify=unverified,
            trust_env=False,
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=sessions, max_keepalive_connections=sessions),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def transcribe(
        self, wav: bytes, options: Options, key: str | None, language: str | None
    ) -> Answer:
        """Return a window's words.

        Args:
            key: the session's key; None: the service asks for none.
            language: of the turn; None: not known yet.

        Raises:
            Busy: send the window again later.
            ServiceError: the service refuses the window for good.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                response = await self._client.post(
                    TRANSCRIPTIONS,
                    data=fields(options, language),
                    files={"file": ("window.wav", wav, "audio/wav")},
                    headers={"Authorization": f"Bearer {key}"} if key else {},
                )
        except (httpx2.HTTPError, TimeoutError):
            raise Busy(AGAIN_S) from None
        if response.status_code in (429, 502, 503, 504):
            raise Busy(retry_after(response.headers))
        if response.status_code != 200:
            raise refusal(response)
        body = response.json()
        return Answer(words_of(body), body.get("language"))


def fields(options: Options, language: str | None) -> dict[str, Any]:
    """Return a window's form fields."""
    given = options.transcription
    values = {
        "model": given["model"],
        "language": given.get("language") or language,
        "prompt": given.get("prompt"),
        "languages[]": None if language else given.get("languages"),
        "keywords[]": given.get("keywords"),
    }
    return {name: value for name, value in values.items() if value} | {
        "response_format": "verbose_json",
        "timestamp_granularities[]": "word",
    }


def retry_after(headers: Mapping[str, str]) -> float:
    """Return when to send again, in seconds."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(0.1, float(headers[name]) / scale)
        except (KeyError, ValueError):
            continue
    return AGAIN_S


def refusal(response: httpx2.Response) -> ServiceError:
    """Return the error of a window that the service refuses."""
    try:
        error = response.json()["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = "The service refused the audio.", None
    if response.status_code == 401:
        return Unauthorized(message)
    kind = InvalidRequest if response.status_code < 500 else DeviceFailed
    return kind(message, param=param)


def words_of(body: Mapping[str, Any]) -> list[Word]:
    """Return the words of a `verbose_json` object, with their leading spaces; no lone dots."""
    return [
        Word(word["word"], word["start"], word["end"], round(log(word["probability"]), 4))
        for segment in body["segments"]
        for word in segment.get("words") or ()
        if any(letter.isalnum() for letter in word["word"])
    ]


def log(probability: float) -> float:
    """Return the natural logarithm of a probability that may be rounded to 0."""
    return math.log(max(probability, 1e-6))
