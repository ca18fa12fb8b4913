"""Transcribe one recording: detect speech and language, decode the parts, yield segments.

faster-whisper's types stay within this file: its long call, its lazy generator, its dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import faster_whisper
import numpy as np
from faster_whisper.transcribe import restore_speech_timestamps

from app.audio.limits import SAMPLE_RATE
from app.config import Config
from app.engine.batching.batched_model import END_OF_TEXT, PROMPT_TOKENS, special
from app.engine.batching.request_model import RequestModel
from app.engine.cancellation import Cancellation
from app.engine.hallucination_filter import NO_REPEATED_GROUP
from app.engine.job import Job
from app.engine.options import DecodeOptions
from app.engine.results import Segment, Transcript, Word
from app.engine.speech import PADDING_S, Part, amplified, is_long, parts
from app.engine.token_scores import scored, token_bytes

FRAME_SAMPLES = 160  # audio samples per frame of features
# Uncovered speech of this length was skipped by the model and is decoded on its own. In four
# random orders of the test sentences (base, lively talk) the error rate fell from 5.90 % to 5.52 %.
PASSED_OVER_S = 2.0
# A segment of this length omits speech if it has fewer tokens for each second. Fluent English has 3
# to 7. In repetitive announcements (Spanish, base) a part of 24 s lost all but its first sentence.
SPARSE_S = 5.0
SPARSE_TOKENS_PER_S = 1.5
# Multiple of Whisper's threshold above which a repetitive text is a loop: measured loops had 5.7 to
# 21, sentences that were said three times 3.2.
CERTAIN_LOOP = 2.0
# Least probability with which a later part of a recording changes the language.
CHANGE_PROBABILITY = 0.8


@dataclass(frozen=True, slots=True)
class Begun:
    """Part with a known language; iterating over its segments decodes it with its model."""

    model: RequestModel
    segments: Iterator[Any]
    language: str
    probability: float


class Transcription:
    """Transcription of one job; the request's thread iterates over `segments` once.

    Args:
        whisper: creates a faster-whisper model for one part.
        multilingual: whether the model supports languages other than English.
        parts_at_once: parts of a long recording that are decoded concurrently.
        config: the server's decoding options.
        job: what to transcribe.
    """

    def __init__(
        self,
        whisper: Callable[[], faster_whisper.WhisperModel],
        multilingual: bool,
        parts_at_once: int,
        config: Config,
        job: Job,
    ) -> None:
        self._whisper = whisper
        self._multilingual = multilingual
        self._parts_at_once = parts_at_once
        self._config = config
        self._options = job.options
        if config.ignore_prompts:
            self._options = replace(job.options, prompt=None)
        self._cancellation = job.cancellation
        self._waveform = amplified(job.waveform) if job.options.speech.enabled else job.waveform
        self._chunked = config.long_audio == "chunked" and is_long(job.waveform)

    def segments(self) -> Generator[Segment, None, Transcript]:
        """Detect speech and decode it; see `Model.decode`."""
        options = self._options
        duration = self._waveform.size / SAMPLE_RATE
        all_parts = parts(self._waveform, options.speech, self._chunked)
        if not all_parts:
            return self._nothing_said(duration)
        self._cancellation.check()
        first = self._begin(all_parts[0], options)
        collected: list[Segment] = []
        with closing(self._all_segments(all_parts, first)) as segments:
            for segment in clamp_timestamps(segments, duration, self._cancellation, first.language):
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

    def _all_segments(self, all_parts: Sequence[Part], first: Begun) -> Generator[Any, None, None]:
        """Yield the segments of all parts in order, with times of the whole recording.

        A part's segments follow as soon as it and all parts before it are decoded.
        """
        if not self._chunked:
            yield from restore_timestamps(first.segments, all_parts[0])
            return
        # A prompt is the text before the recording, so only the first part gets it.
        later = replace(self._options, prompt=None)
        languages: list[Future[str]] = [Future() for _ in all_parts]

        def decode(n: int) -> list[Any]:
            try:
                begun = first if n == 0 else self._begin(all_parts[n], later, languages[n - 1])
                languages[n].set_result(begun.language)
            except BaseException as error:
                languages[n].set_exception(error)  # the next part waits for it
                raise
            return self._complete(all_parts[n], begun, later)

        pool = ThreadPoolExecutor(self._parts_at_once, thread_name_prefix="part")
        try:
            # The first part also runs in the pool, or its segments would come late.
            for segments in pool.map(decode, range(len(all_parts))):
                yield from segments
        except GeneratorExit:
            self._cancellation.cancel()  # stop the parts being decoded
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(
        self,
        part: Part,
        options: DecodeOptions,
        previous: Future[str] | None = None,
        **further: Any,
    ) -> Begun:
        """Determine a part's language; its segments are decoded lazily.

        Args:
            previous: the language of the part before it, which a doubtful part keeps.
            further: arguments for faster-whisper that replace the server's.
        """
        speech = part.samples(self._waveform)
        whisper = self._whisper()
        language, probability = self._language(whisper, speech, options, previous)
        segments, info = whisper.transcribe(
            speech, language=language, **(self._arguments(whisper, options) | further)
        )
        if options.token_scores:
            segments = self._scored(whisper, segments)
        if probability is None:
            probability = float(info.language_probability)
        return Begun(whisper.model, iter(segments), info.language, probability)

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

    def _complete(
        self, part: Part, begun: Begun, options: DecodeOptions, halve: bool = True
    ) -> list[Any]:
        """Return a part's segments, including those of speech that the model first skipped.

        A part whose text fails, most often by a repetition loop, is decoded again in two halves,
        once: the model seldom fails the same way twice. Each half's language is detected again,
        since the language may have changed within the part.
        """
        segments = list(drop_trailing_padding(begun.segments, part.seconds))
        if halve and self._failed(segments) and (halves := part.halves()):
            # A loop takes as long as the longest text; in the halves it would take that twice more.
            looped = begun.model.looped or any(
                self._repetitive(segment, CERTAIN_LOOP) for segment in segments
            )
            further = {"no_repeat_ngram_size": NO_REPEATED_GROUP} if looped else {}
            language: Future[str] = Future()
            language.set_result(begun.language)
            return [
                segment
                for half in halves
                for segment in self._complete(
                    half, self._begin(half, options, language, **further), options, halve=False
                )
            ]
        known = replace(options, language=begun.language)
        uncovered_parts = [part.between(a, b) for a, b in uncovered_spans(segments, part.seconds)]
        whole = list(restore_timestamps(segments, part))
        for uncovered_part in uncovered_parts if segments else ():
            retry = drop_trailing_padding(
                self._begin(uncovered_part, known).segments, uncovered_part.seconds
            )
            whole += restore_timestamps(retry, uncovered_part)
        for segment in whole:
            segment.language = begun.language
        return sorted(whole, key=lambda segment: float(segment.start))

    def _failed(self, segments: Sequence[Any]) -> bool:
        """Return whether a part's text fails Whisper's thresholds or omits detected speech."""
        fails = any(
            self._repetitive(segment) or segment.avg_logprob < self._config.log_prob_threshold
            for segment in segments
        )
        omits = not segments or any(map(is_sparse, segments))
        return fails or (omits and self._options.speech.enabled)

    def _repetitive(self, segment: Any, times: float = 1.0) -> bool:
        """Return whether the compression ratio exceeds Whisper's threshold so many times."""
        return bool(segment.compression_ratio > times * self._config.compression_ratio_threshold)

    def _language(
        self,
        whisper: faster_whisper.WhisperModel,
        speech: np.ndarray,
        options: DecodeOptions,
        previous: Future[str] | None,
    ) -> tuple[str | None, float | None]:
        """Return the language to decode in and its probability; None leaves it to faster-whisper.

        faster-whisper handles a language that is given, or to be detected among all languages in
        a recording's first part.
        """
        if options.language or not self._multilingual:
            return options.language if self._multilingual else "en", None
        if not options.languages and previous is None:
            return None, None
        _, _, candidates = whisper.detect_language(audio=speech)
        probabilities = dict(candidates)
        if options.languages:
            probabilities = {code: probabilities.get(code, 0.0) for code in options.languages}
        best = choose_language(probabilities, previous)
        return best, float(probabilities.get(best, 0.0))

    def _context(
        self, whisper: faster_whisper.WhisperModel, options: DecodeOptions
    ) -> tuple[str | list[int] | None, str | None]:
        """Return prompt and hotwords, truncated so that both fit in Whisper's context.

        faster-whisper allows each the whole context; both at full length leave no room for text,
        and the result would be empty. The start of the hotwords and the end of the prompt stay.
        """
        step = self._config.prompt_length_multiple
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
        """Return faster-whisper's arguments from the request's and the server's options."""
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


