"""Replace CTranslate2's model for one request: turn each call into an operation.

faster-whisper runs unmodified on the request's own thread; each call that it makes on its model
becomes an operation that may be batched with those of other requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import ctranslate2
import numpy as np

from app.engine.batching.batched_model import CONTEXT_TOKENS, BatchedModel
from app.engine.batching.operation import Kind, Operation
from app.engine.batching.window import Encoded, Window
from app.engine.encoder_window import (
    encoder_frames,
    is_suspicious,
    longest_sequence,
)
from app.engine.hallucination_filter import CONFIDENT_AVG_LOGPROB, NO_REPEATED_GROUP, OMITTED_TOKENS
from app.engine.job import Job
from app.engine.token_scores import WindowScores
from app.observability import metrics

FRAMES_PER_TIMESTAMP = 2  # a timestamp token counts 20 ms


@dataclass(frozen=True, slots=True)
class NoSpeech:
    """CTranslate2's result for a window without speech, made without a call."""

    sequences_ids: tuple[list[int]]
    scores: tuple[float] = (-math.inf,)
    no_speech_prob: float = 1.0


def max_length(n_tokens: int, prompt_tokens: int) -> int:
    """Return CTranslate2's `max_length` for at most `n_tokens` after a prompt.

    `max_length` counts the prompt without its last token, and at most half of it may follow the
    prompt. Both were determined by experiment; a test asserts them.
    """
    return min(CONTEXT_TOKENS, max(2 * n_tokens, n_tokens + prompt_tokens - 1))


def freeze(options: dict[str, Any]) -> Hashable:
    """Return options as a hashable key; equal options have equal keys."""
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in sorted(options.items())
    )


