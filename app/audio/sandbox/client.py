"""Decode each upload in its own sandboxed process and treat its output as untrusted.

A crash or a hang of the media library fails only the request that uploaded the file. Plain 16 kHz
WAV needs no library and is read in this process.
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

START_S = 15.0  # for a decoder to begin; the fork server itself starts in 0.3 s
STOP_S = 5.0
AGAIN_S = 1.0  # between two starts of a fork server that keeps ending
COPY_BYTES = 2 << 20  # an upload up to this size may be in memory only, so it is copied to a memfd
BLOCK_SAMPLES = 1 << 20
WORD_BYTES = 128  # longer than any message
NOT_STARTED = "No decoder could be started. Send the request again."
# The environment variables a fork server gets; the rest of its worker's holds the clients' keys.
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LANG", "TZ")


class Client(Protocol):
    """The request's cancellation, as far as decoding uses it."""

    def wake(self, callback: Callable[[], None] | None) -> None: ...

    def check(self) -> None: ...


@dataclass(frozen=True)
class ForkServer:
    """A fork server process and the socket that takes its jobs."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def started(cls, arguments: list[str]) -> ForkServer:
        """Start a fork server; jobs sent before it is ready wait in the socket.

        Raises:
            OSError: the process cannot be started.
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
        environment = {name: value for name, value in os.environ.items() if name in ENVIRONMENT}
        with theirs:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment
                    | {"OPENBLAS_NUM_THREADS": "1"},  # threads do not survive a fork
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                ours.close()
                raise
        return cls(process, ours)

    def stop(self) -> None:
        """End the fork server and all its decoders. Idempotent."""
        self.control.close()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Sandbox:
    """The decoder of one worker's uploads.

    Any number of request threads may call `decode` concurrently: each call has its own decoder, so
    a long file delays no other, and slots bound their number. `start` and `close` are
    called once per process. The lock guards `_fork_server` and `_next_start`.

    Args:
        limits: the limits of an upload.
        timeout_s: the longest time an upload may be decoded.
        logging_as: worker, level and format of the fork server's own log.
    """

    def __init__(self, limits: Limits, timeout_s: float, logging_as: tuple[int, str, str]) -> None:
        self._limits = limits
        self._timeout_s = timeout_s
        self._arguments = [str(argument) for argument in logging_as]
        self._lock = threading.Lock()
        self._fork_server: ForkServer | None = None
        self._next_start = 0.0

    @classmethod
    def of(cls, config: Config) -> Sandbox:
        """Return the sandbox that the settings describe."""
        logging_as = (config.worker_id, config.log_level, config.log_format)
        return cls(Limits.of(config), config.decode_timeout_s, logging_as)

    def start(self) -> None:
        """Start the fork server, so that the first upload does not wait for it."""
        with contextlib.suppress(NoDecoder):  # logged; the next upload tries again
            self._living()

    def close(self) -> None:
        """End the fork server and its decoders; garbage collection of the sandbox does the same."""
        with self._lock:
            fork_server, self._fork_server = self._fork_server, None
        if fork_server is not None:
            fork_server.stop()

    def decode(self, file: BinaryIO, client: Client) -> np.ndarray:
        """Return the upload's waveform, bit-identical to that of `app.audio.decode.decode`.

        Args:
            file: the upload, seekable.
            client: the request's cancellation; decoding ends when the client disconnects.

        Returns:
            float32 in [-1, 1], shape (n_samples,), mono 16 kHz.

        Raises:
            InvalidRequest: it cannot be decoded, exceeds the timeout, or crashed its decoder.
            TooLarge: the audio is longer than the limit.
            ClientDisconnected: the client disconnected.
            NoDecoder: no decoder could be started.
        """
        size = file.seek(0, 2)
        if size == 0:
            raise InvalidRequest(EMPTY, param="file")
        waveform = read_plain_wav(file, self._limits)
        if waveform is not None:
            return waveform
        fork_server = self._living()
        with contextlib.ExitStack() as stack:
            try:
                upload = readable(file, size)
                stack.callback(os.close, upload)
                samples = os.memfd_create("samples")
                stack.callback(os.close, samples)
                result_socket = self._sent(fork_server, upload, samples)
                stack.callback(result_socket.close)
            except OSError as error:
                logger.error("passing an upload to a decoder failed: %s", error)
                raise NoDecoder(NOT_STARTED) from None
            judge(self._word(fork_server, result_socket, client), self._limits)
            return taken(samples, self._limits)

    def _living(self) -> ForkServer:
        """Return the running fork server; start a new one if the last has ended.

        Raises:
            NoDecoder: the fork server cannot be started.
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
                logger.error("starting the fork server failed: %s", error)
                raise NoDecoder(NOT_STARTED) from None
            weakref.finalize(self, self._fork_server.stop)
            return self._fork_server

    def _drop(self, fork_server: ForkServer) -> None:
        """Stop a fork server that does not answer."""
        with self._lock:
            if self._fork_server is fork_server:
                self._fork_server = None
        fork_server.stop()

    def _sent(self, fork_server: ForkServer, upload: int, samples: int) -> socket.socket:
        """Send an upload to the fork server and return the result socket.

        Raises:
            OSError: the fork server does not accept the job.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                job = JOB.pack(self._limits.duration_s, self._timeout_s)
                descriptors = [upload, samples, theirs.fileno()]
                # One message is sent whole or not at all, so threads need no lock.
                socket.send_fds(fork_server.control, [job], descriptors)
        except BaseException:
            ours.close()
            raise
        return ours

    def _word(self, fork_server: ForkServer, result_socket: socket.socket, client: Client) -> bytes:
        """Wait for an upload's result and return it: a verdict, or how its decoder ended.

        Raises:
            ClientDisconnected, NoDecoder, InvalidRequest: as in `decode`.
        """
        # Shutting down our end makes the fork server kill the decoder, and ends our wait.
        client.wake(lambda: shut(result_socket))
        begun = False
        try:
            result_socket.settimeout(START_S)
            word = result_socket.recv(WORD_BYTES)
            begun = word == BEGUN
            if begun:
                result_socket.settimeout(self._timeout_s)
                word = result_socket.recv(WORD_BYTES)
        except TimeoutError:
            shut(result_socket)
            if begun:
                raise given_up("time", f"not decoded after {self._timeout_s:g} s") from None
            logger.error("the fork server does not answer; stopping it")
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
    """Return when the upload was decoded; raise the client's error otherwise.

    The message is untrusted: a hostile upload may have taken over its decoder.

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
    """Count and log a failed decoder, and return the error for its client."""
    metrics.DECODERS_ENDED.labels(why).inc()
    logger.warning("an upload cost its decoder: %s", what_happened)
    return InvalidRequest(UNDECODABLE, param="file")


def number_of(word: bytes) -> int | None:
    """Parse an exit code from the fork server's message."""
    try:
        return int(word)
    except ValueError:
        return None


def ending(code: int | None) -> str:
    """Return an exit code in words."""
    if code is not None and code < 0 and -code in set(signal.Signals):
        return f"ended by {signal.Signals(-code).name}"
    return f"exit status {code}"


def readable(file: BinaryIO, size: int) -> int:
    """Return a read-only descriptor of the upload with its own file position.

    Raises:
        OSError: out of descriptors or memory.
    """
    if size > COPY_BYTES:
        with contextlib.suppress(io.UnsupportedOperation):  # it is in memory only
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
    """Reopen the file read-only."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def taken(samples: int, limits: Limits) -> np.ndarray:
    """Return a descriptor's int16 samples as a waveform, float32 in [-1, 1), shape (n_samples,).

    The file may hold hours, so it is read from its end and truncated after each block to free
    memory. It is not mapped: reading a mapped file that shrinks kills the process (SIGBUS).
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


def shut(result_socket: socket.socket) -> None:
    """Shut the socket down to cancel its upload."""
    with contextlib.suppress(OSError):
        result_socket.shutdown(socket.SHUT_RDWR)
