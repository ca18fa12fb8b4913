"""Inputs that no client would send, and the promise that none of them does harm.

    make fuzz                                     a minute of everything
    make fuzz ARGS="parser=1000000 media=20000"   so many cases of these
    python -m tests.measure.fuzz wav --only 4711          one case again, by its number

    parser    bodies and content types -> multipart parser (app/api/form.py)
    fields    values of every field -> the request (app/api/request.py)
    wav       headers of WAV files -> the direct path (app/audio/wav.py)
    headers   methods, paths and headers -> the whole application, without a model
    media     every file of tests/data, damaged -> decoders (app/audio/sandbox/client.py)
    bytes     sound with 1 to 200 damaged bytes -> no less than `ffmpeg` decodes, where that is
              installed; a file of which it decodes nine tenths must not be refused
    http      damaged heads, bodies and files -> a real worker over its socket

A case is made from its number alone, so a finding can be had again. What is promised: an answer
below 500 or a 503, within its time, from a process that is still there and has not grown beyond
its bound. Anything else is a finding: it is printed, kept in .run/fuzz, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import random
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from wsgiref.util import setup_testing_defaults

import numpy as np

from app.api.fields import FIELDS
from app.api.form import MAX_FIELD_BYTES, MAX_PARTS, Form
from app.api.request import transcription_request
from app.audio.decode import decode
from app.audio.limits import Limits
from app.audio.sandbox.client import Sandbox
from app.audio.wav import read_plain_wav
from app.config import ROOT, Config
from app.engine.cancellation import Cancellation
from app.errors import ServiceError
from app.main import create_app
from app.observability import metrics
from tests.support.client import TRANSCRIPTIONS, form
from tests.support.fakes import held_engine
from tests.support.processes import resident
from tests.support.recordings import DATA, FORMS, encode, recording, recordings, wav
from tests.support.worker import worker

KEPT = ROOT / ".run" / "fuzz"
USUAL = {
    "parser": 100_000, "fields": 100_000, "wav": 100_000, "headers": 10_000, "media": 1_000,
    "bytes": 1_000, "http": 200,
}  # fmt: skip
CASE_S = 5.0  # of a case that no other process works on
DECODE_S = 20.0
LIMITS = Limits(upload_bytes=1 << 20, duration_s=3600)
GROWTH_BYTES = 300 << 20  # of this process, over all cases of a target
MOST_FINDINGS = 20

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
WORDS = (
    b"\r\n", b"\r\n\r\n", b"--", b"--B", b"\r\n--B\r\n", b"\r\n--B--\r\n", b"\0", b"\xff",
    b"=", b";", b'"', b"'", b"\\", b"%", b":", b"name=", b'name="file"', b"Content-", b"\t ",
    b"filename*=utf-8''a%00b", b"Content-Disposition: form-data;", b"boundary=", b"=?utf-8?b?",
    b"multipart/form-data", b"RIFF", b"WAVE", b"fmt ", b"data", b"LIST", b"OggS", b"OpusHead",
    b"fLaC", b"ID3", b"moov", b"mdat", b"stsz", b"ftyp", b"\x1aE\xdf\xa3", b"#EXTM3U\n",
    b"ffconcat version 1.0\nfile /etc/hostname",
)  # fmt: skip


def damaged(dice: random.Random, content: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """The content with one to eight things done to it; half of them near its beginning."""
    found = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 3, 5, 8))):
        end = min(len(found), 256) if dice.random() < 0.5 else len(found)
        at = dice.randrange(end + 1)
        match dice.randrange(9):
            case 0 if found:
                found[at % len(found)] ^= 1 << dice.randrange(8)
            case 1 if found:
                found[at % len(found)] = dice.choice(NUMBERS) & 0xFF
            case 2:
                size = dice.choice((2, 4, 8))
                value = dice.choice(NUMBERS) & ((1 << 8 * size) - 1)
                found[at : at + size] = value.to_bytes(size, dice.choice(("little", "big")))
            case 3:
                del found[at : at + dice.choice((1, 2, 4, 16, 256, 4096))]
            case 4:
                found[at:at] = found[at : at + dice.choice((1, 8, 64, 512))]
            case 5:
                found[at:at] = dice.choice(WORDS)
            case 6:
                del found[at:]
            case 7:
                found[at:at] = dice.randbytes(dice.choice((1, 4, 32, 300)))
            case _ if others:
                other = dice.choice(others)
                found[at:] = other[dice.randrange(len(other) + 1) :]
    return bytes(found)


class Finding(AssertionError):
    """A promise that does not hold."""


def answered(error: ServiceError) -> str:
    """An error's status, when it is one that an input may cause."""
    if error.status >= 500:
        raise Finding(f"status {error.status}: {error.message}")
    text = json.dumps(error.body(), ensure_ascii=False).encode()  # as it goes on the wire
    if not 0 < len(error.message) <= 300:
        raise Finding(f"a message of {len(error.message)} characters: {text[:100]!r}")
    return str(error.status)


