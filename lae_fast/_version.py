"""The version, read by the package, the build and every file that records who wrote it."""

__version__ = "0.1.0"
