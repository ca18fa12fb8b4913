"""From waveforms to transcripts; knows nothing of HTTP, and alone knows faster-whisper."""
