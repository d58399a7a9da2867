"""The command ``lae-fast transform``: reads a model, streams rows of INPUT to codes in a .npy file."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli import options as cli_options
from lae_fast.cli.options import Declaration, option
from lae_fast.cli.output import (
    FORMAT_VERSION,
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
        Declaration((), {"metavar": "MODEL", "help": "The .npz of lae-fast pca or train."}, is_argument=True),
    ]
    output: Annotated[Path, option("-o", "--output", help="Write the codes to this .npy; an existing one is replaced.")]
    max_memory: cli_options.MaxMemory = None
    backend: cli_options.Backend = cli_options.BackendName.auto


# Arrays of a model file that are read here; the second, where the model fills missing entries.
_READ = frozenset(("format_version", "components", "encoder", "mean", "scale", "feature_names", "missing"))
_READ_TO_FILL = frozenset(("explained_variance", "noise_variance"))


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
    """What ``lae-fast pca -o`` or ``lae-fast train -o`` wrote.

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is cut, no model, or of a version that this lae_fast does not read.
    """
    import numpy as np

    from lae_fast.data import numpy_files, opened_file

    if not path.exists():
        raise FileNotFoundError(f"MODEL {path} does not exist; write one with lae-fast pca -o or lae-fast train -o")
    with path.open("rb") as file:
        if not file.read(4).startswith(b"PK"):  # every .npz does
            raise DataFileError(
                f"MODEL {path} is no .npz of lae-fast pca or lae-fast train; a data file belongs in the second place: "
                "lae-fast transform MODEL INPUT -o codes.npy"
            )
    try:
        with numpy_files.open_archive(path) as archive:
            wanted = _READ | (_READ_TO_FILL if "missing" in archive.files else frozenset())
            held = {name: archive[name] for name in wanted & set(archive.files)}
    except opened_file.UNREADABLE as error:
        if isinstance(error, DataFileError):
            raise
        raise DataFileError(f"MODEL {path} cannot be read, it may be truncated or no .npz file: {error}") from error
    if not {"format_version", "components", "mean"} <= held.keys():
        raise DataFileError(
            f"MODEL {path} is a .npz, but not one of lae-fast pca -o or lae-fast train -o: it has no array "
            f"{min({'format_version', 'components', 'mean'} - held.keys())!r}"
        )
    _check_version(path, held["format_version"])
    rows = held.get("encoder", held["components"])
    numbers = [array for name, array in held.items() if name not in ("format_version", "feature_names", "missing")]
    if (
        rows.ndim != 2
        or any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in numbers)
        or any(held[name].shape != rows.shape[1:] for name in ("mean", "scale", "feature_names") if name in held)
    ):
        raise DataFileError(f"{path} is not a model: its arrays do not fit together or hold no finite numbers")
    kind = "units of a linear autoencoder" if "encoder" in held else "principal components"
    loadings = rows.astype(np.float64) / held.get("scale", 1.0)
    labels = tuple(held["feature_names"].tolist()) if "feature_names" in held else None
    mean = held["mean"].astype(np.float64)
    return Model(mean, loadings, rows.dtype, kind, labels, _gaussian(held, mean, loadings))


def _gaussian(
    held: "dict[str, np.ndarray]", mean: "np.ndarray", loadings: "np.ndarray"
) -> "tuple[np.ndarray, np.ndarray, float] | None":
    """What fills missing entries, of a model that was fitted with some."""
    import numpy as np

    if "missing" not in held or not _READ_TO_FILL <= held.keys():
        return None
    noise = float(held["noise_variance"])
    excess = np.maximum(held["explained_variance"].astype(np.float64) - noise, 0.0)
    return mean, loadings.T * np.sqrt(excess), noise


def _check_version(path: Path, version: Any) -> None:
    if version.shape != () or version.dtype.kind not in "iu" or version < 1:
        raise DataFileError(f"{path} is not a model: format_version is {version}")
    if version > FORMAT_VERSION:
        raise DataFileError(
            f"{path} has format version {version}, and this lae_fast reads up to {FORMAT_VERSION}: use a newer lae_fast"
        )


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
