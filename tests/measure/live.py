"""Live transcription measured: words, delay, processor time, and what one gateway carries.

    python -m tests.measure.live words      word error rate beside the same recordings sent whole
    python -m tests.measure.live delay      from the end of a word to its delta; ARGS: sessions
    python -m tests.measure.live gateway    processor time of a session in the gateway alone
    python -m tests.measure.live memory     of the gateway in an hour of speech, 20 times as fast

`words` and `delay` start a pool of one worker with tiny.en, or use `--url URL`; `--model base`
takes the multilingual model. The delay of a word is measured at the client: its end is taken from
the same recording sent whole. For comparison the same speech is sent as meeting bots do: every 2 s
the audio since the last confirmed segment.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from app.config import ROOT, Config
from app.live.options import Options
from app.live.session import Session
from app.live.windows import Balancer
from tests.measure.errors import normalised
from tests.support import models
from tests.support.client import TRANSCRIPTIONS
from tests.support.environment import bare_environment
from tests.support.http import HTTP
from tests.support.live import SIXTEEN_KHZ, TRANSCRIPTION, LiveClient, Pool, marked
from tests.support.ports import free_ports
from tests.support.processes import resident
from tests.support.recordings import SAMPLE_RATE, long_recording, recordings, to_pcm, wav
from tests.support.stack import Stack
from tests.support.text import words
from tests.support.waiting import until

PAUSE = np.zeros(SAMPLE_RATE, np.float32)
BOT_STEP_S = 2.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Heard:
    """What a session heard.

    Attributes:
        text: of its completed turns.
        arrivals: each word and when it came, in seconds from the first sample.
    """

    text: str = ""
    arrivals: list[tuple[str, float]] = field(default_factory=list)


async def listen(url: str, samples: np.ndarray, speed: float = 1.0) -> Heard:
    """Stream a recording as a microphone does and return what came back."""
    heard = Heard()
    began = time.monotonic()
    async with LiveClient.session(url, transcription={"language": "en"}) as client:
        began = time.monotonic()
        speaking = asyncio.create_task(client.speak(np.concatenate([samples, PAUSE]), speed))
        receiving = asyncio.create_task(client.receive())
        finishing: asyncio.Task[None] | None = None
        cleared = False
        while not (cleared and not client.open_turns()):
            await asyncio.wait({receiving, *({speaking} if not speaking.done() else ())},
                               return_when="FIRST_COMPLETED")  # fmt: skip
            if speaking.done() and finishing is None:
                finishing = asyncio.create_task(client.send("input_audio_buffer.commit"))
                await finishing
                await client.send("input_audio_buffer.clear")
            if receiving.done():
                event = receiving.result()
                now = time.monotonic() - began
                if event["type"] == f"{TRANSCRIPTION}.delta":
                    heard.arrivals += [(word, now) for word in words(event["delta"])]
                if event["type"] == f"{TRANSCRIPTION}.failed":
                    print("failed:", event["error"])
                cleared = cleared or event["type"] == "input_audio_buffer.cleared"
                receiving = asyncio.create_task(client.receive())
        receiving.cancel()
        client.assert_deltas_add_up()
        heard.text = client.text
    return heard


async def in_step(url: str, samples: np.ndarray) -> Heard:
    """Do the same with a pool that answers each window before more audio comes, so that a slow
    machine does not change the words; arrivals are in seconds of audio."""
    heard, sent = Heard(), 0.0
    texts: list[str] = []

    def emit(event: dict[str, Any]) -> None:
        if event["type"] == f"{TRANSCRIPTION}.delta":
            heard.arrivals.extend((word, sent) for word in words(event["delta"]))
        if event["type"] == f"{TRANSCRIPTION}.completed":
            texts.append(event["transcript"])

    options = Options().updated({"audio": {"input": {"format": SIXTEEN_KHZ}}})
    options = options.updated({"input_audio_transcription": {"language": "en"}})
    interval_s = Config().live_interval_s
    session = Session(
        emit, Balancer(url, 4), None, options, earlier=False, interval_s=interval_s, backlog_s=1e6
    )
    running = asyncio.create_task(session.run())
    padded = np.concatenate([samples, PAUSE])
    step = SAMPLE_RATE // 10
    for begin in range(0, padded.size, step):
        audio = base64.b64encode(to_pcm(padded[begin : begin + step]).tobytes()).decode()
        sent = (begin + step) / SAMPLE_RATE
        await session.handle(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await asyncio.sleep(0)
        while session._turns and (
            session._turns[0].due(interval_s) or session._turns[0].is_complete()
        ):
            await asyncio.sleep(0.005)
    await session.finish()
    running.cancel()
    heard.text = " ".join(texts)
    return heard


def spoken_until(text: str, answer: str) -> str:
    """Return the beginning of a text that an answer to the beginning of its recording covers."""
    said = text.split()
    n = len(answer.split())
    counts = range(max(1, n - 15), min(len(said), n + 15) + 1)
    return " ".join(said[: min(counts, key=lambda k: jiwer.wer(" ".join(said[:k]), answer))])


def whole(url: str, samples: np.ndarray) -> dict[str, Any]:
    """Return the answer to a recording that is sent whole."""
    return dict(HTTP.post(
        url + TRANSCRIPTIONS, files={"file": ("a.wav", wav(samples))}, timeout=600,
        data={"model": "m", "language": "en", "timestamp_granularities[]": "word"},
    ).json())  # fmt: skip


def delays(heard: Heard, answer: dict[str, Any]) -> list[float]:
    """Return the seconds from the end of each word to its delta, for the words of both."""
    ends = [(word, each["end"]) for each in answer["words"] for word in words(each["word"])]
    same = SequenceMatcher(
        None, [word for word, _ in ends], [word for word, _ in heard.arrivals], autojunk=False
    )
    return [
        heard.arrivals[block.b + n][1] - ends[block.a + n][1]
        for block in same.get_matching_blocks()
        for n in range(block.size)
    ]


def bot(url: str, samples: np.ndarray) -> None:
    """Send speech as meeting bots do: every 2 s the audio since the last segment that two windows
    have, as fast as it is answered."""
    begin, before = 0, ""
    step = int(BOT_STEP_S * SAMPLE_RATE)
    for end in range(step, samples.size + step, step):
        answer = whole(url, samples[begin:end])
        segments = answer["segments"]
        if len(segments) > 1 and segments[0]["text"] == before:
            begin += int(segments[0]["end"] * SAMPLE_RATE)
            before = ""
        else:
            before = segments[0]["text"] if segments else ""


def processor_s(pids: Sequence[int]) -> float:
    """Return the processor time of processes, in seconds."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


