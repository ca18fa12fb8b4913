"""Server-sent events as a client reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.support.openai_shapes import assert_shape


@dataclass
class Streamed:
    """The events of one answer."""

    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def deltas(self) -> list[str]:
        return [one["delta"] for one in self.events if one["type"] == "transcript.text.delta"]

    @property
    def last(self) -> dict[str, Any]:
        return self.events[-1]


def read_events(lines: Iterable[str]) -> Streamed:
    """Read a stream to its end; nothing but events may stand in it.

    Source: WHATWG, HTML Living Standard, section 9.2.6.
    """
    read = Streamed()
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            assert name in ("", event["type"])
            read.events.append(event)
        else:
            assert line == "", line
            name = ""
    return read


def assert_whole(read: Streamed) -> None:
    """Deltas, then one `done` whose text they join to, each in OpenAI's shape."""
    for event in read.events[:-1]:
        assert_shape("delta", event)
    assert_shape("done", read.last)
    assert "".join(read.deltas) == read.last["text"]
