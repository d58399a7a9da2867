"""What the benchmarks share: timing, peers, shapes, tables, memory."""
