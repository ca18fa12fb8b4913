"""Stream a response as server-sent events, one for each segment as it is decoded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain

from app.api.recorder import Recorder
from app.engine.decoding import Decoding
from app.errors import BUG, ClientDisconnected, ServiceError
from app.formats import Deltas, delta_event, done_event, error_event

logger = logging.getLogger(__name__)


class EventStream:
    """Events of one response, iterated by the WSGI server on the request's thread.

    The constructor produces the first event, so that errors up to then are raised here and get a
    status of their own. A later error becomes the last event. The server always calls `close`,
    when all is sent or the client has disconnected; that ends the work.

    Args:
        decoding: Decodes one segment for each iteration.
        in_full: Whether the events hold all of `verbose_json`.
        record: The request's record, finished when the stream ends.
        held: What the request holds while it is decoded; taken over once the stream has begun.

    Raises:
        ServiceError: The request failed before its first event.
    """

    def __init__(
        self, decoding: Decoding, in_full: bool, record: Recorder, held: ExitStack
    ) -> None:
        following = events(decoding, in_full)
        self._events = chain([next(following)], following)
        self._decoding = decoding
        self._record = record
        self._held = held.pop_all()
        self._ended = False

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> bytes:
        try:
            event = next(self._events)
        except StopIteration:
            raise
        except ServiceError as error:
            return self._fail(error)
        except Exception:
            logger.exception("unhandled exception in a stream")
            return self._fail(BUG)
        if self._decoding.transcript is not None:
            self._end()
        return event

    def close(self) -> None:
        """End the remaining work of a stream whose client has left."""
        if not self._ended:
            self._record.failed(ClientDisconnected("The client left its stream."))
            self._end()

    def _fail(self, error: ServiceError) -> bytes:
        self._record.failed(error)
        self._end()
        return error_event(error.body())

    def _end(self) -> None:
        self._ended = True
        try:
            self._held.close()
        finally:
            self._record.finish(200)


def events(decoding: Decoding, in_full: bool) -> Iterator[bytes]:
    """Yield the bytes of each event, in order."""
    deltas = Deltas()
    for segment in decoding:
        if delta := deltas.after(segment):
            yield delta_event(delta, segment, in_full)
    yield done_event(decoding.result(), in_full)