def choose_language(probabilities: dict[str, float], previous: Future[str] | None) -> str:
    """Return the likeliest language; a doubtful part keeps that of the part before it.

    Args:
        probabilities: of each candidate.
        previous: None for a recording's first part.
    """
    best = max(probabilities, key=lambda code: probabilities[code])
    needed = CHANGE_PROBABILITY * sum(probabilities.values())
    return best if previous is None or probabilities[best] >= needed else previous.result()


def length_in_steps(n_tokens: int, step: int) -> int:
    """Return how many tokens of a prompt to keep, out of few different lengths.

    Lengths are multiples of the step, and powers of two below it.
    """
    if n_tokens < step:
        return 1 << (n_tokens.bit_length() - 1) if n_tokens else 0
    return n_tokens - n_tokens % step


def restore_timestamps(segments: Iterable[Any], part: Part) -> Iterator[Any]:
    """Yield a part's faster-whisper segments with times of the whole recording.

    `seek`, in frames of speech, counts from the start of the first part. The model may place an end
    after the part's, inside the next part; such an end is clamped.
    """
    if not part.whole:
        segments = restore_speech_timestamps(segments, part.spans, SAMPLE_RATE)
    end = part.spans[-1]["end"] / SAMPLE_RATE
    for segment in segments:
        segment.seek += part.offset // FRAME_SAMPLES
        segment.end = min(segment.end, end)
        yield segment


