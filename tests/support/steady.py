"""Put a load of real windows on a running pool, and record every answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import httpx

from tests.support.background import Background
from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP

PATIENCE_S = 120
EXPLANATION_CHARS = 300


@dataclass(frozen=True)
class Answer:
    """What a client got.

    Args:
        outcome: the status, `no text`, or the name of the transport error.
        seconds: from the connection to the answer's end.
        retry_after: the header; empty where the answer has none.
        explanation: a failure's text and headers.
    """

    outcome: str
    seconds: float
    retry_after: str = ""
    explanation: str = ""

    @property
    def good(self) -> bool:
        return self.outcome == "200"


def ask(
    url: str,
    body: bytes,
    tier: str = "realtime",
    patience_s: float = PATIENCE_S,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one window on a connection of its own."""
    began = time.monotonic()
    retry_after = explanation = ""
    try:
        answer = HTTP.post(
            url + TRANSCRIPTIONS,
            data={"model": "whisper-1", "response_format": "json"},
            files={"file": ("window.wav", body)},
            headers={"X-Transcription-Tier": tier} | dict(headers or {}),
            timeout=patience_s,
        )
        outcome = str(answer.status_code)
        retry_after = answer.headers.get("retry-after", "")
        if outcome == "200" and not answer.json()["text"]:
            outcome = "no text"
        if outcome != "200":
            explanation = f"{answer.text[:EXPLANATION_CHARS]} {dict(answer.headers)}"
    except httpx.HTTPError as error:
        outcome, explanation = type(error).__name__, str(error)
    return Answer(outcome, time.monotonic() - began, retry_after, explanation)


@dataclass
class Answers:
    """All that clients got."""

    answers: list[Answer] = field(default_factory=list, init=False)

    @property
    def counts(self) -> Counter[str]:
        """Return how often each outcome came."""
        return Counter(answer.outcome for answer in self.answers)

    @property
    def failure_counts(self) -> dict[str, int]:
        """Return how often each outcome but a transcript came."""
        return {outcome: count for outcome, count in self.counts.items() if outcome != "200"}

    @property
    def failed(self) -> dict[str, int]:
        """Return the same with each answer's text and headers, for a test's message."""
        failures = (answer for answer in self.answers if not answer.good)
        return dict(Counter(f"{answer.outcome} {answer.explanation}" for answer in failures))

    @property
    def waits_s(self) -> list[float]:
        """Return how long each transcript took."""
        return [answer.seconds for answer in self.answers if answer.good]


@dataclass
class Load(Answers, Background):
    """Clients that send one request after another.

    Args:
        url: the service.
        bodies: what they send; client n sends body n, again and again.
        headers: sent with each request, such as a key.
        every_s: between the starts of a client's requests, if the answers are not slower.
    """

    url: str
    bodies: list[bytes]
    headers: dict[str, str] = field(default_factory=dict)
    every_s: float = 0.0

    def _loops(self) -> list[Callable[[], None]]:
        return [partial(self._ask, body) for body in self.bodies]

    def _ask(self, body: bytes) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self.answers.append(ask(self.url, body, headers=self.headers))
            self._stop.wait(max(0.0, began + self.every_s - time.monotonic()))


@dataclass
class Arrivals(Answers, Background):
    """Requests that come at a steady rate, whatever becomes of the ones before.

    Args:
        url: the service.
        body: what each sends.
        rate: requests a second.
        tier: their urgency.
    """

    url: str
    body: bytes
    rate: float
    tier: str = "realtime"

    def _loops(self) -> list[Callable[[], None]]:
        return [self._arrive]

    def _arrive(self) -> None:
        threads = []
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            thread = threading.Thread(target=self._ask)
            thread.start()
            threads.append(thread)
            due += 1 / self.rate
        for thread in threads:
            thread.join()

    def _ask(self) -> None:
        self.answers.append(ask(self.url, self.body, self.tier))
