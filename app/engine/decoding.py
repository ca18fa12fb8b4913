"""Iterate over the segments of one job as they are decoded, and keep its transcript."""

from __future__ import annotations

from collections.abc import Callable, Generator

from app.engine.results import Segment, Transcript


class Decoding:
    """Segments of one job, each as soon as it is decoded, then its transcript.

    Only the request's thread uses it. Iterating decodes; `close` stops before the next call.

    Args:
        segments: yields the segments and returns the transcript.

    Attributes:
        transcript: None until the last segment has been yielded.
        on_success: called once all is decoded.
        translate: returns the error to raise for one that decoding raised.
    """

    def __init__(self, segments: Generator[Segment, None, Transcript]) -> None:
        self._segments = segments
        self.transcript: Transcript | None = None
        self.on_success: Callable[[], None] = lambda: None
        self.translate: Callable[[Exception], Exception] = lambda error: error

    def __iter__(self) -> Decoding:
        return self

    def __next__(self) -> Segment:
        try:
            return next(self._segments)
        except StopIteration as end:
            if self.transcript is None:
                self.transcript = end.value
                self.on_success()
            raise StopIteration from None
        except Exception as error:
            raise self.translate(error) from None

    def result(self) -> Transcript:
        """Decode what is left and return the transcript."""
        for _ in self:
            pass
        assert self.transcript is not None
        return self.transcript

    def close(self) -> None:
        """Stop decoding."""
        self._segments.close()
