"""Call CTranslate2's model for whole batches, from the device threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ctranslate2
import numpy as np
import tokenizers

from app.engine.batching.device import Call, Device
from app.engine.batching.operation import Kind, Operation
from app.engine.batching.window import Encoded, EncodedBatch, gather
from app.engine.cancellation import Cancellation
from app.engine.hallucination_filter import NO_REPEATED_GROUP, HallucinationFilter
from app.engine.job import Tier
from app.observability import metrics

END_OF_TEXT = "<|endoftext|>"
CONTEXT_TOKENS = 448  # prompt and text together
PROMPT_TOKENS = CONTEXT_TOKENS // 2 - 1  # without the token that opens the prompt
ANY_TEXT = 0  # a text token, for calls whose text does not matter
# As faster-whisper decodes.
DECODING = {
    "max_length": CONTEXT_TOKENS,
    "return_scores": True,
    "return_no_speech_prob": True,
    "max_initial_timestamp_index": 50,
}


class BatchedModel:
    """CTranslate2's model and its device threads, the only callers of the model.

    Args:
        model: CTranslate2's model.
        tokenizer: its tokenizer, for the special tokens that decide which windows share a call.
        threads: number of concurrent calls.
        max_batch: the most windows of one call.
        gathering: see `Device`.
        adaptive: encode little more than a window's sound; see `encoder_window`.
        hallucination_filter: thresholds for the text of a window.
    """

    def __init__(
        self,
        model: ctranslate2.models.Whisper,
        tokenizer: tokenizers.Tokenizer,
        threads: int,
        max_batch: int,
        gathering: bool,
        adaptive: bool,
        hallucination_filter: HallucinationFilter,
    ) -> None:
        self.model = model
        self.decode = tokenizer.decode
        # Has the same position in all prompts of a call.
        self.start_token = special(tokenizer, "<|startoftranscript|>")
        # Is in all prompts of a call, or in none.
        self.no_timestamps_token = special(tokenizer, "<|notimestamps|>")
        # Opens a prompt.
        self.previous_token = special(tokenizer, "<|startofprev|>")
        # Text tokens are the tokens below it.
        self.end_token = special(tokenizer, END_OF_TEXT)
        self.adaptive = adaptive
        self.hallucination_filter = hallucination_filter
        calls: dict[Kind, Call] = {
            Kind.ENCODE: self._encode,
            Kind.DETECT_LANGUAGE: self._detect_language,
            Kind.GENERATE: self._generate,
            Kind.ALIGN: self._align,
        }
        self.device = Device(calls, threads, max_batch, gathering)

    def _encode(self, batch: Sequence[Operation]) -> list[Encoded]:
        features = [operation.payload for operation in batch]
        stack = features[0][np.newaxis] if len(features) == 1 else np.stack(features)
        view = ctranslate2.StorageView.from_array(np.ascontiguousarray(stack))
        output = EncodedBatch(self.model.encode(view))
        metrics.WINDOWS_ENCODED.inc(len(batch))
        return [Encoded(output, index) for index in range(len(batch))]

    def _detect_language(self, batch: Sequence[Operation]) -> list[Any]:
        return list(self.model.detect_language(gather([operation.payload for operation in batch])))

    def _generate(self, batch: Sequence[Operation]) -> list[Any]:
        windows, prompts = zip(*(operation.payload for operation in batch), strict=True)
        return list(self.model.generate(gather(windows), list(prompts), **batch[0].shared))

    def _align(self, batch: Sequence[Operation]) -> list[Any]:
        windows, tokens, frames = zip(*(operation.payload for operation in batch), strict=True)
        start_sequence, options = batch[0].shared
        return list(
            self.model.align(
                gather(windows), list(start_sequence), list(tokens), list(frames), **options
            )
        )

    def try_full_batch(
        self, features: np.ndarray, hypotheses: int, calls: int, fits: Callable[[], bool]
    ) -> int:
        """Make the largest calls that requests can cause; return how many windows fit in one.

        A call that runs out of memory is halved, and the device keeps the smaller batch for a
        while. A call that takes another worker's share of the memory is halved for good.

        Args:
            features: features of one window, float32, shape (n_mels, n_frames).
            hypotheses: beam size, or number of samples if that is larger.
            calls: number of calls at the same time.
            fits: called after each trial; returns whether it kept to this worker's share.
        """
        while True:
            self._make_largest_calls(features, hypotheses, calls)
            largest = min(self.device.largest_batch(kind) for kind in Kind)
            if largest == 1 or fits():
                return largest
            for kind in Kind:
                self.device.settle(kind, largest // 2)

    def _make_largest_calls(self, features: np.ndarray, hypotheses: int, calls: int) -> None:
        """Encode, decode and align full batches: the longest prompt, and as much text as fits."""
        n_windows = calls * self.device.largest_batch(Kind.ENCODE)
        windows = self._run(Kind.ENCODE, [features] * n_windows)
        prompt = [self.previous_token, *[ANY_TEXT] * PROMPT_TOKENS, *self._task()]
        endless = DECODING | {
            "beam_size": hypotheses,
            "suppress_tokens": [-1, self.end_token],
        }
        self._run(Kind.GENERATE, [(window, prompt) for window in windows], endless)
        text = [ANY_TEXT] * (CONTEXT_TOKENS // 2)
        n_frames = features.shape[1]
        aligned = [(window, text, n_frames) for window in windows]
        self._run(Kind.ALIGN, aligned, ([self.start_token], {}))

    def make_rare_calls(self, features: np.ndarray, best_of: int) -> None:
        """Make each kind of call that the self-test leaves out, on windows of different batches.

        On a GPU the first call of a kind may have its kernels compiled, and these windows are
        joined within its memory.

        Args:
            features: features of one window, float32, shape (n_mels, n_frames).
            best_of: number of samples above temperature 0.
        """
        windows = [self._run(Kind.ENCODE, [features])[0] for _ in range(2)]
        short = DECODING | {"max_length": 16}
        sampling = {
            "beam_size": 1, "num_hypotheses": best_of, "sampling_topk": 0,
            "sampling_temperature": 1.0,
        }  # fmt: skip
        for rare in (
            sampling,
            {"no_repeat_ngram_size": NO_REPEATED_GROUP},
            {"repetition_penalty": 1.1},
        ):
            self._run(Kind.GENERATE, [(window, self._task()) for window in windows], short | rare)
        if self.model.is_multilingual:
            self._run(Kind.DETECT_LANGUAGE, windows)

    def _task(self) -> list[int]:
        return [self.start_token, self.no_timestamps_token]

    def _run(self, kind: Kind, payloads: Sequence[Any], shared: Any = None) -> list[Any]:
        """Run operations in full batches, and several batches at the same time."""
        size = self.device.largest_batch(kind)
        cancellation, now = Cancellation(), time.monotonic()
        return self.device.run_together(
            [
                Operation(
                    kind,
                    ("trial", number // size),
                    payload,
                    shared,
                    Tier.REALTIME,
                    cancellation,
                    now,
                )
                for number, payload in enumerate(payloads)
            ]
        )


def special(tokenizer: tokenizers.Tokenizer, text: str) -> int:
    """Return the id of a special token."""
    number = tokenizer.token_to_id(text)
    if number is None:
        raise ValueError(f"tokenizer.json has no {text}; it is not Whisper's")
    return number
