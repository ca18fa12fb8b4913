"""A request's line in the log of a running pool."""

from __future__ import annotations

import json

import pytest

from tests.support.client import TRANSCRIPTIONS
from tests.support.http import HTTP
from tests.support.recordings import recording, wav
from tests.support.waiting import until


def test_request_of_a_running_pool(stack):
    """One line with the request's id, tier, seconds of audio and stages; never its text or key."""
    content = wav(recording("goforward_16k.wav").waveform())
    said_before = len(stack.lines)
    answer = HTTP.post(
        stack.url + TRANSCRIPTIONS,
        data={"model": "whisper-1", "prompt": "a confidential prompt"},
        files={"file": ("private-name.wav", content)},
        headers={
            "Authorization": "Bearer confidential-key", "X-Request-ID": "line-of-this-test",
            "X-Transcription-Tier": "deferred",
        },
        timeout=60,
    )  # fmt: skip
    assert answer.status_code == 200

    def lines() -> list[dict[str, object]]:
        found = [json.loads(line) for line in stack.lines if line.startswith('{"time"')]
        return [line for line in found if line.get("request") == "line-of-this-test"]

    assert until(lambda: bool(lines()))
    (line,) = lines()
    assert line["message"] == "POST /v1/audio/transcriptions"
    assert (line["status"], line["tier"]) == (200, "deferred")
    assert line["audio_s"] == pytest.approx(2.79, abs=0.02)
    assert {"elapsed_ms", "queue_ms", "decode_ms", "inference_ms"} <= set(line)
    bad = HTTP.post(
        stack.url + TRANSCRIPTIONS,
        data={"model": "whisper-1", "prompt": "a confidential prompt", "temperature": "hot"},
        files={"file": ("private-name.wav", content)},
    )
    assert bad.status_code == 400
    said = [word for word in answer.json()["text"].split() if len(word) > 3]
    assert said
    for secret in (*said, "confidential", "private-name"):
        assert secret not in "".join(stack.lines[said_before:])
