"""The .npz that ``lae-fast pca -o`` and ``lae-fast train -o`` write, read for the commands that use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli.options import Declaration
from lae_fast.cli.output import FORMAT_VERSION
from lae_fast.errors import DataFileError

if TYPE_CHECKING:
    import numpy as np

MODEL = "The .npz of lae-fast pca or train."
ModelPath = Annotated[Path, Declaration((), {"metavar": "MODEL", "help": MODEL}, is_argument=True)]

# Arrays that codes take; the second, where the model fills missing entries.
_READ = frozenset(("format_version", "components", "encoder", "decoder", "mean", "scale", "feature_names", "missing"))
_READ_TO_FILL = frozenset(("explained_variance", "noise_variance"))


@dataclass(frozen=True)
class Model:
    """Codes of a row x are (x - mean) loadings'.

    mean : (d,) float64;  loadings : (p, d) float64;  expansion : (p, d) float64, rows back of codes are codes expansion
    + mean;  dtype : the model's compute dtype;  kind : for people
    names : of the columns, or None;  gaussian : of `missing`, where NaN is to be filled, or None
    """

    mean: "np.ndarray"
    loadings: "np.ndarray"
    expansion: "np.ndarray"
    dtype: "np.dtype"
    kind: str
    names: tuple[str, ...] | None = None
    gaussian: "tuple[np.ndarray, np.ndarray, float] | None" = None


def read_arrays(path: Path, wanted: frozenset[str] | None = None) -> "dict[str, np.ndarray]":
    """The arrays of a model file by name, those `wanted` or all; checked to be one of a version that is known.

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is cut, no model, or of a version that this lae_fast does not read.
    """
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
            names = set(archive.files)
            if wanted is not None:
                names &= wanted | (_READ_TO_FILL if "missing" in names else frozenset())
            held = {name: archive[name] for name in names}
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
    return held


def load_model(path: Path) -> Model:
    """What ``lae-fast pca -o`` or ``lae-fast train -o`` wrote, as `read_arrays`.

    Raises
    ------
    DataFileError
        Its arrays do not fit together, too.
    """
    import numpy as np

    held = read_arrays(path, _READ)
    rows = held.get("encoder", held["components"])
    numbers = [array for name, array in held.items() if name not in ("format_version", "feature_names", "missing")]
    if (
        rows.ndim != 2
        or any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in numbers)
        or any(held[name].shape != rows.shape[1:] for name in ("mean", "scale", "feature_names") if name in held)
        or ("decoder" in held and held["decoder"].shape != rows.shape[::-1])
    ):
        raise DataFileError(f"{path} is not a model: its arrays do not fit together or hold no finite numbers")
    kind = "units of a linear autoencoder" if "encoder" in held else "principal components"
    loadings = rows.astype(np.float64) / held.get("scale", 1.0)
    expansion = held["decoder"].T if "decoder" in held else held["components"] * held.get("scale", 1.0)
    labels = tuple(held["feature_names"].tolist()) if "feature_names" in held else None
    mean = held["mean"].astype(np.float64)
    return Model(
        mean, loadings, expansion.astype(np.float64), rows.dtype, kind, labels, _gaussian(held, mean, loadings)
    )


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
