"""The .npz of a fitted model, read for the commands that use it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lae_fast.cli.options import Declaration
from lae_fast.errors import DataFileError

if TYPE_CHECKING:
    import numpy as np

ModelPath = Annotated[
    Path,
    Declaration((), {"metavar": "MODEL", "help": "The .npz of lae-fast pca, train or save."}, is_argument=True),
]


@dataclass(frozen=True)
class Model:
    """Codes of a row x are (x - mean) loadings'.

    estimator : as it was fitted;  mean : (d,) float64;  loadings : (p, d) float64
    dtype : the model's compute dtype;  kind : for people
    names : of the columns, or None;  gaussian : of `missing`, where NaN is to be filled, or None
    """

    estimator: Any
    mean: "np.ndarray"
    loadings: "np.ndarray"
    dtype: "np.dtype"
    kind: str
    names: tuple[str, ...] | None = None
    gaussian: "tuple[np.ndarray, np.ndarray, float] | None" = None


def load_model(path: Path, command: str, output: Path) -> Model:
    """What `save`, ``lae-fast pca -o`` or ``lae-fast train -o`` wrote.

    command, output : that need the model, for the message where `path` holds data

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
                f"MODEL {path} is no .npz of lae-fast pca or lae-fast train; make one of data with lae-fast pca {path} "
                f"-k 10 -o model.npz, and name the data after it: lae-fast {command} model.npz {path} -o {output}"
            )
    try:
        fitted = lae_fast.load(path)
    except DataFileError as error:
        raise DataFileError(f"MODEL {error}") from error
    mean, loadings = fitted._projection()
    kind = "units of a linear autoencoder" if hasattr(fitted, "encoder_") else "principal components"
    names = getattr(fitted, "feature_names_in_", None)
    gaussian = getattr(fitted, "_missing_model", None)
    return Model(fitted, mean, loadings, fitted._axes.dtype, kind, None if names is None else tuple(names), gaussian)


def how_it_was_made(path: Path) -> dict[str, Any]:
    """What the file says of that, by name; empty where it says nothing."""
    import json

    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return json.loads(str(archive["meta"])) if "meta" in archive else {}
