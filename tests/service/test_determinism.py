"""The same request gets the same bytes: alone, in a crowd, from either worker, after a restart.

On a CPU each call holds one window, so company can change nothing; what could is a worker that
keeps something of an earlier request, or parts of a long recording put together as they come.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.recordings import encode, long_recording, recording, wav
from tests.support.stack import Stack
from tests.support.victim import Victim

CROWD = 8
PATIENCE_S = 120
WORDS = {"timestamp_granularities[]": ["word", "segment"]}
FORMS: dict[str, dict[str, Any]] = {
    "json": {"response_format": "json", "include[]": "logprobs"},
    "verbose_json": {"response_format": "verbose_json"} | WORDS,
    "text": {"response_format": "text"},
    "srt": {"response_format": "srt"} | WORDS,
    "vtt": {"response_format": "vtt"},
    "stream": {"response_format": "json", "stream": "true"},
}
Request = tuple[str, str]  # a recording's name and a form's


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Short and long, with and without words, in three containers."""
    long = long_recording(35).samples
    return {
        "window": recording("austen_0890.wav").path.read_bytes(),
        "command": encode(recording("goforward_16k.wav").waveform(), "mp3"),
        "noise": recording("noise_white_6s.flac").path.read_bytes(),
        "parts": wav(long),
    }


def requests_of(contents: dict[str, bytes]) -> list[Request]:
    """One recording in each form, the others in the one that shows the most."""
    return [
        (name, form)
        for name in contents
        for form in FORMS
        if name == "window" or form == "verbose_json"
    ]


def body(url: str, content: bytes, form: str) -> bytes:
    """An answer's bytes; a busy service is asked again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = HTTP.post(
            url + TRANSCRIPTIONS, data={"model": "whisper-1"} | FORMS[form],
            files={"file": ("recording", content)}, timeout=PATIENCE_S,
        )  # fmt: skip
        if answer.status_code == 200:
            return answer.content
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < deadline
        time.sleep(random.uniform(0.05, 0.2))


def bodies(
    url: str, contents: dict[str, bytes], asked: Sequence[Request], at_once: int
) -> dict[Request, bytes]:
    """Return each request's answer; `at_once` are sent at a time."""
    with ThreadPoolExecutor(at_once) as pool:
        answers = pool.map(lambda request: body(url, contents[request[0]], request[1]), asked)
        return dict(zip(asked, answers, strict=True))


def test_same_bytes_in_any_company_worker_and_life(stack: Stack, contents: dict[str, bytes]):
    """One request at a time to worker 1; then, after a restart, a crowd to both workers."""
    asked = requests_of(contents)
    alone = bodies(stack.worker_url(1), contents, asked, at_once=1)
    assert b"cold-hearted" in alone["window", "text"]
    assert b'"words": []' in alone["noise", "verbose_json"]
    assert len(set(alone.values())) == len(asked)

    Victim(stack).must("restart")
    before = [stack.metric(number, "transcription_windows_encoded_total") for number in (1, 2)]
    crowd = bodies(stack.url, contents, random.Random(8).sample(asked, len(asked)), CROWD)

    assert [request for request in asked if crowd[request] != alone[request]] == []
    after = [stack.metric(number, "transcription_windows_encoded_total") for number in (1, 2)]
    assert all(now > then for now, then in zip(after, before, strict=True)), "both workers answered"
