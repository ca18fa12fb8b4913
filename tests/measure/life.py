"""A long life in a short time: everything that happens to a service in months, again and again.

Short requests without a pause, long files, uploads that go to the disk, streams, clients that
leave, wrong requests, and a worker that is killed every half minute. Beside it memory, descriptors
and threads of each process are watched, and temporary files and processes; what grows fails, and
so does any answer that is not the one to be expected. With greedy search and the short encoder
window a request costs little, so that there are many: what creeps, creeps with each.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import numpy as np

from app.process import children
from tests.measure.load.figures import growth
from tests.measure.load.soak import DESCRIPTORS, LEAST_S, Series, processes
from tests.support import models
from tests.support.background import Background
from tests.support.client import TRANSCRIPTIONS
from tests.support.recordings import SAMPLE_RATE, encode, long_recording, recording, wav
from tests.support.stack import Stack
from tests.support.victim import Victim, worker_id
from tests.support.waiting import until

PATIENCE_S = 300
KILL_EVERY_S = 30.0
SAMPLES = 240
WINDOW_EVERY_S = 2.0  # how often a live stream sends one
FORMATS = ("json", "verbose_json", "text", "srt", "vtt")
SETTINGS = {
    "WORKERS": "2", "MODEL_NAME": "tiny.en", "ENCODER_WINDOW": "adaptive", "BEAM_SIZE": "1",
    "FAIL_FAST_WHEN_BUSY": "false", "QUEUE_TIMEOUT_S": "60", "MAX_QUEUE_SIZE": "100",
    "LOG_LEVEL": "warning",
}  # fmt: skip


class Traffic(Background):
    """Clients of every kind, until the block ends.

    Each kind has a thread of its own; the counters are guarded by the lock.
    """

    def __init__(self, stack: Stack, victim: Victim) -> None:
        self._url = stack.url + TRANSCRIPTIONS
        self._victim = victim
        self.told: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self._lock = threading.Lock()
        speech = recording("austen_0890.wav").waveform()
        long = long_recording(60).samples
        self._short = [wav(speech[: int(seconds * SAMPLE_RATE)]) for seconds in (0.7, 1.2, 2, 3)]
        self._long = encode(long, "opus")
        # More than the form keeps in memory, and than the balancer can send again.
        self._large = wav(np.pad(speech, (0, 3_000_000)))
        self._mistakes: list[tuple[int, dict[str, object]]] = [
            (400, {"data": {"model": "m"}, "files": {"file": ("a.wav", b"no audio at all")}}),
            (400, {"data": {"model": "m"}, "files": {"file": ("a.wav", self._large[:30])}}),
            (400, {"data": {"model": "m", "language": "klingon"},
                   "files": {"file": ("a.wav", self._short[0])}}),
            (400, {"data": {"model": "m"}, "files": {"other": ("a.wav", self._short[0])}}),
            (415, {"content": b"{}", "headers": {"Content-Type": "application/json"}}),
        ]  # fmt: skip

    def _loops(self) -> list[Callable[[], None]]:
        kinds = [self._window] * 4 + [
            self._file, self._upload, self._stream, self._leaver, self._mistake, self._killer
        ]  # fmt: skip
        return [partial(self._again, kind, number) for number, kind in enumerate(kinds)]

    def _again(self, kind: Callable[[random.Random], None], number: int) -> None:
        dice = random.Random(number)
        while not self._stop.is_set():
            try:
                kind(dice)
            except Exception as error:  # a thread that ends would make the rest of the run easy
                self._count(f"{kind.__name__}: {type(error).__name__}", good=False)
                self._stop.wait(0.5)

    def _count(self, told: str, good: bool = True) -> None:
        with self._lock:
            (self.told if good else self.wrong)[told] += 1

    def _expect(self, name: str, answer: httpx.Response, *codes: int) -> None:
        told = f"{name}: {answer.status_code}"
        if answer.status_code == 503:
            told += " " + str(answer.json()["error"]["code"])
        self._count(told, answer.status_code in codes)

    def _post(self, **request: object) -> httpx.Response:
        return httpx.post(self._url, timeout=PATIENCE_S, **request)  # type: ignore[arg-type]

    def _window(self, dice: random.Random) -> None:
        tier = "deferred" if dice.random() < 0.1 else "realtime"
        data = {"model": "whisper-1", "response_format": dice.choice(FORMATS)}
        files = {"file": ("a.wav", dice.choice(self._short))}
        answer = self._post(data=data, files=files, headers={"X-Transcription-Tier": tier})
        self._expect("window", answer, 200)

    def _file(self, dice: random.Random) -> None:
        files = {"file": ("a.opus", self._long)}
        tier = {"X-Transcription-Tier": "deferred"}
        answer = self._post(data={"model": "m"}, files=files, headers=tier)
        self._expect("long file", answer, 200)
        self._stop.wait(dice.uniform(5, 15))

    def _upload(self, dice: random.Random) -> None:
        # A worker that is killed with it loses it: nobody else has its bytes.
        files = {"file": ("a.wav", self._large)}
        self._expect("large upload", self._post(data={"model": "m"}, files=files), 200, 503)
        self._stop.wait(dice.uniform(5, 15))

    def _stream(self, dice: random.Random) -> None:
        leaves = dice.random() < 0.5
        request = {"data": {"model": "m", "stream": "true"}, "files": {"file": ("a", self._long)}}
        with httpx.stream("POST", self._url, timeout=PATIENCE_S, **request) as answer:  # type: ignore[arg-type]
            lines = answer.iter_lines()
            # A worker that is killed in the middle cuts a stream off.
            with suppress(httpx.RemoteProtocolError):
                for _ in lines:
                    if leaves:
                        break
        self._count(f"stream{' left' if leaves else ''}: {answer.status_code}",
                    answer.status_code == 200)  # fmt: skip
        self._stop.wait(dice.uniform(5, 15))

    def _leaver(self, dice: random.Random) -> None:
        content = self._long if dice.random() < 0.1 else dice.choice(self._short)
        files = {"file": ("a", content)}
        with suppress(httpx.TimeoutException):
            httpx.post(self._url, data={"model": "m"}, files=files, timeout=dice.uniform(0.05, 1))
        self._count("left")
        self._stop.wait(0.5)

    def _mistake(self, dice: random.Random) -> None:
        code, request = dice.choice(self._mistakes)
        self._expect("mistake", self._post(**request), code)
        self._stop.wait(0.1)

    def _killer(self, dice: random.Random) -> None:
        if self._stop.wait(KILL_EVERY_S * dice.uniform(0.8, 1.2)):
            return
        (master,) = (pid for pid in self._victim.arbiters() if worker_id(pid) == 1)
        os.kill(children(master)[0], signal.SIGKILL)
        self._count("worker killed")


class Sampler(Background):
    """Figures of the pool, taken at an interval until the block ends."""

    def __init__(self, stack: Stack, victim: Victim, temporary: Path, every_s: float) -> None:
        self._stack = stack
        self._victim = victim
        self._temporary = temporary
        self._every_s = every_s
        self.series: dict[str, Series] = {}
        self.files: list[float] = []
        self.processes: list[float] = []

    def _loops(self) -> list[Callable[[], None]]:
        return [self._watch]

    def _watch(self) -> None:
        began = time.monotonic()
        while not self._stop.wait(self._every_s):
            for name, pid in self.members().items():
                series = self.series.get(name, Series(name))
                if series.take(pid, time.monotonic() - began):  # no process that has just ended
                    self.series[name] = series
            self.files.append(len(self.left_files()))
            self.processes.append(len(self._stack.processes()))

    def members(self) -> dict[str, int]:
        """The pool's processes; a worker keeps its name when it is another process."""
        with suppress(OSError):
            found = {
                name.split()[0]: pid
                for name, pid in processes(self._stack).items()
                if not name.startswith(("gunicorn", "pool "))
            }
            for master in self._victim.arbiters():
                number = worker_id(master)
                found[f"worker {number}"] = children(master)[0]
                found[f"worker {number}'s arbiter"] = master
            return found | {"pool": self._stack.process.pid}
        return {}  # one ended meanwhile

    def left_files(self) -> list[Path]:
        """Temporary files that have a name."""
        return [path for path in self._temporary.rglob("*") if path.is_file()]

    def troubles(self) -> list[str]:
        """Return a sentence for each quantity that grew."""
        found = [one for series in self.series.values() for one in series.troubles()]
        for what, values in (("temporary files", self.files), ("processes", self.processes)):
            if (more := growth(values)) > 1:
                found.append(f"{what}: {more:.0f} more")
        return found


