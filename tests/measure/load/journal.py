"""What the users of a load test did, one JSON line for each event, written while it happens.

The users run in locust's process and the report is made in another one; this file is all that
passes between them. Times are `time.monotonic()`, which is one clock for all processes of a
machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

REFUSALS = (429, 503)  # statuses that mean: not now, send it again
OUTCOMES = ("ok", "refused", "left", "error")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request.

    Args:
        user: who sent it: `window`, `meeting` or `deferred`.
        began_s: when.
        elapsed_s: until the last byte of its answer, or until its client gave up.
        status: the answer's; 0: there was none.
        audio_s: seconds of audio sent.
        left: whether the client gave up waiting.
        attempt: 1 for the first time that this window was sent.
        note: what went wrong, in a word; empty: nothing.
    """

    user: str
    began_s: float
    elapsed_s: float
    status: int
    audio_s: float
    left: bool = False
    attempt: int = 1
    note: str = ""

    @property
    def ended_s(self) -> float:
        return self.began_s + self.elapsed_s

    @property
    def outcome(self) -> str:
        """`ok`, `refused` (told to come again), `left` (the client gave up) or `error`."""
        if self.left:
            return "left"
        if self.status == 200:
            return "error" if self.note else "ok"
        return "refused" if self.status in REFUSALS else "error"


@dataclass(frozen=True, slots=True)
class Caption:
    """One window of a meeting, with all its attempts: the text for what was newly said, or none.

    Args:
        said_from_s, said_to_s: when the speech was said that this window is the first to have.
        text_s: when its text was there; None: the window was lost.
        attempts: how often it was sent.
        dropped_s: seconds of speech given up because the window would have grown over its limit.
    """

    said_from_s: float
    said_to_s: float
    text_s: float | None
    attempts: int
    dropped_s: float = 0.0


@dataclass
class Journal:
    """All that happened in one run.

    Args:
        started_s, stopped_s: between these all users were there; None: not written yet.
    """

    calls: list[Call] = field(default_factory=list)
    captions: list[Caption] = field(default_factory=list)
    started_s: float | None = None
    stopped_s: float | None = None

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read the journal that a run wrote."""
        found = cls()
        for line in lines(path):
            match line:
                case {"call": call}:
                    found.calls.append(Call(**call))
                case {"caption": caption}:
                    found.captions.append(Caption(**caption))
                case {"started_s": at}:
                    found.started_s = at
                case {"stopped_s": at}:
                    found.stopped_s = at
        return found

    @property
    def offered_s(self) -> float:
        """Return how long all users were there, in seconds of wall time."""
        assert self.started_s is not None, "The run never had all its users."
        assert self.stopped_s is not None, "The run was never stopped."
        return self.stopped_s - self.started_s

    @property
    def span_s(self) -> float:
        """From the first request's beginning to the last one's end, seconds of wall time."""
        assert self.calls, "Nothing was sent."
        began = min(call.began_s for call in self.calls)
        return max(call.ended_s for call in self.calls) - began


def lines(path: Path) -> Iterator[dict[str, object]]:
    """A file's JSON objects."""
    with path.open() as written:
        for line in written:
            yield json.loads(line)


class Writer:
    """Writes a journal; every event is in the file when its method returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("w", buffering=1)

    def call(self, call: Call) -> None:
        self._write({"call": asdict(call)})

    def caption(self, caption: Caption) -> None:
        self._write({"caption": asdict(caption)})

    def started(self, at_s: float) -> None:
        self._write({"started_s": at_s})

    def stopped(self, at_s: float) -> None:
        self._write({"stopped_s": at_s})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps(line) + "\n")
