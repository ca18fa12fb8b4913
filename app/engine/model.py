"""The model in memory: load it, try it, and run one request through it.

faster-whisper's shapes end in this file: its long call, its lazy generator, its dictionaries.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
from faster_whisper.transcribe import restore_speech_timestamps
from faster_whisper.vad import VadOptions, get_speech_timestamps

from app.audio.decode import decode
from app.audio.limits import SAMPLE_RATE, Limits
from app.config import Config
from app.engine.admission import Tier
from app.engine.batching import SharedDevice, SharedModel
from app.engine.cancellation import Cancellation
from app.engine.device import Device
from app.engine.files import ModelError, find_model, one_line
from app.engine.hardware import choose_device, deal_cores, gpu_count, preload_cublas
from app.engine.options import DecodeOptions, SpeechOptions
from app.engine.results import Segment, Transcript, Word
from app.errors import InvalidRequest

# "He was not an ill-disposed young man": LibriVox, Sense and Sensibility, public domain.
WARM_UP_RECORDING = Path(__file__).with_name("warm_up.flac")
CONTEXT_TOKENS = 223  # half of Whisper's text context, less the token that opens it
# Trained without translation: they answer in the language they hear.
NO_TRANSLATION = ("turbo", "distil")


class Model:
    """faster-whisper's model on its device; any number of request threads may call it.

    Args:
        config: which model, where, and the server's share of the decoding options.

        max_batch: the most windows of one call; None: the settings' on a GPU, one on a CPU,
            where windows side by side do more than windows in one call.

    Raises:
        ModelError: it cannot be loaded; the message names the remedy.
        HardwareError: its device is not there.
    """

    def __init__(self, config: Config, max_batch: int | None = None) -> None:
        self._config = config
        self.gpus = gpu_count()
        self.device = choose_device(config.device, self.gpus)
        self.replicas, threads = (1, 0) if self.device == "cuda" else deal_cores(config)
        folder = find_model(config)
        if self.device == "cuda":
            preload_cublas()
        try:
            self._whisper = faster_whisper.WhisperModel(
                str(folder),
                device=self.device,
                compute_type=config.compute_type,
                cpu_threads=threads,
                num_workers=self.replicas,
                local_files_only=True,
            )
        except Exception as error:  # the library raises RuntimeError, ValueError and its own
            raise ModelError(
                f"The model in {folder} could not be loaded on {self.device} as "
                f"{config.compute_type} ({one_line(error)}). Fetch or convert it again, or "
                "choose another MODEL_SIZE, DEVICE or COMPUTE_TYPE."
            ) from error

        self._shared = SharedDevice(
            self._whisper.model,
            self._whisper.hf_tokenizer,
            threads=self.replicas,
            max_batch=max_batch or (config.max_batch_size if self.device == "cuda" else 1),
            adaptive=config.encoder_window == "adaptive",
        )

    @property
    def device_threads(self) -> Device:
        """Who makes the calls on the device."""
        return self._shared.device

    @property
    def multilingual(self) -> bool:
        """Whether the model knows more than English."""
        return bool(self._whisper.model.is_multilingual)

    @property
    def translates(self) -> bool:
        """Whether the model was trained to translate into English."""
        return self.multilingual and not any(part in self._config.name for part in NO_TRANSLATION)

    def warm_up(self) -> None:
        """Run a real recording through detection, decoding and alignment.

        Raises:
            ModelError: no words came out.
        """
        limits = Limits(upload_bytes=1 << 20, duration_s=30)
        with WARM_UP_RECORDING.open("rb") as file:
            waveform = decode(file, limits)
        transcript = self.transcribe(waveform, DecodeOptions(word_timestamps=True), Cancellation())
        if not transcript.text:
            raise ModelError(
                f"The model {self._config.model_size} was loaded and hears nothing in a clear "
                "recording. Fetch or convert it again, or choose another MODEL_SIZE."
            )

    def check(self, options: DecodeOptions) -> None:
        """Raise `InvalidRequest` when this model cannot do what a request asks."""
        if options.task == "translate" and not self.translates:
            raise InvalidRequest(
                f"The model {self._config.name} was not trained to translate.", param="model"
            )
        if not self.multilingual:
            return
        for language in (options.language, *options.languages):
            if language and self._whisper.hf_tokenizer.token_to_id(f"<|{language}|>") is None:
                raise InvalidRequest(
                    f"The model {self._config.name} does not know the language {language}.",
                    param="language",
                )

    def transcribe(
        self,
        waveform: np.ndarray,
        options: DecodeOptions,
        cancellation: Cancellation,
        tier: Tier = Tier.REALTIME,
    ) -> Transcript:
        """Find speech, then words.

        Args:
            waveform: float32 in [-1, 1], shape (n_samples,), mono 16 kHz.
            options: the request's choices.
            cancellation: asked before every call; work ends there when the client has left.
            tier: how urgent its calls are.

        Returns:
            The transcript; without segments when there is no speech, in which case the model
            has not been asked and a language that was to be detected has probability 0.

        Raises:
            InvalidRequest: this model cannot do what the options ask.
            ClientGone: nobody waits for the answer.
        """
        self.check(options)
        duration = waveform.size / SAMPLE_RATE
        spans = None
        speech = waveform
        if options.speech.enabled:
            spans = get_speech_timestamps(waveform, vad_options(options.speech))
            speech = join(waveform, spans)
        if speech.size == 0:
            return self._nothing_said(options, duration)
        cancellation.check()
        whisper = self._for_request(tier, cancellation)
        language, probability = self._language(whisper, speech, options)
        segments, found = whisper.transcribe(speech, language=language, **self._arguments(options))
        if spans:
            segments = restore_speech_timestamps(segments, spans, SAMPLE_RATE)
        collected = collect(segments, duration, cancellation)
        return Transcript(
            options.task,
            found.language,
            float(found.language_probability) if probability is None else probability,
            duration,
            collected,
            options.word_timestamps,
        )

    def _nothing_said(self, options: DecodeOptions, duration: float) -> Transcript:
        known = options.language if self.multilingual else "en"
        return Transcript(
            options.task,
            known or next(iter(options.languages), "en"),
            1.0 if known else 0.0,
            duration,
            with_words=options.word_timestamps,
        )

    def _for_request(self, tier: Tier, cancellation: Cancellation) -> faster_whisper.WhisperModel:
        """faster-whisper as one request's own: its calls share the device with the others'."""
        whisper = copy.copy(self._whisper)
        whisper.model = SharedModel(self._shared, tier, cancellation)
        return whisper

    def _language(
        self, whisper: faster_whisper.WhisperModel, speech: np.ndarray, options: DecodeOptions
    ) -> tuple[str | None, float | None]:
        """The language to decode in and its probability, as far as they are settled here.

        A language that is given, or that faster-whisper is to detect among all, is left to it.
        """
        if options.language or not options.languages or not self.multilingual:
            return options.language if self.multilingual else "en", None
        _, _, found = whisper.detect_language(audio=speech)
        probabilities = dict(found)
        best = max(options.languages, key=lambda code: probabilities.get(code, 0.0))
        return best, float(probabilities.get(best, 0.0))

    def _context(self, options: DecodeOptions) -> tuple[str | list[int] | None, str | None]:
        """Prompt and hotwords, held together to the room Whisper has for context.

        faster-whisper allows each of them all of it; both at their longest leave no room for
        words, and the answer would be empty. The hotwords' beginning and the prompt's end stay.
        """
        if not options.prompt or not options.hotwords:
            return options.prompt, options.hotwords
        prompt, hotwords = (
            self._whisper.hf_tokenizer.encode(" " + text.strip(), add_special_tokens=False).ids
            for text in (options.prompt, options.hotwords)
        )
        if len(prompt) + len(hotwords) <= CONTEXT_TOKENS:
            return options.prompt, options.hotwords
        hotwords = hotwords[: max(CONTEXT_TOKENS // 2, CONTEXT_TOKENS - len(prompt))]
        room = CONTEXT_TOKENS - len(hotwords)
        return prompt[-room:], self._whisper.hf_tokenizer.decode(hotwords)

    def _arguments(self, options: DecodeOptions) -> dict[str, Any]:
        """faster-whisper's arguments: the request's choices and the server's."""
        config = self._config
        prompt, hotwords = self._context(options)
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


