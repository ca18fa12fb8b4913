"""A small process that forks a decoder for each upload: `python -m app.audio.sandbox.fork_server`.

It holds the media library and nothing else: no model, no key, no other client's audio. Each
decoder gets one upload, so nothing of one request is there for the next. One is forked ahead and
waits, which saves a request the fork.

    worker --- job: limits, upload, samples, answer ---> fork server --- the same ---> decoder
    worker <--- answer: BEGUN, ENDED and how -------------- fork server                      |
    worker <--- answer: a verdict; the samples are in `samples` -------------------------+

`answer` is a socket for one upload. A worker that shuts its end wants no more of it (time is up,
the client has left, the worker is gone), and the decoder is killed. The fork server ends when its
worker does, and its decoders with it.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from app.audio.sandbox import confinement
from app.audio.sandbox.child import JOB, N_DESCRIPTORS, Decoder, warm_up
from app.observability import log

logger = logging.getLogger(__name__)

BEGUN = b"begun"
LULL_MS = 20  # without events; then the next decoder is forked, so that no request shares a core
ENDED = b"ended"  # and the exit code; below 0: the signal


class ForkServer:
    """Forks decoders and sees to their end. One thread; it never reads an upload itself.

    Args:
        control: where jobs come from.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._answers: dict[int, socket.socket] = {}  # decoder -> its worker's ear
        self._spare: Decoder | None = None
        self._deaths, self._wakeup = socket.socketpair()
        self._deaths.setblocking(False)
        self._wakeup.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._deaths, select.POLLIN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        warm_up()
        gc.collect()
        gc.freeze()  # or each decoder's first collection copies every page
        self._memory_bytes = confinement.address_space() + confinement.MEMORY_BYTES
        confinement.go_first()
        self._filter_calls = confine()

    def serve(self) -> None:
        """Take jobs until the worker is gone."""
        own = {self._control.fileno(), self._deaths.fileno()}
        self._prepare()
        while True:
            happened = {number for number, _ in self._poll.poll(None if self._spare else LULL_MS)}
            if not happened:
                self._prepare()
            # Ears first: those below close some, whose numbers may come back as others'.
            for number in happened - own:
                self._kill(number)
            if self._control.fileno() in happened and not self._take():
                return
            if self._deaths.fileno() in happened:
                self._deaths.recv(4096)
                self._reap()

    def _prepare(self) -> None:
        """Have a decoder for the next upload; where none can be forked, that one tries again."""
        with contextlib.suppress(OSError):
            self._spare = self._forked()

    def _forked(self) -> Decoder:
        return Decoder.forked(self._memory_bytes, self._filter_calls)

    def _take(self) -> bool:
        """Begin an job; False: there will be none any more."""
        try:
            job, descriptors, _, _ = socket.recv_fds(self._control, JOB.size, N_DESCRIPTORS)
        except OSError:
            return False
        if len(descriptors) < N_DESCRIPTORS:
            return False
        ear = socket.socket(fileno=descriptors[-1])
        try:
            decoder = self._sent(job, descriptors)
        except OSError as error:
            logger.error("no decoder can be forked: %s", error)
            ear.close()
        else:
            self._answers[decoder.pid] = ear
            self._poll.register(ear, 0)  # its end only
            tell(ear, BEGUN)
        for descriptor in descriptors[:-1]:
            os.close(descriptor)
        return True

    def _sent(self, job: bytes, descriptors: list[int]) -> Decoder:
        """The decoder that has got an job: the one that waits, or a new one if that is dead."""
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(OSError):
                spare.send(job, descriptors)
                return spare
        decoder = self._forked()
        decoder.send(job, descriptors)
        return decoder

    def _reap(self) -> None:
        """Tell how decoders ended."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                if self._spare is not None and self._spare.pid == pid:
                    self._spare.command_socket.close()
                    self._spare = None
                ear = self._answers.pop(pid, None)
                if ear is None:
                    continue
                with contextlib.suppress(KeyError):  # it was killed
                    self._poll.unregister(ear)
                tell(ear, b"%s %d" % (ENDED, os.waitstatus_to_exitcode(status)))
                ear.close()

    def _kill(self, number: int) -> None:
        """Nobody waits for this decoder any more."""
        for pid, ear in self._answers.items():
            if ear.fileno() == number:
                self._poll.unregister(ear)  # or it would be told again until it is reaped
                os.kill(pid, signal.SIGKILL)


def tell(ear: socket.socket, word: bytes) -> None:
    """Say something to a worker, who may not listen any more."""
    with contextlib.suppress(OSError):
        ear.send(word, socket.MSG_DONTWAIT)


def confine() -> Callable[[], None]:
    """Put on the layers that hold for the fork server too, and say which ones the kernel refuses.

    Returns:
        Puts the filter of system calls on a decoder.
    """
    holding = ["limits"]

    def try_on(name: str, layer: Callable[[], object]) -> None:
        try:
            layer()
            holding.append(name)
        except OSError as error:
            logger.warning("decoders run without %s: %s", name, error.strerror or error)

    def no_filter() -> None:
        pass

    filters: list[Callable[[], None]] = [no_filter]
    try_on("no new privileges", confinement.give_up_privileges)
    try_on("seccomp", lambda: filters.append(proven(confinement.filter_of_calls())))
    try_on("Landlock", confinement.close_the_files)
    logger.info("decoders are confined by %s", ", ".join(holding))
    return filters[-1]


def proven(apply: Callable[[], None]) -> Callable[[], None]:
    """A filter that the kernel takes, which a forked process has tried.

    Raises:
        Refused: it does not.
    """
    pid = os.fork()
    if pid == 0:
        try:
            apply()
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    if number := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise confinement.Refused(number, os.strerror(abs(number)))
    return apply


def main() -> None:
    descriptor, worker_id, level, form = sys.argv[1:]
    log.configure(int(worker_id), level, form)
    # It is the workers that are told to stop; this process goes when its worker does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ForkServer(socket.socket(fileno=int(descriptor))).serve()
    signal.set_wakeup_fd(-1)  # decoders that end now need no one


if __name__ == "__main__":
    main()
