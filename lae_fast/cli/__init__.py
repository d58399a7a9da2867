"""The command line: one file a command, and `app` that puts them together.

Nothing is imported here before `main` runs, so that Ctrl-C ends the first imports as it ends a command.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the console script ``lae-fast``.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the program's name; those of the process by default, which then ends with this command:
        signals that arrive after it change nothing.

    Returns
    -------
    int
        The exit code.
    """
    try:
        from lae_fast.cli import signals

        with signals.ending_the_command(own_process=argv is None):
            from lae_fast.cli import app

            return app.run(argv)
    except KeyboardInterrupt as stop:  # that no command has answered
        import sys

        from lae_fast.cli.signals import exit_code

        print(f"interrupted: {str(stop) or 'nothing was written'}", file=sys.stderr)
        return exit_code(stop)
