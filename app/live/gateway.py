"""Serve live sessions over WebSockets: admit them, limit them, and end them."""

from __future__ import annotations

import asyncio
import contextlib
import http
import json
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from prometheus_client import generate_latest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.protocol import State
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
    Unauthorized,
)
from app.keys import passes
from app.keys.keyring import Keyring
from app.keys.sent import KEY_NAMES, sent_key
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
# Over this the connection is closed before the frame is in memory; app/live/session.py answers
# smaller ones that are too large.
MOST_FRAME_BYTES = 5 << 20
# A session is not read while more frames than this wait. So a client that floods it fills three
# frames at most: two that wait, and one that arrives.
FRAMES_WAITING = 1
WRITE_BYTES = 64 << 10  # that a slow reader has not taken; then events wait
WAITING_BYTES = 1 << 20  # of events that wait; then the session ends
PING_S, PONG_S = 20.0, 60.0
WORST_ERRORS = 100  # invalid events in a row; then the session ends
# When a session or the gateway ends: for open turns, for the last events, and for the client's
# answer to the closing frame. Together less than GATEWAY_STOP_S (app/pool/environment.py).
FINISH_S, LAST_EVENTS_S, CLOSE_S = 10.0, 2.0, 2.0
# Code and reason of the closing frame, by the reason for which a session ends without an error.
GOODBYES = {
    "slow": (1008, "The client reads its events too slowly."),
    "shutdown": (1001, "The service is stopping; connect again."),
}


class SessionExpired(InvalidRequest):
    """Session that reached the longest duration."""

    code = "session_expired"


@dataclass(frozen=True, slots=True)
class Admission:
    """Result of a handshake.

    Attributes:
        key: sent with the session's windows; None: the service asks for none.
        options: those of a client secret, or the defaults.
        earlier: the client speaks the earlier shape.
    """

    key: str | None
    options: Options
    earlier: bool


class Connection(ServerConnection):
    """A client's connection.

    Attributes:
        admission: set by the handshake.
    """

    admission: Admission

    async def close(self, code: CloseCode | int = 1000, reason: str = "") -> None:
        """Close the connection within `CLOSE_S`, also if its client reads nothing.

        On a closed connection websockets' own `close` and `send` abort the transport, and asyncio's
        `abort` raises AttributeError if the client left before the last data was sent to it.
        """
        try:
            async with asyncio.timeout(CLOSE_S):
                if self.state is State.OPEN:
                    await super().close(code, reason)
                await self.wait_closed()
        except TimeoutError:
            self.transport.abort()


