"""What the balancer does when it is asked to: TLS, a limit for each key, an open stats page."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.config import Config, ConfigError
from tests.client import TRANSCRIPTIONS
from tests.recordings import long_recording, recording, wav
from tests.stack import Stack, until

WINDOW = wav(recording("goforward_16k.wav").waveform())
LIMIT = 5


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A pool as one that strangers can reach."""
    folder = tmp_path_factory.mktemp("guarded")
    certificate = folder / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(folder / "key"), "-out", str(folder / "cert")],
        check=True, capture_output=True,
    )  # fmt: skip
    certificate.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    with Stack.started(
        folder / "run", WORKERS="1", TLS_CERTIFICATE=str(certificate),
        RATE_LIMIT_PER_MINUTE=str(LIMIT), STATS_PASSWORD="open sesame",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(guarded: Stack, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client that checks the certificate."""
    folder = Path(guarded.settings["TLS_CERTIFICATE"]).parent
    trusted = ssl.create_default_context(cafile=str(folder / "cert"))
    with httpx.Client(
        base_url=f"https://localhost:{guarded.settings['LB_PORT']}", verify=trusted, timeout=60
    ) as made:
        yield made


def send(client: httpx.Client, key: str) -> httpx.Response:
    return client.post(
        TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": ("a.wav", WINDOW)},
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip


def test_tls(client, guarded):
    assert "forward" in send(client, "tls").json()["text"].lower()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{guarded.settings['LB_PORT']}/health", timeout=5)


def test_h2(guarded):
    told = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{guarded.settings['LB_PORT']}",
         "-alpn", "h2,http/1.1"],
        input="", capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert "ALPN protocol: h2" in told.stdout


def test_each_key_has_its_limit(client):
    codes = [send(client, "eager").status_code for _ in range(LIMIT + 2)]
    refused = send(client, "eager")

    assert codes == [200] * LIMIT + [429] * 2
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "5"
    assert send(client, "another").status_code == 200
    assert client.get("/health").status_code == 200


def test_stats_page_asks_for_its_password(guarded):
    page = f"http://127.0.0.1:{guarded.settings['STATS_PORT']}/metrics"

    assert httpx.get(page).status_code == 401
    assert httpx.get(page, auth=("operator", "guess")).status_code == 401
    assert "haproxy_" in httpx.get(page, auth=("operator", "open sesame")).text
    assert "sesame" not in guarded.log


def test_stats_page_is_not_opened_without_a_password():
    with pytest.raises(ConfigError, match=r"STATS_ADDRESS=0\.0\.0\.0 opens .* set STATS_PASSWORD"):
        Config(stats_address="0.0.0.0")
    assert Config(stats_address="0.0.0.0", stats_password="x").stats_password == "x"


def test_reserved_slots_are_kept_for_realtime(tmp_path):
    """While they fail fast, deferred requests leave the pool its reserve."""
    long = wav(long_recording(60).samples)
    with (
        Stack.started(tmp_path / "run", WORKERS="1", MAX_CONCURRENT_TRANSCRIPTIONS="2") as running,
        ThreadPoolExecutor(1) as background,
    ):

        def post(content: bytes, tier: str) -> httpx.Response:
            return httpx.post(
                running.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
                files={"file": ("a.wav", content)}, headers={"X-Transcription-Tier": tier},
                timeout=120,
            )  # fmt: skip

        busy = background.submit(post, long, "realtime")
        assert until(lambda: running.metric(1, "transcription_slots_in_use") == 1)

        refused = post(WINDOW, "deferred")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert post(WINDOW, "realtime").status_code == 200
        assert busy.result().status_code == 200
        assert post(WINDOW, "deferred").status_code == 200
