"""Live transcription: OpenAI's Realtime API, in a gateway process without a model."""
