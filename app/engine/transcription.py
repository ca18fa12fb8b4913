"""One request on its way through the model: speech, language, parts, segments.

faster-whisper's shapes end in this file: its long call, its lazy generator, its dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import faster_whisper
import numpy as np
from faster_whisper.transcribe import restore_speech_timestamps

from app.audio.limits import SAMPLE_RATE
from app.config import Config
from app.engine.batching.batched_model import END_OF_TEXT, special
from app.engine.cancellation import Cancellation
from app.engine.options import DecodeOptions
from app.engine.results import Segment, Transcript, Word
from app.engine.speech import PADDING_S, Part, amplified, is_long, parts
from app.engine.token_scores import scored, token_bytes

PROMPT_TOKENS = 223  # half of Whisper's text context, less the token that opens it
FRAME_SAMPLES = 160  # of one frame of features
# Speech of this length without text was passed over by the model and is decoded by itself. On
# four random orders of the sentences at hand in lively talk (base), error rate 5.90 % -> 5.52 %.
PASSED_OVER_S = 2.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A part whose language is known; drawing its segments decodes it."""

    segments: Iterator[Any]
    language: str
    probability: float


class Transcription:
    """One request; `segments` is drawn once, on the request's thread.

    Args:
        whisper: makes faster-whisper as one part's own.
        multilingual: whether the model knows more than English.
        parts_at_once: of a long recording.
        config: the server's share of the decoding options.
        waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
        options: the request's choices.
        cancellation: asked before every call; work ends there when the client has left.
    """

    def __init__(
        self,
        whisper: Callable[[], faster_whisper.WhisperModel],
        multilingual: bool,
        parts_at_once: int,
        config: Config,
        waveform: np.ndarray,
        options: DecodeOptions,
        cancellation: Cancellation,
    ) -> None:
        self._whisper = whisper
        self._multilingual = multilingual
        self._parts_at_once = parts_at_once
        self._config = config
        self._waveform = amplified(waveform) if options.speech.enabled else waveform
        self._options = options
        self._cancellation = cancellation
        self._chunked = config.long_audio == "chunked" and is_long(waveform)

    def segments(self) -> Generator[Segment, None, Transcript]:
        """Find speech, then words; see `Model.segments`."""
        options = self._options
        duration = self._waveform.size / SAMPLE_RATE
        found = parts(self._waveform, options.speech, self._chunked)
        if not found:
            return self._nothing_said(duration)
        self._cancellation.check()
        first = self._begin(found[0], options)
        collected: list[Segment] = []
        with closing(self._found(found, first)) as drawn:
            for segment in clamp_timestamps(drawn, duration, self._cancellation):
                collected.append(segment)
                yield segment
        return Transcript(
            options.task,
            first.language,
            first.probability,
            duration,
            tuple(collected),
            options.word_timestamps,
            options.token_scores,
        )

    def _nothing_said(self, duration: float) -> Transcript:
        options = self._options
        known = options.language if self._multilingual else "en"
        return Transcript(
            options.task,
            known or next(iter(options.languages), "en"),
            1.0 if known else 0.0,
            duration,
            with_words=options.word_timestamps,
            with_scores=options.token_scores,
        )

    def _found(self, found: Sequence[Part], first: Begun) -> Generator[Any, None, None]:
        """The segments of all parts in their order, times as in the recording; those of a part
        come as soon as it and all before it are decoded."""
        if not self._chunked:
            yield from placed(first.segments, found[0])
            return
        # A prompt is what was said before the recording, so it is the first part's alone.
        later = replace(self._options, language=first.language, languages=(), prompt=None)
        pool = ThreadPoolExecutor(self._parts_at_once, thread_name_prefix="part")
        try:
            # The first part has a place like the others, or its words would come late.
            opening = pool.submit(self._complete, found[0], first, later)
            others = pool.map(
                lambda part: self._complete(part, self._begin(part, later), later), found[1:]
            )
            yield from opening.result()
            for segments in others:
                yield from segments
        except GeneratorExit:
            self._cancellation.cancel()  # the parts that are being decoded now
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, part: Part, options: DecodeOptions) -> Begun:
        """Settle a part's language; its segments are decoded as they are drawn."""
        speech = part.samples(self._waveform)
        whisper = self._whisper()
        language, probability = self._language(whisper, speech, options)
        segments, found = whisper.transcribe(
            speech, language=language, **self._arguments(whisper, options)
        )
        if options.token_scores:
            segments = self._scored(whisper, segments)
        if probability is None:
            probability = float(found.language_probability)
        return Begun(iter(segments), found.language, probability)

    def _scored(
        self, whisper: faster_whisper.WhisperModel, segments: Iterable[Any]
    ) -> Iterator[Any]:
        tokenizer = whisper.hf_tokenizer
        return scored(
            segments,
            whisper.model.scores,
            special(tokenizer, END_OF_TEXT),
            lambda token: token_bytes(tokenizer.id_to_token(token)),
        )

    def _complete(self, part: Part, begun: Begun, options: DecodeOptions) -> list[Any]:
        """A part's segments, with those of the speech that the model passed over.

        A part whose text fails Whisper's own thresholds, most of all a loop of a few words, is
        decoded again in two halves: the same model seldom fails in the same way twice.
        """
        segments = list(drop_trailing_padding(begun.segments, part.seconds))
        if any(map(self._failed, segments)) and (halves := part.halves()):
            return [
                segment
                for half in halves
                for segment in self._complete(half, self._begin(half, options), options)
            ]
        passed_over = [part.between(a, b) for a, b in gaps(segments, part.seconds)]
        whole = list(placed(segments, part))
        for missing in passed_over:
            again = self._begin(missing, options)
            whole += placed(drop_trailing_padding(again.segments, missing.seconds), missing)
        return sorted(whole, key=lambda segment: float(segment.start))

    def _failed(self, segment: Any) -> bool:
        config = self._config
        return bool(
            segment.compression_ratio > config.compression_ratio_threshold
            or segment.avg_logprob < config.log_prob_threshold
        )

    def _language(
        self, whisper: faster_whisper.WhisperModel, speech: np.ndarray, options: DecodeOptions
    ) -> tuple[str | None, float | None]:
        """The language to decode in and its probability, as far as they are settled here.

        A language that is given, or that faster-whisper is to detect among all, is left to it.
        """
        if options.language or not options.languages or not self._multilingual:
            return options.language if self._multilingual else "en", None
        _, _, found = whisper.detect_language(audio=speech)
        probabilities = dict(found)
        best = max(options.languages, key=lambda code: probabilities.get(code, 0.0))
        return best, float(probabilities.get(best, 0.0))

    def _context(
        self, whisper: faster_whisper.WhisperModel, options: DecodeOptions
    ) -> tuple[str | list[int] | None, str | None]:
        """Prompt and hotwords, held together to the room Whisper has for context.

        faster-whisper allows each of them all of it; both at their longest leave no room for
        words, and the answer would be empty. The hotwords' beginning and the prompt's end stay.
        """
        step = self._config.prompt_step
        if not options.prompt or (not options.hotwords and step == 1):
            return options.prompt, options.hotwords
        prompt, hotwords = (
            whisper.hf_tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
            for text in (options.prompt, options.hotwords or "")
        )
        prompt = prompt[-PROMPT_TOKENS:]
        prompt = prompt[-length_in_steps(len(prompt), step) :]
        if not options.hotwords:
            return prompt, None
        if len(prompt) + len(hotwords) <= PROMPT_TOKENS:
            return prompt, options.hotwords
        hotwords = hotwords[: max(PROMPT_TOKENS // 2, PROMPT_TOKENS - len(prompt))]
        room = PROMPT_TOKENS - len(hotwords)
        return prompt[-room:], whisper.hf_tokenizer.decode(hotwords)

    def _arguments(
        self, whisper: faster_whisper.WhisperModel, options: DecodeOptions
    ) -> dict[str, Any]:
        """faster-whisper's arguments: the request's choices and the server's."""
        config = self._config
        prompt, hotwords = self._context(whisper, options)
        return {
            "task": options.task,
            "initial_prompt": prompt,
            "hotwords": hotwords,
            "word_timestamps": options.word_timestamps,
            "temperature": list(options.temperatures),
            "beam_size": config.beam_size,
            "best_of": config.best_of,
            "repetition_penalty": config.repetition_penalty,
            "no_repeat_ngram_size": config.no_repeat_ngram_size,
            "compression_ratio_threshold": config.compression_ratio_threshold,
            "log_prob_threshold": config.log_prob_threshold,
            "no_speech_threshold": config.no_speech_threshold,
            "condition_on_previous_text": config.condition_on_previous_text,
            "prompt_reset_on_temperature": config.prompt_reset_on_temperature,
        }


def length_in_steps(n_tokens: int, step: int) -> int:
    """The most tokens of a prompt to keep, of which there are few different numbers: multiples
    of the step, and powers of two below it."""
    if n_tokens < step:
        return 1 << (n_tokens.bit_length() - 1) if n_tokens else 0
    return n_tokens - n_tokens % step


def placed(segments: Iterable[Any], part: Part) -> Iterator[Any]:
    """faster-whisper's segments of a part, their times as in the recording.

    Their `seek`, frames of speech, is counted from the first part's beginning. The model may place
    an end behind the part's, where the next part has begun.
    """
    if not part.whole:
        segments = restore_speech_timestamps(segments, part.spans, SAMPLE_RATE)
    end = part.spans[-1]["end"] / SAMPLE_RATE
    for segment in segments:
        segment.seek += part.offset // FRAME_SAMPLES
        segment.end = min(segment.end, end)
        yield segment


def drop_trailing_padding(segments: Iterable[Any], seconds: float) -> Iterator[Any]:
    """A part's segments, but for a last window that holds only the padding behind the speech.

    In a window of a tenth of a second Whisper hears loops of words that nobody said.
    """
    for segment in segments:
        if segment.seek and seconds - segment.seek * FRAME_SAMPLES / SAMPLE_RATE < PADDING_S:
            return
        yield segment


def gaps(segments: Sequence[Any], seconds: float) -> Iterator[tuple[float, float]]:
    """Stretches of a part that no segment covers, from and to in seconds."""
    at = 0.0
    covered = sorted((segment.start, segment.end) for segment in segments)
    for start, end in [*covered, (seconds, seconds)]:
        if start - at >= PASSED_OVER_S:
            yield at, start
        at = max(at, end)


def clamp_timestamps(
    segments: Iterable[Any], duration: float, cancellation: Cancellation
) -> Iterator[Segment]:
    """faster-whisper's segments as ours; each draw may decode a window.

    A window is padded to 30 s, so the model can place a word after the end of the audio or,
    rarely, before its neighbour; times are held to the audio's length and to their order, and a
    segment begins where the one before it has ended, or later.
    """
    earliest = earliest_word = 0.0
    for number, found in enumerate(segments):
        cancellation.check()
        words = None
        if found.words is not None:
            words = tuple(ordered_words(found.words, earliest_word, duration))
            earliest_word = words[-1].start if words else earliest_word
        start = min(max(found.start, earliest), duration)
        end = min(max(found.end, start), duration)
        earliest = end
        yield Segment(
            id=number,
            seek=int(found.seek),
            start=start,
            end=end,
            text=found.text,
            tokens=tuple(found.tokens),
            temperature=float(found.temperature),
            avg_logprob=float(found.avg_logprob),
            compression_ratio=float(found.compression_ratio),
            no_speech_prob=float(found.no_speech_prob),
            words=words,
            token_scores=getattr(found, "token_scores", None),
        )
    cancellation.check()


def ordered_words(words: Iterable[Any], earliest: float, duration: float) -> Iterable[Word]:
    """faster-whisper's words as ours, their starts never going back."""
    for word in words:
        start = min(max(float(word.start), earliest), duration)
        end = min(max(float(word.end), start), duration)
        earliest = start
        yield Word(word.word, start, end, float(word.probability))
