"""Call CTranslate2's model for whole batches, from the device threads."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import ctranslate2
import numpy as np
import tokenizers

from app.engine.batching.device import Call, Device
from app.engine.batching.operation import Kind, Operation
from app.engine.batching.window import Encoded, EncodedBatch, gather
from app.engine.cancellation import Cancellation
from app.engine.hallucination_filter import HallucinationFilter
from app.engine.job import Tier
from app.observability import metrics

END_OF_TEXT = "<|endoftext|>"
CONTEXT_TOKENS = 448  # prompt and text together


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

    def try_full_batch(self, features: np.ndarray, beams: int) -> int:
        """Make the largest possible calls, and return how many windows fit in one.

        Only this trial sets the batch size. Its texts are as long as Whisper's context allows, so
        no later call takes more memory. A call that runs out of memory is halved, and the device
        keeps the smaller batch; so it does when several calls or workers exhaust memory later.

        Args:
            features: features of one window, float32, shape (n_mels, n_frames).
            beams: beam size.
        """
        cancellation = Cancellation()

        def run(kind: Kind, payloads: Sequence[Any], shared: Any = None) -> list[Any]:
            now = time.monotonic()
            return self.device.run_together(
                [
                    Operation(kind, "full", payload, shared, Tier.REALTIME, cancellation, now)
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
    """Return the id of a special token."""
    number = tokenizer.token_to_id(text)
    if number is None:
        raise ValueError(f"tokenizer.json has no {text}; it is not Whisper's")
    return number