def life(minutes: float) -> bool:
    """All of it, for so long; prints what happened, and says whether all was as it should be."""
    seconds = 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        folder, temporary = Path(name), Path(name) / "tmp"
        temporary.mkdir()
        with Stack.started(
            folder / "run", TMPDIR=str(temporary), MODEL_SIZE=str(models.tiny_en()), **SETTINGS
        ) as stack:
            victim = Victim(stack)
            sampler = Sampler(stack, victim, temporary, max(1.0, seconds / SAMPLES))
            before, count = files_open(sampler.members()), len(stack.processes())
            with sampler, Traffic(stack, victim) as traffic:
                time.sleep(seconds)
            troubles = sampler.troubles() + at_the_end(stack, victim, sampler, before, count)
    for told, times in sorted(traffic.told.items()):
        print(f"  {told}: {times}")
    hours = traffic.told["window: 200"] * WINDOW_EVERY_S / 3600
    print(f"{traffic.told['window: 200']} windows, as many as in {hours:.1f} h of a live stream")
    for one in sampler.series.values():
        print(
            f"  {one.name}: {one.rss_bytes[-1] / (1 << 20):.0f} MiB, grew by "
            f"{one.grown(one.rss_bytes) / (1 << 20):.1f} MiB, "
            f"{one.grown(one.threads):.0f} threads, {one.grown(one.descriptors):.0f} descriptors"
        )
    if seconds < 0.9 * LEAST_S:
        print(f"Growth of memory was not judged: that takes {LEAST_S / 60:.0f} minutes.")
    troubles += [f"unexpected: {told}, {times} times" for told, times in traffic.wrong.items()]
    print(*troubles, sep="\n")
    return not troubles


def files_open(members: dict[str, int]) -> dict[str, int]:
    """Open descriptors by process."""
    return {name: len(os.listdir(f"/proc/{pid}/fd")) for name, pid in members.items()}


def at_the_end(
    stack: Stack, victim: Victim, sampler: Sampler, before: dict[str, int], count: int
) -> list[str]:
    """Return a sentence for each thing that is left after the last request."""
    troubles = []
    if not until(lambda: victim.up() == victim.all() and victim.at_rest(), 90):
        troubles.append(f"not at rest: {victim.lb_status()}")
    if not until(lambda: len(stack.processes()) <= count, 20):
        troubles.append(f"{len(stack.processes())} processes, {count} before")
    if left := sampler.left_files():
        troubles.append(f"left on the disk: {', '.join(path.name for path in left[:5])}")

    def open_now() -> list[str]:
        now = files_open(sampler.members())
        return [
            f"{name}: {now[name]} descriptors at rest, {before[name]} before"
            for name in before
            if now.get(name, 0) > before[name] + DESCRIPTORS
        ]

    # Connections that were kept for a next request are closed after 15 s.
    if not until(lambda: not open_now(), 30):
        troubles += open_now()
    return troubles
