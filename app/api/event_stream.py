"""A streamed answer: server-sent events, one for each segment as it is decoded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator

from app.engine.results import Segment, Transcript
from app.errors import EngineFailed, ServiceError
from app.formats import Deltas, delta_event, done_event, error_event

logger = logging.getLogger(__name__)

BUG = EngineFailed("The service failed; this is a bug.")


class EventStream:
    """The events of one answer, as WSGI's server draws them on the request's thread.

    The first event is drawn at once, so that what is wrong until then is raised here, and becomes
    an answer with a status of its own. What goes wrong later is an event, the last one. The server
    calls `close` in any case, when all is sent or the client has left; that ends the work.

    Args:
        segments: decodes as it is drawn.
        in_full: the events say all that `verbose_json` does.

    Raises:
        ServiceError: what a plain answer would have been refused for.
    """

    def __init__(self, segments: Generator[Segment, None, Transcript], in_full: bool) -> None:
        self._segments = segments
        self._events = events(segments, in_full)
        self._first: bytes | None = next(self._events)
        self._closed: list[Callable[[], None]] = []
        self.status = 200  # of the whole answer: that of an error event, where it ends in one

    def when_closed(self, call: Callable[[], None]) -> None:
        """Have this called once, when the answer has ended."""
        self._closed.append(call)

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return next(self._events)
        except (StopIteration, ServiceError) as end:
            if isinstance(end, ServiceError):
                self.status = end.status
                return error_event(end.body())
            raise
        except Exception:
            logger.exception("unforeseen, in the middle of a stream")
            self.status = BUG.status
            return error_event(BUG.body())

    def close(self) -> None:
        """End the work, whatever there is left of it."""
        try:
            self._events.close()
            self._segments.close()
        finally:
            closed, self._closed = self._closed, []
            for call in closed:
                call()


def events(
    segments: Generator[Segment, None, Transcript], in_full: bool
) -> Generator[bytes, None, None]:
    """The events' bytes, in order."""
    deltas = Deltas()
    while True:
        try:
            segment = next(segments)
        except StopIteration as end:
            yield done_event(end.value, in_full)
            return
        if delta := deltas.after(segment):
            yield delta_event(delta, segment, in_full)
