"""The figures of the papers, one command each: `python -m benchmarks.papers`."""
