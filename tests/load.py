"""A steady load of real windows on a running pool, and what became of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.client import TRANSCRIPTIONS

PATIENCE_S = 120


@dataclass
class Load:
    """Clients that send one request after another, each on a connection of its own.

    Args:
        url: the service.
        bodies: what they send; client n sends body n, again and again.
        every_s: between the starts of a client's requests, if the answers are not slower.
    """

    url: str
    bodies: list[bytes]
    every_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    waits_s: list[float] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(body,)) for body in self.bodies]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> dict[str, int]:
        """How often there was another answer than a transcript, by what it was."""
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    def _ask(self, body: bytes) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                answer = httpx.post(
                    self.url + TRANSCRIPTIONS,
                    data={"model": "whisper-1", "response_format": "json"},
                    files={"file": ("window.wav", body)},
                    timeout=PATIENCE_S,
                )
                told = str(answer.status_code)
                if told == "200" and not answer.json()["text"]:
                    told = "no text"
            except httpx.HTTPError as error:
                told = type(error).__name__
            self.answers[told] += 1
            self.waits_s.append(time.monotonic() - began)
            self._stop.wait(max(0.0, began + self.every_s - time.monotonic()))
