"""Limits of keys, which hold over all workers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app import keys
from app.config import ROOT
from tests.support.entry import Entry
from tests.support.environment import bare_environment
from tests.support.key_file import entry, write
from tests.support.waiting import until

WINDOW = b"RIFF" + bytes(64_000)
MINUTE = b"RIFF" + bytes(60 * 32_000)


@pytest.fixture(scope="module")
def secrets() -> dict[str, str]:
    names = ("metered", "narrow", "short", "open", "gone", "token")
    return {name: keys.new_key() for name in names}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> Iterator[Entry]:
    """Two workers, for whose keys a file says what each may."""
    folder = tmp_path_factory.mktemp("keys")
    write(
        folder / "keys.json",
        metered=entry(secrets["metered"], requests_per_minute=3),
        narrow=entry(secrets["narrow"], concurrent_requests=1),
        short=entry(secrets["short"], audio_minutes_per_hour=1),
        open=entry(secrets["open"]),
        gone=entry(secrets["gone"], requests_per_minute=1),
    )
    with Entry.started(
        folder / "run", workers=2, API_KEYS_FILE=str(folder / "keys.json"),
        API_TOKEN=secrets["token"], MAX_CONCURRENT_TRANSCRIPTIONS="2",
    ) as started:  # fmt: skip
        yield started


def send(
    running: Entry, headers: dict[str, str], content: bytes = WINDOW, tier: str = "realtime"
) -> httpx.Response:
    return running.send(content, tier, headers)


def refused(running: Entry, name: str, reason: str) -> float:
    """How often the balancer counted this."""
    return running.counted("key_refused", key=name)[name, reason]


def by_worker(running: Entry, reason: str) -> list[bool]:
    """Of each refusal for this reason, whether a worker said it, or the balancer by itself."""
    return [line["worker"] != "-" for line in running.requests if line["refused"] == reason]


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
    """The first time a worker says so; from then on the balancer knows the key."""
    headers = {"X-API-Key": secrets["narrow"]}
    before = len(by_worker(running, "key_concurrency"))
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
    assert until(lambda: len(by_worker(running, "key_concurrency")) == before + 2)
    if before == 0:
        assert by_worker(running, "key_concurrency")[:2] == [True, False]


def test_minutes_of_audio_over_all_workers(running, secrets):
    headers = {"X-API-Key": secrets["short"]}

    answers = [send(running, headers, content) for content in (MINUTE, WINDOW, WINDOW)]

    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert 3500 < int(answers[1].headers["retry-after"]) <= 3600
    assert "minutes of audio" in answers[1].json()["error"]["message"]
    assert refused(running, "short", "key_audio") == 2

    path = Path(running.settings["API_KEYS_FILE"])
    names = json.loads(path.read_text())
    write(path, **names | {"short": names["short"] | {"audio_minutes_per_hour": 2}})
    assert until(lambda: send(running, headers).status_code == 200), "the limit is raised"


def test_key_without_limits_has_none(running, secrets):
    headers = {"X-API-Key": secrets["open"], "X-Key-Counted": "999999 999999 999999 9"}

    assert [send(running, headers).status_code for _ in range(3)] == [200] * 3


def test_revoked_key_is_as_unknown_as_any(running, secrets):
    """At once, also in the balancer where its limit is reached, which asks after 2 s."""
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


def test_log_names_the_key_and_never_holds_it(running, secrets):
    for key, status in ((secrets["open"], 200), ("sk-wrong", 401)):
        assert send(running, {"X-API-Key": key}).status_code == status

    assert until(lambda: {line["key"] for line in running.requests} >= {"-", "open"})
    assert not [name for name, secret in secrets.items() if secret[3:] in running.log]
    assert "Lua" not in running.log