# --- the multipart parser ------------------------------------------------------------------

TYPE = "multipart/form-data; boundary=B"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--B\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + (
        value + b"\r\n"
    )


BODIES = (
    part("file", b"RIFFsound", '; filename="a.wav"') + part("model", b"whisper-1") + b"--B--\r\n",
    part("model", b"m") + part("prompt", "ä ö ü".encode()) + part("file", bytes(300)) + b"--B--",
    b"".join(part(f"f{n}", b"x" * n) for n in range(20)) + b"--B--\r\n",
    b"preamble\r\n" + part("a", b"\r\n--B-\r\n--\r\n") + b"--B--\r\nepilogue",
    form(b"audio" * 9, {"model": "m", "languages[]": ["en", "de"]}).read(),
)


@dataclass
class Torn:
    """A body that comes in pieces of any size."""

    rest: io.BytesIO
    dice: random.Random

    def read(self, size: int, /) -> bytes:
        return self.rest.read(self.dice.choice((1, 2, 3, 7, 64, size)))


def parser(dice: random.Random) -> tuple[bytes, Callable[[], str]]:
    body = damaged(dice, dice.choice(BODIES), BODIES)
    if dice.random() < 0.01:
        body = body * dice.choice((50, 1000, 20_000))
    kind: str | None = TYPE
    if dice.random() < 0.2:
        kind = damaged(dice, TYPE.encode()).decode("latin-1")

    def run() -> str:
        with Form() as found:
            try:
                found.read(Torn(io.BytesIO(body), dice), kind, LIMITS)
            except ServiceError as error:
                return answered(error)
            finally:
                held = sum(len(one) for values in found.fields.values() for one in values)
                if held > MAX_FIELD_BYTES or len(found.fields) > MAX_PARTS:
                    raise Finding(f"{held} characters in {len(found.fields)} fields")
            if found.file.seek(0, 2) > len(body):
                raise Finding("a file larger than its body")
        return "a form"

    return repr(kind).encode() + b"\n" + body, run


# --- the fields ------------------------------------------------------------------------------

VALUES = (
    "", " ", "0", "1", "-1", "0.5", "1e400", "-0", "nan", "inf", "1e308", "9" * 400, "٣", "½",
    "1_0", "0x10", "1,000", "NaN", "Infinity", "true", "TRUE", "word", "segment,word", "en",
    "EN_us.UTF-8", "C.UTF-8", "auto", "klingon", "json", "verbose_json", "srt", "deferred",
    "logprobs", "translate", "server_vad", "{}", "[" * 5000, "\0", "\ud7ff", "ſ", "İ", "é" * 999,
    "\u202e", "😀" * 100, "%s%n", "{0}",
    '{"type": "server_vad"}',
    '{"type": "server_vad", "threshold": [1]}',
    '{"type": "server_vad", "silence_duration_ms": 1e999}',
    '{"type": "server_vad", "threshold": ' + "9" * 5000 + "}",
    '{"type": "server_vad", "\\ud800": "\\ud800"}',
    '{"type": "server_vad", "threshold": "\\udfff"}',
)  # fmt: skip
NAMES = tuple(
    name
    for field in FIELDS
    if field.kind != "file"
    for name in dict.fromkeys((field.name, field.name.removesuffix("[]")))
)


