"""Options of the commands, each declared once: a field of a dataclass says name, type, default and help text.

`command` makes of such a dataclass what typer reads; typer is imported there, because it is an extra.  An edge.
"""

import dataclasses
import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_type_hints

from lae_fast import sizes
from lae_fast.files import FORMATS


@dataclass(frozen=True)
class Told:
    """What typer is to be told of a parameter, as it takes it; in an ``Annotated`` field."""

    flags: tuple[str, ...]
    more: dict[str, Any]
    is_argument: bool = False


def option(*flags: str, **more: Any) -> Told:
    """An option; without `flags` its name is the flag.  more : as of ``typer.Option``, such as ``help`` and ``min``."""
    return Told(flags, more)


class BackendName(enum.StrEnum):
    auto = enum.auto()
    cpu = enum.auto()
    cuda = enum.auto()


# Fields that several commands share.
Backend = Annotated[BackendName, option(help="Where to compute.")]
MaxMemory = Annotated[str | None, option("--max-memory", help="Largest workspace beside the data, such as 2GB.")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command that reads data takes; its own options are listed before these."""

    input: Annotated[str, Told((), {"metavar": "INPUT", "help": f"One of: {FORMATS}."}, is_argument=True)]
    threads: Annotated[int | None, option(min=1, help="Threads to use; all cores by default.")] = None
    quiet: Annotated[bool, option("-q", "--quiet", help="Print warnings and errors only.")] = False


def parse_bytes(text: str | None) -> int | None:
    """``--max-memory``: what `sizes.parse_bytes` reads; None stays None."""
    if text is None:
        return None
    size = sizes.parse_bytes(text)
    if size is None:
        raise ValueError(f"--max-memory takes a size such as 2GB or 512MiB, got {text!r}")
    return size


def command(options: type, work: Callable[[Any, bool], None]) -> Callable[..., None]:
    """A function for typer: its parameters are the fields of the dataclass `options` and ``--debug``.

    work : is called with the options as typed, and with whether ``--debug`` was among them
    """
    import typer

    def run(debug: bool, **typed: Any) -> None:
        work(options(**typed), debug)

    debug = typer.Option("--debug", help="Show the traceback of an error instead of one line.")
    parameters = [_parameter(field, *told) for field, told in _fields(options)]
    parameters.append(inspect.Parameter("debug", _KEYWORD, default=False, annotation=Annotated[bool, debug]))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


# Fields that the library calls otherwise.
_LIBRARY_NAMES = {"components": "n_components", "solver": "svd_solver", "seed": "random_state"}


def flags(options: type) -> dict[str, str]:
    """The option as it is typed, ``-k`` or ``--max-memory``, by the library's name of the parameter."""
    named = [(field.name, told) for field, (_, told) in _fields(options) if not told.is_argument]
    return {
        _LIBRARY_NAMES.get(name, name): told.flags[0] if told.flags else f"--{name.replace('_', '-')}"
        for name, told in named
    }


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _fields(options: type) -> list[tuple["dataclasses.Field[Any]", tuple[Any, Told]]]:
    """Fields, each with its type and its `Told`: arguments, then the class's own options, then those it shares."""
    hints = get_type_hints(options, include_extras=True)
    own = inspect.get_annotations(options)
    fields = [(field, get_args(hints[field.name])) for field in dataclasses.fields(options)]
    return sorted(fields, key=lambda pair: (not pair[1][1].is_argument, pair[0].name not in own))


def _parameter(field: "dataclasses.Field[Any]", kind: Any, told: Told) -> inspect.Parameter:
    import typer

    info = (typer.Argument if told.is_argument else typer.Option)(*told.flags, **told.more)
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    return inspect.Parameter(field.name, _KEYWORD, default=default, annotation=Annotated[kind, info])
