"""Options of the commands, each declared once: a field of a dataclass says name, type, default and help text.

`command` makes of such a dataclass what typer reads; typer is imported there, because it is an extra.
"""

import csv
import dataclasses
import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

from lae_fast.data.files import FORMATS

if TYPE_CHECKING:
    from lae_fast.data.tables import TableFile


@dataclass(frozen=True)
class Declaration:
    """How typer declares a parameter: its flags and keyword arguments; stands in an ``Annotated`` field."""

    flags: tuple[str, ...]
    more: dict[str, Any]
    is_argument: bool = False


def option(*flags: str, **more: Any) -> Declaration:
    """An option; without `flags` its name is the flag.  more : as of ``typer.Option``, such as ``help`` and ``min``."""
    return Declaration(flags, more)


class BackendName(enum.StrEnum):
    auto = enum.auto()
    cpu = enum.auto()
    cuda = enum.auto()


# Fields that several commands share.
Backend = Annotated[BackendName, option(help="Where to compute.")]
MaxMemory = Annotated[str | None, option("--max-memory", help="Largest workspace beside the data, such as 2GB.")]


Json = Annotated[bool, option("--json", help="Print one JSON object in place of tables, for scripts.")]


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command that reads data takes; its own options are listed before these."""

    input: Annotated[str, Declaration((), {"metavar": "INPUT", "help": f"One of: {FORMATS}."}, is_argument=True)]
    threads: Annotated[int | None, option(min=1, help="Threads to use; all cores by default.")] = None
    quiet: Annotated[bool, option("-q", "--quiet", help="Print warnings and errors only.")] = False
    json: Json = False
    header: Annotated[
        bool | None, option("--header/--no-header", help="Whether the first line of a CSV file names the columns.")
    ] = None
    index_col: Annotated[
        str | None, option("--index-col", help="Column that names the rows and is no feature; none: no such column.")
    ] = None
    columns: Annotated[str | None, option(help="Take only these columns of a table: NAME,NAME,...")] = None
    drop: Annotated[str | None, option(help="Leave out these columns of a table: NAME,NAME,...")] = None
    label: Annotated[str | None, option(help="Column that labels the rows, and is no feature.")] = None
    separator: Annotated[str | None, option(help="Of a CSV file, one character, or tab.")] = None
    decimal_comma: Annotated[
        bool | None,
        option("--decimal-comma/--no-decimal-comma", help="Whether numbers of a CSV file are written as 1,5."),
    ] = None

    @property
    def silent(self) -> bool:
        """Nothing is printed for people."""
        return self.quiet or self.json

    def source(self) -> "str | TableFile":
        """INPUT, with what was said about its columns."""
        from lae_fast.data.tables import TableFile

        index = None if self.index_col == "none" else _names(self.index_col)
        columns, drop = _names(self.columns), _names(self.drop) or ()
        left_out = {"--drop": drop, "--index-col": index or (), "--label": () if self.label is None else (self.label,)}
        for option, names in left_out.items():
            both = [name for name in columns or () if name in names]
            if both:
                raise ValueError(f"--columns and {option} both name column {both[0]!r}: it is either taken or left out")
        table = TableFile(
            self.input,
            header=self.header,
            index=False if self.index_col == "none" else index,
            columns=columns,
            drop=drop,
            label=self.label,
            separator="\t" if self.separator in ("tab", "\\t") else self.separator,
            decimal={None: None, True: ",", False: "."}[self.decimal_comma],
        )
        return table if table.chooses else self.input


def _names(text: str | None) -> tuple[str | int, ...] | None:
    """Names of columns, or their numbers, between commas; a name with a comma stands in double quotes.

    >>> _names('a, "b, c", 3'), _names(None)
    (('a', 'b, c', 3), None)
    """
    if text is None:
        return None
    fields = (field.strip() for field in next(csv.reader([text], skipinitialspace=True), []))
    return tuple(int(field) if field.isdecimal() else field for field in fields if field)


def command(options: type, work: Callable[[Any, bool], None]) -> Callable[..., None]:
    """A function for typer: its parameters are the fields of the dataclass `options` and ``--debug``.

    work : is called with the options as typed, and with whether ``--debug`` was among them
    """
    import typer

    def run(debug: bool, **typed: Any) -> None:
        work(options(**typed), debug)

    debug = typer.Option("--debug", help="Show the traceback of an error instead of one line.")
    parameters = [_parameter(field, *declared) for field, declared in _fields(options)]
    parameters.append(inspect.Parameter("debug", _KEYWORD, default=False, annotation=Annotated[bool, debug]))
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


# Fields that the library calls otherwise.
_LIBRARY_NAMES = {
    "components": "n_components",
    "solver": "svd_solver",
    "seed": "random_state",
    "index_col": "index",
    "decimal_comma": "decimal",
}


def flags(options: type) -> dict[str, str]:
    """The option as it is typed, ``-k`` or ``--max-memory``, by the library's name of the parameter."""
    named = [(field.name, declared) for field, (_, declared) in _fields(options) if not declared.is_argument]
    return {
        _LIBRARY_NAMES.get(name, name): declared.flags[0] if declared.flags else f"--{name.replace('_', '-')}"
        for name, declared in named
    }


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _fields(options: type) -> list[tuple["dataclasses.Field[Any]", tuple[Any, Declaration]]]:
    """Fields, each with its type and its declaration: arguments that are needed, others, own options, shared ones."""
    hints = get_type_hints(options, include_extras=True)
    own = inspect.get_annotations(options)
    fields = [(field, get_args(hints[field.name])) for field in dataclasses.fields(options)]
    return sorted(fields, key=lambda pair: _place(pair[0], pair[1][1], pair[0].name in own))


def _place(field: "dataclasses.Field[Any]", declared: Declaration, own: bool) -> tuple[bool, ...]:
    return (not declared.is_argument, declared.is_argument and field.default is not dataclasses.MISSING, not own)


def _parameter(field: "dataclasses.Field[Any]", kind: Any, declared: Declaration) -> inspect.Parameter:
    import typer

    info = (typer.Argument if declared.is_argument else typer.Option)(*declared.flags, **declared.more)
    default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
    return inspect.Parameter(field.name, _KEYWORD, default=default, annotation=Annotated[kind, info])
