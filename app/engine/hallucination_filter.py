"""Filter hallucinations: text from near-empty audio, repetition loops, and prompt echoes.

faster-whisper continues after the end of the last word. Often some tenths of a second remain, above
all with a prompt: a tail window, which seldom contains a word. Whisper hallucinates in it, and is
unsure of that text. Whisper may also enter a repetition loop, most often where there is little
speech, and repeat words up to its token limit. Repetition alone proves nothing, since people repeat
themselves; more words than fit in the sound do. Without speech Whisper may also echo its prompt.
Decoding again without the prompt shows whether those words were spoken. After a change of speaker
or subject a prompt also makes Whisper omit whole sentences, so a text with few words is compared
with that without the prompt. No rule matches specific phrases.

Source of the compression ratio: Radford and others, Robust Speech Recognition via Large-Scale Weak
Supervision (2022), section 4.5. Fluent English has 3 to 7 tokens a second.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from app.config import Config

FRAME_MS = 10  # of a window's features
NO_REPEATED_GROUP = 4  # a window decoded again repeats no four tokens in a row
CONFIDENT_AVG_LOGPROB = -0.7  # above it the model is sure of a result
TAIL_MAX_FRAMES = 100  # most frames of sound in a tail window
TAIL_MIN_AVG_LOGPROB = -0.8  # below it a tail window's text is a hallucination
# In music the probability of silence is above SILENT or the text's mean log probability below
# UNSURE; of single words cut out of sentences, and heard rightly, 3 of 257 are there.
SILENT = 0.7
UNSURE = -1.35
OMITTED_TOKENS = 3  # the result without the prompt replaces the other if it has this many more


def compression_ratio(text: str) -> float:
    """Return the zlib compression ratio of a text; 0 for an empty text."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0


def letters(text: str) -> str:
    """Return only letters and digits, since a prompt may differ in punctuation and spaces."""
    return re.sub(r"[\W_]", "", text.casefold())


@dataclass(frozen=True, slots=True)
class HallucinationFilter:
    """Thresholds that a window's text must pass to be accepted.

    Args:
        min_window_ms: the shortest sound that can contain a word; 0: tail windows are not filtered.
        loop_max_tokens_per_s: the most tokens that can be spoken in a second; 0: no limit.
        max_compression_ratio: the highest for a text that is not repetitive.
        prompt_echo_min_chars: the shortest prompt echo, in letters; 0: echoes are not filtered.
        prompt_min_tokens_per_s: the fewest tokens of a second of speech after a prompt; 0: any.
        noise_max_ms: the longest sound that the noise filter applies to; 0: the filter is off.
        no_speech_threshold: the model's probability of silence from which it may be noise.
    """

    min_window_ms: int = 0
    loop_max_tokens_per_s: float = 0.0
    max_compression_ratio: float = 2.4
    prompt_echo_min_chars: int = 0
    prompt_min_tokens_per_s: float = 0.0
    noise_max_ms: int = 0
    no_speech_threshold: float = 0.6

    @classmethod
    def of(cls, config: Config) -> HallucinationFilter:
        """Return the filter that the settings describe."""
        return cls(
            config.min_window_ms,
            config.loop_max_tokens_per_s,
            config.compression_ratio_threshold,
            config.prompt_echo_min_chars,
            config.prompt_min_tokens_per_s,
            config.noise_max_ms,
            config.no_speech_threshold,
        )

    def too_short(self, sound_frames: int) -> bool:
        """Return whether the sound is too short for a word."""
        return sound_frames * FRAME_MS < self.min_window_ms

    def is_false_tail(self, n_tokens: int, sound_frames: int, avg_logprob: float) -> bool:
        """Return whether a text in the sound after a recording's last word is a hallucination.

        Source of the thresholds: docs/measurements.md, "Hallucinations".

        Args:
            n_tokens: number of tokens of the text, without timestamps.
            sound_frames: frames of sound in the window; less than one second counts as one.
            avg_logprob: mean log probability of the tokens.
        """
        if not self.min_window_ms or sound_frames >= TAIL_MAX_FRAMES:
            return False
        return self._too_fast(n_tokens, sound_frames) or avg_logprob < TAIL_MIN_AVG_LOGPROB

    def is_noise(
        self, n_tokens: int, sound_frames: int, no_speech_prob: float, avg_logprob: float
    ) -> bool:
        """Return whether a text was probably heard in noise or music.

        Speech detection takes a beat of music for a word. Whisper's own rule for silence also asks
        for an average log probability below -1, which a single hallucinated word exceeds.
        Source of the thresholds: docs/measurements.md, "Hallucinations".

        Args:
            n_tokens: number of tokens of the text, without timestamps.
            sound_frames: frames of sound in the window.
            no_speech_prob: the model's probability of silence.
            avg_logprob: mean log probability of the tokens.
        """
        may_be = (
            sound_frames * FRAME_MS <= self.noise_max_ms
            and no_speech_prob > self.no_speech_threshold
            and avg_logprob < CONFIDENT_AVG_LOGPROB
        )
        return may_be and (
            no_speech_prob > SILENT
            or avg_logprob < UNSURE
            or self._too_fast(n_tokens, sound_frames)
        )

    def is_loop(self, text: str, n_tokens: int, sound_frames: int) -> bool:
        """Return whether a text is a repetition loop.

        Args:
            text: the window's text.
            n_tokens: number of tokens of the text, without timestamps.
            sound_frames: frames of sound in the window; less than one second counts as one.
        """
        return self._too_fast(n_tokens, sound_frames) and self.is_repetitive(text)

    def _too_fast(self, n_tokens: int, sound_frames: int) -> bool:
        """Return whether the text has more tokens than can be spoken in its sound."""
        longest = self.loop_max_tokens_per_s * max(1.0, sound_frames * FRAME_MS / 1000)
        return 0 < longest < n_tokens

    def is_repetitive(self, text: str) -> bool:
        """Return whether a text repeats itself more than speech usually does."""
        return compression_ratio(text) > self.max_compression_ratio

    def is_echo(self, text: str, prompt: str) -> bool:
        """Return whether a text may be a prompt echo."""
        if not self.prompt_echo_min_chars:
            return False
        spoken = letters(text)
        return len(spoken) >= self.prompt_echo_min_chars and spoken in letters(prompt)

    def is_sparse(self, n_tokens: int, sound_frames: int) -> bool:
        """Return whether a text has too few tokens for its sound.

        Args:
            n_tokens: number of tokens of the text, without timestamps.
            sound_frames: frames of sound in the window, which holds little but speech.
        """
        return n_tokens < self.prompt_min_tokens_per_s * sound_frames * FRAME_MS / 1000
