"""Text that nobody can have said: in sound too short for a word, loops, and the prompt's own words.

faster-whisper goes on behind the last word's end, and with a prompt a few hundredths of a second
are often left: a whole window for the encoder, in which Whisper hears what is not there. And
sometimes Whisper falls into a loop, most often where little is said, and writes the same words
until it has no room left. Repetition alone proves nothing, since people repeat themselves; more
words than the sound has time for do. Where nothing is said Whisper may also go on with what it was
told was said before: its prompt. Whether it heard those words shows when it is asked without the
prompt. No rule knows a phrase.

Source of the compression ratio: Radford and others, Robust Speech Recognition via Large-Scale Weak
Supervision (2022), section 4.5. Fluent English has 3 to 7 tokens a second.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from app.config import Config

FRAME_MS = 10  # of a window's features
NO_REPEATED_GROUP = 4  # decoded again, a window says no four tokens in a row twice


def compression_ratio(text: str) -> float:
    """How much smaller zlib makes a text; of no text 0."""
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0


def letters(text: str) -> str:
    """A text's letters and digits alone, since prompts may have other punctuation and spaces."""
    return re.sub(r"[\W_]", "", text.casefold())


@dataclass(frozen=True, slots=True)
class HallucinationFilter:
    """What a window must have to be believed.

    Args:
        min_window_ms: sound that holds a word; 0: any.
        max_tokens_per_s: tokens that can be said in a second; 0: any number.
        max_compression_ratio: of a text that does not repeat itself.
        min_echo_letters: letters of a text that stands in the prompt; 0: no number is enough.
    """

    min_window_ms: int = 0
    max_tokens_per_s: float = 0.0
    max_compression_ratio: float = 2.4
    min_echo_letters: int = 0

    @classmethod
    def of(cls, config: Config) -> HallucinationFilter:
        """What the settings say."""
        return cls(
            config.min_window_ms,
            config.max_tokens_per_s,
            config.compression_ratio_threshold,
            config.min_echo_letters,
        )

    def too_short(self, sound_frames: int) -> bool:
        """Whether so much sound holds no word."""
        return sound_frames * FRAME_MS < self.min_window_ms

    def is_loop(self, text: str, n_tokens: int, sound_frames: int) -> bool:
        """Whether nobody can have said this.

        Args:
            text: a window's words.
            n_tokens: how many tokens they are, time stamps not counted.
            sound_frames: frames of sound in the window; in less than a second as many tokens
                are believed as in one.
        """
        longest = self.max_tokens_per_s * max(1.0, sound_frames * FRAME_MS / 1000)
        return self.max_tokens_per_s > 0 and n_tokens > longest and self.is_repetitive(text)

    def is_repetitive(self, text: str) -> bool:
        """Whether a text says the same again and again, as people seldom do."""
        return compression_ratio(text) > self.max_compression_ratio

    def is_echo(self, text: str, prompt: str) -> bool:
        """Whether a text may come from the prompt instead of the sound."""
        if not self.min_echo_letters:
            return False
        said = letters(text)
        return len(said) >= self.min_echo_letters and said in letters(prompt)
