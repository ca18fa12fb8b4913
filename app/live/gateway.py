"""Serve live sessions over WebSockets: admit them, limit them, and end them."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from prometheus_client import generate_latest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from app.config import Config
from app.errors import (
    KEY_IN_URL,
    NOTHING_HERE,
    WRONG_KEY,
    Busy,
    Draining,
    EngineFailed,
    InvalidRequest,
    KeyInUrl,
    NotFound,
    ServiceError,
    TooLarge,
    Unauthorized,
)
from app.keys import passes
from app.keys.keyring import Keyring
from app.live import client_secret, events, metrics
from app.live.events import Event
from app.live.options import Options
from app.live.session import Session
from app.live.windows import Balancer

logger = logging.getLogger(__name__)

PATH = "/v1/realtime"
# Subprotocols of browsers, which cannot set headers.
REALTIME, KEY_PROTOCOL = "realtime", "openai-insecure-api-key."
EARLIER_PROTOCOL = "openai-beta.realtime-v1"
# A minute of 24 kHz PCM in base64. Larger frames get an error; over the second limit, the
# connection is closed before the frame is in memory.
FRAME_BYTES, MOST_FRAME_BYTES = 4 << 20, 5 << 20
FRAMES_WAITING = 8  # per session, before the connection is not read any more
WRITE_BYTES = 64 << 10  # that a slow reader has not taken; then events wait
EVENTS_WAITING = 500  # then the session ends
PING_S, PONG_S = 20.0, 60.0
WORST_ERRORS = 100  # invalid events in a row; then the session ends
DRAIN_S = 10.0  # for open turns when the gateway stops
LAST_EVENTS_S = 2.0
NAMES_OF_KEYS = ("key", "api_key", "api-key", "apikey", "token", "access_token", "authorization")


class SessionExpired(InvalidRequest):
    """Session that reached the longest duration."""

    code = "session_expired"


@dataclass(frozen=True, slots=True)
class Admission:
    """What the handshake found.

    Attributes:
        key: sent with the session's windows; None: the service asks for none.
        options: those of a client secret, or the defaults.
        earlier: the client speaks the earlier shape.
    """

    key: str | None
    options: Options
    earlier: bool


class Outbox:
    """Events that wait for the client to read them.

    Args:
        connection: of the client.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._events: deque[str] = deque()
        self._filled = asyncio.Event()
        self.is_full = asyncio.Event()
        self.errors = 0  # in a row

    def put(self, event: Event) -> None:
        """Queue an event, unless the client reads too slowly for another one."""
        self.errors = self.errors + 1 if event["type"] == "error" else 0
        if len(self._events) >= EVENTS_WAITING:
            self.is_full.set()
            return
        self._events.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
        self._filled.set()

    async def run(self) -> None:
        """Send events until the connection is closed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send the queued events."""
        while self._events:
            await self._connection.send(self._events[0])
            self._events.popleft()