class Outbox:
    """Events that wait for the client to read them.

    Args:
        connection: of the client.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._is_closed = False
        self._changed = asyncio.Event()
        self.is_full = asyncio.Event()

    def put(self, event: Event) -> None:
        """Queue an event, unless the client reads too slowly for another one."""
        text = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
        if self._events and self._bytes + len(text) > WAITING_BYTES:
            self.is_full.set()
            return
        self._events.append(text)
        self._bytes += len(text)
        self._changed.set()

    def close(self) -> None:
        """Make `run` return as soon as the queued events are sent."""
        self._is_closed = True
        self._changed.set()

    async def run(self) -> None:
        """Send events until the outbox or the connection is closed."""
        while self._events or not self._is_closed:
            if self._connection.state is not State.OPEN:
                return
            if self._events:
                text = self._events.popleft()
                self._bytes -= len(text)
                await self._connection.send(text, text=True)
            else:
                self._changed.clear()
                await self._changed.wait()


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
            create_connection=Connection,
            process_request=self._on_request,
            select_subprotocol=select_subprotocol,
            compression=None,  # base64 audio costs more time to unpack than it saves
            max_size=MOST_FRAME_BYTES,
            max_queue=FRAMES_WAITING,
            write_limit=WRITE_BYTES,
            ping_interval=PING_S,
            ping_timeout=PONG_S,
            close_timeout=CLOSE_S,
            server_header=None,
            logger=logging.getLogger("websockets.server"),
        )

    async def drain(self, server: Server) -> None:
        """Refuse new sessions, and end all others once their open turns are finished."""
        self._draining.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S + LAST_EVENTS_S + CLOSE_S):
                while self._sessions:
                    await asyncio.sleep(0.05)
        server.close()
        await self._balancer.close()

    # --- the handshake ---------------------------------------------------------------------

    def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer a plain request, refuse a session, or admit it (None)."""
        url = urlsplit(request.path)
        if url.path == "/health":
            return self._health(connection)
        if url.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, generate_latest().decode())
        try:
            assert isinstance(connection, Connection)
            connection.admission = self._admit(url.path, url.query, request.headers)
        except ServiceError as refusal:
            return refused(connection, refusal)
        return None

    def _health(self, connection: ServerConnection) -> Response:
        """Return whether the balancer may send new sessions here."""
        if self._draining.is_set():
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE, '{"status":"draining"}\n'
            )
        answer = connection.respond(http.HTTPStatus.OK, '{"status":"healthy"}\n')
        answer.headers[metrics.HEADER] = metrics.figures(self._behind_s())
        return answer

    def _admit(self, path: str, query: str, headers: Headers) -> Admission:
        if path != PATH:
            raise NotFound(NOTHING_HERE)
        if any(KEY_NAMES.fullmatch(name) for name, _ in parse_qsl(query, keep_blank_values=True)):
            raise KeyInUrl(KEY_IN_URL)
        if self._draining.is_set():
            metrics.SESSIONS_REFUSED.labels("shutdown").inc()
            raise Draining("The gateway is stopping. Connect again.")
        if len(self._sessions) >= self._config.live_max_sessions:
            metrics.SESSIONS_REFUSED.labels("full").inc()
            raise Busy("All live sessions are in use. Connect again later.")
        protocols = subprotocols(headers)
        earlier = EARLIER_PROTOCOL in protocols or "realtime=v1" in header(headers, "OpenAI-Beta")
        key, options = self._key(key_of(headers, protocols))
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
        assert isinstance(connection, Connection)
        admission = connection.admission
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
        sending = asyncio.create_task(outbox.run())
        tasks = {
            asyncio.create_task(read(connection, session)): "client",
            asyncio.create_task(session.run()): "error",
            sending: "client",
            asyncio.create_task(outbox.is_full.wait()): "slow",
            asyncio.create_task(self._expire(session)): "limit",
            asyncio.create_task(self._stop(session)): "shutdown",
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await cancelled(task for task in tasks if task is not sending)
            why = next(why for task, why in tasks.items() if task in done)
            cause = next(filter(None, (task.exception() for task in done)), None)
            await self._say_goodbye(connection, outbox, sending, why, cause)
        finally:
            await cancelled(tasks)

    async def _expire(self, session: Session) -> None:
        """Return when a session has reached the longest duration, and its turns are finished."""
        await asyncio.sleep(self._config.live_max_session_s)
        await finish(session)

    async def _stop(self, session: Session) -> None:
        """Return when the gateway drains, and the session's turns are finished."""
        await self._draining.wait()
        await finish(session)

    async def _say_goodbye(
        self,
        connection: ServerConnection,
        outbox: Outbox,
        sending: asyncio.Task[None],
        why: str,
        cause: BaseException | None,
    ) -> None:
        """Send the last events, close the connection with a reason, and count the session."""
        if cause is not None and not isinstance(cause, ServiceError | ConnectionClosed):
            logger.error("unhandled exception in a session", exc_info=cause)
            why, cause = "error", EngineFailed("The session failed. Connect again.")
        metrics.SESSIONS_ENDED.labels(why).inc()
        if why == "limit":
            cause = SessionExpired(
                f"The session has reached {self._config.live_max_session_s:g} s, the longest. "
                "Connect again."
            )
        code, reason = GOODBYES.get(why, (1000, ""))
        if isinstance(cause, ServiceError):
            outbox.put(events.error(cause))
            code, reason = 1008, cause.message[:120]
        outbox.close()
        if why != "slow":
            await asyncio.wait([sending], timeout=LAST_EVENTS_S)
        await connection.close(code, reason)


async def finish(session: Session) -> None:
    """Finish a session's open turns, within `FINISH_S`."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FINISH_S):
            await session.finish()


async def cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def read(connection: ServerConnection, session: Session) -> None:
    """Pass the client's messages to its session until it leaves.

    Raises:
        InvalidRequest: the client sends only invalid events.
    """
    n_wrong = 0  # in a row
    async for message in connection:
        is_valid = await session.handle(message)
        n_wrong = 0 if is_valid else n_wrong + 1
        if n_wrong >= WORST_ERRORS:
            raise InvalidRequest(f"The last {WORST_ERRORS} events were invalid.")


def header(headers: Headers, name: str) -> str:
    """Return a header's value, the values of a repeated one with commas between."""
    return ", ".join(headers.get_all(name))


def subprotocols(headers: Headers) -> list[str]:
    """Return the subprotocols that a client offers."""
    offered = header(headers, "Sec-WebSocket-Protocol")
    return [name.strip() for name in offered.split(",") if name.strip()]


def key_of(headers: Headers, protocols: list[str]) -> str:
    """Return the key of a handshake; empty: there is none."""
    if key := sent_key(header(headers, "Authorization"), header(headers, "X-API-Key")):
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
