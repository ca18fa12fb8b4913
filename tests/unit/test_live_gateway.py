"""The gateway of live transcription, with real sockets and a pool that needs no model."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.config import Config
from app.live import gateway as gateway_module
from app.live import metrics
from app.live import session as session_module
from app.live.client_secret import Grant, sign
from app.live.gateway import KEY_PROTOCOL, Gateway
from app.live.options import Options
from app.live.session import Session
from app.live.windows import Balancer
from tests.support.live import TRANSCRIPTION, LiveClient, Pool, marked, numbers_of
from tests.support.ports import free_ports
from tests.support.recordings import recording, to_pcm

BUSY = (503, {"Retry-After": "1", "Retry-After-Ms": "150"}, {})
HANDSHAKE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDAwMDAwMDAwMDAwMDAwMA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
MANUAL = {"turn_detection": None}
PAUSE = np.zeros(16_000, np.float32)
SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


def run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test."""

    @wraps(test)
    def running(*arguments: Any, **named: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **named), 120))

    return running


@pytest.fixture
def start(tmp_path):
    """Return a context that starts a gateway in front of a pool, with these settings."""

    @contextlib.asynccontextmanager
    async def started(pool: Pool, **settings: Any) -> AsyncIterator[tuple[Gateway, str]]:
        async with pool.serving():
            port = free_ports(1)[0]
            own = {"live_port": port, "run_dir": tmp_path, "live_interval_s": 0.5} | settings
            config = Config(live_balancer_url=f"http://127.0.0.1:{pool.port}", **own)
            gateway = Gateway(config)
            async with gateway.serve() as server:
                yield gateway, f"http://127.0.0.1:{port}"
                await gateway.drain(server)

    return started


