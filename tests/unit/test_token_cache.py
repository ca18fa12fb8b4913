"""Cached answers of the tokenizer are the tokenizer's own, and no client's text is kept."""

from __future__ import annotations

from collections import Counter

import pytest
import tokenizers
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens

from app.engine.token_cache import MAX_SYMBOLS, TokenCache
from tests.support import models


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(models.base() / "tokenizer.json"))


class Counting:
    """Counts the calls that reach the tokenizer."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str):
        self.calls[name] += 1
        return getattr(self._tokenizer, name)


def test_suppressed_tokens_cost_the_tokenizer_nothing_the_second_time(tokenizer):
    counting = Counting(tokenizer)
    cached = TokenCache(counting)

    def suppressed(of) -> tuple[int, ...]:
        return get_suppressed_tokens(Tokenizer(of, True, "transcribe", "en"), [-1])

    first = suppressed(cached)
    assert counting.calls["encode"] > 50
    counting.calls.clear()

    assert suppressed(cached) == first == suppressed(tokenizer)
    assert not counting.calls["encode"]


def test_words_are_split_as_without_the_cache(tokenizer):
    text = " Über 50 % dachten: «naïve» 日本語 и 🙂 e\u0301."
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    cached = TokenCache(tokenizer)

    for _ in range(2):
        for language in ("en", "ja"):
            split = Tokenizer(cached, True, "transcribe", language).split_to_word_tokens(ids)
            assert split == Tokenizer(tokenizer, True, "transcribe", language).split_to_word_tokens(
                ids
            )


def test_texts_of_clients_are_not_kept(tokenizer):
    cached = TokenCache(tokenizer)

    ids = cached.encode(" a confidential prompt", add_special_tokens=False).ids
    cached.decode(ids)

    assert ids == tokenizer.encode(" a confidential prompt", add_special_tokens=False).ids
    assert "confidential" not in repr(vars(cached)).replace(repr(tokenizer), "")


def test_short_texts_of_clients_are_neither_kept_nor_fill_the_memory(tokenizer):
    cached = TokenCache(tokenizer)

    cached.encode(" Ann", add_special_tokens=False)
    for number in range(2 * MAX_SYMBOLS):
        cached.encode(chr(0x2500 + number), add_special_tokens=False)

    assert (" Ann", False) not in cached._symbols
    assert len(cached._symbols) == MAX_SYMBOLS


def test_unknown_token_has_no_id(tokenizer):
    assert TokenCache(tokenizer).token_to_id("<|tlh|>") is None
