"""Passes over the data on CUDA, under the names of backends/cpu/passes."""
