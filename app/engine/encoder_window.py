"""How much of a window the encoder sees: all 30 s, or little more than its sound.

Whisper pads every window with silence to 30 s, and the encoder costs the same for 2 s as for 30.
Cutting the padding is 4 to 6 times cheaper and by itself damages text: some short clips run away
into repetition. So a result that looks like it is thrown away and the window done again in full.

But for the rest that is left behind a recording's last word: it seldom holds another one, there
the model is unsure in full as well, and every second answer to a bot has one. What was heard in it
is thrown away and not looked for again.

Source of the thresholds: measured on 250 English clips with Whisper base, where the word error
rate stayed the same (16.07 % for 16.10 %) and 8 % of the windows were done again. Of the rest: 100
windows as bots cut them with tiny.en (tests/measure/ends.py), where of 2208 words 37 were
missing, and 36 with the encoder's full window.
"""

from __future__ import annotations

from typing import Any

from app.engine.hallucination_filter import compression_ratio

FULL_FRAMES = 3000  # 30 s
MARGIN_FRAMES = 200  # silence kept behind the sound
# Windows in one call need one length, so lengths are rounded up to a few.
STEPS_FRAMES = (1000, 1500, 2000, FULL_FRAMES)
MAX_COMPRESSION_RATIO = 1.8
MIN_AVG_LOGPROB = -0.8
MAX_TOKENS_PER_S = 12
MAX_TOKENS = 150
TIME_STAMPS = 10  # room for them among the text's tokens
# Calls are shared where their limits are the same, so these are few, too.
LIMITED_FRAMES = (100, 300, 800, 1300, FULL_FRAMES)
REST_FRAMES = 100  # of sound, the longest rest


def encoder_frames(sound_frames: int) -> int:
    """Frames to encode for a window with so many frames of sound."""
    wanted = sound_frames + MARGIN_FRAMES
    return next((step for step in STEPS_FRAMES if step >= wanted), FULL_FRAMES)


def most_tokens(sound_frames: int) -> int:
    """Text tokens that can be believed of so many frames of sound."""
    return int(min(MAX_TOKENS, MAX_TOKENS_PER_S * max(1.0, sound_frames / 100)))


def longest_sequence(sound_frames: int) -> int:
    """Tokens, time stamps counted, at which a short window's decoding may stop: a result as long
    is suspicious, and a loop costs no more than that."""
    rounded = next(step for step in LIMITED_FRAMES if step >= sound_frames)
    return most_tokens(rounded) + TIME_STAMPS


def is_suspicious(result: Any, text: str, text_tokens: int, sound_frames: int) -> bool:
    """Whether a result of a short window cannot be believed.

    Args:
        result: CTranslate2's, with its one hypothesis and the score of that (mean log
            probability), of no more than `longest_sequence` tokens.
        text: its words.
        text_tokens: how many tokens they are, time stamps not counted.
        sound_frames: frames of sound in the window, 10 ms each.
    """
    return bool(
        compression_ratio(text) > MAX_COMPRESSION_RATIO
        or result.scores[0] < MIN_AVG_LOGPROB
        or text_tokens > most_tokens(sound_frames)
        or len(result.sequences_ids[0]) >= longest_sequence(sound_frames)
    )
