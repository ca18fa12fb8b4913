"""Benchmarks, load, chaos, soak, fuzz and word errors: commands, never collected."""