def vad_options(speech: SpeechOptions) -> VadOptions:
    """The same choices in faster-whisper's form."""
    return VadOptions(
        threshold=speech.threshold,
        min_silence_duration_ms=speech.min_silence_duration_ms,
        max_speech_duration_s=speech.max_speech_duration_s,
        speech_pad_ms=speech.padding_ms,
    )


def join(waveform: np.ndarray, spans: list[dict[str, int]]) -> np.ndarray:
    """The speech alone: the samples of all spans, one after another."""
    if not spans:
        return waveform[:0]
    return np.concatenate([waveform[span["start"] : span["end"]] for span in spans])


def collect(
    segments: Iterable[Any], duration: float, cancellation: Cancellation
) -> tuple[Segment, ...]:
    """Draw the segments out of faster-whisper's generator; each draw may decode a window.

    A window is padded to 30 s, so the model can place a word after the end of the audio or,
    rarely, before its neighbour; times are held to the audio's length and to their order.
    """
    collected: list[Segment] = []
    earliest = earliest_word = 0.0
    for found in segments:
        cancellation.check()
        words = None
        if found.words is not None:
            words = tuple(ordered_words(found.words, earliest_word, duration))
            earliest_word = words[-1].start if words else earliest_word
        start = min(max(found.start, earliest), duration)
        end = min(max(found.end, start), duration)
        earliest = start
        collected.append(
            Segment(
                id=len(collected),
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
            )
        )
    cancellation.check()
    return tuple(collected)


def ordered_words(words: Iterable[Any], earliest: float, duration: float) -> Iterable[Word]:
    """faster-whisper's words as ours, their starts never going back."""
    for word in words:
        start = min(max(float(word.start), earliest), duration)
        end = min(max(float(word.end), start), duration)
        earliest = start
        yield Word(word.word, start, end, float(word.probability))
