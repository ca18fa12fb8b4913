"""A connection on which a test sends what no client library would, and hears all that comes."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass

QUIET_S = 0.15  # nothing more for so long after an answer: there is no other one
HEAD = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n(.*?)\r\n\r\n", re.DOTALL)
LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")


@dataclass(frozen=True)
class Heard:
    """All that came back on one connection."""

    raw: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """One for each answer, in order."""
        found, rest = [], self.raw
        while head := HEAD.match(rest):
            length = LENGTH.search(head[2])
            found.append(int(head[1]))
            rest = rest[head.end() + (int(length[1]) if length else 0) :]
        return found

    @property
    def headers(self) -> dict[str, str]:
        """Those of the first answer, by their names in small letters."""
        head = HEAD.match(self.raw)
        lines = head[2].decode("latin-1").split("\r\n") if head else []
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        """Of the first answer, and what follows it."""
        head = HEAD.match(self.raw)
        return self.raw[head.end() :] if head else b""


class Wire:
    """A raw connection to the loopback address; a context manager."""

    def __init__(self, port: int, patience_s: float = 5.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=patience_s)
        self._patience_s = patience_s

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *failure: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Return whether it went out: a server that refuses may have closed already."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def hear(self, patience_s: float | None = None) -> Heard:
        """Read until the server closes, or has been quiet for a while after an answer."""
        raw, closed = bytearray(), False
        deadline = time.monotonic() + (patience_s or self._patience_s)
        with contextlib.suppress(TimeoutError):
            while (left_s := deadline - time.monotonic()) > 0:
                self.socket.settimeout(min(left_s, QUIET_S) if raw else left_s)
                try:
                    piece = self.socket.recv(65536)
                except ConnectionError:
                    piece = b""
                if not piece:
                    closed = True
                    break
                raw += piece
        return Heard(bytes(raw), closed)


def exchange(port: int, data: bytes, patience_s: float = 5.0) -> Heard:
    """Send this on a connection of its own, and hear what comes."""
    with Wire(port, patience_s) as wire:
        wire.send(data)
        return wire.hear()
