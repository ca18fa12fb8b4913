"""Keys through the whole service: asked for, limited, and nowhere but with their clients."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.recordings import recording
from tests.support.stack import KEY, METERED_KEY, Stack
from tests.support.text import SENTENCE, words
from tests.support.waiting import until

AUSTEN = recording("austen_0890.wav").path
SECRETS = (KEY, METERED_KEY)


def send(running: Stack, key: str, content: bytes) -> httpx.Response:
    return HTTP.post(
        running.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
        files={"file": ("a.wav", content)}, headers={"X-API-Key": key},
    )  # fmt: skip


def transcribe(running: Stack, key: str) -> str:
    """The text that OpenAI's client gets."""
    with openai.OpenAI(base_url=running.url + "/v1", api_key=key, max_retries=0) as client:
        return client.audio.transcriptions.create(file=AUSTEN, model="whisper-1").text


def test_key_is_asked_for(keyed):
    assert "Authorization: Bearer YOUR_KEY" in keyed.log
    with pytest.raises(openai.AuthenticationError):
        transcribe(keyed, "wrong")
    for _ in range(5):  # refused before its body was read, and told so all the same
        assert send(keyed, "wrong", bytes(10_000_000)).status_code == 401

    assert words(transcribe(keyed, KEY)) == words(SENTENCE)


def test_figures_are_for_those_who_have_a_key(keyed):
    assert send(keyed, "wrong", b"").status_code == 401
    figures = keyed.url + "/status/figures"

    hidden = HTTP.get(figures)
    wrong = HTTP.get(figures, headers={"X-API-Key": "wrong"})
    shown = HTTP.get(figures, headers={"X-API-Key": KEY})
    bearer = HTTP.get(figures, headers={"Authorization": f"Bearer {METERED_KEY}"})
    own = HTTP.get(f"http://127.0.0.1:{keyed.settings['STATS_PORT']}/status/figures")

    for answer in (hidden, wrong):
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert bearer.status_code == 200, "and it counts for nothing in the key's limits"
    assert shown.json()["faults"][0]["code"] == own.json()["faults"][0]["code"] == "invalid_api_key"


def test_limit_of_a_key_holds(keyed):
    """The balancer reads it from the map that the pool makes of the file."""
    content = recording("goforward_16k.wav").path.read_bytes()

    answers = [send(keyed, METERED_KEY, content) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[-1].headers["retry-after"] == "20"


def test_key_is_nowhere_but_with_its_client(keyed):
    """After requests with right and wrong keys, and after malformed lines to a worker: in no log
    line, no figure, no answer, no process list, no file."""
    assert transcribe(keyed, KEY)
    pages = [f"http://127.0.0.1:{keyed.settings['STATS_PORT']}/{name}"
             for name in ("", "metrics", "metrics/refused", "status/figures")]  # fmt: skip
    pages += [keyed.worker_url(1) + "/metrics"]
    pages += [keyed.url + name for name in ("/lb-status", "/health", "/openapi.json")]
    before = keyed.log.count("Invalid request from")
    for line in (f"GET /health?api_key={KEY} HTTP/9", f"GET /{KEY}\x00 HTTP/1.1", KEY):
        with socket.create_connection(
            ("127.0.0.1", int(keyed.settings["WORKER_BASE_PORT"])), timeout=60
        ) as connection:
            connection.sendall(f"{line}\r\nX-API Key: {KEY}\r\n\r\n".encode())
            connection.recv(10_000)
    in_url = HTTP.get(keyed.url + "/v1/models", params={"api_key": KEY})
    assert in_url.status_code == 400
    assert until(lambda: keyed.log.count("Invalid request from") == before + 3), keyed.log

    told = [HTTP.get(page).text for page in pages]
    told += [in_url.text, keyed.log, Path(keyed.settings["API_KEYS_FILE"]).read_text()]
    told += [Path(f"/proc/{pid}/cmdline").read_text() for pid in keyed.processes()]

    for text in told:
        assert not [secret for secret in SECRETS if secret in text]
    assert "Lua" not in keyed.log
    assert balancers_keys(keyed) >= {"-", "API_TOKEN"}


def balancers_keys(running: Stack) -> set[str]:
    """The names of keys in the balancer's lines."""
    lines = [json.loads(line) for line in running.lines if line.startswith('{"time"')]
    return {line["key"] for line in lines if "retries" in line}
