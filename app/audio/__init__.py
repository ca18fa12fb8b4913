"""From uploaded bytes to a waveform: float32, mono, 16 kHz."""
