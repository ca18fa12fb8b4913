"""What keeps strangers out: TLS, a limit for each sender, a password for the stats page."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.certificate import certificate
from tests.support.client import TRANSCRIPTIONS
from tests.support.entry import Entry
from tests.support.http import HTTP
from tests.support.refusals import retry_after_s
from tests.support.stub_worker import TEXT
from tests.support.wire import exchange

LIMIT = 5
PASSWORD = "open, it's (sesame)"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    """An entry that strangers can reach, with a certificate whose path HAProxy could misread."""
    folder = tmp_path_factory.mktemp("it's 100%, (a) $HOME")
    with Entry.started(
        tmp_path_factory.mktemp("guarded"), TLS_CERTIFICATE=str(certificate(folder)),
        STATS_PASSWORD=PASSWORD, RATE_LIMIT_PER_MINUTE=str(LIMIT),
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(guarded: Entry) -> Iterator[httpx.Client]:
    """A client that checks the certificate."""
    folder = Path(guarded.settings["TLS_CERTIFICATE"]).parent
    trusted = ssl.create_default_context(cafile=str(folder / "cert"))
    with httpx.Client(base_url=guarded.url, verify=trusted, timeout=60) as made:
        yield made


def send(client: httpx.Client, key: str) -> httpx.Response:
    return client.post(
        TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": ("a.wav", b"RIFF")},
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip


def test_tls(client, guarded):
    assert send(client, "tls").json()["text"] == TEXT
    with pytest.raises(httpx.TransportError):
        HTTP.get(f"http://localhost:{guarded.port}/health", timeout=60)


def test_h2(guarded):
    told = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{guarded.port}", "-alpn", "h2,http/1.1"],
        input="", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert "ALPN protocol: h2" in told.stdout


def test_address_has_its_limit_whatever_key_it_invents(client, guarded):
    before = len(guarded.workers[0].heard)

    codes = [send(client, f"invented-{number}").status_code for number in range(12)]
    refused = send(client, "another")

    assert codes[-1] == refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert retry_after_s(refused) == 5
    assert len(guarded.workers[0].heard) - before <= LIMIT
    assert client.get("/lb-status").status_code == 200


def test_each_valid_key_has_its_own_limit(tmp_path):
    """Wrong keys count against the address, and cost the right ones nothing."""
    with Entry.started(
        tmp_path, API_TOKEN="one", API_KEYS="two", RATE_LIMIT_PER_MINUTE=str(LIMIT)
    ) as entry:
        wrong = [ask(entry, f"wrong-{number}") for number in range(LIMIT + 2)]
        one = [ask(entry, "one") for _ in range(LIMIT + 2)]
        two = [ask(entry, "two") for _ in range(LIMIT)]

        assert wrong == [401] * LIMIT + [429] * 2
        assert one == [200] * LIMIT + [429] * 2
        assert two == [200] * LIMIT


def ask(entry: Entry, key: str) -> int:
    return entry.send(b"RIFF", headers={"Authorization": f"Bearer {key}"}).status_code


@pytest.mark.parametrize(
    ("path", "word"), [("/", "Statistics Report"), ("/metrics", "haproxy_"),
                       ("/metrics/refused", "pool_refused"), ("/status", "<!doctype html>"),
                       ("/status/figures", '"workers":')],
)  # fmt: skip
def test_stats_page_asks_for_its_password(guarded, path, word):
    page = guarded.stats_url + path

    assert HTTP.get(page).status_code == 401
    assert HTTP.get(page, auth=("operator", "guess")).status_code == 401
    assert word in HTTP.get(page, auth=("operator", PASSWORD)).text
    assert "sesame" not in guarded.log


def test_stats_page_says_what_each_proxy_is_for(guarded):
    page = HTTP.get(guarded.stats_url + "/", auth=("operator", PASSWORD)).text
    described = re.findall(r'class=px href="#(\w+)">[^\n]*</th><th class="desc"[^>]*>\w', page)

    assert described == [
        "api", "deferred_queue", "deferred_entry", "workers", "await_worker", "unlimited",
        "live", "status_page", "stats_port", "stats_page",
    ]  # fmt: skip
    assert described == re.findall(r"class=px href=\"#(\w+)\"", page)


@pytest.mark.parametrize("path", ["/playground", "/docs"])
def test_stats_port_leads_to_the_pages_of_the_clients_port(guarded, path):
    led = HTTP.get(guarded.stats_url + path, auth=("operator", PASSWORD))

    assert led.status_code == 302
    assert led.headers["location"] == f"https://127.0.0.1:{guarded.port}{path}"


@pytest.mark.parametrize("length", [2**27, 2**32, 2**40])
def test_upload_that_announces_too_much_is_refused_before_it_is_sent(plain, length):
    head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"

    heard = exchange(plain.port, head.encode(), 60)

    assert heard.statuses == [413]
    assert plain.workers[0].heard == []


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/metrics/x", "//a"])
def test_paths_that_are_not_for_strangers_reach_no_worker(plain, path):
    answer = HTTP.get(plain.url + path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    """An entry as it is out of the box."""
    with Entry.started(tmp_path_factory.mktemp("plain")) as running:
        yield running
