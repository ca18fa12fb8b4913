"""Streams through the whole service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.event_stream import Streamed, assert_whole, read_events
from tests.support.http import HTTP
from tests.support.recordings import long_recording, recording, wav
from tests.support.stack import Stack

AUSTEN = recording("austen_0890.wav").path.read_bytes()
STREAM = {"stream": "true"}


@contextmanager
def streaming(url: str, content: bytes) -> Iterator[Iterator[str]]:
    """Send a request for a stream; give the answer's lines as they come over the socket."""
    with HTTP.stream(
        "POST",
        url + TRANSCRIPTIONS,
        data={"model": "whisper-1"} | STREAM,
        files={"file": ("recording", content)},
        timeout=240,
    ) as answer:
        assert answer.status_code == 200, answer.read()
        yield answer.iter_lines()


def post_stream(url: str, content: bytes) -> Streamed:
    """Return the events of a stream."""
    with streaming(url, content) as lines:
        return read_events(lines)


class TestThroughTheBalancer:
    @pytest.mark.slow
    def test_text_begins_before_most_of_the_recording_is_encoded(self, stack: Stack):
        content = wav(long_recording(120).samples)

        def encoded() -> float:
            windows = "transcription_windows_encoded_total"
            return sum(stack.metric(number, windows) for number in (1, 2))

        before = encoded()
        with streaming(stack.url, content) as lines:
            first = next(lines)
            at_first = encoded() - before
            read = read_events(chain([first], lines))
        in_all = encoded() - before

        assert_whole(read)
        assert at_first <= in_all / 2, (at_first, in_all)
        plain = HTTP.post(
            stack.url + TRANSCRIPTIONS,
            data={"model": "whisper-1", "response_format": "json"},
            files={"file": ("recording", content)},
            timeout=240,
        )
        assert read.last["text"] == plain.json()["text"]

    @pytest.mark.slow
    @pytest.mark.alone
    def test_two_dozen_at_once(self, tmp_path):
        answers: list[Streamed] = []
        inside: set[float] = set()
        with Stack.started(tmp_path, WORKERS="2", MAX_CONCURRENT_TRANSCRIPTIONS="12") as wide:
            threads = [
                threading.Thread(target=lambda: answers.append(post_stream(wide.url, AUSTEN)))
                for _ in range(24)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                inside.add(sum(wide.metric(n, "transcription_slots_in_use") for n in (1, 2)))
                time.sleep(0.1)
            left = sum(wide.metric(n, "transcription_slots_in_use") for n in (1, 2))

        assert len(answers) == 24
        assert max(inside) >= 18, "they were there at the same time"
        assert left == 0
        for read in answers:
            assert_whole(read)
        assert len({read.last["text"] for read in answers}) == 1
