"""Run one session: its events, its turns, and the windows that it sends."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from app.audio.limits import SAMPLE_RATE
from app.errors import Busy as PoolBusy
from app.errors import InvalidRequest, ServiceError, TooLarge, Unauthorized
from app.live import events, metrics
from app.live.agreement import Word
from app.live.codec import Codec
from app.live.events import Event, new_id
from app.live.options import Options, TurnDetection, a_text
from app.live.turn import BYTES, LEAD_S, Turn, Window
from app.live.voice import PIECE, Change, Voice, samples_of
from app.live.windows import Answer, Balancer, Busy

LEAST_COMMIT_S = 0.1  # a shorter buffer counts as empty, as at OpenAI
LONGEST_TURN_S = 600.0  # then the turn ends and another begins
LONGEST_WAIT_S = 5.0  # between two tries of a window
# For a window's answer while the client sends faster than it is transcribed. Less than the gateway
# waits for a pong: a connection that is not read answers no ping.
PATIENCE_S = 45.0
LEAD = int(LEAD_S * SAMPLE_RATE)  # samples
EVENT_BYTES = 4 << 20  # a minute of 24 kHz PCM in base64
EVENT_ID_CHARACTERS = 512  # OpenAI's limit
KEY_REFUSED = "The API key is no longer valid."


class EmptyCommit(InvalidRequest):
    """Commit of a buffer without audio, or without speech while the service detects turns."""

    code = "input_audio_buffer_commit_empty"


class BacklogFull(PoolBusy):
    """Turn whose audio was dropped, because the pool was busy for too long."""

    code = "live_backlog_full"


class Session:
    """A session of one client.

    All methods run on the gateway's event loop: `handle` for each message of the client, `run`
    as a task of its own, `finish` at the end. The lock keeps `finish` out of an `append` that has
    let other sessions run.

    Args:
        emit: sends an event to the client.
        balancer: the pool.
        key: sent with each window; None: the service asks for none.
        options: the initial options.
        earlier: the client speaks the earlier shape of the API.
        interval_s: new speech after which another window is sent.
        backlog_s: audio kept while the pool is busy.
    """

    def __init__(
        self,
        emit: Callable[[Event], None],
        balancer: Balancer,
        key: str | None,
        options: Options,
        *,
        earlier: bool,
        interval_s: float,
        backlog_s: float,
    ) -> None:
        self._emit = emit
        self._balancer = balancer
        self._key = key
        self._interval_s = interval_s
        self._backlog_s = backlog_s
        self._earlier = earlier
        self._id = new_id("sess")
        self._turns: deque[Turn] = deque()  # the oldest first
        self._open: Turn | None = None  # the last of them, while audio is added to it
        self._previous_item: str | None = None
        self._language_before: str | None = None  # of the newest completed turn with words
        self._position = 0  # samples since the session began
        self._free = 0  # from this sample on, audio belongs to no turn or to the open one
        self._recent = bytearray()  # the newest audio
        self._is_busy = False  # the pool refused the newest window
        self._behind_sent_at = 0.0  # 0: the client knows of no audio that is behind
        self._is_ending = False
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()  # for `run`: a window may be due
        self._progress = asyncio.Event()  # a window was answered, or a turn is finished
        self._options = options
        self._codec = Codec(options.format)
        self._voice = Voice(0.0, 0)
        self._detect_turns()
        self._emit(self._session_event("created"))

    # --- the client's events ---------------------------------------------------------------

    async def handle(self, message: str | bytes) -> bool:
        """Handle one message of the client; return whether it is valid. An invalid one is answered
        with an `error` event."""
        client_event = None
        try:
            sent = parsed(message)
            if sent.get("event_id") is not None:
                client_event = a_text(sent["event_id"], EVENT_ID_CHARACTERS, "event_id")
            async with self._lock:
                await self._handle(sent)
        except ServiceError as cause:
            self._emit(events.error(cause, client_event))
            return False
        return True

    async def _handle(self, sent: Mapping[str, Any]) -> None:
        kind = sent.get("type")
        if kind == "input_audio_buffer.append":
            await self._append(audio_of(sent))
        elif kind in ("session.update", "transcription_session.update"):
            self._earlier = kind.startswith("transcription_")
            options = self._options.updated(sent.get("session"))
            self._use(options)
            self._emit(self._session_event("updated"))
        elif kind == "input_audio_buffer.commit":
            self._commit()
        elif kind == "input_audio_buffer.clear":
            self._clear()
        else:
            raise InvalidRequest(
                f"The event type {str(kind)[:80]!r} is not served here.", param="type"
            )

    def _use(self, options: Options) -> None:
        """Take other options; audio that was received keeps its meaning."""
        before, self._options = self._options, options
        if options.format != before.format:
            self._codec = Codec(options.format)
        if options.turn_detection != before.turn_detection:
            self._detect_turns()

    def _detect_turns(self) -> None:
        """Follow the options' turn detection from here on.

        An open turn goes on. If the service is to detect turns and hears no speech now, the turn
        ends here, or becomes the silence before the next one.
        """
        detection = self._options.turn_detection or TurnDetection()
        self._voice.threshold = detection.threshold
        self._voice.silence = samples_of(detection.silence_duration_ms)
        self._padding = samples_of(detection.prefix_padding_ms)
        if self._open is None or self._options.turn_detection is None:
            return
        self._hear_rest()
        if not self._voice.speaking:
            self._close_turn()

    @property
    def _kept(self) -> int:
        """Return the samples before a turn that may belong to it: the padding, and those in which
        the start of speech is found late."""
        return self._padding + 2 * PIECE

    def _session_event(self, what: str) -> Event:
        name = "transcription_session" if self._earlier else "session"
        shown = self._options.shown_earlier() if self._earlier else self._options.shown()
        kind = "realtime.transcription_session"
        session = {"id": self._id, "object": kind, **shown}
        return events.event(f"{name}.{what}", session=session)

    async def _append(self, audio: bytes) -> None:
        """Take audio in small steps, so that a long event does not hold up other sessions."""
        if self._is_ending:
            return
        now = time.monotonic()
        step = self._options.format.bytes_per_s * PIECE // SAMPLE_RATE
        for begin in range(0, len(audio), step):
            await self._make_room()
            self._hear(self._codec.decode(audio[begin : begin + step]), now)
            if len(audio) > step:
                await asyncio.sleep(0)
        self._wake_if_due()

    def _commit(self) -> None:
        self._hear_rest()
        turn = self._open
        if turn is None or turn.received < LEAST_COMMIT_S * SAMPLE_RATE:
            raise EmptyCommit("There is no speech in the buffer to commit.")
        self._end_turn()

    def _clear(self) -> None:
        if self._open is not None:
            self._turns.remove(self._open)
            metrics.TURNS.labels("cleared").inc()
        self._open = None
        if self._free < self._position:
            self._recent.clear()
            self._free = self._position
        self._voice.speaking = False
        self._emit(events.event("input_audio_buffer.cleared"))

    # --- turns -----------------------------------------------------------------------------

    def _hear(self, samples: np.ndarray, now: float) -> None:
        """Add samples to the open turn, or start one, and find speech in them."""
        self._position += samples.size
        self._recent += samples.tobytes()
        del self._recent[: max(0, len(self._recent) - (self._kept + LEAD) * BYTES)]
        if self._open is not None:
            self._open.append(samples, now)
        elif self._options.turn_detection is None:
            self._start_turn(self._position - self._kept, now)
        for change in self._voice.feed(samples):
            self._on_change(change, now)
        if self._open is None:
            return
        if self._voice.speaking:
            self._open.voiced = self._voice.last_voice - self._open.start
        if self._options.turn_detection is None:
            self._open.drop_silence()
        if self._open.received > LONGEST_TURN_S * SAMPLE_RATE:
            self._close_turn()

    def _hear_rest(self) -> None:
        """Find speech in the newest samples, which wait until there are enough for a call."""
        for change in self._voice.flush():
            self._on_change(change, time.monotonic())
        if self._open is not None and self._voice.speaking:
            self._open.voiced = self._open.received

    def _on_change(self, change: Change, now: float) -> None:
        """Start or end a turn; without turn detection, note the end of speech."""
        turn = self._open
        if turn is not None and not change.starts:
            turn.voiced = change.at - turn.start
        if self._options.turn_detection is None:
            return
        if turn is None and change.starts:
            turn = self._start_turn(change.at - self._padding, now)
            item = {"item_id": turn.item_id, "audio_start_ms": milliseconds(turn.start)}
            self._emit(events.event("input_audio_buffer.speech_started", **item))
        elif turn is not None and not change.starts:
            end = change.at + self._voice.silence
            item = {"item_id": turn.item_id, "audio_end_ms": milliseconds(end)}
            self._emit(events.event("input_audio_buffer.speech_stopped", **item))
            self._end_turn()
            self._free = end

    def _start_turn(self, start: int, now: float) -> Turn:
        """Open a turn with the audio of no other turn, at the earliest from this sample on."""
        recent = np.frombuffer(bytes(self._recent), np.int16)
        start = max(start, self._free, self._position - recent.size)
        lead, samples = np.split(recent, [recent.size - (self._position - start)])
        language = self._options.transcription.get("language")
        turn = Turn(new_id("item"), start, language, lead[-LEAD:].tobytes())
        turn.append(samples, now)
        self._turns.append(turn)
        self._open = turn
        return turn

    def _close_turn(self) -> None:
        """End the open turn, also in mid-speech. Without speech it becomes the silence before the
        next one."""
        self._hear_rest()
        turn = self._open
        if turn is not None and turn.voiced:
            self._end_turn()
        elif turn is not None:
            self._turns.remove(turn)
            self._open = None

    def _end_turn(self) -> None:
        """Commit the open turn."""
        turn, self._open = self._open, None
        assert turn is not None
        turn.ended = True
        self._free = self._position
        self._voice.speaking = False
        metrics.SPEECH_SECONDS.inc(turn.received / SAMPLE_RATE)
        previous, self._previous_item = self._previous_item, turn.item_id
        place = {"previous_item_id": previous}
        item = events.user_item(turn.item_id)
        self._emit(events.event("input_audio_buffer.committed", item_id=turn.item_id, **place))
        for what in ("created",) if self._earlier else ("added", "done"):
            self._emit(events.event(f"conversation.item.{what}", item=item, **place))
        if turn.failure is not None:
            self._fail(turn, turn.failure)
        self._wake.set()

    async def finish(self) -> None:
        """Take no more audio, end the open turn, and wait until every turn is finished."""
        async with self._lock:
            self._is_ending = True
            self._close_turn()
        while self._turns:
            self._progress.clear()
            await self._progress.wait()

    # --- windows ---------------------------------------------------------------------------

    @property
    def behind_s(self) -> float:
        """Return the seconds of audio that wait for the pool."""
        return sum(turn.unseen_s for turn in self._turns if turn.failure is None)

    async def run(self) -> None:
        """Send windows until the task is cancelled, those of the oldest turn first.

        Raises:
            Unauthorized: the key was revoked.
        """
        while True:
            turn = self._turns[0] if self._turns else None
            if turn is not None and turn.failure is None and turn.due(self._interval_s):
                await self._send(turn)
            elif turn is not None and turn.failure is None and turn.is_complete():
                self._complete(turn)
            else:
                self._keep_up()
                await self._wake.wait()
                self._wake.clear()

    async def _send(self, turn: Turn) -> None:
        """Send one window of a turn, and take its answer."""
        window = turn.window(self._language_before)
        try:
            answer = await self._balancer.transcribe(
                window.wav(), self._options, self._key, turn.language
            )
        except Busy as busy:
            metrics.WINDOWS.labels("busy").inc()
            await self._wait(busy)
            return
        except Unauthorized:
            raise Unauthorized(KEY_REFUSED) from None
        except ServiceError as cause:
            metrics.WINDOWS.labels("refused").inc()
            turn.failure = turn.failure or cause
            if turn.ended and turn in self._turns:
                self._fail(turn, cause)
        else:
            self._take(turn, window, answer)
        self._keep_up()
        self._progress.set()

    def _take(self, turn: Turn, window: Window, answer: Answer) -> None:
        metrics.WINDOWS.labels("words").inc()
        metrics.WINDOW_SECONDS.inc(window.seconds)
        if turn not in self._turns:  # cleared, or dropped
            return
        confirmed = turn.answer(window, answer.words)
        if confirmed:
            turn.language = turn.language or answer.language
            self._send_delta(turn, confirmed)

    def _keep_up(self) -> None:
        """Note that the pool answers, and send the end of `behind` events if one was sent."""
        self._is_busy = False
        if self._behind_sent_at and self.behind_s < self._interval_s * 2:
            self._behind_sent_at = 0.0
            self._emit(events.behind(self._backlog_s, 0.0, 0.0))

    def _send_delta(self, turn: Turn, words: Sequence[Word]) -> None:
        text = "".join(word.text for word in words)
        if len(turn.words.confirmed) == len(words):  # the turn's first
            text = text.lstrip()
        scored = words if self._options.include_logprobs else None
        self._emit(events.delta(turn.item_id, text, scored))
        now = time.monotonic()
        for word in words:
            metrics.observe_delay(max(0.0, now - turn.arrived(word.end)))

    def _complete(self, turn: Turn) -> None:
        """Send a finished turn's remaining words and its whole text."""
        if rest := turn.words.finish():
            self._send_delta(turn, rest)
        words = turn.words.confirmed
        text = "".join(word.text for word in words).lstrip()
        scored = words if self._options.include_logprobs else None
        seconds = turn.received / SAMPLE_RATE
        self._emit(events.completed(turn.item_id, text, seconds, scored))
        self._language_before = turn.language or self._language_before
        self._turns.remove(turn)
        self._progress.set()
        metrics.TURNS.labels("completed").inc()

    def _fail(self, turn: Turn, cause: ServiceError) -> None:
        self._emit(events.failed(turn.item_id, cause))
        self._turns.remove(turn)
        self._progress.set()
        metrics.TURNS.labels("failed").inc()

    async def _wait(self, busy: Busy) -> None:
        """Wait until a refused window may be sent again; it will have more audio then."""
        self._is_busy = True
        self._progress.set()
        seconds = min(busy.retry_after_s, LONGEST_WAIT_S)
        now = time.monotonic()
        if now - self._behind_sent_at > LONGEST_WAIT_S:
            self._behind_sent_at = now
            self._emit(events.behind(self._backlog_s, self.behind_s, seconds))
        await asyncio.sleep(seconds)

    def _wake_if_due(self) -> None:
        if self._turns and self._turns[0].due(self._interval_s):
            self._wake.set()

    async def _make_room(self) -> None:
        """While too much audio waits, make the client wait; drop a turn if the pool is busy."""
        while self.behind_s >= self._backlog_s:
            self._wake.set()
            if self._is_busy or not await self._has_progress():
                self._drop_oldest()

    async def _has_progress(self) -> bool:
        """Wait for a window's answer; return whether it comes."""
        self._progress.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                return await self._progress.wait()
        return False

    def _drop_oldest(self) -> None:
        """Fail the oldest turn. If it is open, it ends here and another one goes on."""
        turn = next(turn for turn in self._turns if turn.failure is None)
        turn.failure = BacklogFull(
            f"The pool was busy, and more than {self._backlog_s:g} s of audio waited. The audio "
            "of this item was dropped."
        )
        if turn is not self._open:
            self._fail(turn, turn.failure)
            return
        speaking = self._voice.speaking
        self._end_turn()
        if speaking and self._options.turn_detection is not None:
            self._voice.speaking = True
            self._start_turn(self._position, time.monotonic())


def parsed(message: str | bytes) -> Mapping[str, Any]:
    """Return a client's event.

    Raises:
        InvalidRequest: it is not a JSON object.
        TooLarge: it is longer than `EVENT_BYTES`.
    """
    if len(message) > EVENT_BYTES:
        size = f"{EVENT_BYTES >> 20} MiB"
        raise TooLarge(f"The event is larger than {size}; send less audio at a time.")
    try:
        sent = json.loads(message)
    except (ValueError, RecursionError):
        raise InvalidRequest("The event is not valid JSON.") from None
    if not isinstance(sent, dict):
        raise InvalidRequest("The event must be a JSON object.")
    return sent


def audio_of(sent: Mapping[str, Any]) -> bytes:
    """Return the audio of an `input_audio_buffer.append` event.

    Raises:
        InvalidRequest: it is not base64.
    """
    try:
        return base64.b64decode(sent["audio"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise InvalidRequest("audio must be a base64 string.", param="audio") from None


def milliseconds(samples: int) -> int:
    """Return the milliseconds of a number of samples."""
    return samples * 1000 // SAMPLE_RATE
