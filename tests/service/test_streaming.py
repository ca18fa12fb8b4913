"""Streams through the whole service."""

from __future__ import annotations

import threading
import time

import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.event_stream import Streamed, assert_whole, read_events
from tests.support.http import HTTP
from tests.support.recordings import long_recording, recording, wav
from tests.support.stack import Stack

AUSTEN = recording("austen_0890.wav").path.read_bytes()
STREAM = {"stream": "true"}


def post_stream(url: str, content: bytes, **fields: str) -> Streamed:
    """The events as they come over a socket."""
    with HTTP.stream(
        "POST",
        url + TRANSCRIPTIONS,
        data={"model": "whisper-1"} | STREAM | fields,
        files={"file": ("recording", content)},
        timeout=240,
    ) as answer:
        assert answer.status_code == 200, answer.read()
        return read_events(answer.iter_lines())


class TestThroughTheBalancer:
    @pytest.mark.slow
    def test_four_minutes_begin_before_a_quarter_of_the_time(self, stack: Stack):
        content = wav(long_recording(240).samples)
        began = time.monotonic()

        read = post_stream(stack.url, content)

        assert_whole(read)
        first_s, total_s = read.at[0] - began, read.at[-1] - began
        assert first_s < total_s / 4, (first_s, total_s)
        assert len({round(at, 1) for at in read.at}) > 5, "they come one after another"
        plain = HTTP.post(
            stack.url + TRANSCRIPTIONS,
            data={"model": "whisper-1", "response_format": "json"},
            files={"file": ("recording", content)},
            timeout=240,
        )
        assert read.last["text"] == plain.json()["text"]

    @pytest.mark.slow
    @pytest.mark.alone
    def test_fifty_at_once(self, tmp_path):
        answers: list[Streamed] = []
        inside: set[float] = set()
        with Stack.started(tmp_path, WORKERS="2", MAX_CONCURRENT_TRANSCRIPTIONS="25") as wide:
            threads = [
                threading.Thread(target=lambda: answers.append(post_stream(wide.url, AUSTEN)))
                for _ in range(50)
            ]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                inside.add(sum(wide.metric(n, "transcription_slots_in_use") for n in (1, 2)))
                time.sleep(0.1)
            left = sum(wide.metric(n, "transcription_slots_in_use") for n in (1, 2))

        assert len(answers) == 50
        assert max(inside) >= 40, "they were there at the same time"
        assert left == 0
        for read in answers:
            assert_whole(read)
        assert len({read.last["text"] for read in answers}) == 1
