"""Choose how much of a window the encoder sees: all 30 s, or little more than its sound.

Whisper pads every window with silence to 30 s, and the encoder costs the same for 2 s as for 30.
Cutting the padding is 4 to 6 times cheaper but alone damages text: some short clips end in a
repetition loop. So a suspicious result is discarded and the full window is decoded. Tail windows
are the hallucination filter's; it discards unlikely ones, which are never decoded again.

Source of the thresholds: docs/measurements.md, "Encoder window".
"""

from __future__ import annotations

from typing import Any

from app.engine.hallucination_filter import compression_ratio

FULL_FRAMES = 3000  # 30 s
MARGIN_FRAMES = 200  # silence kept after the sound
# Windows of one call need the same length, so lengths are rounded up to a few values.
STEPS_FRAMES = (1000, 1500, 2000, FULL_FRAMES)
MAX_COMPRESSION_RATIO = 1.6
MIN_AVG_LOGPROB = -0.65
LOOP_MAX_TOKENS_PER_S = 12
MAX_TOKENS = 150
TIME_STAMPS = 10  # timestamp tokens allowed in addition to the text's
# Only operations with the same token limit share a call, so there are few limits too.
LIMITED_FRAMES = (100, 300, 800, 1300, FULL_FRAMES)


def encoder_frames(sound_frames: int) -> int:
    """Return the number of frames to encode for a window with this many frames of sound."""
    wanted = sound_frames + MARGIN_FRAMES
    return next((step for step in STEPS_FRAMES if step >= wanted), FULL_FRAMES)


def most_tokens(sound_frames: int) -> int:
    """Return the most text tokens plausible for this many frames of sound."""
    return int(min(MAX_TOKENS, LOOP_MAX_TOKENS_PER_S * max(1.0, sound_frames / 100)))


def longest_sequence(sound_frames: int) -> int:
    """Return the token limit of a short window, timestamps included.

    A result of this length is suspicious; the limit bounds the cost of a repetition loop.
    """
    rounded = next(step for step in LIMITED_FRAMES if step >= sound_frames)
    return most_tokens(rounded) + TIME_STAMPS


def is_suspicious(result: Any, text: str, text_tokens: int, sound_frames: int) -> bool:
    """Return whether a short window's result is implausible.

    Args:
        result: CTranslate2's result with one hypothesis and its score (mean log probability), of
            at most `longest_sequence` tokens.
        text: the result's text.
        text_tokens: number of tokens of the text, without timestamps.
        sound_frames: frames of sound in the window, 10 ms each.
    """
    return bool(
        compression_ratio(text) > MAX_COMPRESSION_RATIO
        or result.scores[0] < MIN_AVG_LOGPROB
        or text_tokens > most_tokens(sound_frames)
        or len(result.sequences_ids[0]) >= longest_sequence(sound_frames)
    )
