"""CTranslate2's model behind its device threads: each kind of call for a whole batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ctranslate2
import numpy as np
import tokenizers

from app.engine.admission import Tier
from app.engine.batching.device import Call, Device
from app.engine.batching.operation import Kind, Operation
from app.engine.batching.window import Encoded, EncodedBatch, gather
from app.engine.cancellation import Cancellation
from app.engine.hallucination_filter import HallucinationFilter
from app.observability import metrics

END_OF_TEXT = "<|endoftext|>"
CONTEXT_TOKENS = 448  # prompt and text together


class BatchedModel:
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
        guard: HallucinationFilter,
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
