"""Where uploads are decoded: in a process of their own each, of which nothing is believed.

A crash or a hang of the media library costs the one request whose upload it was. Plain 16 kHz WAV
needs no library and is read in place.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import numpy as np

from app.audio.decode import EMPTY, NO_AUDIO_TRACK, UNDECODABLE
from app.audio.limits import Limits
from app.audio.sandbox.child import FAILED, JOB, UNREADY, Verdict
from app.audio.sandbox.fork_server import BEGUN, ENDED
from app.audio.wav import read_plain_wav
from app.config import ROOT, Config
from app.errors import InvalidRequest, NoDecoder
from app.observability import metrics

logger = logging.getLogger(__name__)

START_S = 15.0  # until a decoder has begun; the fork server itself starts in 0.3 s
STOP_S = 5.0
AGAIN_S = 1.0  # between two starts of a fork server that does not stay
COPY_BYTES = 2 << 20  # an upload up to this size may be in memory, where no other process sees it
BLOCK_SAMPLES = 1 << 20
WORD_BYTES = 128  # longer than any answer
NOT_STARTED = "No decoder could be started. Send the request again."
# What a fork server may know of its worker's environment, which has the clients' keys.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG", "TZ")


class Client(Protocol):
    """What is asked of the request's cancellation."""

    def wake(self, callback: Callable[[], None] | None) -> None: ...

    def check(self) -> None: ...


