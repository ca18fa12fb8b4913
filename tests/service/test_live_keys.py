"""Keys and client secrets of live sessions, through the whole service."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import OpenAI
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from app.live.gateway import KEY_PROTOCOL
from tests.support.http import HTTP
from tests.support.live import SESSION, LiveClient
from tests.support.recordings import recording
from tests.support.stack import KEY, Stack
from tests.support.text import SENTENCE, words
from tests.support.waiting import until


def test_openais_client_makes_client_secrets(keyed: Stack):
    client = OpenAI(base_url=f"{keyed.url}/v1", api_key=KEY)
    made = client.realtime.client_secrets.create(
        session=SESSION,  # type: ignore[arg-type]
        expires_after={"anchor": "created_at", "seconds": 60},
    )
    earlier = client.beta.realtime.transcription_sessions.create(input_audio_format="g711_ulaw")

    async def transcribe(secret: str) -> str:
        """Return the text of a session as a browser opens it."""
        address = keyed.url.replace("http", "ws") + "/v1/realtime"
        offered = ["realtime", KEY_PROTOCOL + secret]
        async with connect(address, subprotocols=offered) as connection:  # type: ignore[arg-type]
            session = LiveClient(connection)
            await session.append(recording("austen_0890.wav").waveform())
            await session.finish()
            return session.text

    text = asyncio.run(asyncio.wait_for(transcribe(made.value), 120))

    assert words(text)[-8:] == words(SENTENCE)[-8:]
    assert made.session.audio.input.transcription.language == "en"
    assert earlier.client_secret.value.startswith("ek_")
    for refused in ({"expires_after": {"seconds": 5}}, {"session": {"type": "realtime"}}):
        with pytest.raises(Exception, match="400"):
            client.post("/realtime/client_secrets", body=refused, cast_to=object)
    assert HTTP.post(f"{keyed.url}/v1/realtime/client_secrets", json={}).status_code == 401


@pytest.mark.parametrize("key", ["", "wrong", "ek_forged.signature"])
def test_a_session_needs_a_key(keyed: Stack, key: str):
    async def refused() -> int:
        with pytest.raises(InvalidStatus) as refusal:
            await connect(
                keyed.url.replace("http", "ws") + "/v1/realtime",
                additional_headers={"Authorization": f"Bearer {key}"},
            )
        assert json.loads(refusal.value.response.body)["error"]["code"] == "invalid_api_key"
        return refusal.value.response.status_code

    assert asyncio.run(refused()) == 401


def test_neither_keys_nor_words_are_logged(keyed: Stack):
    """After the sessions above, and some with the key itself, also where it must not be."""
    address = keyed.url.replace("http", "ws") + "/v1/realtime"
    offered = ["realtime", KEY_PROTOCOL + KEY]

    async def sessions() -> None:
        async with LiveClient.session(keyed.url, {"Authorization": f"Bearer {KEY}"}):
            pass
        async with connect(address, subprotocols=offered) as connection:  # type: ignore[arg-type]
            await connection.send(f"{KEY} is no event")
            await LiveClient(connection).until("error")
        with pytest.raises(InvalidStatus):
            await connect(f"{address}?api_key={KEY}")

    def n_lines() -> int:
        return keyed.log.replace("\\", "").count("/v1/realtime")

    before = n_lines()
    asyncio.run(asyncio.wait_for(sessions(), 60))
    assert until(lambda: n_lines() >= before + 3)

    log = keyed.log
    assert KEY not in log
    assert "ek_" not in log
    assert "live-" not in log
    assert "cold" not in log
