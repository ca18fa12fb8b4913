"""The users of the load tests, for locust.

    python -m tests.measure.load single                         a mode with its report
    locust -f tests/measure/load/locustfile.py --host URL       locust's own web page
    locust -f tests/measure/load/locustfile.py --host URL --headless -u 8 -t 60s Window

Locust imports this file in a process of its own, whose sockets and sleeps gevent has made
cooperative. Every request goes to locust's statistics, where refusals stand under a name of their
own, and to the journal, from which the report is made.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, ClassVar

import gevent
from locust import User, constant, events, task
from locust.env import Environment

# Locust puts this file's folder on the path, and not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tests.measure.load import caller, speech
from tests.measure.load.caller import Answer
from tests.measure.load.journal import Caption, Writer
from tests.measure.load.speaker import EVERY_S, Speaker
from tests.support.recordings import SAMPLE_RATE, wav

RETRY_AFTER_S = (1.0, 2.0, 4.0)  # a bot's, whatever the answer's header says
PATIENCE_S = {"window": 120.0, "meeting": 30.0, "deferred": 600.0}
SPEECH_S = 300.0  # a speaker begins anew after this
SEEDS = 6  # different talks

numbers = itertools.count()


@events.init_command_line_parser.add_listener
def options(parser: ArgumentParser) -> None:
    """What the modes choose, shown on the web page too."""
    add = parser.add_argument
    add("--journal", default=".run/load/journal.jsonl", help="where the calls are written")
    add("--window-seconds", type=float, default=0.0, help="audio of a Window; 0: 2 to 30 s")
    add("--pace", type=float, default=0.0, help="seconds between a Window's calls; 0: none")
    add("--file-seconds", type=float, default=120.0, help="audio of a Deferred")
    add("--deferred-users", type=int, default=0, help="users that are Deferred; 0: by weight")
    add("--language", default="en", help="language sent; empty: detected")


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Make the speech before anybody waits: it takes seconds, and all users share one process."""
    Deferred.fixed_count = environment.parsed_options.deferred_users
    for seed in range(SEEDS):
        speech.talk(seed, SPEECH_S)

    def all_there(user_count: int, **_: Any) -> None:
        environment.journal.started(time.monotonic())

    environment.events.spawning_complete.add_listener(all_there)


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """A journal for each run; one from the web page starts it anew."""
    environment.journal = Writer(Path(environment.parsed_options.journal))


@events.test_stopping.add_listener
def told_to_stop(environment: Environment, **_: Any) -> None:
    environment.journal.stopped(time.monotonic())


class Talker(User):
    """What all users have in common: an own number, a key, and where their calls are written."""

    abstract = True
    kind: ClassVar[str]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self.number = next(numbers)
        self.options = environment.parsed_options
        key = os.environ.get("LOAD_KEY", "")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def fields(self, *further: tuple[str, str]) -> list[tuple[str, str]]:
        """Return the fields sent with the file."""
        chosen = [("model", "whisper-1"), ("response_format", "verbose_json"), *further]
        if self.options.language:
            chosen.append(("language", self.options.language))
        return chosen

    def send(self, body: bytes, audio_s: float, attempt: int = 1, **headers: str) -> Answer:
        """One request, timed and written down."""
        answer = caller.send(
            str(self.host or self.environment.host), body, user=self.kind, audio_s=audio_s,
            patience_s=PATIENCE_S[self.kind], headers=self.headers | headers, attempt=attempt,
        )  # fmt: skip
        call = answer.call
        self.environment.journal.call(call)
        outcome = call.outcome
        self.environment.events.request.fire(
            request_type="POST",
            name=self.kind if outcome != "refused" else f"{self.kind}, refused",
            response_time=call.elapsed_s * 1000,
            response_length=0,
            exception=RuntimeError(f"{outcome} {call.status} {call.note}")
            if outcome in ("left", "error")
            else None,
            context={},
        )
        return answer


class Window(Talker):
    """Sends one window of 2 to 30 s after another; when refused, waits as long as it is told."""

    kind = "window"
    wait_time = constant(0)

    def on_start(self) -> None:
        self.turn = self.number
        # Users that keep a pace begin at different moments of it.
        golden = 0.618 * self.number % 1
        self.due = time.monotonic() + golden * self.options.pace

    @task
    def one(self) -> None:
        if self.options.pace:
            gevent.sleep(max(0.0, self.due - time.monotonic()))
            self.due += self.options.pace
        seconds = self.options.window_seconds or speech.WINDOWS_S[self.turn % len(speech.WINDOWS_S)]
        audio = speech.window(self.turn % SEEDS, seconds)
        self.turn += 1
        body = caller.form(audio, self.fields(("timestamp_granularities[]", "word")))
        answer = self.send(body, seconds)
        if answer.call.outcome != "ok" and not self.options.pace:
            gevent.sleep(answer.retry_after_s or 1.0)


class Meeting(Talker):
    """A meeting with one person speaking at a time, and its bot; see `speaker`."""

    kind = "meeting"
    wait_time = constant(0)

    def on_start(self) -> None:
        self.talk = speech.talk(self.number % SEEDS, SPEECH_S)
        # Meetings begin at different moments of the 2 s.
        gevent.sleep(0.618 * self.number % 1 * EVERY_S)
        self.renew()

    def renew(self) -> None:
        """Begin to speak."""
        self.began = time.monotonic()
        self.due_s = EVERY_S
        self.speaker = Speaker()

    @task
    def window(self) -> None:
        """Wait for the next moment to send, and see the window through to its text or its loss."""
        gevent.sleep(max(0.0, self.began + self.due_s - time.monotonic()))
        window = self.speaker.window(self.due_s)
        shown_s = self.speaker.shown_s
        edges = [int(second * SAMPLE_RATE) for second in (window.begin_s, window.end_s)]
        audio = wav(self.talk[edges[0] : edges[1]])
        further = [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")]
        if self.speaker.prompt:
            further.append(("prompt", self.speaker.prompt))
        body = caller.form(audio, self.fields(*further))
        answer, attempts = self.persist(body, window.seconds)
        text_s = None
        if answer.call.outcome == "ok":
            text_s = answer.call.ended_s
            self.speaker.hear(answer.body, window)
        self.environment.journal.caption(
            Caption(
                self.began + shown_s, self.began + window.end_s, text_s, attempts, window.dropped_s
            )
        )
        # The moments that passed meanwhile are skipped: one window of a speaker is on its way.
        passed = max(1, int((time.monotonic() - self.began - self.due_s) // EVERY_S) + 1)
        self.due_s += passed * EVERY_S
        if self.due_s > SPEECH_S:
            self.renew()

    def persist(self, body: bytes, audio_s: float) -> tuple[Answer, int]:
        """Send it until it is answered or the attempts are used up."""
        answer = self.send(body, audio_s)
        for attempt, pause_s in enumerate(RETRY_AFTER_S, start=2):
            if answer.call.outcome not in ("refused", "left"):
                break
            gevent.sleep(pause_s)
            answer = self.send(body, audio_s, attempt)
        return answer, answer.call.attempt


class Deferred(Talker):
    """Sends one long file after another in the deferred tier."""

    kind = "deferred"
    wait_time = constant(1)

    @task
    def one(self) -> None:
        seconds = self.options.file_seconds
        body = caller.form(speech.long_file(seconds), self.fields())
        headers = {"X-Transcription-Tier": "deferred"}
        answer = self.send(body, seconds, **headers)
        if answer.call.outcome != "ok":
            gevent.sleep(answer.retry_after_s or 1.0)