@dataclass(frozen=True)
class ForkServer:
    """A fork server's process, and where it takes jobs."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def started(cls, arguments: list[str]) -> ForkServer:
        """Start one; it is ready a moment later, and jobs wait for that.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(START_S)
        command = [
            sys.executable,
            "-m",
            "app.audio.sandbox.fork_server",
            str(theirs.fileno()),
            *arguments,
        ]
        own = {name: value for name, value in os.environ.items() if name in ENVIRONMENT}
        with theirs:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=own | {"OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                ours.close()
                raise
        return cls(process, ours)

    def stop(self) -> None:
        """End it and all its decoders; once more does nothing."""
        self.control.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sandbox:
    """Decodes uploads for one worker.

    Request threads call `decode`, any number of them at a time: each has a decoder of its own, so
    a long file holds nobody up, and there are never more than slots. `start` and `close` are for
    the process's lifetime. The lock guards which fork server there is.

    Args:
        limits: of the uploads.
        timeout_s: the longest one of them is decoded.
        logging_as: worker, level and form of the log, for the fork server's own lines.
    """

    def __init__(self, limits: Limits, timeout_s: float, logging_as: tuple[int, str, str]) -> None:
        self._limits = limits
        self._timeout_s = timeout_s
        self._arguments = [str(each) for each in logging_as]
        self._lock = threading.Lock()
        self._fork_server: ForkServer | None = None
        self._next_start = 0.0

    @classmethod
    def of(cls, config: Config) -> Sandbox:
        """The sandbox the settings describe."""
        logging_as = (config.worker_id, config.log_level, config.log_format)
        return cls(Limits.of(config), config.decode_timeout_s, logging_as)

    def start(self) -> None:
        """Start the fork server, so that the first upload need not wait for it."""
        with contextlib.suppress(NoDecoder):  # the log says so, and the next upload tries again
            self._living()

    def close(self) -> None:
        """End the fork server and its decoders; so does forgetting the sandbox."""
        with self._lock:
            fork_server, self._fork_server = self._fork_server, None
        if fork_server is not None:
            fork_server.stop()

    def decode(self, file: BinaryIO, client: Client) -> np.ndarray:
        """The upload as a waveform, the same to the last bit as `app.audio.decode.decode` makes.

        Args:
            file: seekable, the upload.
            client: who waits for it; decoding ends when it leaves.

        Returns:
            float32 in [-1, 1], shape (n_samples,), mono 16 kHz.

        Raises:
            InvalidRequest: it cannot be decoded, not in time, or its decoder died of it.
            TooLarge: the audio is longer than the limit.
            ClientDisconnected: the client left.
            NoDecoder: no decoder could be started.
        """
        size = file.seek(0, 2)
        if size == 0:
            raise InvalidRequest(EMPTY, param="file")
        waveform = read_plain_wav(file, self._limits)
        if waveform is not None:
            return waveform
        fork_server = self._living()
        with contextlib.ExitStack() as open_until_then:
            try:
                upload = readable(file, size)
                open_until_then.callback(os.close, upload)
                samples = os.memfd_create("samples")
                open_until_then.callback(os.close, samples)
                answer = self._sent(fork_server, upload, samples)
                open_until_then.callback(answer.close)
            except OSError as error:
                logger.error("an upload cannot be handed to a decoder: %s", error)
                raise NoDecoder(NOT_STARTED) from None
            judge(self._word(fork_server, answer, client), self._limits)
            return taken(samples, self._limits)

    def _living(self) -> ForkServer:
        """The fork server, a new one where the last has ended.

        Raises:
            NoDecoder: none can be started.
        """
        with self._lock:
            fork_server = self._fork_server
            if fork_server is not None and fork_server.process.poll() is None:
                return fork_server
            if fork_server is not None:
                logger.error("the fork server ended: %s", ending(fork_server.process.poll()))
                fork_server.stop()
                self._fork_server = None
            now = time.monotonic()
            if now < self._next_start:
                raise NoDecoder(NOT_STARTED)
            self._next_start = now + AGAIN_S
            try:
                self._fork_server = ForkServer.started(self._arguments)
            except OSError as error:
                logger.error("no fork server can be started: %s", error)
                raise NoDecoder(NOT_STARTED) from None
            weakref.finalize(self, self._fork_server.stop)
            return self._fork_server

    def _drop(self, fork_server: ForkServer) -> None:
        """Have no more of a fork server that does not answer."""
        with self._lock:
            if self._fork_server is fork_server:
                self._fork_server = None
        fork_server.stop()

    def _sent(self, fork_server: ForkServer, upload: int, samples: int) -> socket.socket:
        """Hand an upload over; returns where the answer comes.

        Raises:
            OSError: the fork server does not take it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                job = JOB.pack(self._limits.duration_s, self._timeout_s)
                descriptors = [upload, samples, theirs.fileno()]
                # One message, sent whole or not at all, so threads need not take turns.
                socket.send_fds(fork_server.control, [job], descriptors)
        except BaseException:
            ours.close()
            raise
        return ours

    def _word(self, fork_server: ForkServer, answer: socket.socket, client: Client) -> bytes:
        """Wait for what becomes of an upload: a verdict, or how its decoder ended.

        Raises:
            ClientDisconnected, NoDecoder, InvalidRequest: as in `decode`.
        """
        # Shutting our end tells the fork server to end the decoder, and ends our waiting too.
        client.wake(lambda: shut(answer))
        begun = False
        try:
            answer.settimeout(START_S)
            word = answer.recv(WORD_BYTES)
            begun = word == BEGUN
            if begun:
                answer.settimeout(self._timeout_s)
                word = answer.recv(WORD_BYTES)
        except TimeoutError:
            shut(answer)
            if begun:
                raise given_up("time", f"not decoded after {self._timeout_s:g} s") from None
            logger.error("the fork server does not answer; it is ended")
            self._drop(fork_server)
            word = b""
        except OSError:
            word = b""
        finally:
            client.wake(None)
        client.check()
        if word in (b"", UNREADY):
            raise NoDecoder("The upload's decoder was lost. Send the request again.")
        return word


def judge(word: bytes, limits: Limits) -> None:
    """Go on when the upload was decoded; say why not otherwise.

    A decoder may say anything: a hostile upload may have become its program.

    Raises:
        InvalidRequest, TooLarge: as in `Sandbox.decode`.
    """
    if word == Verdict.DECODED.value:
        return
    if word == Verdict.UNDECODABLE.value:
        raise InvalidRequest(UNDECODABLE, param="file")
    if word == Verdict.NO_AUDIO_TRACK.value:
        raise InvalidRequest(NO_AUDIO_TRACK, param="file")
    if word == Verdict.TOO_LONG.value:
        raise limits.too_long()
    if word.startswith(ENDED):
        code = number_of(word.removeprefix(ENDED))
        raise given_up("time" if code == -signal.SIGXCPU else "died", ending(code))
    raise given_up("failed", repr(word.removeprefix(FAILED)))


def given_up(why: str, what_happened: str) -> InvalidRequest:
    """What a client hears whose upload cost its decoder; counted, and logged for the operator."""
    metrics.DECODERS_ENDED.labels(why).inc()
    logger.warning("an upload cost its decoder: %s", what_happened)
    return InvalidRequest(UNDECODABLE, param="file")


def number_of(word: bytes) -> int | None:
    """An exit code as a fork server writes it."""
    try:
        return int(word)
    except ValueError:
        return None


def ending(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0 and -code in set(signal.Signals):
        return f"ended by {signal.Signals(-code).name}"
    return f"exit status {code}"


def readable(file: BinaryIO, size: int) -> int:
    """A descriptor of the upload that can be read only, with a position of its own.

    Raises:
        OSError: the process has no room for it.
    """
    if size > COPY_BYTES:
        with contextlib.suppress(io.UnsupportedOperation):  # it is in memory after all
            return read_only(file.fileno())
    copy = os.memfd_create("upload")
    try:
        file.seek(0)
        while block := file.read(COPY_BYTES):
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(copy, rest) :]
        return read_only(copy)
    finally:
        os.close(copy)


def read_only(descriptor: int) -> int:
    """The same file, opened once more."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def taken(samples: int, limits: Limits) -> np.ndarray:
    """Int16 samples from a descriptor as a waveform; float32 in [-1, 1), shape (n_samples,).

    It may be hours, so it is taken from the end on, and each block is given up as soon as it is
    copied. It is read rather than mapped: a file that shrinks ends a process that has mapped it.
    """
    n_samples = os.fstat(samples).st_size // 2
    limits.check_samples(n_samples)
    waveform = np.empty(n_samples, dtype=np.float32)
    block = np.zeros(min(n_samples, BLOCK_SAMPLES), dtype="<i2")
    for begin in range((n_samples - 1) // BLOCK_SAMPLES * BLOCK_SAMPLES, -1, -BLOCK_SAMPLES):
        size = min(BLOCK_SAMPLES, n_samples - begin)
        os.preadv(samples, [block[:size].data], 2 * begin)
        waveform[begin : begin + size] = block[:size]
        os.ftruncate(samples, 2 * begin)
    waveform *= 1 / 32768  # a power of two: exact
    return waveform


def shut(answer: socket.socket) -> None:
    """Want no more of an upload."""
    with contextlib.suppress(OSError):
        answer.shutdown(socket.SHUT_RDWR)