def drop_trailing_padding(segments: Iterable[Any], seconds: float) -> Iterator[Any]:
    """Yield a part's segments, without a last window that holds only padding after the speech.

    In a window of a tenth of a second Whisper hallucinates repetition loops.
    """
    for segment in segments:
        if segment.seek and seconds - segment.seek * FRAME_SAMPLES / SAMPLE_RATE < PADDING_S:
            return
        yield segment


def is_sparse(segment: Any) -> bool:
    """Return whether a segment has too few tokens for its length, which holds little but speech."""
    seconds = segment.end - segment.start
    return bool(seconds >= SPARSE_S and len(segment.tokens) < SPARSE_TOKENS_PER_S * seconds)


def uncovered_spans(segments: Sequence[Any], seconds: float) -> Iterator[tuple[float, float]]:
    """Yield start and end, in seconds, of each stretch of a part that no segment covers."""
    at = 0.0
    covered = sorted((segment.start, segment.end) for segment in segments)
    for start, end in [*covered, (seconds, seconds)]:
        if start - at >= PASSED_OVER_S:
            yield at, start
        at = max(at, end)


def clamp_timestamps(
    segments: Iterable[Any], duration: float, cancellation: Cancellation, language: str
) -> Iterator[Segment]:
    """Convert faster-whisper's segments; each iteration may decode a window.

    A window is padded to 30 s, so the model can place a word after the end of the audio or,
    rarely, before its neighbour. Times are clamped to the audio's length and kept in order, and no
    segment begins before the previous segment ends. A segment's language is kept where it is not
    `language`, the recording's.
    """
    earliest = earliest_word = 0.0
    for number, segment in enumerate(segments):
        cancellation.check()
        words = None
        if segment.words is not None:
            words = tuple(ordered_words(segment.words, earliest_word, duration))
            earliest_word = words[-1].start if words else earliest_word
        start = min(max(segment.start, earliest), duration)
        end = min(max(segment.end, start), duration)
        earliest = end
        yield Segment(
            id=number,
            seek=int(segment.seek),
            start=start,
            end=end,
            text=segment.text,
            tokens=tuple(segment.tokens),
            temperature=float(segment.temperature),
            avg_logprob=float(segment.avg_logprob),
            compression_ratio=float(segment.compression_ratio),
            no_speech_prob=float(segment.no_speech_prob),
            words=words,
            token_scores=getattr(segment, "token_scores", None),
            language=None if (own := getattr(segment, "language", language)) == language else own,
        )
    cancellation.check()


def ordered_words(words: Iterable[Any], earliest: float, duration: float) -> Iterable[Word]:
    """Convert faster-whisper's words; their starts never decrease."""
    for word in words:
        start = min(max(float(word.start), earliest), duration)
        end = min(max(float(word.end), start), duration)
        earliest = start
        yield Word(word.word, start, end, float(word.probability))
