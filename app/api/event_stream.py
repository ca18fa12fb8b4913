"""Stream a response as server-sent events, one for each segment as it is decoded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator

from app.engine.results import Segment, Transcript
from app.errors import EngineFailed, ServiceError
from app.formats import Deltas, delta_event, done_event, error_event

logger = logging.getLogger(__name__)

BUG = EngineFailed("The service failed; this is a bug.")


class EventStream:
    """Events of one response, iterated by the WSGI server on the request's thread.

    The constructor produces the first event, so that errors up to then are raised here and get a
    status of their own. A later error becomes the last event. The server always calls `close`,
    when all is sent or the client has disconnected; that ends the work.

    Args:
        segments: Decodes one segment for each iteration.
        in_full: Whether the events hold all of `verbose_json`.

    Raises:
        ServiceError: The request failed before its first event.
    """

    def __init__(self, segments: Generator[Segment, None, Transcript], in_full: bool) -> None:
        self._segments = segments
        self._events = events(segments, in_full)
        self._first: bytes | None = next(self._events)
        self._closed: list[Callable[[], None]] = []
        self.status = 200  # of the whole response, which an error event may end

    def when_closed(self, call: Callable[[], None]) -> None:
        """Register a callback to run once, when the response has ended."""
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
            logger.exception("unhandled exception in a stream")
            self.status = BUG.status
            return error_event(BUG.body())

    def close(self) -> None:
        """End the remaining work and run the callbacks."""
        try:
            self._events.close()
            self._segments.close()
        finally:
            calls, self._closed = self._closed, []
            for call in calls:
                call()


def events(
    segments: Generator[Segment, None, Transcript], in_full: bool
) -> Generator[bytes, None, None]:
    """Yield the bytes of each event, in order."""
    deltas = Deltas()
    while True:
        try:
            segment = next(segments)
        except StopIteration as end:
            yield done_event(end.value, in_full)
            return
        if delta := deltas.after(segment):
            yield delta_event(delta, segment, in_full)