@contextlib.contextmanager
def service(arguments: argparse.Namespace) -> Iterator[tuple[str, Stack | None]]:
    """Use the service at --url, or start one."""
    if arguments.url:
        yield arguments.url, None
        return
    model = models.base() if arguments.model == "base" else models.tiny_en()
    settings = {"MODEL_SIZE": str(model), "MODEL_NAME": arguments.model, "WORKERS": "1"}
    settings |= dict(pair.split("=", 1) for pair in arguments.set)
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack.started(Path(folder) / "run", **settings) as stack,
    ):
        yield stack.url, stack


def measure_words(arguments: argparse.Namespace) -> None:
    """Print the word error rate of each long English recording, streamed and whole."""
    normalise = partial(normalised, language="en")
    wanted = [
        (one.name, one.waveform(), str(one.text))
        for one in recordings()
        if one.language == "en" and one.text and one.seconds >= arguments.seconds
    ]
    told = long_recording(60)
    wanted.append(("sentences of tests/data", told.samples, " ".join(t for *_, t in told.spans)))
    with service(arguments) as (url, _):
        print("| recording | s | whole | streamed | delay p50 / p95 s |\n|---|---|---|---|---|")
        for name, samples, text in wanted:
            samples = samples[: int(arguments.limit * SAMPLE_RATE)]
            answer = whole(url, samples)
            reference = normalise(text)
            if samples.size == arguments.limit * SAMPLE_RATE:  # cut
                reference = spoken_until(reference, normalise(answer["text"]))
            heard = asyncio.run((in_step if arguments.in_step else listen)(url, samples))
            rates = [
                100 * jiwer.wer(reference, normalise(each)) for each in (answer["text"], heard.text)
            ]
            p50, p95 = np.percentile(delays(heard, answer), [50, 95])
            row = f"{name} | {samples.size / SAMPLE_RATE:.0f} | {rates[0]:.1f} % | {rates[1]:.1f} %"
            print(f"| {row} | {p50:.1f} / {p95:.1f} |", flush=True)
            if arguments.show:
                print(heard.text)


def measure_delay(arguments: argparse.Namespace) -> None:
    """Print delay and processor time for numbers of sessions, and those of the bots' rule."""
    with service(arguments) as (url, stack):
        samples = long_recording(arguments.limit).samples
        answer = whole(url, samples)
        seconds = samples.size / SAMPLE_RATE

        def spent() -> float:
            return processor_s(stack.processes()) if stack else 0.0

        print("| sessions | p50 s | p95 s | processor s per second of speech |\n|---|---|---|---|")
        for count in arguments.sessions:
            before = spent()

            async def together(count: int = count) -> list[Heard]:
                return await asyncio.gather(*(listen(url, samples) for _ in range(count)))

            found = [each for heard in asyncio.run(together()) for each in delays(heard, answer)]
            p50, p95 = np.percentile(found, [50, 95])
            cost = (spent() - before) / seconds / count
            print(f"| {count} | {p50:.2f} | {p95:.2f} | {cost:.2f} |", flush=True)
        before = spent()
        bot(url, samples)
        print(f"| the bots' rule | | | {(spent() - before) / seconds:.2f} |")


