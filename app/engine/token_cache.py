"""Keep a tokenizer's answers that every request asks for."""

from __future__ import annotations

from typing import Any

import tokenizers

# faster-whisper encodes about 100 symbols that it suppresses, for each request; the longest is
# " (((". It encodes clients' prompts too, which are not kept.
SYMBOL_CHARS = 4
MAX_SYMBOLS = 256


class TokenCache:
    """A tokenizer for all request threads that looks up symbols and single tokens once.

    faster-whisper makes about 110 calls of its tokenizer for a request, and one more for each token
    of its text when words are requested. The tables are bounded, by the vocabulary and by
    `MAX_SYMBOLS`. They need no lock: two threads that miss the same entry store the same value.

    Args:
        tokenizer: the model's tokenizer.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._symbols: dict[tuple[str, bool], Any] = {}
        self._ids: dict[str, int | None] = {}
        self._texts: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token; None if it is not in the vocabulary."""
        if token in self._ids:
            return self._ids[token]
        number: int | None = self._tokenizer.token_to_id(token)
        if number is not None:
            self._ids[token] = number
        return number

    def encode(self, text: str, add_special_tokens: bool = True) -> Any:
        """Return the tokens of a text."""
        key = text, add_special_tokens
        if key in self._symbols:
            return self._symbols[key]
        tokens = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        if is_symbol(text) and len(self._symbols) < MAX_SYMBOLS:
            self._symbols[key] = tokens
        return tokens

    def decode(self, ids: list[int]) -> str:
        """Return the text of some tokens, without special ones."""
        if len(ids) != 1:
            return str(self._tokenizer.decode(ids))
        (token,) = ids
        if token not in self._texts:
            self._texts[token] = self._tokenizer.decode(ids)
        return self._texts[token]


def is_symbol(text: str) -> bool:
    """Return whether a text is short and has neither letters nor digits."""
    return len(text) <= SYMBOL_CHARS and not any(map(str.isalnum, text))
