"""A client of live transcription, and a pool that answers it without a model."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import wave
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from app.audio.limits import SAMPLE_RATE
from tests.support.recordings import recording, to_pcm

TRANSCRIPTION = "conversation.item.input_audio_transcription"
EVENT_S = 120.0
PIECE_S = 0.1
MARKS = 63  # the lowest bits of a sample
STEP = SAMPLE_RATE // 100
SIXTEEN_KHZ = {"type": "audio/pcm", "rate": SAMPLE_RATE}
SESSION = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 16_000},
            "transcription": {"model": "whisper-1", "language": "en"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 600},
        }
    },
}


@dataclass
class LiveClient:
    """One session, as a client sees it.

    Attributes:
        events: all that were received.
        sent_s: seconds of audio sent.
    """

    connection: ClientConnection
    events: list[dict[str, Any]] = field(default_factory=list)
    sent_s: float = 0.0

    @classmethod
    @contextlib.asynccontextmanager
    async def session(
        cls, url: str, headers: dict[str, str] | None = None, **options: Any
    ) -> AsyncIterator[LiveClient]:
        """Open a session at `http://HOST:PORT`, with options of `session.audio.input`."""
        address = url.replace("http", "ws", 1) + "/v1/realtime?intent=transcription"
        async with connect(
            address, additional_headers=headers, max_size=1 << 24, ping_timeout=EVENT_S
        ) as connection:
            client = cls(connection)
            await client.until("session.created")
            await client.update(format=SIXTEEN_KHZ, **options)
            yield client

    async def send(self, kind: str, **members: Any) -> None:
        """Send an event."""
        await self.connection.send(json.dumps({"type": kind, **members}))

    async def update(self, **options: Any) -> None:
        """Change options of `session.audio.input`."""
        session = {"type": "transcription", "audio": {"input": options}}
        await self.send("session.update", session=session)
        await self.until("session.updated")

    async def append(self, samples: np.ndarray) -> None:
        """Send a waveform (float32, 16 kHz) in one event."""
        audio = base64.b64encode(to_pcm(samples).tobytes()).decode()
        self.sent_s += samples.size / SAMPLE_RATE
        await self.send("input_audio_buffer.append", audio=audio)

    async def speak(self, samples: np.ndarray, speed: float = 1.0) -> None:
        """Send a waveform piece by piece, as a microphone does; `speed` times as fast."""
        loop = asyncio.get_running_loop()
        began, n = loop.time(), int(PIECE_S * SAMPLE_RATE)
        for begin in range(0, samples.size, n):
            await self.append(samples[begin : begin + n])
            due = began + (begin + n) / SAMPLE_RATE / speed
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def converse(self, samples: np.ndarray, speed: float = 1.0) -> None:
        """Send a waveform as `speak` does, and receive the events that come meanwhile."""
        receiving = asyncio.create_task(self._receive_all())
        try:
            await self.speak(samples, speed)
        finally:
            receiving.cancel()
            await asyncio.wait([receiving])

    async def _receive_all(self) -> None:
        async for message in self.connection:
            self.events.append(json.loads(message))

    async def receive(self) -> dict[str, Any]:
        """Return the next event."""
        event: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), EVENT_S))
        self.events.append(event)
        return event

    async def until(self, kind: str, wanted: Callable[[dict[str, Any]], bool] = bool) -> Any:
        """Return the next event of this type."""
        while True:
            event = await self.receive()
            if event["type"] == kind and wanted(event):
                return event

    async def finish(self) -> None:
        """Commit what is in the buffer and wait until every turn is finished."""
        await self.send("input_audio_buffer.commit")
        await self.send("input_audio_buffer.clear")
        await self.until("input_audio_buffer.cleared")
        while self.open_turns():
            await self.receive()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        return [event for event in self.events if event["type"] == kind]

    def open_turns(self) -> set[str]:
        """Return the committed turns without their text."""
        done = {event["item_id"] for event in self.of(f"{TRANSCRIPTION}.completed")}
        done |= {event["item_id"] for event in self.of(f"{TRANSCRIPTION}.failed")}
        return {event["item_id"] for event in self.of("input_audio_buffer.committed")} - done

    @property
    def text(self) -> str:
        """Return the text of all completed turns."""
        return " ".join(event["transcript"] for event in self.of(f"{TRANSCRIPTION}.completed"))

    def assert_deltas_add_up(self) -> None:
        """Assert that each completed turn is its deltas, one after another."""
        for event in self.of(f"{TRANSCRIPTION}.completed"):
            deltas = [
                delta["delta"]
                for delta in self.of(f"{TRANSCRIPTION}.delta")
                if delta["item_id"] == event["item_id"]
            ]
            assert "".join(deltas) == event["transcript"]


@dataclass
class Pool:
    """An HTTP server that answers windows as the balancer does, on a loopback port.

    It hears the numbered words of `marked`, so a test sees which are lost, repeated or out of
    order.

    Attributes:
        refusals: (status, headers) of the next answers; then words follow.
        delay_s: of each answer.
        windows: seconds of each window that was answered with words.
        requests: the form of each request.
    """

    refusals: list[tuple[int, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    delay_s: float = 0.0
    windows: list[float] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    refused: int = 0
    port: int = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Pool]:
        """Serve until the block ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].partition("\r")[0])
                body = await reader.readexactly(length)
                await asyncio.sleep(self.delay_s)
                writer.write(self._answer(head.encode() + body))
                await writer.drain()
        writer.close()

    def _answer(self, request: bytes) -> bytes:
        self.requests.append(request)
        status, headers, answer = 200, {}, {}
        if self.refusals:
            status, headers, answer = self.refusals.pop(0)
            self.refused += 1
        else:
            self.windows.append(samples_of(request).size / SAMPLE_RATE)
            answer = transcript(request)
        body = json.dumps(answer).encode()
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + body


def transcript(request: bytes) -> dict[str, Any]:
    """Return the `verbose_json` answer to a form with `marked` speech."""
    return {"language": "en", "segments": [{"words": heard(samples_of(request))}]}


def samples_of(request: bytes) -> np.ndarray:
    """Return the samples of the WAV file in a form: int16."""
    with wave.open(io.BytesIO(request[request.index(b"RIFF") :])) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def heard(samples: np.ndarray) -> list[dict[str, Any]]:
    """Return the words of a window: one for each marked half second, if most of it is there."""
    marks = samples[: samples.size // STEP * STEP].reshape(-1, STEP) & MARKS
    numbers = marks[:, STEP // 2]
    found: list[dict[str, Any]] = []
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end < len(numbers) and numbers[end] == numbers[begin]:
            continue
        if numbers[begin] and end - begin >= 40:
            found.append({
                "word": f" w{numbers[begin]}", "start": begin / 100, "end": end / 100,
                "probability": 0.5,
            })  # fmt: skip
        begin = end
    return found


def marked(seconds: float) -> np.ndarray:
    """Return speech whose half seconds are numbered in the lowest bits: float32, 16 kHz.

    `heard` reads the numbers back: 1 to 63, and again from 1.
    """
    speech = recording("austen_0890.wav").waveform()[8_000:64_000]
    pcm = np.resize(to_pcm(speech), int(seconds * SAMPLE_RATE)).astype(np.int16)
    numbers = np.arange(pcm.size) // (SAMPLE_RATE // 2) % MARKS + 1
    return ((pcm & ~MARKS) | numbers.astype(np.int16)).astype(np.float32) / 32768


def numbers_of(text: str) -> list[int]:
    """Return the numbers of the words that `heard` writes."""
    return [int(word.removeprefix("w")) for word in text.split()]
