"""Decode uploads to waveforms (float32, mono, 16 kHz), and detect speech in them."""
