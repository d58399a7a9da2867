"""Passes over the data on the CPU: dense tiles, exact bytes, stored entries."""