class TestWords:
    @run
    async def test_each_word_is_sent_once_and_in_order(self, start):
        pool = Pool()
        async with start(pool) as (_, url), LiveClient.session(url) as client:
            await client.speak(marked(24), speed=4)
            await client.speak(PAUSE, speed=4)
            await client.finish()

        assert numbers_of(client.text) == list(range(1, 49))
        client.assert_deltas_add_up()
        assert len(client.of(f"{TRANSCRIPTION}.delta")) > 5
        assert max(pool.windows) < 20  # confirmed audio leaves the window

    @run
    async def test_a_delta_holds_only_words_on_which_two_windows_agree(self, start):
        pool = Pool()
        async with start(pool) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.append(marked(2))
            await client.append(marked(0.3) * 0)
            while not pool.windows:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.until(f"{TRANSCRIPTION}.delta"), 0.2)
            await client.append(PAUSE)
            delta = await client.until(f"{TRANSCRIPTION}.delta")

        assert numbers_of(delta["delta"]) == [1, 2, 3, 4]
        assert len(pool.windows) == 2

    @run
    async def test_the_client_commits_turns_without_turn_detection(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.append(marked(3))
            await client.finish()
            await client.append(marked(2))
            await client.send("input_audio_buffer.commit")
            committed = await client.until("input_audio_buffer.committed")
            await client.until(f"{TRANSCRIPTION}.completed")

        assert numbers_of(client.text) == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
        first = client.of("input_audio_buffer.committed")[0]
        assert committed["previous_item_id"] == first["item_id"]
        completed = client.of(f"{TRANSCRIPTION}.completed")[0]
        assert completed["usage"] == {"type": "duration", "seconds": 3}

    @run
    async def test_a_recording_sent_at_once_loses_nothing(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            for begin in range(4):
                await client.append(marked(120)[begin * 480_000 : (begin + 1) * 480_000])
            await client.finish()

        expected = [number % 63 + 1 for number in range(240)]
        assert numbers_of(client.text) == expected
        client.assert_deltas_add_up()

    @run
    async def test_windows_carry_the_sessions_options_and_begin_with_the_turn_before(self, start):
        pool = Pool()
        transcription = {"model": "m", "language": "pl", "prompt": "Names: Łódź", "keywords": ["k"]}
        async with (
            start(pool) as (_, url),
            LiveClient.session(url, transcription=transcription, **MANUAL) as client,
        ):
            await client.append(marked(3))
            await client.finish()
            await client.append(marked(2))
            await client.finish()

        assert pool.windows[-1] == 5.0
        last = pool.requests[-1].decode("utf-8", "replace")
        for name, value in {
            "language": "pl", "model": "m", "keywords[]": "k", "prompt": "Names: Łódź"
        }.items():  # fmt: skip
            assert re.search(rf'name="{re.escape(name)}"(\r\n[^\r]*)?\r\n\r\n{value}\r\n', last), (
                name
            )

    @run
    async def test_log_probabilities_come_with_the_words(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            include = ["item.input_audio_transcription.logprobs"]
            await client.send("session.update", session={"include": include})
            await client.append(marked(1))
            await client.finish()

        (completed,) = client.of(f"{TRANSCRIPTION}.completed")
        assert completed["logprobs"][1] == {
            "token": " w2", "logprob": -0.6931, "bytes": list(b" w2")
        }  # fmt: skip


class TestBusyPool:
    @run
    async def test_a_session_catches_up_and_loses_no_word(self, start):
        pool = Pool(refusals=[BUSY] * 12)
        async with start(pool) as (_, url), LiveClient.session(url) as client:
            await client.speak(marked(16), speed=4)
            await client.speak(PAUSE, speed=4)
            await client.finish()

        assert numbers_of(client.text) == list(range(1, 33))
        told, *_ = client.of("rate_limits.updated")
        assert told["rate_limits"][0]["limit"] == 60
        assert told["audio_behind_seconds"] > 0
        assert client.of("rate_limits.updated")[-1]["audio_behind_seconds"] == 0
        assert pool.refused == 12

    @run
    async def test_beyond_the_bound_the_oldest_audio_is_dropped_and_the_client_told(self, start):
        pool = Pool(refusals=[BUSY] * 1000)
        async with (
            start(pool, live_backlog_s=10) as (gateway, url),
            LiveClient.session(url, **MANUAL) as client,
        ):
            for _ in range(6):
                await client.append(marked(4))
                await client.send("input_audio_buffer.commit")
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            (session,) = gateway._sessions.values()
            assert session.behind_s < 10
            pool.refusals.clear()
            await client.finish()

        failed = client.of(f"{TRANSCRIPTION}.failed")
        assert [event["error"]["code"] for event in failed] == ["live_backlog_full"] * 4
        assert numbers_of(client.text) == list(range(1, 9)) * 2

    @run
    async def test_a_pool_that_is_away_is_waited_for(self, start):
        pool = Pool()
        async with start(pool) as (_, url), LiveClient.session(url, **MANUAL) as client:
            pool.refusals = [(502, {}, {}), (504, {}, {}), (429, {"Retry-After": "0"}, {})]
            await client.append(marked(2))
            await client.finish()

        assert numbers_of(client.text) == [1, 2, 3, 4]

    @run
    async def test_a_window_that_is_refused_for_good_fails_its_turn_alone(self, start):
        refusal = {"error": {"message": "language is 'xx'.", "param": "language"}}
        pool = Pool(refusals=[BUSY, (400, {}, refusal)])
        async with start(pool) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.append(marked(2))
            await client.finish()
            await client.append(marked(1))
            await client.finish()

        (failed,) = client.of(f"{TRANSCRIPTION}.failed")
        assert client.of("rate_limits.updated")[-1]["audio_behind_seconds"] == 0
        assert failed["error"]["message"] == "language is 'xx'."
        assert failed["error"]["param"] == "language"
        assert numbers_of(client.text) == [1, 2]

    @run
    async def test_a_revoked_key_ends_the_session(self, start):
        pool = Pool(refusals=[(401, {}, {})])
        async with start(pool) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.append(marked(2))
            error = await client.until("error")
            with pytest.raises(ConnectionClosed):
                await client.receive()

        assert error["error"]["code"] == "invalid_api_key"


class TestTurns:
    @run
    async def test_speech_starts_and_ends_turns(self, start):
        speech = recording("austen_0890.wav").waveform()
        async with start(Pool()) as (_, url), LiveClient.session(url) as client:
            await client.append(np.concatenate([PAUSE, PAUSE, speech, PAUSE, speech, PAUSE]))
            await client.finish()

        kinds = [event["type"] for event in client.events]
        order = [
            "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed", "conversation.item.added", "conversation.item.done",
        ]  # fmt: skip
        assert [kind for kind in kinds if kind in order] == order * 2
        started = client.of("input_audio_buffer.speech_started")[0]["audio_start_ms"]
        stopped = client.of("input_audio_buffer.speech_stopped")[0]["audio_end_ms"]
        assert 1600 < started < 2200
        assert 6500 < stopped < 8300
        ids = {kind: {event["item_id"] for event in client.of(kind)} for kind in order[:3]}
        assert len(ids[order[0]]) == 2
        assert ids[order[0]] == ids[order[1]] == ids[order[2]]

    @run
    async def test_silence_costs_no_windows_and_no_memory(self, start, monkeypatch):
        monkeypatch.setattr(session_module, "LONGEST_TURN_S", 50)
        pool = Pool()
        async with start(pool) as (gateway, url), LiveClient.session(url, **MANUAL) as client:
            for _ in range(120):
                await client.append(PAUSE)
            await client.send("input_audio_buffer.clear")
            for session in gateway._sessions.values():
                held = [turn.held_s for turn in session._turns]
            await client.until("input_audio_buffer.cleared")

        assert pool.windows == []
        assert client.of("input_audio_buffer.committed") == []
        assert max(held) < 2

    @run
    async def test_an_empty_commit_is_an_error_with_the_clients_event_id(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url) as client:
            await client.append(PAUSE)
            await client.send("input_audio_buffer.commit", event_id="mine")
            await client.send("input_audio_buffer.clear")
            error = await client.until("error")
            await client.until("input_audio_buffer.cleared")

        assert error["error"]["code"] == "input_audio_buffer_commit_empty"
        assert error["error"]["event_id"] == "mine"

    @run
    async def test_cleared_audio_is_forgotten(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.append(marked(2))
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")
            await client.append(marked(1))
            await client.finish()

        assert numbers_of(client.text) == [1, 2]

    @run
    async def test_a_commit_in_mid_speech_loses_nothing_of_it(self, start):
        """The newest samples are fewer than the voice activity model hears at once."""
        pool = Pool()
        async with start(pool) as (gateway, url), LiveClient.session(url, **MANUAL) as client:
            spoken = marked(1.915)
            await client.append(spoken[:28_160])
            (session,) = gateway._sessions.values()
            while not pool.windows or session.behind_s:
                await asyncio.sleep(0.01)
            await client.append(spoken[28_160:])
            await client.finish()

        assert numbers_of(client.text) == [1, 2, 3, 4]

    @pytest.mark.parametrize("pause_s", [0.0, 0.3, 1.0])
    @run
    async def test_a_change_of_turn_detection_loses_no_word(self, start, pause_s):
        """To the client's commits and back, in mid-speech and in a pause."""
        pause = PAUSE[: int(16_000 * pause_s)]
        spoken = marked(6)
        async with start(Pool()) as (_, url), LiveClient.session(url) as client:
            await client.append(np.concatenate([PAUSE, spoken[:32_000], pause]))
            await client.update(turn_detection=None)
            await client.append(np.concatenate([spoken[32_000:64_000], pause]))
            await client.update(turn_detection={"type": "server_vad"})
            await client.append(np.concatenate([spoken[64_000:], PAUSE]))
            await client.finish()

        assert numbers_of(client.text) == list(range(1, 13))
        client.assert_deltas_add_up()

    @run
    async def test_turn_detection_ends_an_open_turn_in_whose_pause_it_begins(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.append(PAUSE)
            await client.update(turn_detection={"type": "server_vad"})
            await client.update(turn_detection=None)
            await client.append(np.concatenate([marked(2), PAUSE]))
            await client.update(turn_detection={"type": "server_vad"})
            while not client.open_turns():
                await client.receive()
            await client.finish()

        assert numbers_of(client.text) == [1, 2, 3, 4]
        assert len(client.of("input_audio_buffer.committed")) == 1


class TestEvents:
    @run
    async def test_every_event_has_openais_shape(self, start):
        pool = Pool(refusals=[BUSY] * 2 + [(400, {}, {})])
        async with start(pool) as (_, url), LiveClient.session(url) as client:
            await client.send("nonsense", event_id="x")
            await client.append(recording("austen_0890.wav").waveform())
            await client.append(PAUSE)
            await client.until(f"{TRANSCRIPTION}.failed")
            await client.speak(marked(4), speed=4)
            await client.append(PAUSE)
            await client.finish()

        kinds = {event["type"] for event in client.events}
        for event in client.events:
            if event["type"] == "session.updated":  # 16 kHz is this service's addition
                event["session"]["audio"]["input"]["format"]["rate"] = 24_000
            read = SERVER_EVENT.validate_python(event, strict=False)
            assert read.type == event["type"]
        assert len({event["event_id"] for event in client.events}) == len(client.events)
        assert kinds >= {
            "session.created", "session.updated", "error", "rate_limits.updated",
            f"{TRANSCRIPTION}.failed", f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed",
        }  # fmt: skip

    @run
    async def test_the_earlier_shape(self, start):
        async with start(Pool()) as (_, url):
            address = url.replace("http", "ws") + "/v1/realtime?intent=transcription"
            headers = {"OpenAI-Beta": "realtime=v1"}
            async with connect(address, additional_headers=headers) as connection:
                client = LiveClient(connection)
                created = await client.until("transcription_session.created")
                session = {
                    "input_audio_format": "g711_ulaw", "turn_detection": None,
                    "input_audio_transcription": {"model": "whisper-1", "language": "en"},
                }  # fmt: skip
                await client.send("transcription_session.update", session=session)
                updated = await client.until("transcription_session.updated")
                audio = base64.b64encode(bytes(range(256)) * 16).decode()
                await client.send("input_audio_buffer.append", audio=audio)
                await client.send("input_audio_buffer.commit")
                item = await client.until("conversation.item.created")
                await client.until(f"{TRANSCRIPTION}.completed")

        assert created["session"]["input_audio_format"] == "pcm16"
        assert updated["session"]["input_audio_format"] == "g711_ulaw"
        assert updated["session"]["turn_detection"] is None
        assert item["item"]["role"] == "user"

    @pytest.mark.parametrize(
        ("sent", "param"),
        [
            ("not JSON", None),
            ("[1]", None),
            ('{"type": "response.create"}', "type"),
            ('{"type": "input_audio_buffer.append", "audio": "§"}', "audio"),
            ('{"type": "session.update", "session": {"type": "realtime"}}', "session.type"),
            (
                '{"type": "session.update", "session": {"audio": {"input": {"format": '
                '{"type": "audio/opus"}}}}}',
                "session.audio.input.format",
            ),
            (
                '{"type": "session.update", "session": {"audio": {"input": {"transcription": '
                '{"prompt": "\\ud800"}}}}}',
                "session.audio.input.transcription.prompt",
            ),
            (
                '{"type": "session.update", "session": {"turn_detection": {"type": '
                '"semantic_vad", "eagerness": ["low"]}}}',
                "session.turn_detection",
            ),
            (
                '{"type": "input_audio_buffer.clear", "event_id": "' + "x" * 513 + '"}',
                "event_id",
            ),
            ('{"type": "input_audio_buffer.clear", "event_id": "\\ud800"}', "event_id"),
        ],
    )
    @run
    async def test_an_invalid_event_is_answered_and_the_session_goes_on(self, start, sent, param):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            await client.connection.send(sent)
            error = await client.until("error")
            await client.append(marked(1))
            await client.finish()

        assert error["error"]["type"] == "invalid_request_error"
        assert error["error"]["param"] == param
        assert numbers_of(client.text) == [1, 2]


class TestKeys:
    @run
    async def test_a_key_comes_in_a_header_or_a_subprotocol(self, start):
        pool = Pool()
        async with start(pool, api_token="right") as (_, url):
            async with LiveClient.session(url, {"Authorization": "Bearer right"}, **MANUAL) as one:
                await one.append(marked(1))
                await one.finish()
            address = url.replace("http", "ws") + "/v1/realtime"
            offered = ["realtime", KEY_PROTOCOL + "right", "openai-beta.realtime-v1"]
            async with connect(address, subprotocols=offered) as connection:
                assert connection.subprotocol == "realtime"
                first = json.loads(await connection.recv())

        assert first["type"] == "transcription_session.created"
        assert b"authorization: bearer right" in pool.requests[0]

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            [("Authorization", "Bearer right"), ("Authorization", "Bearer right")],
        ],
        ids=["no key", "wrong", "repeated"],
    )
    @run
    async def test_without_a_valid_key_there_is_no_session(self, start, headers):
        async with start(Pool(), api_token="right") as (_, url):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(
                    url.replace("http", "ws") + "/v1/realtime", additional_headers=headers
                )

        assert refusal.value.response.status_code == 401
        assert json.loads(refusal.value.response.body)["error"]["code"] == "invalid_api_key"

    @pytest.mark.parametrize("name", ["api_key", "auth_token", "x-api-key"])
    @run
    async def test_a_key_in_the_url_is_refused(self, start, name):
        async with start(Pool(), api_token="right") as (_, url):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(url.replace("http", "ws") + f"/v1/realtime?{name}=right")

        assert json.loads(refusal.value.response.body)["error"]["code"] == "key_in_url"

    @run
    async def test_a_client_secret_opens_a_session_with_its_options_until_it_expires(self, start):
        pool = Pool()
        async with start(pool, api_token="right", live_secret="s") as (gateway, url):
            shown = Options().updated({"audio": {"input": {"turn_detection": None}}}).shown()
            later, before = int(time.time()) + 60, int(time.time()) - 1
            secret = sign(gateway._secret, Grant("API_TOKEN", later, shown))
            async with LiveClient.session(url, {"Authorization": f"Bearer {secret}"}) as client:
                await client.append(marked(1))
                await client.finish()
            for refused in (
                sign(gateway._secret, Grant("API_TOKEN", before, shown)),
                sign(gateway._secret, Grant("revoked", later, shown)),
                sign(b"another secret", Grant("API_TOKEN", later, shown)),
                secret[:-1] + ("A" if secret[-1] != "A" else "B"),
                "ek_nonsense",
            ):
                with pytest.raises(InvalidStatus):
                    await connect(
                        url.replace("http", "ws") + "/v1/realtime",
                        additional_headers={"Authorization": f"Bearer {refused}"},
                    )
            sent = re.search(rb"authorization: bearer (live-\w+)", pool.requests[0])
            assert sent
            assert gateway._keyring.find(sent[1].decode()).name == "API_TOKEN"

        assert (
            client.of("session.created")[0]["session"]["audio"]["input"]["turn_detection"] is None
        )
        assert gateway._keyring.find("live-" + "0" * 64) is None


class TestBounds:
    @run
    async def test_more_sessions_than_the_setting_are_refused(self, start):
        async with start(Pool(), live_max_sessions=1) as (_, url), LiveClient.session(url):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(url.replace("http", "ws") + "/v1/realtime")

        assert refusal.value.response.status_code == 503
        assert refusal.value.response.headers["Retry-After"] == "1"

    @run
    async def test_a_long_append_lets_other_sessions_run(self):
        """A minute of audio takes longer to examine than a word may be late."""
        session = Session(
            lambda event: None, Balancer("http://127.0.0.1:1", 1), None, Options(),
            earlier=False, interval_s=1, backlog_s=100,
        )  # fmt: skip
        audio = base64.b64encode(to_pcm(marked(60)).tobytes()).decode()
        append = json.dumps({"type": "input_audio_buffer.append", "audio": audio})

        appending = asyncio.create_task(session.handle(append))
        rounds = 0
        while not appending.done():
            rounds += 1
            await asyncio.sleep(0)

        assert await appending
        assert rounds > 100

    @run
    async def test_a_window_that_is_never_answered_holds_nobody_up(self, start, monkeypatch):
        monkeypatch.setattr(session_module, "PATIENCE_S", 0.3)
        pool = Pool(delay_s=100)
        async with (
            start(pool, live_backlog_s=10) as (_, url),
            LiveClient.session(url, **MANUAL) as client,
        ):
            for _ in range(3):
                await client.append(marked(6))
                await client.send("input_audio_buffer.commit")
            failed = await client.until(f"{TRANSCRIPTION}.failed")
            await client.send("input_audio_buffer.clear")
            await client.until("input_audio_buffer.cleared")

        assert failed["error"]["code"] == "live_backlog_full"

    @run
    async def test_an_oversized_frame_gets_an_error_event(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url) as client:
            await client.send("input_audio_buffer.append", audio="A" * (4 << 20))
            error = await client.until("error")
            head = b"\x81\xff" + (6 << 20).to_bytes(8) + b"mask"  # of a frame of 6 MiB
            client.connection.transport.write(head)
            with pytest.raises(ConnectionClosed) as closed:
                await client.receive()

        assert error["error"]["code"] == "file_too_large"
        assert closed.value.rcvd.code == 1009

    @run
    async def test_a_session_ends_at_its_longest_duration(self, start, monkeypatch):
        async with start(Pool()) as (gateway, url):
            object.__setattr__(gateway._config, "live_max_session_s", 0.5)
            async with LiveClient.session(url) as client:
                error = await client.until("error")
                with pytest.raises(ConnectionClosed) as closed:
                    await client.receive()

        assert error["error"]["code"] == "session_expired"
        assert closed.value.rcvd.code == 1008

    @run
    async def test_a_reader_that_reads_nothing_is_disconnected(self, start, monkeypatch):
        monkeypatch.setattr(gateway_module, "WORST_ERRORS", 1 << 30)
        monkeypatch.setattr(gateway_module, "WAITING_BYTES", 100_000)
        async with start(Pool()) as (gateway, url):
            address = url.replace("http", "ws") + "/v1/realtime"
            async with connect(address, max_queue=1) as connection:
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(200_000):
                        await connection.send('{"type": "' + "x" * 70 + '"}')
                        if not gateway._sessions:
                            break
                assert not gateway._sessions

    @run
    async def test_a_client_that_leaves_with_events_to_read_is_no_error(self, start, caplog):
        """Without a closing frame, as when a network ends, and then it reads what was sent."""
        update = {"input_audio_transcription": {"prompt": "x" * 9000}}
        event = json.dumps({"type": "session.update", "session": update}).encode()
        frame = b"\x81\xfe" + len(event).to_bytes(2) + bytes(4) + event  # masked with zeros
        async with start(Pool()) as (gateway, url):
            address = urlsplit(url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(HANDSHAKE)
            await reader.readuntil(b"\r\n\r\n")
            while not any(
                connection.transport.get_write_buffer_size() > 40_000
                for connection in gateway._sessions
            ):
                writer.write(frame)
                await writer.drain()
                await asyncio.sleep(0)
            writer.write_eof()
            await asyncio.sleep(0.05)
            await reader.read()
            while gateway._sessions:
                await asyncio.sleep(0.01)
            writer.close()

        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    @run
    async def test_only_invalid_events_end_the_session(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url) as client:
            for _ in range(100):
                await client.send("nonsense")
            with pytest.raises(ConnectionClosed) as closed:
                await client.until("never")

        assert "invalid" in closed.value.rcvd.reason

    @run
    async def test_invalid_events_between_valid_ones_do_not_end_the_session(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url, **MANUAL) as client:
            for _ in range(3):
                for _ in range(60):
                    await client.send("nonsense")
                await client.append(marked(1))
            await client.finish()

        assert len(client.of("error")) == 180
        assert len(numbers_of(client.text)) == 6

    @run
    async def test_an_unhandled_exception_counts_as_an_error(self, start, monkeypatch):
        monkeypatch.setattr(Session, "_clear", None)
        before = metrics.SESSIONS_ENDED.labels("error")._value.get()
        async with start(Pool()) as (_, url), LiveClient.session(url) as client:
            await client.send("input_audio_buffer.clear")
            error = await client.until("error")
            with pytest.raises(ConnectionClosed):
                await client.receive()

        assert error["error"]["type"] == "server_error"
        assert metrics.SESSIONS_ENDED.labels("error")._value.get() == before + 1

    @run
    async def test_a_stop_finishes_open_turns(self, start):
        """Also of a client that goes on speaking, while another one reads nothing."""
        async with (
            start(Pool(delay_s=0.3)) as (gateway, url),
            connect(url.replace("http", "ws") + "/v1/realtime", max_queue=1),
            LiveClient.session(url, **MANUAL) as client,
            httpx.AsyncClient() as http,
        ):
            await client.append(marked(2))
            while not any(session.behind_s for session in gateway._sessions.values()):
                await asyncio.sleep(0.01)
            stop = asyncio.create_task(gateway.drain(_NoServer()))
            await asyncio.sleep(0.1)
            health = await http.get(f"{url}/health")
            with contextlib.suppress(ConnectionClosed):
                await client.converse(marked(30), speed=5)
            await asyncio.wait_for(stop, 5)

        assert health.status_code == 503
        assert numbers_of(client.text) == [1, 2, 3, 4]
        assert client.connection.close_code == 1001
        assert client.sent_s < 30

    @run
    async def test_health_check_gets_the_delays_of_the_last_minutes(self, start, monkeypatch):
        monkeypatch.setattr(metrics, "recent_delays", deque([(time.monotonic() - 400, 60.0)]))
        async with start(Pool()) as (_, url), httpx.AsyncClient() as http:
            before = (await http.get(f"{url}/health")).headers["x-figures"]
            for tenths in range(20, 0, -1):
                metrics.observe_delay(tenths / 10)
            after = (await http.get(f"{url}/health")).headers["x-figures"]

        assert before == "behind_s=0.0"
        assert after == "behind_s=0.0 p50_ms=1000 p95_ms=1900"

    @run
    async def test_health_and_metrics_are_plain_requests(self, start):
        async with start(Pool()) as (_, url), LiveClient.session(url), httpx.AsyncClient() as http:
            health = await http.get(f"{url}/health")
            page = await http.get(f"{url}/metrics")
            nothing = await http.get(f"{url}/v1/other")

        assert health.json() == {"status": "healthy"}
        assert "transcription_live_sessions 1.0" in page.text
        assert nothing.status_code == 404


class _NoServer:
    """Stands for the listening socket, which the fixture closes."""

    def close(self) -> None:
        """Do nothing."""
