"""What the commands share: checks of the output files, one-line messages, tables of fields.

Results go to stdout, messages to stderr; rich is imported when something is printed.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lae_fast._version import __version__
from lae_fast.cli.signals import ignore_from_now_on
from lae_fast.sizes import format_bytes

if TYPE_CHECKING:
    from lae_fast.data.opened_file import OpenedFile


# A longer list is cut: it is for reading, the file has all of it.
TABLE_HEAD = 40
# How many names of columns are printed.
_NAMES_SHOWN = 8


def check_outputs(input: str, output: Path | None, suffix: str, plots: Sequence[Path] = ()) -> None:
    """Everything about the outputs that can be known before an hour of work is spent.

    suffix : of `output`, as it must be
    """
    from lae_fast import plots as pictures
    from lae_fast.data import atomic, files

    source = files.input_path(input)
    outputs = [path for path in (output, *plots) if path is not None]
    for path in outputs:
        if source is not None and path.resolve() == source.resolve():
            raise ValueError(f"{path} is the input; it would be overwritten")
    for i, path in enumerate(outputs):
        if path.resolve() in {other.resolve() for other in outputs[:i]}:
            both = "-o and --plot both name" if output is not None and i == 1 else "two outputs have the name"
            raise ValueError(f"{both} {path}")
    if output is not None and output.suffix != suffix:
        raise ValueError(f"-o {output}: the result is a {suffix} file; end the name in {suffix}")
    for plot in plots:
        pictures.require("--plot")
        if plot.suffix.lower() not in pictures.FORMATS:
            raise ValueError(f"--plot {plot}: end the name in one of {', '.join(pictures.FORMATS)}")
    for path in outputs:
        atomic.check_writable(path)


class Outputs:
    """The files a command is to write, and which of them it has: a file that is written replaces the one before."""

    def __init__(self, *paths: Path | None) -> None:
        self._before = {path: _identity(path) for path in paths if path is not None}

    def __str__(self) -> str:
        """What is true of them now; "nothing was written" where there are none."""
        return ", ".join(self._said(path, before) for path, before in self._before.items()) or "nothing was written"

    def written(self, path: Path) -> bool:
        return _identity(path) != self._before[path]

    def _said(self, path: Path, before: object) -> str:
        if self.written(path):
            return f"{path} was written"
        return f"{path} was not written" + ("" if before is None else "; the one from before is untouched")


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def interruptions(say: Callable[[], object]) -> Iterator[None]:
    """Put what `say()` gives, of what is left behind, into a KeyboardInterrupt that has no words yet.

    After the context the work is done, and signals are ignored.
    """
    try:
        yield
        ignore_from_now_on()
    except KeyboardInterrupt as stop:
        ignore_from_now_on()
        if not stop.args:
            stop.args = (str(say()),)
        raise


def describe(source: OpenedFile) -> str:
    shape = " x ".join(str(size) for size in source.data.shape)
    return f"{source.name}: {shape} {source.dtype}, {format_bytes(source.nbytes)}, {source.where}"


def input_fields(source: OpenedFile) -> dict[str, str]:
    """What was opened, for `print_fields`: the columns too, where they have names."""
    fields = {"input": describe(source)}
    if source.names is not None:
        shown = ", ".join(source.names[:_NAMES_SHOWN]) + (", ..." if len(source.names) > _NAMES_SHOWN else "")
        fields["columns"] = f"{len(source.names)}: {shown}"
    return fields


def print_fields(fields: Mapping[str, object]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields.items():
        grid.add_row(Text(name), Text(str(value)))  # Text: a file may be called [red].npy
    console().print(grid)


def print_json(found: Mapping[str, Any]) -> None:
    """One JSON object on stdout; arrays become lists, nan and inf null."""
    print(json.dumps(_plain(found), indent=2))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_line(label: str, message: str, style: str) -> None:
    from rich.text import Text

    text = Text.assemble((f"{label}: ", f"bold {style}"), (" ".join(message.split()), style))
    console(stderr=True).print(text, soft_wrap=True)


def counted(number: object, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def origin(options: Any) -> dict[str, Any]:
    """Where a file comes from: version, time, and the options as they were typed (a dataclass)."""
    typed = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"lae_fast": __version__, "created": created, "options": typed}
