"""Keep one turn's audio and decide what of it the next window holds."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np

from app.audio.limits import SAMPLE_RATE
from app.errors import ServiceError
from app.live.agreement import Agreement, Word

BYTES = 2  # of a sample
# A window begins with audio of confirmed words, at first of the turn before: Whisper needs some
# seconds of context, and makes up less from them than from the confirmed text as a prompt.
LEAD_S = 4.0
TRIM_S = 8.0  # a longer window loses its confirmed audio but for the lead
# A window must fit Whisper's 30 s. Past this, the first half's words count as confirmed.
FORCE_S = 26.0
# Less speech than this after the last confirmed word is that word's end, and a word that begins
# this long after the last speech was not said: from such rests Whisper makes text up.
REST_S = 0.4
PAUSE_S = 0.2  # silence after which a window is sent at once: it may be the turn's last
SILENCE_KEPT_S = 0.5  # before the next speech
ARRIVALS_APART = SAMPLE_RATE // 10  # samples: arrival times are kept for steps of 0.1 s
SENTENCE_ENDS = ".?!。？！…"


@dataclass(frozen=True, slots=True)
class Window:
    """Audio to transcribe.

    Attributes:
        pcm: 16-bit samples, 16 kHz.
        start_s: its position, in seconds from the turn's first sample.
        end: its end, in samples from the turn's first.
        last: the turn has ended and this is the rest of it.
    """

    pcm: bytes
    start_s: float
    end: int
    last: bool

    @property
    def seconds(self) -> float:
        """Return its duration."""
        return len(self.pcm) / BYTES / SAMPLE_RATE

    def wav(self) -> bytes:
        """Return it as a WAV file."""
        form = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, SAMPLE_RATE * BYTES, BYTES, 8 * BYTES)
        head = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(self.pcm), b"WAVE", b"fmt ", 16)
        return head + form + struct.pack("<4sI", b"data", len(self.pcm)) + self.pcm


@dataclass(slots=True)
class Turn:
    """A turn: from the start of speech, or from the last commit, to its end.

    Positions are samples from the turn's first.

    Attributes:
        item_id: the turn's name in events.
        start: its first sample, counted from the session's first.
        language: given by the client, or detected by a window with confirmed words; None: neither
            yet.
        received: the end of its audio.
        voiced: the end of its last speech.
        seen: the end of the newest window that was answered.
        ended: no audio will be added.
        failure: why the turn cannot be transcribed; its audio is dropped.
    """

    item_id: str
    start: int
    language: str | None = None
    lead: InitVar[bytes] = b""
    received: int = 0
    voiced: int = 0
    seen: int = 0
    ended: bool = False
    failure: ServiceError | None = None
    words: Agreement = field(default_factory=Agreement)
    _audio: bytearray = field(init=False)
    _base: int = field(init=False)  # of the first sample in `_audio`
    _arrivals: deque[tuple[int, float]] = field(default_factory=deque)

    def __post_init__(self, lead: bytes) -> None:
        self._audio = bytearray(lead)
        self._base = -len(lead) // BYTES

    def append(self, samples: np.ndarray, now: float) -> None:
        """Add samples (int16, 16 kHz) that arrived at a monotonic time."""
        if self.failure is None:
            self._audio += samples.tobytes()
        self.received += samples.size
        if len(self._arrivals) > 1 and self.received - self._arrivals[-2][0] < ARRIVALS_APART:
            self._arrivals.pop()
        self._arrivals.append((self.received, now))

    @property
    def unseen_s(self) -> float:
        """Return the seconds of audio that no answered window had."""
        return (self.received - self.seen) / SAMPLE_RATE

    @property
    def held_s(self) -> float:
        """Return the seconds of audio in memory."""
        return (self.received - self._base) / SAMPLE_RATE

    def is_complete(self) -> bool:
        """Return whether the turn has ended and its newest window had all of its speech."""
        if not self.ended:
            return False
        return self.seen >= self.received or 0 < self.voiced <= self.seen or self._is_confirmed()

    def _is_confirmed(self) -> bool:
        """Return whether the confirmed words reach the end of the speech."""
        spoken_s = self.voiced / SAMPLE_RATE
        return bool(self.words.confirmed) and spoken_s - self.words.until_s < REST_S

    def due(self, interval_s: float) -> bool:
        """Return whether a window is to be sent now."""
        if self.ended:
            return not self.is_complete()
        if self.voiced > self.seen and not self._is_confirmed():
            paused = self.received - self.voiced >= PAUSE_S * SAMPLE_RATE
            return paused or self.unseen_s >= interval_s
        return bool(self.words.pending) and self.unseen_s >= interval_s

    def window(self, language_before: str | None = None) -> Window:
        """Return the audio that is not confirmed, after its lead.

        Args:
            language_before: of the turn before. Audio in another language would be misleading, so
                its lead waits until this turn's language is known.
        """
        is_same = self.language is not None and self.language == language_before
        start = self._base if is_same else max(0, self._base)
        pcm = bytes(self._audio[(start - self._base) * BYTES :])
        return Window(pcm, start / SAMPLE_RATE, self.received, self.ended)

    def answer(self, window: Window, words: Sequence[Word]) -> list[Word]:
        """Take a window's words, relative to its start; return those that it confirms."""
        words = [
            Word(word.text, word.start + window.start_s, word.end + window.start_s, word.logprob)
            for word in words
        ]
        spoken_s = min(self.voiced, window.end) / SAMPLE_RATE
        if self.voiced:
            words = [word for word in words if word.start < spoken_s + REST_S]
        self.seen = max(self.seen, window.end)
        if window.last:
            return self.words.insert(words, spoken_s) + self.words.finish()
        confirmed = self.words.insert(words, spoken_s)
        if not confirmed and window.seconds > FORCE_S:
            confirmed = self.words.accept(words, window.start_s + window.seconds / 2)
        self._trim(window)
        return confirmed

    def drop_silence(self) -> None:
        """Forget audio without speech, so that memory does not grow while nobody speaks."""
        is_silent = self.voiced <= self.seen or self._is_confirmed()
        kept = int(SILENCE_KEPT_S * SAMPLE_RATE)
        if self.ended or not is_silent or self.words.pending:
            return
        if self.received - max(self._base, self.voiced) > 2 * kept:
            self._forget(self.received - kept)
            self.seen = max(self.seen, self._base)

    def arrived(self, at_s: float) -> float:
        """Return the monotonic time at which a moment's audio had arrived."""
        at = at_s * SAMPLE_RATE
        return next((when for end, when in self._arrivals if end >= at), self._arrivals[-1][1])

    def _trim(self, window: Window) -> None:
        """Drop confirmed audio of a long window, up to the end of a sentence or, in a longer one,
        of a word; its last `LEAD_S` stay."""
        until_s = window.start_s + window.seconds - LEAD_S
        inside = [word for word in self.words.confirmed if window.start_s < word.end <= until_s]
        if window.seconds <= TRIM_S or not inside:
            if window.seconds > FORCE_S:  # nothing was said in its first half
                self._forget(window.end - int(window.seconds / 2 * SAMPLE_RATE))
            return
        sentences = [word for word in inside if word.text.rstrip().endswith(tuple(SENTENCE_ENDS))]
        if sentences:
            self._forget(int(sentences[-1].end * SAMPLE_RATE))
        elif window.seconds > 1.5 * TRIM_S:
            self._forget(int(inside[-1].end * SAMPLE_RATE))

    def _forget(self, before: int) -> None:
        """Drop the audio before a position."""
        before = min(before, self.received)
        if before > self._base:
            del self._audio[: (before - self._base) * BYTES]
            self._base = before
        while len(self._arrivals) > 1 and self._arrivals[0][0] < self._base:
            self._arrivals.popleft()
