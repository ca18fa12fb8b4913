"""Part `batches` of `make bench-gpu`: milliseconds of a call by the number of its windows.

A text of 40 tokens, beam 5. `a window` is a call's time divided by its windows: what company saves.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import ctranslate2
import faster_whisper
import numpy as np

from app.engine.encoder_window import FULL_FRAMES
from tests.measure.gpu.part import DEVICE, GPU, MODELS, SIZE, TYPES, Part
from tests.measure.random_model import random_model

BATCHES = (1, 2, 4, 8, 16, 32, 64) if GPU else (1, 2)
ROUNDS = 5 if GPU else 2
BEAMS = 5


def calls(model: ctranslate2.models.Whisper, whisper: Any, n: int) -> dict[str, Callable[[], Any]]:
    """Return the calls that requests make, with that many windows each."""
    features = np.random.default_rng(n).standard_normal((n, model.n_mels, FULL_FRAMES), np.float32)
    view = ctranslate2.StorageView.from_array(features)
    encoded = model.encode(view)
    start = [whisper.hf_tokenizer.token_to_id(token) for token in
             ("<|startoftranscript|>", "<|en|>", "<|transcribe|>")]  # fmt: skip
    generate = lambda: model.generate(encoded, [start] * n, beam_size=BEAMS)  # noqa: E731
    words = [token for token in generate()[0].sequences_ids[0] if token < start[0] - 1]
    return {
        "encode": lambda: model.encode(view),
        "detect_language": lambda: model.detect_language(encoded),
        "generate": generate,
        "align": lambda: model.align(encoded, start, [words] * n, [FULL_FRAMES] * n),
    }


def main() -> None:
    part = Part("batches")
    folder = random_model(SIZE, MODELS)
    for compute_type in TYPES:
        whisper = faster_whisper.WhisperModel(str(folder), DEVICE, compute_type=compute_type)
        for n in BATCHES:
            if part.left_s < 0:
                part.note(f"No time for {compute_type}, batches of {n} and more.")
                break
            line: dict[str, float] = {}
            for kind, call in calls(whisper.model, whisper, n).items():
                call()
                times = []
                for _ in range(ROUNDS):
                    began = time.monotonic()
                    call()  # CTranslate2 waits for the device, in `encode` too
                    times.append(1000 * (time.monotonic() - began))
                line[f"{kind}_ms"] = statistics.median(times)
            line["ms_a_window"] = sum(line.values()) / n
            part.add(f"Calls of {SIZE}, {compute_type} on {DEVICE}", windows=n, **line)
    part.finish()


if __name__ == "__main__":
    main()