def fields(dice: random.Random) -> tuple[bytes, Callable[[], str]]:
    given: dict[str, list[str]] = {"model": ["m"]}
    for _ in range(dice.randrange(1, 6)):
        value = dice.choice(VALUES)
        if dice.random() < 0.3:
            value = damaged(dice, value.encode()).decode("utf-8", "ignore")
        given.setdefault(dice.choice(NAMES), []).append(value)
    headers = {"X-TRANSCRIPTION-TIER": dice.choice(VALUES)} if dice.random() < 0.2 else {}
    task = dice.choice((None, "translate"))

    def run() -> str:
        with Form() as found:
            found.has_file = True
            found.fields = {name: list(values) for name, values in given.items()}
            try:
                made = transcription_request(found, headers, CONFIG, task)
            except ServiceError as error:
                return answered(error)
        speech = made.options.speech
        if not (0 <= speech.threshold <= 1 and speech.max_speech_duration_s > 0):
            raise Finding(f"options out of their limits: {speech}")
        return "a request"

    return json.dumps([given, headers, task]).encode(), run


CONFIG = Config()


# --- plain WAV -------------------------------------------------------------------------------

SOUND = (np.arange(400) % 50 / 100).astype(np.float32)
WAVS = (wav(SOUND), wav(SOUND)[:60], *(
    (DATA / name).read_bytes()[:2000]
    for name in ("odd_zero_sizes.wav", "odd_stream_header.wav", "odd_8bit_11k.wav", "odd_10ms.wav")
))  # fmt: skip


def wav_header(dice: random.Random) -> tuple[bytes, Callable[[], str]]:
    content = damaged(dice, dice.choice(WAVS), WAVS)

    def run() -> str:
        try:
            found = read_plain_wav(io.BytesIO(content), LIMITS)
        except ServiceError as error:
            return answered(error)
        if found is None:
            return "not plain"
        if found.size > len(content) // 2 or (found.size and np.abs(found).max() > 1):
            raise Finding(f"{found.size} samples of {len(content)} bytes")
        return "samples"

    return content, run


# --- headers ---------------------------------------------------------------------------------

HEADERS = (
    ("Authorization", "Bearer secret"), ("X-API-Key", "secret"), ("X-Request-ID", "a-1"),
    ("Content-Type", TYPE), ("Content-Length", "10"), ("X-Transcription-Tier", "deferred"),
    ("Accept", "application/json, */*;q=0.1"), ("Range", "bytes=0-"), ("Host", "a:80"),
    ("If-None-Match", '"x"'), ("Cookie", "a=b"), ("Expect", "100-continue"), ("Date", "Mon"),
    ("Forwarded", "for=1"), ("X-Forwarded-For", "1.2.3.4"), ("Transfer-Encoding", "chunked"),
    ("X-Forwarded-Host", "a"), ("If-Modified-Since", "Mon, 23 Nov 2026 00:00:00 GMT"),
)  # fmt: skip
PATHS = (
    *(TRANSCRIPTIONS,) * 8, "/v1/audio/translations", "/v1/models", "/v1/models/a/b", "/health",
    "/", "/openapi.json", "/docs", "/pages/docs.css", "/pages/../main.py", "/metrics", "//", "/%00",
)  # fmt: skip
METHODS = (*("POST",) * 12, "GET", "HEAD", "OPTIONS", "PUT", "TRACE", "CONNECT", "PROPFIND")


