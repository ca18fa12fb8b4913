"""Clients that leave a stream."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.recordings import long_recording, wav
from tests.support.waiting import LIMIT_S, until
from tests.support.worker import Worker, worker

STREAM = {"stream": "true"}


LONG = wav(long_recording(240).samples)


@pytest.fixture(scope="module")
def busy() -> Iterator[Worker]:
    with worker(MAX_CONCURRENT_TRANSCRIPTIONS="1") as running:
        yield running


def test_between_two_events_the_work_ends_and_the_slot_is_free(busy):
    cancelled = busy.metric("transcription_cancelled_total")
    answers = busy.metric("transcription_answers_total")
    connection = busy.send(LONG, **STREAM)
    assert b"transcript.text.delta" in receive(connection)
    assert busy.metric("transcription_slots_in_use") == 1
    connection.close()

    assert until(lambda: busy.metric("transcription_slots_in_use") == 0)
    assert busy.metric("transcription_cancelled_total") == cancelled + 1
    assert busy.metric("transcription_answers_total") == answers + 1, "nothing else was counted"
    assert busy.metric("transcription_audio_seconds_total") == 0, "it was not finished"


def test_before_the_first_event(busy):
    cancelled = busy.metric("transcription_cancelled_total")
    connection = busy.send(LONG, **STREAM)
    assert until(lambda: busy.metric("transcription_slots_in_use") == 1)
    connection.close()

    assert until(lambda: busy.metric("transcription_slots_in_use") == 0)
    assert busy.metric("transcription_cancelled_total") == cancelled + 1
    assert busy.post().status_code == 200


def receive(connection: socket.socket) -> bytes:
    """The head of an answer and its first event."""
    connection.settimeout(LIMIT_S)
    received = b""
    while b"data: " not in received:
        chunk = connection.recv(65_536)
        assert chunk, received
        received += chunk
    return received
