"""Transcription service: the OpenAI audio API over batched faster-whisper workers."""

__version__ = "0.2.0"