class Gateway:
    """The sessions of one gateway process.

    Args:
        config: the settings.

    Raises:
        ConfigError: the key file is unusable.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._keyring = Keyring(config)
        self._secret = passes.shared_secret(config)
        url = config.live_balancer_url or own_balancer(config)
        self._balancer = Balancer(url, config.live_max_sessions)
        self._sessions: dict[ServerConnection, Session] = {}
        self._admissions: dict[ServerConnection, Admission] = {}
        self._draining = asyncio.Event()
        metrics.BEHIND_SECONDS.set_function(self._behind_s)

    def _behind_s(self) -> float:
        return sum(session.behind_s for session in list(self._sessions.values()))

    def serve(self) -> AbstractAsyncContextManager[Server]:
        """Return the server, to be entered as an asynchronous context."""
        return serve(
            self._on_connection,
            self._config.worker_address,
            self._config.live_port,
            process_request=self._on_request,
            select_subprotocol=select_subprotocol,
            compression=None,  # base64 audio costs more time to unpack than it saves
            max_size=MOST_FRAME_BYTES,
            max_queue=FRAMES_WAITING,
            write_limit=WRITE_BYTES,
            ping_interval=PING_S,
            ping_timeout=PONG_S,
            server_header=None,
            logger=logging.getLogger("websockets.server"),
        )

    async def drain(self, server: Server) -> None:
        """Refuse new sessions, finish open turns for up to `DRAIN_S`, and end the sessions."""
        self._draining.set()
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        for session in self._sessions.values():
            session.end()
        while asyncio.get_running_loop().time() < deadline:
            if all(session.idle for session in self._sessions.values()):
                break
            await asyncio.sleep(0.1)
        for connection in list(self._sessions):
            metrics.SESSIONS_ENDED.labels("shutdown").inc()
            with contextlib.suppress(ConnectionClosed):
                await connection.close(1001, "The service is stopping; connect again.")
        server.close()
        await self._balancer.close()

    # --- the handshake ---------------------------------------------------------------------

    def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain request, refuse a session, or admit it (None)."""
        url = urlsplit(request.path)
        if url.path == "/health":
            return connection.respond(http.HTTPStatus.OK, '{"status":"healthy"}\n')
        if url.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, generate_latest().decode())
        try:
            self._admissions[connection] = self._admit(url.path, url.query, request.headers)
        except ServiceError as refusal:
            return refused(connection, refusal)
        return None

    def _admit(self, path: str, query: str, headers: Mapping[str, str]) -> Admission:
        if path != PATH:
            raise NotFound(NOTHING_HERE)
        if any(name.lower() in NAMES_OF_KEYS for name, _ in parse_qsl(query)):
            raise KeyInUrl(KEY_IN_URL)
        if self._draining.is_set():
            metrics.SESSIONS_REFUSED.labels("shutdown").inc()
            raise Draining("The gateway is stopping. Connect again.")
        if len(self._sessions) >= self._config.live_max_sessions:
            metrics.SESSIONS_REFUSED.labels("full").inc()
            raise Busy("All live sessions are in use. Connect again later.")
        protocols = subprotocols(headers)
        earlier = EARLIER_PROTOCOL in protocols or "realtime=v1" in headers.get("OpenAI-Beta", "")
        key, options = self._key(sent_key(headers, protocols))
        return Admission(key, options, earlier)

    def _key(self, sent: str) -> tuple[str | None, Options]:
        """Return the key for a session's windows, and its first options.

        Raises:
            Unauthorized: the key or client secret is not valid.
        """
        if sent.startswith(client_secret.PREFIX):
            grant = client_secret.check(self._secret, sent)
            if grant is not None and self._is_known(grant.name):
                key = passes.pass_of(self._secret, grant.name) if grant.name else None
                return key, Options().updated(grant.session)
        elif not self._keyring.asks:
            return None, Options()
        elif self._keyring.find(sent) is not None:
            return sent, Options()
        if not self._keyring.asks:
            return None, Options()
        metrics.SESSIONS_REFUSED.labels("key").inc()
        raise Unauthorized(WRONG_KEY)

    def _is_known(self, name: str | None) -> bool:
        """Return whether a client secret's name still has a key."""
        names = [key.name for key in self._keyring.keys()]  # noqa: SIM118 (no dictionary)
        return not self._keyring.asks or name in names

    # --- sessions --------------------------------------------------------------------------

    async def _on_connection(self, connection: ServerConnection) -> None:
        """Run a session until the client leaves or the session is ended."""
        admission = self._admissions.pop(connection)
        outbox = Outbox(connection)
        session = Session(
            outbox.put,
            self._balancer,
            admission.key,
            admission.options,
            earlier=admission.earlier,
            interval_s=self._config.live_interval_s,
            backlog_s=self._config.live_backlog_s,
        )
        self._sessions[connection] = session
        with metrics.SESSIONS.track_inprogress():
            try:
                await self._run(connection, session, outbox)
            finally:
                del self._sessions[connection]

    async def _run(self, connection: ServerConnection, session: Session, outbox: Outbox) -> None:
        """Run a session's tasks until one of them ends, and tell the client why."""
        tasks = {
            asyncio.create_task(read(connection, session, outbox)): "client",
            asyncio.create_task(session.run()): "error",
            asyncio.create_task(outbox.run()): "client",
            asyncio.create_task(outbox.is_full.wait()): "slow",
            asyncio.create_task(asyncio.sleep(self._config.live_max_session_s)): "limit",
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        why = next(tasks[task] for task in tasks if task in done)
        causes = [each for each in results if isinstance(each, Exception)]
        if not self._draining.is_set():
            metrics.SESSIONS_ENDED.labels(why).inc()
        await self._say_goodbye(connection, outbox, why, causes)

    async def _say_goodbye(
        self, connection: ServerConnection, outbox: Outbox, why: str, causes: list[Exception]
    ) -> None:
        """Send the last events, and close the connection with a reason."""
        code, reason = 1000, ""
        last: ServiceError | None = None
        if why == "slow":
            code, reason = 1008, "The client reads its events too slowly."
        elif why == "limit":
            last = SessionExpired(
                f"The session has reached {self._config.live_max_session_s:g} s, the longest. "
                "Connect again."
            )
        else:
            last = next((each for each in causes if isinstance(each, ServiceError)), None)
            bugs = [
                each for each in causes if not isinstance(each, ServiceError | ConnectionClosed)
            ]
            if last is None and bugs:
                logger.error("unhandled exception in a session", exc_info=bugs[0])
                last = EngineFailed("The session failed. Connect again.")
        if last is not None:
            outbox.put(events.error(last))
            code, reason = 1008, last.message[:120]
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            if why != "slow":
                await asyncio.wait_for(outbox.flush(), LAST_EVENTS_S)
            await connection.close(code, reason)


async def read(connection: ServerConnection, session: Session, outbox: Outbox) -> None:
    """Pass the client's messages to its session until it leaves.

    Raises:
        InvalidRequest: the client sends only invalid events.
    """
    async for message in connection:
        if len(message) > FRAME_BYTES:
            size = f"{FRAME_BYTES >> 20} MiB"
            outbox.put(events.error(TooLarge(f"The event is larger than {size}; send less audio.")))
        else:
            await session.handle(message)
        if outbox.errors >= WORST_ERRORS:
            raise InvalidRequest(f"The last {WORST_ERRORS} events were invalid.")


def subprotocols(headers: Mapping[str, str]) -> list[str]:
    """Return the subprotocols that a client offers."""
    offered = headers.get("Sec-WebSocket-Protocol", "")
    return [name.strip() for name in offered.split(",") if name.strip()]


def sent_key(headers: Mapping[str, str], protocols: list[str]) -> str:
    """Return the key of a handshake; empty: there is none.

    The header rules are those of app/api/middleware.py.
    """
    scheme, _, key = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if key := headers.get("X-API-Key", ""):
        return key
    offered = [name for name in protocols if name.startswith(KEY_PROTOCOL)]
    return offered[0].removeprefix(KEY_PROTOCOL) if offered else ""


def select_subprotocol(connection: ServerConnection, offered: Any) -> Subprotocol | None:
    """Select `realtime`; a key is never sent back."""
    return Subprotocol(REALTIME) if REALTIME in offered else None


def refused(connection: ServerConnection, refusal: ServiceError) -> Response:
    """Return the answer to a handshake that is refused."""
    response = connection.respond(http.HTTPStatus(refusal.status), json.dumps(refusal.body()))
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "application/json"
    response.headers["X-Error"] = refusal.code or refusal.type
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == 503:
        response.headers["Retry-After"] = "1"
    return response


def own_balancer(config: Config) -> str:
    """Return the address of this machine's balancer."""
    scheme = "https" if config.tls_certificate else "http"
    return f"{scheme}://127.0.0.1:{config.lb_port}"
