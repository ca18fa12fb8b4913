"""Decode one upload in a forked process: wait for the job, drop all rights, decode, exit."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, NoReturn

from app.audio.decode import NO_AUDIO_TRACK, pcm
from app.audio.limits import Limits
from app.audio.sandbox import confinement
from app.errors import InvalidRequest, TooLarge
from app.process import die_with_parent

JOB = struct.Struct("=dd")  # limits: seconds of audio, seconds of CPU time
N_DESCRIPTORS = 3  # sent with a job: the upload, the sample file, the result socket
UNREADY = b"unready"  # confinement failed; the upload was not read
FAILED = b"failed"  # followed by the name of an unhandled exception
MOST_DESCRIPTORS = 1 << 16


class Verdict(Enum):
    """Result of decoding an upload."""

    DECODED = b"decoded"
    UNDECODABLE = b"undecodable"
    NO_AUDIO_TRACK = b"no audio track"
    TOO_LONG = b"too long"


@dataclass(frozen=True)
class Decoder:
    """A forked decoder process that waits for one job, as its parent sees it.

    Attributes:
        pid: process id; the parent has to reap it.
        command_socket: where the job is sent.
    """

    pid: int
    command_socket: socket.socket

    @classmethod
    def forked(cls, memory_bytes: int, filter_calls: Callable[[], None]) -> Decoder:
        """Fork a decoder from this process, which has one thread and has warmed up.

        Args:
            memory_bytes: the decoder's address space limit.
            filter_calls: installs the seccomp filter on the calling process.

        Raises:
            OSError: fork failed.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        with theirs:
            pid = os.fork()
            if pid == 0:
                become_decoder(parent, theirs, memory_bytes, filter_calls)
        return cls(pid, ours)

    def send(self, job: bytes, descriptors: list[int]) -> None:
        """Send the job; a decoder takes only one.

        Raises:
            OSError: the decoder has ended.
        """
        with self.command_socket:
            socket.send_fds(self.command_socket, [job], descriptors)


def become_decoder(
    parent: int, command_socket: socket.socket, memory_bytes: int, filter_calls: Callable[[], None]
) -> NoReturn:
    """Run the forked process: wait for a job, drop all rights, decode, exit."""
    try:
        die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        leave_open(command_socket.fileno())
        warm_up()  # copies the pages that decoding writes to before a job arrives
        job, descriptors, _, _ = socket.recv_fds(command_socket, JOB.size, N_DESCRIPTORS)
        if len(job) < JOB.size or len(descriptors) < N_DESCRIPTORS:
            os._exit(0)  # the fork server has closed the socket
        command_socket.close()
        duration_s, cpu_s = JOB.unpack(job)
        upload, samples, result_socket = descriptors
        limits = Limits(0, duration_s)
        with open(upload, "rb", buffering=0) as file:
            try:
                confinement.limit(math.ceil(cpu_s), 2 * limits.samples, memory_bytes)
                filter_calls()
            except OSError:
                os.write(result_socket, UNREADY)
            else:
                os.write(result_socket, verdict(file, samples, limits))
    finally:
        os._exit(0)


def verdict(file: io.FileIO, samples: int, limits: Limits) -> bytes:
    """Write an upload's samples to a descriptor and return the message for the worker."""
    try:
        return decode(file, samples, limits).value
    except MemoryError:
        return Verdict.UNDECODABLE.value
    except BaseException as error:  # reported to the worker, whatever it is
        return FAILED + b" " + type(error).__name__.encode()[:64]


def decode(file: BinaryIO | io.FileIO, samples: int, limits: Limits) -> Verdict:
    """Write an upload's samples, int16 mono 16 kHz, to a descriptor."""
    try:
        for part in pcm(file, limits):
            rest = memoryview(part.data).cast("B")
            while rest:
                rest = rest[os.write(samples, rest) :]
    except TooLarge:
        return Verdict.TOO_LONG
    except InvalidRequest as error:
        no_track = error.message == NO_AUDIO_TRACK
        return Verdict.NO_AUDIO_TRACK if no_track else Verdict.UNDECODABLE
    return Verdict.DECODED


def leave_open(descriptor: int) -> None:
    """Close every descriptor except this one, and point the standard ones at /dev/null."""
    for standard in (1, 2):
        os.dup2(0, standard)  # the fork server's stdin is /dev/null
    for low, high in itertools.pairwise((2, descriptor, MOST_DESCRIPTORS)):
        os.closerange(low + 1, high)


def warm_up() -> None:
    """Load everything that decoding needs, since a confined decoder cannot open files.

    Decodes five samples of A-law at 8 kHz, and an invalid file.
    """
    form = struct.pack("<HHIIHH", 6, 1, 8000, 8000, 1, 8)
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data\5\0\0\0"
    for content in (b"RIFF" + struct.pack("<I", len(head) + 5) + head + bytes(5), b"nothing"):
        with contextlib.suppress(InvalidRequest):
            list(pcm(io.BytesIO(content), Limits(0, 1)))
