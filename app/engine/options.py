"""What one request chooses about its decoding; what the server chooses is in `Config`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# How Whisper's control tokens are written: `<|startoftranscript|>`, `<|en|>`, `<|0.00|>`.
CONTROL_TOKEN = re.compile(r"<\|[\w.]*\|>")


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """How speech is told from everything else (Silero VAD)."""

    enabled: bool = True
    threshold: float = 0.5
    min_silence_duration_ms: int = 160
    max_speech_duration_s: float = 15.0
    # Kept before and after each stretch of speech.
    padding_ms: int = 400


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """The choices of one request.

    Attributes:
        task: `transcribe` or `translate`.
        language: a Whisper language code; None: detect it.
        languages: detection chooses among these only; empty: among all.
        prompt: text that stands before the audio, as context; see `plain_text`.
        hotwords: words to favour; the same.
        word_timestamps: find each word's times.
        token_scores: find how probable each token is; costs one more call a window.
        temperatures: tried in turn until a window passes its thresholds.
    """

    task: str = "transcribe"
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    hotwords: str | None = None
    word_timestamps: bool = False
    token_scores: bool = False
    temperatures: tuple[float, ...] = (0.0,)
    speech: SpeechOptions = field(default_factory=SpeechOptions)


def plain_text(text: str) -> str:
    """Return a client's text without what the tokenizer would read as control tokens.

    The tokenizer knows them wherever they stand in a text. One in a prompt would end it, begin the
    transcript, or stand for another language. What is left of `<|`, also where taking out one token
    has made another, is parted by a space, so that no token can begin.
    """
    return CONTROL_TOKEN.sub(" ", text).replace("<|", "< |").strip()
