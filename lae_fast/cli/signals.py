"""SIGINT and SIGTERM while a command runs: both end it in an exception, until its outcome stands.

From then on they are ignored to the very end of the process. A signal that comes while Python shuts down would
otherwise kill it, and the exit code would say that a run failed whose result is complete.

An edge; the standard library only.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived: whatever is done on Ctrl-C is done then too."""


def _terminate(*_: object) -> None:
    raise Terminated


@contextlib.contextmanager
def ending_the_command(own_process: bool) -> Iterator[None]:
    """SIGTERM raises `Terminated`.

    own_process : whether nothing but the exit follows: then signals are ignored afterwards, else handlers are put back
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows handlers there alone
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, _terminate)
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
