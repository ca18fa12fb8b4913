"""Decode uploads to waveforms: float32, mono, 16 kHz."""
