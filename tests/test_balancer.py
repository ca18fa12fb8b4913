"""What the balancer does when it is asked to: TLS, a limit for each key, an open stats page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.pages import FOLDER, POLICY, TYPES
from app.config import Config, ConfigError
from tests import models
from tests.chaos import Victim
from tests.client import TRANSCRIPTIONS
from tests.recordings import long_recording, recording, wav
from tests.stack import Stack, until
from tests.steady import Load, ask

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
    assert told_to_come_again(refused) == 5
    assert send(client, "another").status_code == 200
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "word"), [("/", "Statistics Report"), ("/metrics", "haproxy_"),
                       ("/metrics/refused", "pool_refused"), ("/status", "<!doctype html>"),
                       ("/status/figures", '"workers":')],
)  # fmt: skip
def test_stats_page_asks_for_its_password(guarded, path, word):
    page = f"http://127.0.0.1:{guarded.settings['STATS_PORT']}{path}"

    assert httpx.get(page).status_code == 401
    assert httpx.get(page, auth=("operator", "guess")).status_code == 401
    assert word in httpx.get(page, auth=("operator", "open sesame")).text
    assert "sesame" not in guarded.log


def test_stats_page_is_not_opened_without_a_password():
    with pytest.raises(ConfigError, match=r"STATS_ADDRESS=0\.0\.0\.0 opens .* set STATS_PASSWORD"):
        Config(stats_address="0.0.0.0")
    assert Config(stats_address="0.0.0.0", stats_password="x").stats_password == "x"


LONG = wav(long_recording(60).samples)


def post(running: Stack, content: bytes, tier: str = "realtime") -> httpx.Response:
    return httpx.post(
        running.url + TRANSCRIPTIONS, data={"model": "whisper-1"},
        files={"file": ("a.wav", content)}, headers={"X-Transcription-Tier": tier},
        timeout=120,
    )  # fmt: skip


def refusals(running: Stack, metric: str = "requests") -> dict[tuple[str, str], float]:
    """Those the balancer has counted, by reason and tier."""
    name = {"requests": "refused_total", "seconds": "refused_audio_seconds_total"}[metric]
    page = f"http://127.0.0.1:{running.settings['STATS_PORT']}/metrics/refused"
    families = {
        family.name: family for family in text_string_to_metric_families(httpx.get(page).text)
    }
    samples = families[f"transcription_pool_{name}".removesuffix("_total")].samples
    return {(one.labels["reason"], one.labels["tier"]): one.value for one in samples if one.value}


def read(name: str) -> str:
    """A file that pages are made of."""
    return (FOLDER / name).read_text()


def told_to_come_again(answer: httpx.Response) -> int:
    """The seconds that an answer names, in the three ways that clients read."""
    seconds = int(answer.headers["retry-after"])
    assert answer.headers["retry-after-ms"] == str(seconds * 1000)
    assert answer.headers["x-should-retry"] == "true"
    return seconds


def figures(running: Stack) -> dict[str, Any]:
    """What the page /status reads."""
    return dict(httpx.get(running.url + "/status/figures").json())


def done(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """What was counted between two readings."""
    old, new = before["history"][-1], after["history"][-1]
    return {name: new[name] - old[name] for name in new}


def status(running: Stack) -> list[str]:
    return httpx.get(running.url + "/lb-status").text.splitlines()


class TestFailFast:
    """One worker with two slots, one of them kept for realtime."""

    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tmp_path_factory) -> Iterator[Stack]:
        with Stack.started(
            tmp_path_factory.mktemp("fast"), WORKERS="1", MAX_CONCURRENT_TRANSCRIPTIONS="2"
        ) as started:
            yield started

    def test_reserve_and_refusals(self, running):
        """Deferred requests leave the pool its reserve; who is refused is counted, by reason and
        tier, with the audio it carried, on the metrics, on /lb-status and in the log."""
        with ThreadPoolExecutor(2) as background:
            busy = background.submit(post, running, LONG, "deferred")
            assert until(lambda: running.metric(1, "transcription_slots_in_use") == 1)

            refused = post(running, WINDOW, "deferred")
            assert refused.status_code == 503
            assert told_to_come_again(refused) == 1
            assert "x-refused" not in refused.headers
            assert post(running, WINDOW).status_code == 200
            also_busy = background.submit(post, running, LONG)
            assert until(lambda: running.metric(1, "transcription_slots_in_use") == 2)
            assert told_to_come_again(post(running, WINDOW)) == 1
            assert "w1: up, 2 of 2 slots" in status(running)
            assert busy.result().status_code == also_busy.result().status_code == 200
        assert post(running, WINDOW, "deferred").status_code == 200

        seconds = recording("goforward_16k.wav").seconds
        assert refusals(running) == {("busy", "deferred"): 1, ("busy", "realtime"): 1}
        assert refusals(running, "seconds") == {
            ("busy", "deferred"): pytest.approx(seconds, abs=0.01),
            ("busy", "realtime"): pytest.approx(seconds, abs=0.01),
        }
        assert f"Refused: 2, with {2 * seconds:.1f} s of audio" in status(running)
        assert "  busy, deferred: 1" in status(running)
        assert until(lambda: len(refusals_in_log(running)) == 2)
        assert {one["tier"] for one in refusals_in_log(running)} == {"realtime", "deferred"}
        assert float(refusals_in_log(running)[0]["refused_audio_s"]) == pytest.approx(
            seconds, abs=0.01
        )

    def test_figures_are_those_of_the_balancer_and_of_the_workers(self, running):
        heard = running.metric(1, "transcription_audio_seconds_total")
        assert until(lambda: abs(figures(running)["history"][-1]["audio_s"] - heard) < 0.1)
        before = figures(running)
        (worker,) = before["workers"]
        assert (worker["name"], worker["state"], worker["slots"]) == ("w1", "up", 2)
        assert before["totals"] == {"up": 1, "inside": 0, "free": 2, "slots": 2}

        assert post(running, WINDOW).status_code == 200
        bad = [post(running, b"no audio") for _ in range(2)]

        seconds = recording("goforward_16k.wav").seconds
        assert until(lambda: done(before, figures(running))["audio_s"] >= seconds - 0.1)
        after = figures(running)
        counted = done(before, after)
        assert (counted["answered"], counted["failed"], counted["refused"]) == (1, 2, 0)
        assert counted["audio_s"] == pytest.approx(seconds, abs=0.11)
        assert 0 < counted["took_s"] < 60
        assert counted["busy_s"] > 0
        newest = after["faults"][0]
        assert (newest["status"], newest["code"], newest["worker"]) == (400, "invalid_value", "w1")
        assert newest["times"] == 2
        assert newest["id"] == bad[-1].headers["x-request-id"]
        assert not [one for one in after["faults"] if one["code"] == "busy"], "that is load"

    def test_figures_are_no_clients_headers(self, running):
        for answer in (httpx.get(running.url + "/health"), post(running, b"no audio")):
            assert {"x-figures", "x-error"}.isdisjoint(answer.headers)
        assert "x-figures" in httpx.get(running.worker_url(1) + "/health").headers

    def test_balancer_serves_every_part_of_the_page(self, running):
        page = httpx.get(running.url + "/status")
        parts = set(re.findall(r'(?:src|href)="(/status[^"]+)"', page.text))
        for part in ("status.js", "figures.js", "chart.js"):
            parts |= {"/status/" + name for name in re.findall(r'from "./(.+?)"', read(part))}

        for path in ("/status", *sorted(parts)):
            answer = httpx.get(running.url + path)
            assert answer.status_code == 200, path
            assert answer.headers["content-security-policy"] == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            if path != "/status":
                assert answer.text == read(path.rpartition("/")[2])
                assert answer.headers["content-type"] == TYPES["." + path.rpartition(".")[2]]
        assert len(parts) >= 7
        assert httpx.get(running.url + "/status/pages.py").status_code == 404
        assert httpx.post(running.url + "/status").status_code == 405

    @pytest.mark.parametrize("length", [2**27, 2**32, 2**40])
    def test_upload_that_announces_too_much_is_refused_before_it_is_sent(self, running, length):
        head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
        address = ("127.0.0.1", int(running.settings["LB_PORT"]))
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(head.encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_deferred_is_refused_at_once_while_realtime_has_every_slot(self, running):
        with ThreadPoolExecutor(2) as background:
            busy = [background.submit(post, running, LONG) for _ in range(2)]
            assert until(lambda: "w1: up, 2 of 2 slots" in status(running))

            refused = ask(running.url, WINDOW, "deferred")

            assert refused.told == "503"
            assert refused.seconds < 0.5
            assert all(one.result().status_code == 200 for one in busy)


def refusals_in_log(running: Stack) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in running.lines if line.startswith("{")]
    return [line for line in lines if line.get("refused", "-") != "-"]


class TestQueue:
    """One worker with one slot, where who comes waits for 2 s, or 8 s when deferred."""

    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, tmp_path_factory) -> Iterator[Stack]:
        with Stack.started(
            tmp_path_factory.mktemp("queue"), WORKERS="1", MAX_CONCURRENT_TRANSCRIPTIONS="1",
            FAIL_FAST_WHEN_BUSY="false", QUEUE_TIMEOUT_S="2", DEFERRED_QUEUE_TIMEOUT_S="8",
            MAX_QUEUE_SIZE="3",
        ) as started:  # fmt: skip
            yield started

    def test_deadline_and_full_queue_are_counted(self, running):
        before = Counter(refusals(running))
        with ThreadPoolExecutor(8) as background:
            slow = [background.submit(post, running, LONG) for _ in range(2)]
            assert until(lambda: "Queue: 1" in status(running))
            began = time.monotonic()
            late = [background.submit(post, running, WINDOW) for _ in range(2)]
            assert until(lambda: "Queue: 3" in status(running))
            full = post(running, WINDOW)
            assert full.status_code == 503
            assert told_to_come_again(full) == 1
            assert time.monotonic() - began < 1.5
            for one in late:
                if one.result().status_code == 503:
                    assert told_to_come_again(one.result()) == 1
            codes = [one.result().status_code for one in late]
            waited_s = time.monotonic() - began
            for one in slow:
                one.result()

        counted = Counter(refusals(running)) - before
        assert counted["queue_full", "realtime"] == 1
        assert counted["deadline", "realtime"] >= codes.count(503)
        if 503 in codes:
            assert waited_s >= 2

    def test_realtime_goes_first_and_deferred_is_not_starved(self, running):
        """Realtime that never ends: a deferred request is answered all the same, in the end."""
        with (
            Load(running.url, [WINDOW] * 3) as realtime,
            ThreadPoolExecutor(2) as background,
        ):
            time.sleep(1)
            waiting = [background.submit(ask, running.url, WINDOW, "deferred") for _ in range(2)]
            before = len(realtime.answers)
            told = [one.result() for one in waiting]
            overtaken = len(realtime.answers) - before

        assert [one.told for one in told] == ["200", "200"]
        assert overtaken > 5, "behind what came up to 4 s after it"
        assert max(one.seconds for one in told) < 15
        assert until(lambda: "Deferred queue: 0" in status(running))
        assert "Requests in progress: 0" in status(running)

    def test_client_that_leaves_the_queue_is_no_refusal(self, running):
        before = refusals(running)
        with ThreadPoolExecutor(1) as background:
            busy = background.submit(post, running, LONG)
            assert until(lambda: "w1: up, 1 of 1 slots" in status(running))
            for tier in ("realtime", "deferred"):
                assert ask(running.url, WINDOW, tier, patience_s=0.5).told == "ReadTimeout"
            assert until(lambda: "Queue: 0" in status(running))
            assert until(lambda: "Deferred queue: 0" in status(running))
            assert busy.result().status_code == 200

        assert refusals(running) == before


def test_pool_without_workers_says_so(tmp_path):
    """And /lb-status why: the health check brings the worker's own words."""
    folder = tmp_path / "model"
    shutil.copytree(models.tiny_en(), folder)
    with Stack.started(tmp_path / "run", WORKERS="1", MODEL_SIZE=str(folder)) as running:
        (folder / "model.bin").unlink()
        victim = Victim(running)
        os.kill(victim.child(0), signal.SIGKILL)
        assert until(lambda: any("MODEL_SIZE: the folder" in line for line in status(running)))

        refused = post(running, WINDOW)

        assert refused.status_code == 503
        assert told_to_come_again(refused) == 1
        assert told_to_come_again(httpx.get(running.url + "/health")) == 1
        assert refusals(running) == {("no_worker", "realtime"): 1}
        assert figures(running)["faults"][0]["code"] == "no_worker"
        assert "MODEL_SIZE: the folder" in figures(running)["workers"][0]["reason"]
        assert httpx.get(running.url + "/status").status_code == 200
        assert "Workers: 0 of 1 up" in status(running)