class Application:
    """The whole application with a model that answers at once."""

    def __init__(self) -> None:
        config = Config(api_token="secret", model_size="tiny.en", log_level="error")
        engine, model = held_engine(config)
        model.go.set()
        self.app = create_app(config, engine)

    def case(self, dice: random.Random) -> tuple[bytes, Callable[[], str]]:
        sent = form(dice.choice(WAVS), {"model": "m"})
        body = sent.read() if dice.random() < 0.5 else damaged(dice, sent.read())
        path = dice.choice(PATHS)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": dice.choice(METHODS),
            "PATH_INFO": path if dice.random() < 0.8 else "/" + text(dice, path[1:]),
            "QUERY_STRING": text(dice, "a=b&c=%20"),
            "CONTENT_TYPE": sent.headers["Content-Type"],
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_AUTHORIZATION": "Bearer secret",
        }
        for name, value in dice.sample(HEADERS, dice.randrange(1, 6)):
            key = name.upper().replace("-", "_")
            key = key if key.startswith("CONTENT_") else f"HTTP_{key}"
            environ[key] = text(dice, value)
        shown = repr(environ).encode() + b"\n" + body
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.errors"] = io.StringIO()
        setup_testing_defaults(environ)

        def run() -> str:
            told: list[Any] = []
            answer = b"".join(
                self.app(environ, lambda status, headers: told.extend((status, headers)))
            )
            status = int(told[0][:3])
            if status >= 500 and status != 503:
                raise Finding(f"{told[0]}: {answer[:200]!r}")
            if any(set("\r\n\0") & set(name + value) for name, value in told[1]):
                raise Finding(f"headers of the answer: {told[1]}")
            return str(status)

        return shown, run


def text(dice: random.Random, value: str) -> str:
    """A header's value as a server hands it on: latin-1, without line ends."""
    if dice.random() < 0.4:
        return value
    return damaged(dice, value.encode()).decode("latin-1").translate(dict.fromkeys(b"\r\n\0", " "))


# --- media -----------------------------------------------------------------------------------

FILES = tuple(
    path.read_bytes()
    for path in sorted(DATA.rglob("*"))
    if path.is_file() and path.suffix not in (".md", ".json") and path.stat().st_size
)
SHORT = tuple(one for one in FILES if len(one) < 15_000)


class Media:
    """Damaged recordings, and the decoders that get them."""

    def __init__(self) -> None:
        self.sandbox = Sandbox(LIMITS, DECODE_S, (1, "error", "text"))
        self.sandbox.start()

    def case(self, dice: random.Random) -> tuple[bytes, Callable[[], str]]:
        content = damaged(dice, dice.choice(FILES), FILES)

        def run() -> str:
            try:
                found = self.sandbox.decode(io.BytesIO(content), Cancellation())
            except ServiceError as error:
                return answered(error)
            if found.size > LIMITS.samples or (found.size and not np.abs(found).max() <= 1):
                raise Finding(f"{found.size} samples, up to {np.abs(found).max()}")
            return "samples"

        return content, run

    def close(self) -> None:
        self.sandbox.close()


class Bruised:
    """Sound of which a few bytes are damaged, and how much of it a player would play."""

    def __init__(self) -> None:
        if not shutil.which("ffmpeg"):
            raise SystemExit("The target bytes holds the service against ffmpeg: install it.")
        sound = [one.content() for one in recordings() if one.kind != "invalid"]
        cases = [path.read_bytes() for path in sorted((DATA / "cases").iterdir())]
        samples = recording("austen_0890.wav").waveform()
        self._files = sound + cases + [encode(samples, form) for form in FORMS]
        self._played = {id(content): played_s(content) for content in self._files}

    def case(self, dice: random.Random) -> tuple[bytes, Callable[[], str]]:
        whole = dice.choice(self._files)
        content = bytearray(whole)
        begin = dice.choice((0, 0, dice.randrange(len(content))))
        end = min(len(content), begin + dice.choice((200, 2000, len(content))))
        for _ in range(dice.choice((1, 2, 5, 20, 50, 200))):
            content[dice.randrange(begin, end)] = dice.randrange(256)

        def run() -> str:
            try:
                decode(io.BytesIO(content), Limits(1 << 30, 600))
            except ServiceError as error:
                played = played_s(content)
                if played >= 0.9 * self._played[id(whole)] > 0:
                    raise Finding(f"refused, and ffmpeg plays {played:.1f} s: {error}") from error
                return answered(error)
            return "samples"

        return bytes(content), run


