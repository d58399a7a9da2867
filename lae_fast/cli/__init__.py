"""The command line: one file a command, and `app` that puts them together."""

from lae_fast.cli.app import main as main
