"""What is said stays between a client and its answer: nothing of it is logged, counted or kept."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from app.config import ROOT
from tests.support.client import TRANSCRIPTIONS, form
from tests.support.http import HTTP
from tests.support.processes import alive
from tests.support.recordings import long_recording, recording, wav
from tests.support.stack import KEY, Stack
from tests.support.victim import Victim
from tests.support.waiting import until
from tests.support.wire import Wire

AUSTEN = recording("austen_0890.wav")
PROMPT = "Zubrowka quagmire"  # words that stand nowhere else
HOTWORDS = "oxbow"
NAME = "kaleidoscope.wav"
SAID = re.compile(
    "cold-hearted|selfish|disposed|zubrowka|quagmire|oxbow|kaleidoscope", re.IGNORECASE
)


def uploads(running: Stack) -> Path:
    return Path(running.settings["TMPDIR"])


def send(running: Stack, content: bytes, headers: dict[str, str] | None = None, **fields: object):
    return HTTP.post(
        running.url + TRANSCRIPTIONS,
        data={"model": "whisper-1", "prompt": PROMPT, "hotwords": HOTWORDS} | fields,
        files={"file": (NAME, content)}, timeout=60,
        headers={"Authorization": f"Bearer {KEY}"} | (headers or {}),
    )  # fmt: skip


def transcripts_in_every_form(running: Stack) -> None:
    """As clients ask for them, some of which then leave."""
    content = AUSTEN.path.read_bytes()
    for response_format in ("json", "verbose_json", "text", "srt", "vtt"):
        answer = send(running, content, response_format=response_format)
        assert "selfish" in answer.text
    words = {"timestamp_granularities[]": "word"}
    deferred = {"X-Transcription-Tier": "deferred"}
    assert "selfish" in send(running, content, deferred, **words).text
    assert "selfish" in send(running, content, stream="true", **{"include[]": "logprobs"}).text
    large = wav(long_recording(35).samples)  # cut into parts
    assert "selfish" in send(running, large).text
    sent = form(large, {"model": "whisper-1", "prompt": PROMPT})
    body = sent.read()
    with Wire(int(running.settings["LB_PORT"])) as leaver:
        leaver.send(
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {sent.headers['Content-Type']}\r\n"
            f"Authorization: Bearer {KEY}\r\n\r\n".encode()
            + body
        )
        assert until(lambda: running.metric(1, "transcription_slots_in_use") > 0)
    assert until(lambda: running.metric(1, "transcription_slots_in_use") == 0)


def mistakes(running: Stack) -> Iterator[httpx.Response]:
    """Requests that are refused, for all kinds of reasons."""
    content = AUSTEN.path.read_bytes()
    yield send(running, content, temperature="hot")
    yield send(running, content, language="klingon")
    yield send(running, content, task="sing")
    yield send(running, content, response_format="srt", stream="true")
    yield send(running, b"no audio: " + PROMPT.encode())
    yield send(running, bytes(31_000_000))
    broken = form(content, {"model": "whisper-1", "prompt": PROMPT}).read()[:2000]
    for kind in ("multipart/form-data; boundary=B", "multipart/form-data", "text/plain"):
        url, headers = (
            running.url + TRANSCRIPTIONS,
            {"Content-Type": kind, "Authorization": f"Bearer {KEY}"},
        )
        yield HTTP.post(url, content=broken, headers=headers)


def shown(running: Stack) -> dict[str, str]:
    """All that a pool shows to those who run it, by where."""
    stats = f"http://127.0.0.1:{running.settings['STATS_PORT']}"
    pages = [
        running.worker_url(1) + "/metrics", running.url + "/lb-status",
        stats + "/status/figures", running.url + "/health", stats + "/metrics",
        stats + "/metrics/refused", stats + "/",
    ]  # fmt: skip
    found = {page: HTTP.get(page, timeout=60).text for page in pages}
    for path in running.run_dir.rglob("*"):
        if path.is_file():
            found[str(path)] = path.read_bytes().decode("latin-1")
    return found | {"the log": running.log}


def test_words_stand_in_no_log_metric_message_or_file(keyed):
    """At the level that says most; the log holds HAProxy's lines too."""
    transcripts_in_every_form(keyed)
    for answer in mistakes(keyed):
        assert answer.status_code in (400, 413, 415)
        assert not SAID.search(answer.json()["error"]["message"]), answer.text

    assert until(lambda: '"method":"POST"' in keyed.log)
    assert "DEBUG" in keyed.log, "or nothing is shown by this"
    for where, text in shown(keyed).items():
        found = SAID.search(text)
        assert not found, (where, text[max(0, found.start() - 200) : found.end() + 50])
    assert kept(uploads(keyed)) == []


def kept(folder: Path) -> list[str]:
    """The names of files there. A library's telemetry left one too, before it was switched off."""
    return [path.name for path in folder.iterdir()]


def spooled(pid: int, folder: Path) -> list[tuple[str, int]]:
    """A process's open files in the folder: name and mode."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(link)
            if name.startswith(str(folder)):
                found.append((name, stat.S_IMODE(link.stat().st_mode)))
        except OSError:
            continue  # closed meanwhile
    return found


def whole_again(victim: Victim, killed: int) -> bool:
    """Another process has the place of one that was killed, and is up; the balancer may not have
    noticed yet that the first one is gone."""
    return until(
        lambda: victim.arbiters() and victim.child(0) != killed and victim.up() == 1, 30
    )  # fmt: skip


def test_upload_has_no_name_and_is_gone_with_a_worker_that_is_killed(keyed):
    """It is the owner's alone while it is there, and no file that a crash could leave behind."""
    victim = Victim(keyed)
    child = victim.child(0)
    folder = uploads(keyed)
    sent = form(bytes(20_000_000), {"model": "whisper-1"})
    body = sent.read()
    with Wire(int(keyed.settings["WORKER_BASE_PORT"])) as wire:
        wire.send(
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
            f"Content-Type: {sent.headers['Content-Type']}\r\n"
            f"Authorization: Bearer {KEY}\r\n\r\n".encode()
            + body[:10_000_000]
        )
        assert until(lambda: bool(spooled(child, folder)))
        ((name, mode),) = spooled(child, folder)
        assert name.endswith(" (deleted)")
        assert mode == 0o600
        assert kept(folder) == []

        os.kill(child, signal.SIGKILL)
        assert until(lambda: not alive(child))

    assert whole_again(victim, child)
    assert kept(folder) == []


def test_no_process_of_the_pool_leaves_a_core(keyed):
    """Also one that crashes: what it heard would lie on the disk."""
    cores = set(ROOT.glob("core*"))
    for pid in keyed.processes():
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"Max core file size +0 +0 ", limits), Path(
            f"/proc/{pid}/comm"
        ).read_text()

    victim = Victim(keyed)
    child = victim.child(0)
    os.kill(child, signal.SIGSEGV)

    assert until(lambda: not alive(child))
    assert set(ROOT.glob("core*")) == cores
    assert whole_again(victim, child)


def test_memory_of_a_worker_is_closed_to_others():
    """To a program that the kernel pipes dumps to as well, which no limit keeps away."""
    told = subprocess.run(
        [sys.executable, "-c",
         "import ctypes; from app.worker.gunicorn_conf import post_fork; post_fork(None, None); "
         "PR_GET_DUMPABLE = 3; print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE))"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert json.loads(told.stdout) == 0
