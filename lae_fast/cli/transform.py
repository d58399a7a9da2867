"""The command ``lae-fast transform``: reads a model, streams rows of INPUT to codes in a .npy file."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli import options as cli_options
from lae_fast.cli.options import Declaration, option
from lae_fast.cli.output import (
    Outputs,
    check_outputs,
    input_fields,
    interruptions,
    print_fields,
)
from lae_fast.errors import DataFileError
from lae_fast.sizes import format_bytes

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class TransformOptions(cli_options.Common):
    """What ``lae-fast transform`` was asked for, as it was typed."""

    model: Annotated[
        Path,
        Declaration((), {"metavar": "MODEL", "help": "The .npz of lae-fast pca, train or save."}, is_argument=True),
    ]
    output: Annotated[Path, option("-o", "--output", help="Write the codes to this .npy; an existing one is replaced.")]
    max_memory: cli_options.MaxMemory = None
    backend: cli_options.Backend = cli_options.BackendName.auto


@dataclass(frozen=True)
class Model:
    """Codes of a row x are (x - mean) loadings'.

    mean : (d,) float64;  loadings : (p, d) float64;  dtype : the model's compute dtype;  kind : for people
    names : of the columns, or None;  gaussian : of `missing`, where NaN is to be filled, or None
    """

    mean: "np.ndarray"
    loadings: "np.ndarray"
    dtype: "np.dtype"
    kind: str
    names: tuple[str, ...] | None = None
    gaussian: "tuple[np.ndarray, np.ndarray, float] | None" = None


def load_model(path: Path) -> Model:
    """What `save`, ``lae-fast pca -o`` or ``lae-fast train -o`` wrote.

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is cut, no model, or of a version that this lae_fast does not read.
    """
    import lae_fast

    if not path.exists():
        raise FileNotFoundError(f"MODEL {path} does not exist; write one with lae-fast pca -o or lae-fast train -o")
    with path.open("rb") as file:
        if not file.read(4).startswith(b"PK"):  # every .npz does
            raise DataFileError(
                f"MODEL {path} is no .npz of lae-fast pca or lae-fast train; a data file belongs in the second place: "
                "lae-fast transform MODEL INPUT -o codes.npy"
            )
    try:
        fitted = lae_fast.load(path)
    except DataFileError as error:
        raise DataFileError(f"MODEL {error}") from error
    mean, loadings = fitted._projection()
    kind = "units of a linear autoencoder" if hasattr(fitted, "encoder_") else "principal components"
    names = getattr(fitted, "feature_names_in_", None)
    gaussian = getattr(fitted, "_missing_model", None)
    return Model(mean, loadings, fitted._axes.dtype, kind, None if names is None else tuple(names), gaussian)


def run_transform(options: TransformOptions) -> None:
    """Read the model, check, then write codes as the rows are read."""
    with interruptions(Outputs(options.output).__str__):
        _transform(options)


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


def _transform(options: TransformOptions) -> None:
    import numpy as np

    import lae_fast
    from lae_fast import progress
    from lae_fast.data import atomic, files, sources
    from lae_fast.eigen import em
    from lae_fast.operators import projection
    from lae_fast.validation import memory_bytes

    max_memory = memory_bytes(options.max_memory)
    check_outputs(options.input, options.output, ".npy")
    model = load_model(options.model)
    given = files.input_path(options.input)
    if given is not None and given.exists() and given.resolve() == options.model.resolve():
        raise ValueError(f"INPUT {options.input} is the model itself: INPUT is the file of rows whose codes are wanted")
    if options.threads is not None:
        lae_fast.set_num_threads(options.threads)
    began = time.perf_counter()
    with files.open_input(options.source(), max_memory, model.names) as opened:
        if not options.quiet:
            print_fields(input_fields(opened))
        p, d = model.loadings.shape
        source = _matched(sources.as_source(opened, "INPUT"), opened.name, model, options.model)
        if model.gaussian is not None:
            source = em.FilledSource(source, *model.gaussian)
        source.compute_dtype = np.result_type(source.compute_dtype, model.dtype)
        shape = (source.shape[0], p)
        with (
            progress.resolve(not options.quiet) as report,
            atomic.atomic_rows(options.output, shape, source.compute_dtype) as write,
        ):
            projection.scores(
                source, model.mean, model.loadings, write, options.backend, max_memory=max_memory,
                tick=lambda done, total: report("codes", done, total),
            )  # fmt: skip
    if not options.quiet:
        seconds = time.perf_counter() - began
        size = shape[0] * p * source.compute_dtype.itemsize
        print_fields(
            {
                "model": f"{options.model}: {p} {model.kind}, {d} columns",
                "time": f"{seconds:.3f} s",
                "wrote": f"{options.output}: {shape[0]} x {p} {source.compute_dtype}, {format_bytes(size)}",
            }
        )
