"""How much of a window the encoder sees: all 30 s, or little more than its sound.

Whisper pads every window with silence to 30 s, and the encoder costs the same for 2 s as for 30.
Cutting the padding is 4 to 6 times cheaper and by itself damages text: some short clips run away
into repetition. So a result that looks like it is thrown away and the window done again in full.

Source of the thresholds: measured on 250 English clips with Whisper base, where the word error
rate stayed the same (16.07 % for 16.10 %) and 8 % of the windows were done again.
"""

from __future__ import annotations

from typing import Any

from app.engine.guard import compression_ratio

FULL_FRAMES = 3000  # 30 s
MARGIN_FRAMES = 200  # silence kept behind the sound
# Windows in one call need one length, so lengths are rounded up to a few.
STEPS_FRAMES = (1000, 1500, 2000, FULL_FRAMES)
MAX_COMPRESSION_RATIO = 1.8
MIN_AVG_LOGPROB = -0.8
MAX_TOKENS_PER_S = 12
MAX_TOKENS = 150


def encoder_frames(sound_frames: int) -> int:
    """Frames to encode for a window with so many frames of sound."""
    wanted = sound_frames + MARGIN_FRAMES
    return next((step for step in STEPS_FRAMES if step >= wanted), FULL_FRAMES)


def is_suspicious(result: Any, text: str, text_tokens: int, sound_frames: int) -> bool:
    """Whether a result of a short window must be done again in full.

    Args:
        result: CTranslate2's, with its one hypothesis' score (mean log probability).
        text: its words.
        text_tokens: how many tokens they are, time stamps not counted.
        sound_frames: frames of sound in the window, 10 ms each.
    """
    return bool(
        compression_ratio(text) > MAX_COMPRESSION_RATIO
        or result.scores[0] < MIN_AVG_LOGPROB
        or text_tokens > MAX_TOKENS
        or text_tokens > MAX_TOKENS_PER_S * max(1.0, sound_frames / 100)
    )
