"""Progress reports of long work: one protocol, and the bar that ``progress=True`` shows.

rich, where it is installed, is imported when a bar is shown.

Protocol
--------
The engine calls ``report(stage, done, total)``. `stage` is a short phrase for people: "Gram of the features", or "pass
over the data (3 of about 8, residual 2e-03)". Calls whose phrases agree up to a parenthesis belong to one stage; the
text in the parenthesis may change. `done` counts units of that stage from 0 up, and starts again from 0 with each pass;
`total` is the number of units, or None where it is not known. An exception raised by the report (or a Ctrl-C that
arrives in it) stops the work and reaches the caller: that is how a callback cancels a fit.

Bars also show when kernels are being compiled (`compiling`); callables are called for the work only.  Where no bar is
up and a person waits for kernels, one line on stderr says so, once a process.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TextIO

ProgressCallback = Callable[[str, int, "int | None"], object]

# A counter need not be drawn more often, and a slow terminal would hold up the work.
_REDRAW_SECONDS = 0.1
# A stage shows the time that is left once it has taken this long.
_PATIENCE = 1.0


class Reporter:
    """A report that can be called and closed. This base class reports nothing, at the cost of one call."""

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        """Report that `done` of `total` units of `stage` are finished."""

    def compiling(self, running: bool) -> None:
        """Kernels are being compiled from here on, or have been. Called from any thread."""

    def close(self) -> None:
        """Take the bar off the screen, or finish its last line. May be called more than once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class Passes:
    """The stage of an iteration that reads the data again and again: its number, and how far it is.

    expected : likely number of passes, 0 where unknown;  residual : the largest relative one so far, nan where unknown
    """

    name: str
    expected: int = 0
    number: int = 0
    residual: float = math.nan

    def __str__(self) -> str:
        if not self.number:
            return self.name
        of = f" of about {self.expected}" if self.number <= self.expected else ""
        residual = f", residual {self.residual:.0e}" if math.isfinite(self.residual) else ""
        return f"{self.name} ({self.number}{of}{residual})"


def _stage(phrase: str) -> str:
    """The part of a phrase that names the stage: what stands before the parenthesis."""
    return phrase.partition(" (")[0]


_shown: list[Reporter] = []  # bars that are up
_compilations = 0  # that are running: compiling a kernel compiles the kernels it calls


def compiling(running: bool) -> None:
    """Tell the bars that are up that compiling has begun or ended; nested compilations count as one."""
    global _compilations
    before, _compilations = _compilations, _compilations + (1 if running else -1)
    if bool(before) != bool(_compilations):
        _notice.compiling(running)
        for reporter in list(_shown):
            reporter.compiling(running)


class _Notice:
    """Says once, after a second of compiling, what a person in front of a terminal is waiting for."""

    text = (
        "lae_fast: compiling kernels for this kind of data, once on this machine "
        "(`lae-fast warmup` does it ahead; LAE_FAST_QUIET=1 hides this line)\n"
    )

    def __init__(self) -> None:
        self.wanted = True
        self._spent, self._began = 0.0, 0.0
        self._timer: threading.Timer | None = None

    def compiling(self, running: bool) -> None:
        """Compiling has begun or ended; the time of all compilations counts."""
        if running and self.wanted and _is_watched():
            self._began = time.monotonic()
            self._timer = threading.Timer(max(0.0, _PATIENCE - self._spent), self._say)
            self._timer.daemon = True
            self._timer.start()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._spent += time.monotonic() - self._began

    def _say(self) -> None:
        if self.wanted and not _shown:  # a bar says it already
            self.wanted = False
            sys.stderr.write(self.text)
            sys.stderr.flush()


def _is_watched() -> bool:
    """Whether a person sees stderr, and has not asked for quiet."""
    if os.environ.get("LAE_FAST_QUIET", "0").lower() not in {"", "0", "off", "false", "no"}:
        return False
    interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules
    return sys.stderr is not None and (sys.stderr.isatty() or interactive)


_notice = _Notice()


def hide_notice() -> None:
    """Say nothing of compiling from now on: the command line with ``--quiet``."""
    _notice.wanted = False


class _Bar(Reporter):
    """A report that is drawn, and therefore shows compilations too."""

    def __enter__(self) -> Self:
        _shown.append(self)
        return self

    def __exit__(self, *error: Any) -> None:
        _shown.remove(self)
        self.close()


class _Callback(Reporter):
    """Hands every report to the user's callable, and does not close it."""

    def __init__(self, callback: ProgressCallback) -> None:
        self._callback = callback

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        self._callback(stage, done, total)


class _RichBar(_Bar):
    """One bar per stage, with the time that is left of it, on stderr, so that stdout stays clean for results.

    rich itself limits the redrawing.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.text import Text

        class Left(TimeRemainingColumn):
            def render(self, task: Any) -> Text:
                known = task.time_remaining is not None and not task.finished
                return super().render(task) + Text(" left") if known else Text("")

        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            Left(),
            console=console,
            # A log file has no cursor to move: rich would print the last state only.
            disable=not (console.is_terminal or console.is_jupyter),
        )
        self._tasks: dict[str, Any] = {}
        self._stage: str | None = None
        self._compiling: Any = None

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        phrase, stage = stage, _stage(stage)
        if stage != self._stage:
            self._finish_stage()
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(phrase, completed=done, total=total)
        elif done < self._progress.tasks[self._tasks[stage]].completed:  # another pass: its clock starts again
            self._progress.reset(self._tasks[stage], description=phrase, completed=done, total=total)
        else:
            self._progress.update(self._tasks[stage], description=phrase, completed=done, total=total)
        self._stage = stage  # last: a Ctrl-C above must find a state that can be closed

    def compiling(self, running: bool) -> None:
        self._progress.start()
        if self._compiling is None:
            self._compiling = self._progress.add_task("compiling kernels", total=None)
        self._progress.reset(self._compiling, visible=running, total=None)

    def _finish_stage(self) -> None:
        """Stop the clock of the stage, and the moving bar of one whose total was not known."""
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


class _PlainLine(_Bar):
    """Without rich: one line that is written over on a terminal, one line per finished stage in a log."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._stage: str | None = None
        self._line = ""  # the last state of the stage; may be newer than what the terminal shows
        self._width = 0  # of what the terminal shows, so that a shorter line covers it
        self._drawn_at = -math.inf
        self._began, self._done = 0.0, 0  # of the stage, or of its present pass

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        phrase, stage = stage, _stage(stage)
        if stage != self._stage:
            self.close()
            self._stage, self._drawn_at, self._began = stage, -math.inf, time.monotonic()
        elif done < self._done:
            self._began = time.monotonic()
        self._done = done
        self._line = f"{phrase}: {done}" if total is None else f"{phrase}: {done}/{total}{self._left(done, total)}"
        if self._terminal and time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
            self._draw()

    def _left(self, done: int, total: int) -> str:
        elapsed = time.monotonic() - self._began
        if not done or done >= total or elapsed < _PATIENCE:
            return ""
        return f", {elapsed * (total - done) / done:.0f} s left"

    def compiling(self, running: bool) -> None:
        if running and self._terminal:
            self._stream.write("\r" + "compiling kernels ...".ljust(self._width))
            self._stream.flush()
            self._width = max(self._width, len("compiling kernels ..."))

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
