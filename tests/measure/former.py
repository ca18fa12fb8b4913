"""A model of the design that this service replaced, to be measured beside it. Written anew.

What it keeps of that design: several worker processes, each with an asynchronous HTTP server that
decodes on its event loop, so one request at a time, and accepts and reads others in between; behind
them a balancer that sends a request to the worker with the fewest connections, never to a second
one, and knows nothing of slots or queues. A client that leaves is not noticed: its request is
decoded when its turn comes. faster-whisper is called with the same options as by the service.

What it leaves out can only make it look better: no web framework, no validation, no key, no log,
and a worker that never dies.

    python -m tests.measure.former --worker PORT MODEL THREADS     one worker
"""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.config import ROOT
from app.pool.pool import find_haproxy
from tests.support.environment import bare_environment
from tests.support.ports import ports
from tests.support.waiting import until

READY_S = 120
BALANCER = """
global
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
frontend api
    bind 127.0.0.1:{LB_PORT}
    default_backend workers
backend workers
    balance leastconn
    retries 0
{servers}
frontend stats
    bind 127.0.0.1:{STATS_PORT}
    http-request use-service prometheus-exporter if {{ path /metrics }}
"""


@dataclass
class Former:
    """The former design in processes of its own."""

    settings: dict[str, str]
    pids: tuple[int, ...]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['LB_PORT']}"

    @property
    def stats_url(self) -> str:
        return f"http://127.0.0.1:{self.settings['STATS_PORT']}"

    @classmethod
    @contextmanager
    def started(
        cls, folder: Path, model: Path, workers: int = 3, threads: int = 0
    ) -> Iterator[Former]:
        """Start it, wait until every worker has its model, and end it after the block.

        Args:
            folder: for the balancer's file.
            model: a CTranslate2 model.
            threads: of each worker's decode; 0: faster-whisper's own choice.
        """
        own = ports(workers)
        numbers = [int(own["WORKER_BASE_PORT"]) + n for n in range(workers)]
        folder.mkdir(parents=True, exist_ok=True)
        conf = folder / "former.cfg"
        servers = "\n".join(f"    server w{n} 127.0.0.1:{n}" for n in numbers)
        conf.write_text(BALANCER.format(**own, servers=servers))
        commands = [[find_haproxy(), "-db", "-f", str(conf)]] + [
            [
                sys.executable,
                "-m",
                "tests.measure.former",
                "--worker",
                str(n),
                str(model),
                str(threads),
            ]
            for n in numbers
        ]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env=bare_environment(), stdout=subprocess.DEVNULL)
            for command in commands
        ]
        try:
            for number in numbers:
                address = f"http://127.0.0.1:{number}/health"
                assert until(lambda address=address: answers(address), READY_S), address
            yield cls(own, tuple(process.pid for process in processes))
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


def answers(url: str) -> bool:
    """Whether a worker is there."""
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


class Worker:
    """One process: a model, and an event loop that does everything."""

    def __init__(self, model: str, threads: int) -> None:
        import faster_whisper

        self._model = faster_whisper.WhisperModel(
            model, "auto", compute_type="int8", cpu_threads=threads
        )

    async def serve(self, port: int) -> None:
        """Answer until killed."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=2048)
        async with server:
            await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            headers = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            if first.startswith("POST"):
                answer = self._transcribe(headers["content-type"], body)  # the loop stands still
            else:
                answer = {"status": "healthy"}
            content = json.dumps(answer).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                + f"Content-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has left
        finally:
            writer.close()

    def _transcribe(self, content_type: str, body: bytes) -> dict[str, Any]:
        fields, file = form(content_type, body)
        segments, info = self._model.transcribe(
            io.BytesIO(file),
            language=fields.get("language"),
            initial_prompt=fields.get("prompt"),
            beam_size=5,
            temperature=[0.0],
            condition_on_previous_text=False,
            word_timestamps="timestamp_granularities[]" in fields,
            vad_filter=True,
            vad_parameters={
                "threshold": 0.5, "min_silence_duration_ms": 160, "max_speech_duration_s": 15.0,
            },
        )  # fmt: skip
        found = list(segments)
        words = [
            {"word": word.word.strip(), "start": word.start, "end": word.end}
            for segment in found
            for word in segment.words or ()
        ]
        return {
            "language": info.language,
            "duration": info.duration,
            "text": "".join(segment.text for segment in found).strip(),
            "segments": [
                {"id": n, "start": one.start, "end": one.end, "text": one.text}
                for n, one in enumerate(found)
            ],
            "words": words,
        }


def form(content_type: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """A form's fields and its file."""
    from python_multipart.multipart import parse_form

    fields: dict[str, str] = {}
    files: list[bytes] = []

    def on_field(field: Any) -> None:
        fields[field.field_name.decode()] = field.value.decode()

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        files.append(file.file_object.read())

    headers = {"Content-Type": content_type.encode(), "Content-Length": str(len(body)).encode()}
    parse_form(headers, io.BytesIO(body), on_field, on_file)  # type: ignore[arg-type]
    return fields, files[0]


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--worker", port, model, threads]:
            asyncio.run(Worker(model, int(threads)).serve(int(port)))
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