def played_s(content: bytes | bytearray) -> float:
    """Seconds of sound that the ffmpeg command decodes."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        done = subprocess.run(
            ["ffmpeg", "-v", "quiet", "-i", file.name, "-vn", "-ac", "1", "-ar", "16000",
             "-f", "s16le", "-"],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    return len(done.stdout) / 32_000


# --- a real worker ---------------------------------------------------------------------------


class Served:
    """Damaged heads, bodies and files for a worker over its socket."""

    def __init__(self, port: int) -> None:
        self._port = port

    def case(self, dice: random.Random) -> tuple[bytes, Callable[[], str]]:
        file = dice.choice(SHORT)
        if dice.random() < 0.7:
            file = damaged(dice, file, SHORT)
        some = dice.choice((0, 0, 0, 1, 2))
        values = {dice.choice(NAMES): dice.choice(VALUES) for _ in range(some)}
        sent = form(file, {"model": "m"} | values)
        body, kind = sent.read(), sent.headers["Content-Type"]
        if dice.random() < 0.3:
            body = damaged(dice, body)
        head = (
            f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\nContent-Type: {kind}\r\n\r\n"
        ).encode()
        whole = dice.random() < 0.8
        if not whole:
            head = damaged(dice, head)

        def run() -> str:
            status, answer = self._answer(head + body, whole)
            if status >= 500 and status != 503:
                raise Finding(f"{status}: {answer[:200]!r}")
            return str(status or "closed")

        return head + body, run

    def _answer(self, content: bytes, whole: bool) -> tuple[int, bytes]:
        """What comes back until the worker closes; status 0: nothing, which a head may deserve.

        Args:
            whole: its head is sound. Otherwise the worker may wait for more, as long as there is
                a balancer's patience; here it is told that there is none.
        """
        answer = b""
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection,
        ):
            connection.sendall(content)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65_536):
                answer += more
                if not answer.startswith(b"HTTP/1"[: len(answer)]):
                    raise Finding(f"no HTTP: {answer[:100]!r}")
                if is_whole(answer):
                    break
        words = answer.split(b" ", 2)
        return (int(words[1]) if len(words) > 2 else 0), answer


def is_whole(answer: bytes) -> bool:
    """Return whether an answer has come to its announced end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return bool(length and len(body) >= int(length[1]))


# --- running ---------------------------------------------------------------------------------

Case = Callable[[random.Random], tuple[bytes, Callable[[], str]]]


@dataclass
class Run:
    """The cases of one target.

    Attributes:
        outcomes: how often each came.
        findings: number of a case and what happened.
        slowest_s: the longest a case took, seconds.
    """

    name: str
    case: Case
    threads: int = 1
    case_s: float = CASE_S
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cases(self, numbers: range, ends: float) -> None:
        """Run these until the time is up."""
        for number in numbers:
            if time.monotonic() > ends or len(self.findings) >= MOST_FINDINGS:
                return
            self.one(number)

    def one(self, number: int) -> None:
        """Run one case."""
        content, run = self.case(random.Random(f"{self.name} {number}"))
        began = time.monotonic()
        try:
            outcome = run()
        except Exception as error:
            outcome = "a finding"
            told = str(error) if isinstance(error, Finding) else traceback.format_exc()
            self._find(number, content, told)
        took_s = time.monotonic() - began
        if took_s > self.case_s:
            self._find(number, content, f"took {took_s:.1f} s")
        with self._lock:
            self.outcomes[outcome] += 1
            self.slowest_s = max(self.slowest_s, took_s)

    def _find(self, number: int, content: bytes, told: str) -> None:
        KEPT.mkdir(parents=True, exist_ok=True)
        (KEPT / f"{self.name}-{number}").write_bytes(content)
        with self._lock:
            self.findings.append((number, told))


