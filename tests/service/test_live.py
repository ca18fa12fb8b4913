"""Live transcription through the whole service: OpenAI's client, failures of workers."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI

from app.config import ROOT
from tests.support.http import HTTP
from tests.support.live import SESSION, TRANSCRIPTION, LiveClient
from tests.support.processes import descendants
from tests.support.recordings import long_recording, recording, to_pcm
from tests.support.stack import Stack
from tests.support.text import SENTENCE, words
from tests.support.waiting import until

PAUSE = np.zeros(16_000, np.float32)
LIMIT_S = 600  # for 40 s of speech and a restart, on a machine that does much else


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Return the sentence and a pause that ends its turn."""
    return np.concatenate([recording("austen_0890.wav").waveform(), PAUSE])


def test_openais_realtime_client(stack: Stack, speech: np.ndarray):
    """Types of the client itself; audio in real time."""
    pcm = to_pcm(speech).tobytes()

    async def transcribe() -> list[Any]:
        client = AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="any")
        events: list[Any] = []
        intent = {"intent": "transcription"}
        async with client.realtime.connect(model="whisper-1", extra_query=intent) as connection:
            await connection.session.update(session=SESSION)  # type: ignore[arg-type]
            for begin in range(0, len(pcm), 6400):
                audio = base64.b64encode(pcm[begin : begin + 6400]).decode()
                await connection.input_audio_buffer.append(audio=audio)
                await asyncio.sleep(0.2)
            async for event in connection:
                events.append(event)
                if event.type.endswith("transcription.completed"):
                    break
        return events

    events = asyncio.run(asyncio.wait_for(transcribe(), 120))

    kinds = [event.type for event in events]
    deltas = [event.delta for event in events if event.type == f"{TRANSCRIPTION}.delta"]
    assert kinds[:2] == ["session.created", "session.updated"]
    assert "input_audio_buffer.speech_started" in kinds
    assert words(events[-1].transcript)[-8:] == words(SENTENCE)[-8:]
    assert "".join(deltas) == events[-1].transcript
    assert events[-1].usage.type == "duration"


def test_the_balancer_counts_sessions(stack: Stack):
    async def counted() -> str:
        async with LiveClient.session(stack.url):
            await asyncio.sleep(0.2)
            return HTTP.get(f"{stack.url}/lb-status").text

    assert "Live sessions: 1\n" in asyncio.run(counted())
    assert HTTP.post(f"{stack.url}/v1/realtime", json={}).status_code == 405
    figures = HTTP.get(f"{stack.url}/status/figures").json()
    assert figures["live"]["gateways_up"] == 1


@pytest.fixture
def own(tmp_path) -> Iterator[Stack]:
    """Return a pool whose processes a test may kill."""
    with Stack.started(tmp_path / "run", WORKERS="2") as running:
        yield running


@pytest.mark.slow
def test_sessions_outlast_killed_workers_a_rolling_restart_and_a_reload(own: Stack):
    """With real workers, whose words depend on where windows begin; tests/entry/test_live.py
    compares every word."""
    told = long_recording(40)
    samples = np.concatenate([told.samples, PAUSE])
    expected = [word for *_, text in told.spans for word in words(text)]

    async def listen() -> LiveClient:
        async with LiveClient.session(own.url, transcription={"language": "en"}) as client:
            await client.converse(samples)
            await client.finish()
            return client

    async def disturb() -> None:
        for turn in range(4):
            await asyncio.sleep(4)
            workers = [pid for pid in descendants(own.process.pid) if "gunicorn" in command(pid)]
            os.kill(workers[turn % len(workers)], signal.SIGKILL)
        for what in ("restart", "reload"):
            changing = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "app.pool", what, cwd=ROOT,
                env=os.environ | own.settings, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            assert await changing.wait() == 0

    async def both() -> list[LiveClient]:
        *clients, _ = await asyncio.gather(listen(), listen(), disturb())
        return clients

    clients = asyncio.run(asyncio.wait_for(both(), LIMIT_S))

    for client in clients:
        assert client.of(f"{TRANSCRIPTION}.failed") == []
        client.assert_deltas_add_up()
        same = SequenceMatcher(None, expected, words(client.text), autojunk=False)
        n_right = sum(block.size for block in same.get_matching_blocks())
        assert n_right >= 0.9 * len(expected), client.text
        assert len(words(client.text)) <= 1.1 * len(expected), client.text
    assert until(lambda: HTTP.get(f"{own.url}/health").status_code == 200)


def command(pid: int) -> str:
    """Return a process's command line."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
