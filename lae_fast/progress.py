"""Progress reports of long work: one protocol, and the bar that ``progress=True`` shows.

A leaf: the standard library when loaded; rich, where it is installed, when a bar is shown.

Protocol
--------
The engine calls ``report(stage, done, total)``. `stage` is a short phrase for people ("Gram", "pass 3"); calls with
the same phrase belong to one stage. `done` counts units of that stage from 0 up, and `total` is the number of units, or
None where nobody knows it. An exception raised by the report (or a Ctrl-C that arrives in it) stops the work and
reaches the caller: that is how a callback cancels a fit.
"""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO

ProgressCallback = Callable[[str, int, "int | None"], object]

# No eye follows a counter that is faster, and a slow terminal would hold up the work.
_REDRAW_SECONDS = 0.1


class Reporter:
    """A report that can be called and closed. This base class reports nothing, at the cost of one call."""

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        """Report that `done` of `total` units of `stage` are finished."""

    def close(self) -> None:
        """Take the bar off the screen, or finish its last line. May be called more than once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Callback(Reporter):
    """Hands every report to the user's callable. Whoever made the callable closes it."""

    def __init__(self, callback: ProgressCallback) -> None:
        self._callback = callback

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        self._callback(stage, done, total)


class _RichBar(Reporter):
    """One bar per stage, on stderr, so that stdout stays clean for results. rich itself limits the redrawing."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            # A log file has no cursor to move: there rich would only print the last state, which nobody watched.
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._tasks: dict[str, Any] = {}
        self._stage: str | None = None

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        if stage != self._stage:
            self._finish_stage()
            self._progress.start()
        if stage in self._tasks:
            self._progress.update(self._tasks[stage], completed=done, total=total)
        else:
            self._tasks[stage] = self._progress.add_task(stage, completed=done, total=total)
        self._stage = stage  # last: a Ctrl-C above must find a state that can be closed

    def _finish_stage(self) -> None:
        """Stop the clock of the stage, and the pulse of one whose end nobody knew."""
        if self._stage is None:
            return
        task = self._progress.tasks[self._tasks[self._stage]]
        if task.total is None:
            self._progress.update(task.id, total=task.completed)
        self._progress.stop_task(task.id)

    def close(self) -> None:
        self._finish_stage()
        self._stage = None
        self._progress.stop()


class _PlainLine(Reporter):
    """Without rich: one line that is written over on a terminal, one line per finished stage in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._stage: str | None = None
        self._line = ""  # the last state of the stage; may be newer than what the terminal shows
        self._width = 0  # of what the terminal shows, so that a shorter line covers it
        self._drawn_at = -math.inf

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        if stage != self._stage:
            self.close()
            self._stage, self._drawn_at = stage, -math.inf
        self._line = f"{stage}: {done}" if total is None else f"{stage}: {done}/{total}"
        if self._terminal and time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._stream.write("\r" + self._line.ljust(self._width))
        self._stream.flush()
        self._width, self._drawn_at = len(self._line), time.monotonic()

    def close(self) -> None:
        if self._stage is None:
            return
        if self._terminal:
            self._draw()
        self._stream.write("\n" if self._terminal else self._line + "\n")
        self._stream.flush()
        self._stage, self._width = None, 0


_SILENT = Reporter()


def resolve(progress: bool | ProgressCallback | None = False) -> Reporter:
    """Turn the `progress` parameter of an estimator into something to call and to close.

    Parameters
    ----------
    progress : bool, None or callable
        False or None: no reports. True: a bar on stderr, drawn by rich where it is installed, otherwise a one-line
        counter. A callable ``progress(stage, done, total)``: called with every report, not throttled, never closed.

    Returns
    -------
    Reporter
        A callable ``report(stage, done, total=None)`` and a context manager that takes the bar down however the work
        ends.

    Raises
    ------
    TypeError
        `progress` is none of these.

    Examples
    --------
    >>> with resolve(lambda stage, done, total: print(stage, done, total)) as report:
    ...     report("Gram", 1, 2)
    Gram 1 2
    """
    if progress is None or progress is False:
        return _SILENT
    if progress is True:
        return _RichBar() if importlib.util.find_spec("rich") is not None else _PlainLine()
    if callable(progress):
        return _Callback(progress)
    raise TypeError(
        f"progress must be False, True or a callable progress(stage, done, total), got {type(progress).__name__}"
    )
