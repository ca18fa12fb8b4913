"""Transcription service: the OpenAI audio API over batched faster-whisper workers."""

__version__ = "0.1.0"
