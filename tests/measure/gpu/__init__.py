"""The parts of `make bench-gpu`, each a command of its own; see tests/measure/bench_gpu.py."""
