"""What stands where faster-whisper expects CTranslate2's model: one request's side of the device.

faster-whisper runs unmodified on the request's own thread; each call it makes on its model
becomes an operation that may share a call with other requests'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np
import tokenizers

from app import metrics
from app.engine.admission import Tier
from app.engine.cancellation import Cancellation
from app.engine.device import Call, Device
from app.engine.encoder_window import (
    REST_FRAMES,
    encoder_frames,
    is_suspicious,
    longest_sequence,
)
from app.engine.guard import NO_REPEATED_GROUP, Guard
from app.engine.operations import Kind, Operation
from app.engine.token_scores import WindowScores

END_OF_TEXT = "<|endoftext|>"
CONTEXT_TOKENS = 448  # prompt and text together


@dataclass(eq=False, slots=True)
class EncodedBatch:
    """The encoder's output for windows that were encoded together, where the device left it."""

    output: ctranslate2.StorageView  # shape (n_windows, 1500, width)
    n_windows: int
    _on_host: np.ndarray | None = None

    def on_host(self) -> np.ndarray:
        """The same numbers in this process's memory, float32; copied from a GPU at most once."""
        if self._on_host is None:
            view = self.output.to(ctranslate2.DataType.float32)
            self._on_host = np.asarray(view.to_device(ctranslate2.Device.cpu))
        return self._on_host


@dataclass(frozen=True, slots=True)
class Encoded:
    """One window of an encoded batch."""

    batch: EncodedBatch
    index: int


class Window:
    """A window's features, and its encoding once somebody needed it; one request's own.

    Args:
        features: float32, shape (n_mels, n_frames).
    """

    def __init__(self, features: np.ndarray) -> None:
        self.features = features
        self.encoded: Encoded | None = None
        filled = np.flatnonzero(features.any(axis=0))
        # Frames up to the last that holds sound; behind it is padding.
        self.sound_frames = int(filled[-1]) + 1 if filled.size else 0
        # Frames the encoder sees.
        self.frames = features.shape[1]


@dataclass(frozen=True, slots=True)
class NoSpeech:
    """What CTranslate2 answers for a window in which nobody speaks, without asking it."""

    sequences_ids: tuple[list[int]]
    scores: tuple[float] = (-math.inf,)
    no_speech_prob: float = 1.0


class SharedDevice:
    """CTranslate2's model and the device threads that alone call it.

    Args:
        model: the real one.
        tokenizer: its tokenizer, for the special tokens that decide which windows may share.
        threads: calls at a time.
        max_batch: the most windows of one call.
        gathering: see `Device`.
        adaptive: encode little more than a window's sound, see `encoder_window`.
        guard: what a window must have to be believed.
    """

    def __init__(
        self,
        model: ctranslate2.models.Whisper,
        tokenizer: tokenizers.Tokenizer,
        threads: int,
        max_batch: int,
        gathering: bool,
        adaptive: bool,
        guard: Guard,
    ) -> None:
        self.model = model
        self.decode = tokenizer.decode
        # Its place is one for all prompts of a call.
        self.start_token = special(tokenizer, "<|startoftranscript|>")
        # All prompts of a call have it, or none.
        self.no_timestamps_token = special(tokenizer, "<|notimestamps|>")
        # Words are the tokens below it.
        self.end_token = special(tokenizer, END_OF_TEXT)
        self.adaptive = adaptive
        self.guard = guard
        calls: dict[Kind, Call] = {
            Kind.ENCODE: self._encode,
            Kind.DETECT_LANGUAGE: self._detect_language,
            Kind.GENERATE: self._generate,
            Kind.ALIGN: self._align,
        }
        self.device = Device(calls, threads, max_batch, gathering)

    def _encode(self, batch: Sequence[Operation]) -> list[Encoded]:
        features = [operation.payload for operation in batch]
        together = features[0][np.newaxis] if len(features) == 1 else np.stack(features)
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(together))
        encoded = EncodedBatch(self.model.encode(view), len(batch))
        metrics.WINDOWS_ENCODED.inc(len(batch))
        return [Encoded(encoded, index) for index in range(len(batch))]

    def _detect_language(self, batch: Sequence[Operation]) -> list[Any]:
        return list(self.model.detect_language(gather([one.payload for one in batch])))

    def _generate(self, batch: Sequence[Operation]) -> list[Any]:
        windows, prompts = zip(*(one.payload for one in batch), strict=True)
        return list(self.model.generate(gather(windows), list(prompts), **batch[0].shared))

    def _align(self, batch: Sequence[Operation]) -> list[Any]:
        windows, tokens, frames = zip(*(one.payload for one in batch), strict=True)
        start_sequence, options = batch[0].shared
        return list(
            self.model.align(
                gather(windows), list(start_sequence), list(tokens), list(frames), **options
            )
        )

    def try_full_batch(self, features: np.ndarray, beams: int) -> int:
        """Make the largest calls that may occur, and return how many windows have room in one.

        This trial alone decides the batch size. The texts are as long as Whisper's context allows,
        so no later call takes more memory. A call without room is halved, and the device keeps the
        smaller batch. It does the same when several calls or workers exhaust the memory later.

        Args:
            features: of one window, float32, shape (n_mels, n_frames).
            beams: hypotheses kept.
        """
        anyone = Cancellation()

        def run(kind: Kind, payloads: Sequence[Any], shared: Any = None) -> list[Any]:
            now = time.monotonic()
            return self.device.run_together(
                [
                    Operation(kind, "full", payload, shared, Tier.REALTIME, anyone, now)
                    for payload in payloads
                ]
            )

        n_windows = self.device.largest_batch(Kind.ENCODE)
        windows = run(Kind.ENCODE, [features] * n_windows)
        prompt = [self.start_token, self.no_timestamps_token]
        endless = {
            "beam_size": beams,
            "max_length": CONTEXT_TOKENS,
            "suppress_tokens": [-1, self.end_token],
        }
        run(Kind.GENERATE, [(window, prompt) for window in windows], endless)
        return min(self.device.largest_batch(kind) for kind in (Kind.ENCODE, Kind.GENERATE))


