"""Limits of keys, which hold over all workers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.config import ROOT
from app.keys.keyring import new_key
from tests.support.client import TRANSCRIPTIONS
from tests.support.entry import Entry
from tests.support.environment import bare_environment
from tests.support.key_file import entry, write
from tests.support.waiting import until
from tests.support.wire import Wire

WINDOW = b"RIFF" + bytes(64_000)


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    names = ("metered", "narrow", "open", "gone", "token")
    return {name: new_key() for name in names}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> Iterator[Entry]:
    """Two workers, for whose keys a file says what each may, in folders HAProxy could misread."""
    folder = tmp_path_factory.mktemp("keys")
    write(
        folder / "keys.json",
        metered=entry(secrets["metered"], requests_per_minute=3),
        narrow=entry(secrets["narrow"], concurrent_requests=1),
        open=entry(secrets["open"]),
        gone=entry(secrets["gone"], requests_per_minute=1),
    )
    with Entry.started(
        folder / "it's 100% (a)", workers=2, API_KEYS_FILE=str(folder / "keys.json"),
        API_TOKEN=secrets["token"], MAX_CONCURRENT_TRANSCRIPTIONS="2",
    ) as started:  # fmt: skip
        yield started


def send(
    running: Entry, headers: dict[str, str], content: bytes = WINDOW, tier: str = "realtime"
) -> httpx.Response:
    return running.send(content, tier, headers)


def refused(running: Entry, name: str, reason: str) -> float:
    """Return how often the balancer counted this."""
    return running.counted("key_refused", key=name)[name, reason]


def test_requests_a_minute_over_all_workers(running, secrets):
    """However a client spells its header."""
    key = secrets["metered"]
    spellings = [
        {"Authorization": f"Bearer {key}"},
        {"authorization": f"bearer    {key}"},
        {"X-API-Key": key, "Authorization": "Basic abc"},
        {"X-API-Key": key},
        {"Authorization": f"BEARER {key}", "X-API-Key": "another"},
    ]

    answers = [send(running, headers) for headers in spellings]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert answers[-1].headers["retry-after"] == "20"
    assert answers[-1].headers["retry-after-ms"] == "20000"
    assert not [name for name in answers[0].headers if name.startswith("x-key")]
    assert refused(running, "metered", "key_rate") == 2


@pytest.mark.parametrize("tier", ["realtime", "deferred"])
def test_requests_at_once_over_all_workers(running, secrets, tier):
    headers = {"X-API-Key": secrets["narrow"]}
    before = running.counted("key_refused", key="narrow").get(("narrow", "key_concurrency"), 0)
    for worker in running.workers:
        worker.gate.clear()
    with ThreadPoolExecutor() as threads:
        inside = threads.submit(send, running, headers, WINDOW, tier)
        assert until(lambda: sum(worker.inside for worker in running.workers) == 1)
        refusals = [send(running, headers) for _ in range(2)]
        for worker in running.workers:
            worker.gate.set()
        assert inside.result().status_code == 200

    assert [one.status_code for one in refusals] == [429, 429]
    assert [one.headers["retry-after"] for one in refusals] == ["1", "1"]
    assert send(running, headers).status_code == 200
    assert refused(running, "narrow", "key_concurrency") == before + 2


def test_limit_that_is_raised_counts_at_once(running, secrets):
    headers = {"X-API-Key": secrets["metered"]}
    assert send(running, headers).status_code == 429

    path = Path(running.settings["API_KEYS_FILE"])
    names = json.loads(path.read_text())
    write(path, **names | {"metered": names["metered"] | {"requests_per_minute": 100}})

    assert until(lambda: send(running, headers).status_code == 200)


def test_key_without_limits_has_none(running, secrets):
    headers = {"X-API-Key": secrets["open"]}

    assert [send(running, headers).status_code for _ in range(3)] == [200] * 3


def test_revoked_key_is_as_unknown_as_any(running, secrets):
    """Also one whose limit is reached."""
    headers = {"X-API-Key": secrets["gone"]}
    assert [send(running, headers).status_code for _ in range(2)] == [200, 429]

    done = subprocess.run(
        [sys.executable, "-m", "app.keys", "revoke", "gone"], cwd=ROOT,
        env=bare_environment() | {"API_KEYS_FILE": running.settings["API_KEYS_FILE"]},
        check=False,
    )  # fmt: skip

    assert done.returncode == 0
    assert until(lambda: send(running, headers).status_code == 401)
    assert [send(running, headers).status_code for _ in range(2)] == [401, 401]


@pytest.mark.parametrize("tier", ["realtime", "deferred"])
@pytest.mark.parametrize("content", [WINDOW, b"RIFF" + bytes(20_000_000)], ids=["window", "large"])
def test_unknown_key_reaches_no_worker(running, tier, content):
    """However large its body; the client reads why."""
    before = [len(worker.heard) for worker in running.workers]

    for headers in ({"X-API-Key": "sk-wrong"}, {"Authorization": "Bearer sk-wrong"}, {}):
        answer = send(running, headers, content, tier)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"

    assert [len(worker.heard) for worker in running.workers] == before


def test_unknown_keys_take_no_slot(tmp_path):
    """Eight clients with a wrong key that announce 20 MB and send 1.1 MB each."""
    with Entry.started(tmp_path, MAX_CONCURRENT_TRANSCRIPTIONS="4", API_TOKEN="right") as entry:
        head = (
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n"
            "Authorization: Bearer wrong\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n"
        )
        with ExitStack() as strangers:
            for _ in range(8):
                wire = strangers.enter_context(Wire(entry.port, 60))
                wire.send(head.encode() + bytes(1_100_000))

            answers = [entry.send(WINDOW, headers={"X-API-Key": "right"}) for _ in range(20)]

        assert {answer.status_code for answer in answers} == {200}


def test_log_names_the_key_and_never_holds_it(running, secrets):
    for key, status in ((secrets["open"], 200), ("sk-wrong", 401)):
        assert send(running, {"X-API-Key": key}).status_code == status

    assert until(lambda: {line["key"] for line in running.requests} >= {"-", "open"})
    assert not [name for name, secret in secrets.items() if secret[3:] in running.log]
    assert "Lua" not in running.log