@contextmanager
def target(name: str) -> Iterator[Run]:
    """A target, ready; what it needs is judged and ends with the block."""
    match name:
        case "parser" | "fields" | "wav":
            yield Run(name, {"parser": parser, "fields": fields, "wav": wav_header}[name])
        case "headers":
            yield Run(name, Application().case)
        case "media":
            media = Media()
            try:
                # A decoder that is ended at its limit has kept the promise; other threads wait too.
                yield Run(name, media.case, threads=4, case_s=2 * DECODE_S)
            finally:
                media.close()
        case "bytes":
            yield Run(name, Bruised().case)
        case "http":
            with worker(LOG_LEVEL="error") as running:
                pid = running.process_id()
                before = resident(pid)
                run = Run(name, Served(running.port).case, threads=4, case_s=60)
                yield run
                if running.process_id() != pid:
                    run.findings.append((-1, "the worker is another process now"))
                elif (grown := resident(pid) - before) > GROWTH_BYTES:
                    run.findings.append((-1, f"the worker grew by {grown >> 20} MiB"))


def fuzzed(name: str, n_cases: int, first: int = 0, seconds: float = 1e9) -> Run:
    """Run so many cases of a target, or as many as the time allows."""
    ends = time.monotonic() + seconds
    with target(name) as run:
        before = peak_bytes()
        last, step = first + n_cases, run.threads
        with ThreadPoolExecutor(step) as pool:
            for done in [
                pool.submit(run.cases, range(begin, last, step), ends)
                for begin in range(first, first + step)
            ]:
                done.result()
        if (grown := peak_bytes() - before) > GROWTH_BYTES:
            run.findings.append((-1, f"this process grew by {grown >> 20} MiB"))
    return run


def peak_bytes() -> int:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", help="NAME or NAME=CASES; none: all")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="number of the one case to run")
    parser.add_argument("--minutes", type=float, default=60, help="the most for each target")
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)  # a line for each refusal
    found = 0
    for each in chosen.targets or [name for name in USUAL if name != "bytes"]:
        name, _, count = each.partition("=")
        if name not in USUAL:
            parser.error(f"{name} is none of {', '.join(USUAL)}")
        first, n_cases = chosen.first, int(count or USUAL[name])
        if chosen.only is not None:
            first, n_cases = chosen.only, 1
        began, lost = time.monotonic(), decoders_lost()
        run = fuzzed(name, n_cases, first, chosen.minutes * 60)
        elapsed_s = time.monotonic() - began
        outcomes = ", ".join(f"{kind} {count}" for kind, count in run.outcomes.most_common())
        print(
            f"{name}: {run.outcomes.total()} cases in {elapsed_s:.0f} s ({outcomes}), the longest "
            f"{run.slowest_s:.2f} s, {decoders_lost() - lost:.0f} decoders lost, "
            f"{len(run.findings)} findings",
            flush=True,
        )
        for number, told in run.findings:
            print(f"  {name} --only {number}: {told}")
        found += len(run.findings)
    return 1 if found else 0


def decoders_lost() -> float:
    """Decoders that this process has counted as ended by their upload."""
    return float(sum(metrics.DECODERS_ENDED.labels(why)._value.get() for why in WHYS))


WHYS = ("time", "died", "failed")

if __name__ == "__main__":
    sys.exit(main())