def special(tokenizer: tokenizers.Tokenizer, text: str) -> int:
    """A special token's number."""
    number = tokenizer.token_to_id(text)
    if number is None:
        raise ValueError(f"tokenizer.json has no {text}; it is not Whisper's")
    return number


def gather(windows: Sequence[Encoded]) -> ctranslate2.StorageView:
    """The encoder's output for these windows, in this order, as one call takes it.

    Windows that were encoded together and are still together go on as the device left them;
    others are put together in this process's memory.
    """
    first = windows[0].batch
    together = all(one.batch is first for one in windows)
    if together and [one.index for one in windows] == list(range(first.n_windows)):
        return first.output
    parts = [one.batch.on_host()[one.index] for one in windows]
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.stack(parts)))


def max_length(n_tokens: int, prompt_tokens: int) -> int:
    """CTranslate2's `max_length` for no more than so many tokens behind a prompt.

    It counts the prompt but for its last token, and no more than its half may follow, as was
    found by trying; a test holds it to that.
    """
    return min(CONTEXT_TOKENS, max(2 * n_tokens, n_tokens + prompt_tokens - 1))


def freeze(options: dict[str, Any]) -> Hashable:
    """Options as a key: equal where a call's options are equal."""
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in sorted(options.items())
    )


class SharedModel:
    """CTranslate2's `Whisper` as one request sees it; lives as long as the request.

    `encode` only notes the features: the window is encoded when it is first asked something,
    and what was encoded last is kept, so that detecting the language and decoding the first
    window share one encoding.

    Args:
        shared: the real model and who calls it.
        tier: how urgent this request is.
        cancellation: whether anybody still waits for it.
        scoring: find how probable each token of a result is.

    Attributes:
        scores: of the window that was decoded last, when scoring.
    """

    def __init__(
        self,
        shared: SharedDevice,
        tier: Tier,
        cancellation: Cancellation,
        scoring: bool = False,
    ) -> None:
        self._shared = shared
        self._tier = tier
        self._cancellation = cancellation
        self._scoring = scoring
        self._first: Window | None = None  # of those decoded
        self._last: Window | None = None
        self.scores = WindowScores()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared.model, name)

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> Window:
        """Note a window of features, shape (1, n_mels, n_frames)."""
        frames = np.array(features)[0]  # a copy: the view's memory is faster-whisper's
        if self._last is None or not np.array_equal(self._last.features, frames):
            self._last = self._window(frames)
        return self._last

    def detect_language(self, window: Window) -> list[list[tuple[str, float]]]:
        """The languages' probabilities, as `[[("<|en|>", 0.9), …]]`."""
        decoded = self._as_decoded(window)
        self._last = decoded
        return [self._run(Kind.DETECT_LANGUAGE, decoded.frames, self._encoded(decoded))]

    def generate(self, window: Window, prompts: list[list[int]], **options: Any) -> list[Any]:
        """CTranslate2's results for one window, one prompt."""
        if self._shared.guard.too_short(window.sound_frames):
            metrics.WINDOWS_TOO_SHORT.inc()
            return [self._no_speech()]
        self._first = self._first or window
        (prompt,) = prompts
        # The start token must stand at the same place in all prompts of a call, and either all
        # of them or none ask for timestamps.
        start = prompt.index(self._shared.start_token)
        before, task = prompt[:start], prompt[start:]
        timestamps = self._shared.no_timestamps_token not in task

        def decode(before: list[int], options: dict[str, Any]) -> Any:
            key = (window.frames, (len(before), timestamps, freeze(options)))
            payload = (self._encoded(window), before + task)
            return self._run(Kind.GENERATE, key, payload, options)

        limited = options
        if short := window.frames < window.features.shape[1]:
            most = longest_sequence(window.sound_frames)
            limited = options | {"max_length": max_length(most, len(prompt))}
        result = decode(before, limited)
        if short and self._is_suspicious(result, window):
            if window is not self._first and window.sound_frames < REST_FRAMES:
                metrics.RESTS_NOT_BELIEVED.inc()
                return [self._no_speech()]
            metrics.WINDOWS_REDONE.inc()
            window.frames, window.encoded = window.features.shape[1], None
            result = decode(before, options)
        if before and (self._is_echo(result, before) or self._is_repetitive(result)):
            metrics.WINDOWS_ECHOED.inc()
            before = []
            result = decode(before, options)
        if self._is_loop(result, window):
            metrics.WINDOWS_LOOPED.inc()
            result = decode(before, options | {"no_repeat_ngram_size": NO_REPEATED_GROUP})
            if self._is_loop(result, window):
                return [self._no_speech()]
        if self._scoring:
            self._score(window, task, self._words(result))
        return [result]

    def _no_speech(self) -> NoSpeech:
        return NoSpeech(([self._shared.end_token],))

    def _is_suspicious(self, result: Any, window: Window) -> bool:
        words = self._words(result)
        return is_suspicious(result, self._text(words), len(words), window.sound_frames)

    def _is_loop(self, result: Any, window: Window) -> bool:
        words = self._words(result)
        return self._shared.guard.is_loop(self._text(words), len(words), window.sound_frames)

    def _is_repetitive(self, result: Any) -> bool:
        return self._shared.guard.is_repetitive(self._text(self._words(result)))

    def _is_echo(self, result: Any, before: list[int]) -> bool:
        prompt = [token for token in before if token < self._shared.end_token]
        return self._shared.guard.is_echo(self._text(self._words(result)), self._text(prompt))

    def _text(self, words: list[int]) -> str:
        return self._shared.decode(words).strip()

    def _words(self, result: Any) -> list[int]:
        return [token for token in result.sequences_ids[0] if token < self._shared.end_token]

    def _score(self, window: Window, start_sequence: list[int], words: list[int]) -> None:
        """Ask how probable a result's words are, after its language and task."""
        probabilities: Sequence[float] = ()
        if words:
            task = [one for one in start_sequence if one < self._shared.no_timestamps_token]
            (found,) = self.align(window, task, [words], window.frames)
            probabilities = found.text_token_probs
        self.scores.add(window, words, probabilities)

    def align(
        self,
        window: Window,
        start_sequence: Sequence[int],
        text_tokens: list[list[int]],
        num_frames: int | list[int],
        **options: Any,
    ) -> list[Any]:
        """The tokens' times in one window."""
        (tokens,) = text_tokens
        frames = num_frames if isinstance(num_frames, int) else num_frames[0]
        key = (window.frames, tuple(start_sequence), freeze(options))
        shared = (start_sequence, options)
        return [self._run(Kind.ALIGN, key, (self._encoded(window), tokens, frames), shared)]

    def _as_decoded(self, window: Window) -> Window:
        """The window as it will be decoded.

        faster-whisper detects the language on all frames and then decodes without the last one,
        which would make two encodings of one window. A window that is full to its last frame
        is decoded as it is.
        """
        if window.sound_frames in (0, window.features.shape[1]):
            return window
        features = window.features.copy()
        features[:, window.sound_frames - 1] = 0.0
        return self._window(features)

    def _window(self, features: np.ndarray) -> Window:
        window = Window(features)
        if self._shared.adaptive:
            window.frames = min(window.frames, encoder_frames(window.sound_frames))
        return window

    def _encoded(self, window: Window) -> Encoded:
        if window.encoded is None:
            features = window.features[:, : window.frames]
            window.encoded = self._run(Kind.ENCODE, features.shape, features)
        return window.encoded

    def _run(self, kind: Kind, key: Hashable, payload: Any, shared: Any = None) -> Any:
        self._cancellation.check()
        operation = Operation(
            kind, key, payload, shared, self._tier, self._cancellation, time.monotonic()
        )
        return self._shared.device.run(operation)
