"""Benchmarks on a CUDA card: `python -m benchmarks.gpu`."""
