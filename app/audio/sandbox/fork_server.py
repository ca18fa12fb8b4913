"""Fork a decoder process for each upload: `python -m app.audio.sandbox.fork_server`.

The fork server loads the media library and nothing else: no model, no key, no other client's
audio. Each decoder gets one upload, so no request's data reaches the next. One decoder is forked
in advance, which spares a request the fork.

    worker --- job: limits, upload, samples, result socket ---> fork server --- job ---> decoder
    worker <--- result socket: BEGUN, or ENDED and the exit code --- fork server             |
    worker <--- result socket: the verdict; the samples are in `samples` --------------------+

Each upload has its own result socket. When a worker shuts its end down (the time is up, the client
has disconnected, the worker has ended), the decoder is killed. The fork server and its decoders
end with their worker.
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
LULL_MS = 20  # without events before the next decoder is forked, so that no request shares a core
ENDED = b"ended"  # followed by the exit code; below 0: the signal


class ForkServer:
    """The parent of the decoders. It has one thread and never reads an upload itself.

    Args:
        control: the socket that receives jobs.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._result_sockets: dict[int, socket.socket] = {}  # by process id
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
        gc.freeze()  # otherwise each decoder's first collection copies every page
        self._memory_bytes = confinement.address_space() + confinement.MEMORY_BYTES
        confinement.go_first()
        self._filter_calls = confine()

    def serve(self) -> None:
        """Accept jobs until the worker has ended."""
        own = {self._control.fileno(), self._deaths.fileno()}
        self._prepare()
        while True:
            happened = {number for number, _ in self._poll.poll(None if self._spare else LULL_MS)}
            if not happened:
                self._prepare()
            # Result sockets first: the steps below close some, whose numbers may be reused.
            for number in happened - own:
                self._kill(number)
            if self._control.fileno() in happened and not self._take():
                return
            if self._deaths.fileno() in happened:
                self._deaths.recv(4096)
                self._reap()

    def _prepare(self) -> None:
        """Fork the decoder for the next upload; if that fails, the upload tries again."""
        with contextlib.suppress(OSError):
            self._spare = self._forked()

    def _forked(self) -> Decoder:
        return Decoder.forked(self._memory_bytes, self._filter_calls)

    def _take(self) -> bool:
        """Begin a job; return False when the worker has closed the socket."""
        try:
            job, descriptors, _, _ = socket.recv_fds(self._control, JOB.size, N_DESCRIPTORS)
        except OSError:
            return False
        if len(descriptors) < N_DESCRIPTORS:
            return False
        result_socket = socket.socket(fileno=descriptors[-1])
        try:
            decoder = self._sent(job, descriptors)
        except OSError as error:
            logger.error("forking a decoder failed: %s", error)
            result_socket.close()
        else:
            self._result_sockets[decoder.pid] = result_socket
            self._poll.register(result_socket, 0)  # hang-ups only
            tell(result_socket, BEGUN)
        for descriptor in descriptors[:-1]:
            os.close(descriptor)
        return True

    def _sent(self, job: bytes, descriptors: list[int]) -> Decoder:
        """Send a job to the spare decoder, or to a new one if that has died, and return it."""
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(OSError):
                spare.send(job, descriptors)
                return spare
        decoder = self._forked()
        decoder.send(job, descriptors)
        return decoder

    def _reap(self) -> None:
        """Report the exit code of each ended decoder to its worker."""
        with contextlib.suppress(ChildProcessError):
            while (child := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = child
                if self._spare is not None and self._spare.pid == pid:
                    self._spare.command_socket.close()
                    self._spare = None
                result_socket = self._result_sockets.pop(pid, None)
                if result_socket is None:
                    continue
                with contextlib.suppress(KeyError):  # `_kill` has unregistered it
                    self._poll.unregister(result_socket)
                tell(result_socket, b"%s %d" % (ENDED, os.waitstatus_to_exitcode(status)))
                result_socket.close()

    def _kill(self, number: int) -> None:
        """Kill the decoder whose result socket the worker has shut down."""
        for pid, result_socket in self._result_sockets.items():
            if result_socket.fileno() == number:
                self._poll.unregister(result_socket)  # or poll reports it until it is reaped
                os.kill(pid, signal.SIGKILL)


def tell(result_socket: socket.socket, word: bytes) -> None:
    """Send a message to a worker, which may have shut the socket down."""
    with contextlib.suppress(OSError):
        result_socket.send(word, socket.MSG_DONTWAIT)


def confine() -> Callable[[], None]:
    """Apply the layers that cover the fork server too, and log those that the kernel refuses.

    Returns:
        A function that installs the seccomp filter on a decoder.
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
    """Return the filter after a forked process has installed it successfully.

    Raises:
        Refused: the kernel rejects the filter.
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
    # Stop signals are for the workers; this process ends when its worker does.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ForkServer(socket.socket(fileno=int(descriptor))).serve()
    signal.set_wakeup_fd(-1)  # decoders that end now need not be reaped


if __name__ == "__main__":
    main()
