"""SIGINT and SIGTERM while a command runs: both end it in an exception, until its outcome stands.  A pipe that nobody
reads any more ends it too.

From then on they are ignored to the very end of the process. A signal that comes while Python shuts down would
otherwise kill it, and the exit code would say that a run failed whose result is complete.

An edge; the standard library only, and little of it: this is loaded before Ctrl-C has an answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

# Exit code where the reader of a pipe has gone: as of a program that SIGPIPE ends.
CLOSED_PIPE = 141


class Interrupted(KeyboardInterrupt):
    """SIGINT has arrived.

    Python ends a process by SIGINT, though it was answered, where a plain KeyboardInterrupt has come through code that
    was compiled from a string, as imports do that make dataclasses.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived: whatever is done on Ctrl-C is done then too."""


def _interrupt(*_: object) -> None:
    raise Interrupted


def _terminate(*_: object) -> None:
    raise Terminated


@contextlib.contextmanager
def ending_the_command(own_process: bool) -> Iterator[None]:
    """SIGTERM raises `Terminated`, and SIGINT `Interrupted` where it has Python's own handler.

    own_process : whether nothing but the exit follows: then signals are ignored afterwards, else handlers are put back
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there alone
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _terminate)
    if before[signal.SIGINT] is signal.default_int_handler:  # else it is ignored, as of a command with nohup
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if own_process:
            ignore_from_now_on()
        else:
            for number, handler in before.items():
                signal.signal(number, handler)


def ignore_from_now_on() -> None:
    """The outcome stands: later signals change nothing.  Does nothing outside `ending_the_command`."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is _terminate:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def exit_code(stop: KeyboardInterrupt) -> int:
    """130 or 143, as of a shell."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def unanswered(finished: SystemExit) -> BaseException | None:
    """The interrupt, or the closed pipe, that other libraries have made this exit of; None where there is none."""
    error: BaseException | None = finished
    while error is not None and not isinstance(error, (KeyboardInterrupt, BrokenPipeError)):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error


def all_is_read() -> bool:
    """Whether what was printed found its reader; where it has gone, the rest goes nowhere and Python ends quietly."""
    found = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            found = False
    return found
