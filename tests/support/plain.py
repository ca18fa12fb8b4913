"""Plain faster-whisper, asked as the service asks it: what answers and speed are held against."""

from __future__ import annotations

from typing import Any

import faster_whisper
import numpy as np

from app.engine.options import DecodeOptions


def transcribe(
    model: faster_whisper.WhisperModel,
    waveform: np.ndarray,
    options: DecodeOptions,
    beam_size: int = 5,
) -> tuple[list[Any], Any]:
    """One request alone: faster-whisper's segments, all drawn, and its information."""
    segments, info = model.transcribe(
        waveform,
        task=options.task,
        language=options.language,
        beam_size=beam_size,
        initial_prompt=options.prompt,
        hotwords=options.hotwords,
        word_timestamps=options.word_timestamps,
        temperature=list(options.temperatures),
        condition_on_previous_text=False,
        vad_filter=options.speech.enabled,
        vad_parameters={
            "threshold": options.speech.threshold,
            "min_silence_duration_ms": options.speech.min_silence_duration_ms,
            "max_speech_duration_s": options.speech.max_speech_duration_s,
        },
    )
    return list(segments), info


def text(model: faster_whisper.WhisperModel, waveform: np.ndarray, options: DecodeOptions) -> str:
    """One request's text."""
    segments, _ = transcribe(model, waveform, options)
    return "".join(segment.text for segment in segments)