class RequestModel:
    """CTranslate2's `Whisper` as one request sees it; lives as long as the request.

    `encode` only stores the features. The window is encoded on first use, and the last encoding is
    kept, so that language detection and decoding of the first window share it.

    Args:
        shared: the batched model.
        job: the request's job: its tier and cancellation, and whether to score tokens.

    Attributes:
        scores: scores of the latest decoded window, if the job asks for them.
        looped: a window was decoded again because of a repetition loop.
    """

    def __init__(self, shared: BatchedModel, job: Job) -> None:
        self._shared = shared
        self._job = job
        self._first: Window | None = None  # the first window decoded
        self._last: Window | None = None
        self.scores = WindowScores()
        self.looped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shared.model, name)

    def encode(self, features: ctranslate2.StorageView, to_cpu: bool = False) -> Window:
        """Store a window of features, shape (1, n_mels, n_frames)."""
        frames = np.array(features)[0]  # a copy: the view's memory is faster-whisper's
        if self._last is None or not np.array_equal(self._last.features, frames):
            self._last = self._window(frames)
        return self._last

    def detect_language(self, window: Window) -> list[list[tuple[str, float]]]:
        """Return the languages' probabilities, as `[[("<|en|>", 0.9), …]]`."""
        window = self._as_decoded(window)
        self._last = window
        return [self._run(Kind.DETECT_LANGUAGE, window.frames, self._encoded(window))]

    def generate(self, window: Window, prompts: list[list[int]], **options: Any) -> list[Any]:
        """Return CTranslate2's results for one window and one prompt."""
        if self._shared.hallucination_filter.too_short(window.sound_frames):
            metrics.WINDOWS_TOO_SHORT.inc()
            return [self._no_speech()]
        self._first = self._first or window
        (prompt,) = prompts
        # In one call the start token must have the same position in all prompts, and either all
        # or none of the prompts request timestamps.
        start = prompt.index(self._shared.start_token)
        before, task = prompt[:start], prompt[start:]
        timestamps = self._shared.no_timestamps_token not in task

        def decode(before: list[int], **further: Any) -> Any:
            key_options = options | further
            if window.is_short:
                most = longest_sequence(window.sound_frames)
                key_options["max_length"] = max_length(most, len(before) + len(task))
            key = (window.frames, (len(before), timestamps, freeze(key_options)))
            payload = (self._encoded(window), before + task)
            return self._run(Kind.GENERATE, key, payload, key_options)

        result = self._plausible(window, before, decode)
        if result is None:
            return [self._no_speech()]
        if self._job.options.token_scores:
            self._score(window, task, self._words(result))
        return [result]

    def _plausible(
        self, window: Window, before: list[int], decode: Callable[..., Any]
    ) -> Any | None:
        """Return the first result that the filters accept; None if the window has no speech.

        Args:
            before: the prompt's tokens.
            decode: decodes the window after these tokens, with further options.
        """
        result = decode(before)
        if window is not self._first and self._is_false_tail(result, window):
            metrics.TAIL_WINDOWS_DISCARDED.inc()
            return None
        if window.is_short and self._is_suspicious(result, window):
            metrics.WINDOWS_REDONE.inc()
            window.widen()
            result = decode(before)
        if before and (self._is_echo(result, before) or self._is_repetitive(result)):
            metrics.PROMPT_ECHOES.inc()
            before = []
            result = decode(before)
        elif before and self._is_sparse(result, window):
            metrics.PROMPT_OMISSIONS.inc()
            alone = decode([])
            if self._says_more(alone, result, window):
                before, result = [], alone
        if self._is_loop(result, window):
            metrics.REPETITION_LOOPS.inc()
            self.looped = True
            result = decode(before, no_repeat_ngram_size=NO_REPEATED_GROUP)
            if self._is_loop(result, window):
                return None
        # The model is sure of a loop, so this is asked of what replaced it.
        if self._is_noise(result, window):
            metrics.NOISE_WINDOWS.inc()
            return None
        return result

    def _no_speech(self) -> NoSpeech:
        return NoSpeech(([self._shared.end_token],))

    def _is_false_tail(self, result: Any, window: Window) -> bool:
        return self._shared.hallucination_filter.is_false_tail(
            len(self._words(result)), window.sound_frames, result.scores[0]
        )

    def _is_suspicious(self, result: Any, window: Window) -> bool:
        words = self._words(result)
        return is_suspicious(result, self._text(words), len(words), window.sound_frames)

    def _is_noise(self, result: Any, window: Window) -> bool:
        return self._shared.hallucination_filter.is_noise(
            len(self._words(result)), window.sound_frames, result.no_speech_prob, result.scores[0]
        )

    def _is_loop(self, result: Any, window: Window) -> bool:
        words = self._words(result)
        return self._shared.hallucination_filter.is_loop(
            self._text(words), len(words), window.sound_frames
        )

    def _is_repetitive(self, result: Any) -> bool:
        return self._shared.hallucination_filter.is_repetitive(self._text(self._words(result)))

    def _covered(self, result: Any, window: Window) -> tuple[int, int]:
        """Return how many text tokens of a result faster-whisper keeps, and the frames they cover.

        If two timestamps follow each other and the result does not end with a single one,
        faster-whisper decodes what follows them as a new window.
        """
        ids, first = result.sequences_ids[0], self._shared.no_timestamps_token + 1
        pairs = [n for n in range(1, len(ids)) if min(ids[n - 1], ids[n]) >= first]
        ends_once = len(ids) > 1 and ids[-2] < first <= ids[-1]
        if not pairs or ends_once:
            return len(self._words(result)), window.sound_frames
        taken = sum(token < self._shared.end_token for token in ids[: pairs[-1]])
        return taken, (ids[pairs[-1] - 1] - first) * FRAMES_PER_TIMESTAMP

    def _is_sparse(self, result: Any, window: Window) -> bool:
        return self._shared.hallucination_filter.is_sparse(*self._covered(result, window))

    def _says_more(self, alone: Any, result: Any, window: Window) -> bool:
        """Return whether the result without the prompt covers the speech with more text."""
        per_frame = [
            n_tokens / max(1, frames)
            for n_tokens, frames in (
                self._covered(candidate, window) for candidate in (alone, result)
            )
        ]
        omitted = (per_frame[0] - per_frame[1]) * window.sound_frames
        is_likely = alone.scores[0] > CONFIDENT_AVG_LOGPROB and not self._is_repetitive(alone)
        return bool(omitted >= OMITTED_TOKENS and is_likely)

    def _is_echo(self, result: Any, before: list[int]) -> bool:
        prompt = [token for token in before if token < self._shared.end_token]
        return self._shared.hallucination_filter.is_echo(
            self._text(self._words(result)), self._text(prompt)
        )

    def _text(self, words: list[int]) -> str:
        return self._shared.decode(words).strip()

    def _words(self, result: Any) -> list[int]:
        return [token for token in result.sequences_ids[0] if token < self._shared.end_token]

    def _score(self, window: Window, start_sequence: list[int], words: list[int]) -> None:
        """Compute the probabilities of a result's text tokens, given its language and task."""
        probabilities: Sequence[float] = ()
        if words:
            task = [token for token in start_sequence if token < self._shared.no_timestamps_token]
            (alignment,) = self.align(window, task, [words], window.frames)
            probabilities = alignment.text_token_probs
        self.scores.add(window, words, probabilities)

    def align(
        self,
        window: Window,
        start_sequence: Sequence[int],
        text_tokens: list[list[int]],
        num_frames: int | list[int],
        **options: Any,
    ) -> list[Any]:
        """Return CTranslate2's alignment of the tokens in one window."""
        (tokens,) = text_tokens
        frames = num_frames if isinstance(num_frames, int) else num_frames[0]
        key = (window.frames, tuple(start_sequence), freeze(options))
        shared = (start_sequence, options)
        return [self._run(Kind.ALIGN, key, (self._encoded(window), tokens, frames), shared)]

    def _as_decoded(self, window: Window) -> Window:
        """Return the window as faster-whisper will decode it.

        faster-whisper detects the language on all frames and then decodes without the last one,
        which would need two encodings of one window. A window with sound up to its last frame is
        decoded unchanged.
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
        job = self._job
        job.cancellation.check()
        operation = Operation(
            kind, key, payload, shared, job.tier, job.cancellation, time.monotonic()
        )
        return self._shared.device.run(operation)
