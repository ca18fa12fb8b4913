"""Hold the decoding options of one request; the server's are in `Config`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# Syntax of Whisper's control tokens: `<|startoftranscript|>`, `<|en|>`, `<|0.00|>`.
CONTROL_TOKEN = re.compile(r"<\|[\w.]*\|>")


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """Options of the speech detection (Silero VAD)."""

    enabled: bool = True
    threshold: float = 0.5
    min_silence_duration_ms: int = 160
    max_speech_duration_s: float = 15.0
    # Audio kept before and after each stretch of speech.
    padding_ms: int = 400


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Decoding options of one request.

    Attributes:
        task: `transcribe` or `translate`.
        language: a Whisper language code; None: detect the language.
        languages: candidates for detection; empty: all.
        prompt: text that precedes the audio, as context; see `plain_text`.
        hotwords: words to favour; see `plain_text`.
        word_timestamps: compute each word's start and end.
        token_scores: compute each token's probability; costs one more call per window.
        temperatures: tried in order until a window passes the thresholds.
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
    """Return a client's text without control tokens.

    The tokenizer recognizes control tokens anywhere in a text. In a prompt, one could end the
    prompt, begin the transcript, or select another language. Each remaining `<|`, even one formed
    by a removal, is split by a space, so that no token can begin.
    """
    return CONTROL_TOKEN.sub(" ", text).replace("<|", "< |").strip()
