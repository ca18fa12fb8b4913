"""Whisper models of any size with random weights: real shapes, real time and memory, no words.

A benchmark of speed or memory needs a model's shape and not what it has learned; so a machine
without a way to a model hub can measure large models too.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np

from tests.support import models

HEAD_WIDTH = 64
ENCODED_FRAMES = 1500
CONTEXT_TOKENS = 448
COPIED = ("tokenizer.json", "vocabulary.txt", "config.json")


@dataclass(frozen=True)
class Size:
    """A Whisper model's shape.

    Source: Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision, table 1;
    large-v3 and its turbo version hear 128 bands, and the latter has 4 decoder layers.
    """

    width: int
    encoder_layers: int
    decoder_layers: int
    n_mels: int = 80


SIZES = {
    "tiny": Size(384, 4, 4),
    "base": Size(512, 6, 6),
    "small": Size(768, 12, 12),
    "medium": Size(1024, 24, 24),
    "large-v3-turbo": Size(1280, 32, 4, 128),
}


def random_model(name: str, folder: Path) -> Path:
    """The folder of a random model of that size in float16, made when it is not there yet.

    Its tokens are those of the multilingual models before large-v3, one language fewer.
    """
    target = folder / f"random-{name}"
    if (target / "model.bin").is_file():
        return target
    target.mkdir(parents=True, exist_ok=True)
    size = SIZES[name]
    real = models.base()
    tokens = (real / "vocabulary.txt").read_text().splitlines()
    spec = spec_of(size, tokens)
    spec.validate()
    spec.optimize("float16")
    spec.save(str(target))
    for copied in COPIED:
        shutil.copyfile(real / copied, target / copied)
    written = json.loads((target / "config.json").read_text())
    written["alignment_heads"] = [[size.decoder_layers - 1, head] for head in range(4)]
    (target / "config.json").write_text(json.dumps(written))
    (target / "preprocessor_config.json").write_text(json.dumps({"feature_size": size.n_mels}))
    for stale in target.glob("vocabulary.json"):
        stale.unlink()
    return target


def spec_of(size: Size, tokens: list[str]) -> Any:
    """CTranslate2's description of the model, filled with random numbers."""
    dice = np.random.default_rng(0)
    width = size.width
    heads = width // HEAD_WIDTH

    def weights(*shape: int) -> np.ndarray:
        return (dice.standard_normal(shape, np.float32) * shape[-1] ** -0.5).astype(np.float16)

    def linear(spec: Any, n_out: int, n_in: int) -> None:
        spec.weight = weights(n_out, n_in)
        spec.bias = np.zeros(n_out, np.float16)

    def norm(spec: Any) -> None:
        spec.gamma = np.ones(width, np.float16)
        spec.beta = np.zeros(width, np.float16)

    def attention(spec: Any, fused: list[int]) -> None:
        for layer, times in zip(spec.linear, fused, strict=True):
            linear(layer, times * width, width)
        norm(spec.layer_norm)

    def feed_forward(spec: Any) -> None:
        linear(spec.linear_0, 4 * width, width)
        linear(spec.linear_1, width, 4 * width)
        norm(spec.layer_norm)

    spec = ctranslate2.specs.WhisperSpec(size.encoder_layers, heads, size.decoder_layers, heads)
    encoder, decoder = spec.encoder, spec.decoder
    for conv, n_in in ((encoder.conv1, size.n_mels), (encoder.conv2, width)):
        conv.weight = weights(width, n_in, 3)
        conv.bias = np.zeros(width, np.float16)
    encoder.position_encodings.encodings = weights(ENCODED_FRAMES, width)
    decoder.position_encodings.encodings = weights(CONTEXT_TOKENS, width)
    for layer in encoder.layer:
        attention(layer.self_attention, [3, 1])
        feed_forward(layer.ffn)
    for layer in decoder.layer:
        attention(layer.self_attention, [3, 1])
        attention(layer.attention, [1, 2, 1])
        feed_forward(layer.ffn)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)
    decoder.embeddings.weight = weights(len(tokens), width)
    decoder.projection.weight = decoder.embeddings.weight
    spec.register_vocabulary(tokens)
    return spec
