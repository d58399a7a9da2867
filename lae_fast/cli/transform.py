"""The commands ``lae-fast transform`` and ``reconstruct``: a model, rows of INPUT streamed to a .npy file, or back."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from lae_fast.cli import options as cli_options
from lae_fast.cli.model_file import Model, ModelPath, load_model
from lae_fast.cli.options import option
from lae_fast.cli.output import (
    Outputs,
    check_outputs,
    input_fields,
    interruptions,
    print_fields,
    print_json,
)
from lae_fast.sizes import format_bytes

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class TransformOptions(cli_options.Common):
    """What ``lae-fast transform`` was asked for, as it was typed."""

    model: ModelPath
    output: Annotated[Path, option("-o", "--output", help="Write the codes to this .npy; an existing one is replaced.")]
    max_memory: cli_options.MaxMemory = None
    backend: cli_options.Backend = cli_options.BackendName.auto


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(cli_options.Common):
    """What ``lae-fast reconstruct`` was asked for, as it was typed."""

    model: ModelPath
    output: Annotated[Path, option("-o", "--output", help="Write the rows to this .npy; an existing one is replaced.")]
    max_memory: cli_options.MaxMemory = None
    backend: cli_options.Backend = cli_options.BackendName.auto


class _Map(NamedTuple):
    """What a row x becomes: (x - center) weights' + shift.

    stage : what progress calls what is made;  source : of the rows
    center : (n,), weights : (k, n), shift : (k,), or 0.0, float64
    """

    stage: str
    source: Any
    center: "np.ndarray"
    weights: "np.ndarray"
    shift: Any = 0.0


def run_transform(options: TransformOptions) -> None:
    """Read the model, check, then write codes as the rows are read."""
    with interruptions(Outputs(options.output).__str__):
        _stream(options, codes_of)


def run_reconstruct(options: ReconstructOptions) -> None:
    """Read the model, check, then write rows as their codes are read."""
    with interruptions(Outputs(options.output).__str__):
        _stream(options, _rows_back)


def codes_of(source: Any, name: str, model: Model, path: Path) -> _Map:
    """Codes of rows, NaN filled where the model was fitted with some."""
    from lae_fast.eigen import em

    source = _matched(source, name, model, path)
    if model.gaussian is not None:
        source = em.FilledSource(source, *model.gaussian)
    return _Map("codes", source, model.mean, model.loadings)


def _rows_back(source: Any, name: str, model: Model, path: Path) -> _Map:
    """Rows whose codes are given, as `inverse_transform`."""
    import numpy as np

    p, d = model.loadings.shape
    if source.shape[1] != p:
        hint = f"; {d} is its number of columns: did you mean lae-fast transform?" if source.shape[1] == d else ""
        raise ValueError(f"INPUT {name} has {source.shape[1]} columns, but {path} makes {p} codes of a row{hint}")
    weights, mean, _ = model.estimator._expansion(source.compute_dtype)
    shift = 0.0 if mean is None else mean.astype(np.float64)
    return _Map("rows", source, np.zeros(p), weights.T.astype(np.float64), shift)


def _matched(source: Any, name: str, model: Model, path: Path) -> Any:
    """The rows of INPUT `name`, their columns as the model of this path has them; a ValueError where they differ."""
    columns = model.loadings.shape[1]
    if model.names is not None and source.names is not None:
        try:
            source = source.with_names(model.names)
        except ValueError as error:
            raise ValueError(
                f"INPUT {name} has other columns than {path} is for (choose them with --columns or --drop). {error}"
            ) from error
    if source.shape[1] != columns:
        raise ValueError(f"INPUT {name} has {source.shape[1]} columns, but {path} is for {columns}")
    if (model.names is None) != (source.names is None):
        with_names, without = (path, f"INPUT {name}") if source.names is None else (f"INPUT {name}", path)
        warnings.warn(
            f"{with_names} has names of columns, but {without} has none: columns are taken in their order.",
            UserWarning,
            stacklevel=2,
        )
    return source


def _stream(options: TransformOptions | ReconstructOptions, prepare: Callable[..., _Map]) -> None:
    import numpy as np

    import lae_fast
    from lae_fast import progress
    from lae_fast.data import atomic, files, sources
    from lae_fast.operators import projection
    from lae_fast.validation import memory_bytes

    max_memory = memory_bytes(options.max_memory)
    check_outputs(options.input, options.output, ".npy")
    command = "transform" if isinstance(options, TransformOptions) else "reconstruct"
    model = load_model(options.model, command, options.output)
    given = files.input_path(options.input)
    if given is not None and given.exists() and given.resolve() == options.model.resolve():
        raise ValueError(f"INPUT {options.input} is the model itself: INPUT is the file of rows whose codes are wanted")
    if options.threads is not None:
        lae_fast.set_num_threads(options.threads)
    began = time.perf_counter()
    names = model.names if isinstance(options, TransformOptions) else None
    with files.open_input(options.source(), max_memory, names) as opened:
        if not options.silent:
            print_fields(input_fields(opened))
        done = prepare(sources.as_source(opened, "INPUT"), opened.name, model, options.model)
        source = done.source
        source.compute_dtype = np.result_type(source.compute_dtype, model.dtype)
        shape = (source.shape[0], len(done.weights))
        with (
            progress.resolve(not options.quiet) as report,
            atomic.atomic_rows(options.output, shape, source.compute_dtype) as write,
        ):
            projection.scores(
                source, done.center, done.weights, lambda rows: write(rows + done.shift), options.backend,
                max_memory=max_memory, tick=lambda at, total: report(done.stage, at, total),
            )  # fmt: skip
    seconds = time.perf_counter() - began
    p, d = model.loadings.shape
    size = shape[0] * shape[1] * source.compute_dtype.itemsize
    if options.json:
        facts = {"output": str(options.output), "shape": shape, "dtype": str(source.compute_dtype), "seconds": seconds}
        print_json({**facts, "model": str(options.model)})
    elif not options.quiet:
        print_fields(
            {
                "model": f"{options.model}: {p} {model.kind}, {d} columns",
                "time": f"{seconds:.3f} s",
                "wrote": f"{options.output}: {shape[0]} x {shape[1]} {source.compute_dtype}, {format_bytes(size)}",
            }
        )