@contextlib.contextmanager
def gateway() -> Iterator[tuple[int, str]]:
    """Run a gateway in front of a simulated pool, each a process; yields its pid and address."""
    port, pool_port = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        own = {
            "LIVE_PORT": str(port), "LIVE_MAX_SESSIONS": "2000", "RUN_DIR": folder,
            "LIVE_BALANCER_URL": f"http://127.0.0.1:{pool_port}", "LOG_LEVEL": "warning",
        }  # fmt: skip
        commands = (["tests.measure.live", "pool", str(pool_port)], ["app.live"])
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", *command], cwd=ROOT, env=bare_environment() | own
            )
            for command in commands
        ]
        url = f"http://127.0.0.1:{port}"
        try:
            assert until(lambda: is_up(url))
            yield processes[-1].pid, url
        finally:
            for process in processes:
                process.terminate()
                process.wait()


async def simulate(port: int) -> None:
    """Answer windows after 0.2 s, without a model, until this process is ended."""
    pool = Pool(delay_s=0.2, port=port)
    async with pool.serving():
        while True:
            await asyncio.sleep(1)
            pool.requests.clear()
            pool.windows.clear()


def is_up(url: str) -> bool:
    """Return whether a gateway answers."""
    try:
        return bool(HTTP.get(url + "/health").status_code == 200)
    except Exception:
        return False


def measure_gateway(arguments: argparse.Namespace) -> None:
    """Print the processor time of sessions in the gateway alone."""
    print(
        "| sessions | gateway's processor s per s | sessions per core | "
        "windows per second of speech | late |\n|---|---|---|---|---|"
    )
    for count in arguments.sessions:
        asyncio.run(crowd(count, arguments.limit))


async def crowd(count: int, seconds: float) -> None:
    """Let sessions speak for some seconds; the pool answers at once, in another process."""
    samples = marked(seconds)
    with gateway() as (pid, url):
        await speak_together(pid, url, count, samples)


async def speak_together(pid: int, url: str, count: int, samples: np.ndarray) -> None:
    """Let sessions speak at once and print what they cost."""
    seconds = samples.size / SAMPLE_RATE
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(LiveClient.session(url)) for _ in range(count)]
        before, began = processor_s([pid]), time.monotonic()
        await asyncio.gather(*(client.speak(samples) for client in clients))
        wall_s = time.monotonic() - began
        spent = processor_s([pid]) - before
        load = spent / wall_s
        page = HTTP.get(url + "/metrics").text
        answered = re.search(r'live_windows_total{answer="words"} ([\d.]+)', page)
        windows = float(answered[1]) / count / seconds if answered else 0.0
        print(
            f"| {count} | {load:.2f} | {count / load * seconds / wall_s:.0f} | {windows:.2f} | "
            f"{wall_s - seconds:.1f} s |",
            flush=True,
        )


def measure_memory(arguments: argparse.Namespace) -> None:
    """Print the gateway's memory while one session hears an hour of speech."""
    asyncio.run(hour(arguments.speed))


async def hour(speed: float) -> None:
    """Speak for an hour, `speed` times as fast, with a pause every 20 s."""
    samples = np.concatenate([marked(20), PAUSE])
    with gateway() as (pid, url):
        await speak_for_an_hour(pid, url, samples, speed)


async def speak_for_an_hour(pid: int, url: str, samples: np.ndarray, speed: float) -> None:
    """Print the gateway's memory while one session hears an hour."""
    async with LiveClient.session(url) as client:
        receiving = asyncio.create_task(forget(client))
        print("| minutes of speech | gateway's memory MB |\n|---|---|")
        for turn in range(int(3600 / 21)):
            await client.speak(samples, speed)
            if turn % 17 == 0:
                print(f"| {turn * 21 / 60:.0f} | {resident(pid) / 1e6:.1f} |", flush=True)
        receiving.cancel()


async def forget(client: LiveClient) -> None:
    """Read events and keep none."""
    while True:
        await client.receive()
        client.events.clear()


MEASUREMENTS = {
    "words": measure_words,
    "delay": measure_delay,
    "gateway": measure_gateway,
    "memory": measure_memory,
    "pool": lambda arguments: asyncio.run(simulate(arguments.sessions[0])),
}


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("sessions", nargs="*", type=int, default=[1, 4], help="numbers of sessions")
    parser.add_argument("--url", help="of a service that runs; without, one is started")
    parser.add_argument("--model", default="tiny.en", choices=("tiny.en", "base"))
    parser.add_argument("--seconds", type=float, default=40, help="shortest recording for words")
    parser.add_argument("--limit", type=float, default=60, help="seconds of speech")
    parser.add_argument("--speed", type=float, default=20, help="of the hour")
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE of the service")
    parser.add_argument("--in-step", action="store_true", help="words: wait for each window")
    parser.add_argument("--show", action="store_true", help="print the texts")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    MEASUREMENTS[arguments.what](arguments)


if __name__ == "__main__":
    main()
