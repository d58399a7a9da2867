"""The data sets that the examples, tests and benchmarks use, loaded by name.

NumPy and scikit-learn are imported when a set is loaded, because the command line lists the names without them.
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lae_fast.errors import DataFileError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["load", "local_file"]

DATA_VARIABLE = "LAE_FAST_DATA"

_MNIST_TRAIN = 60_000  # OpenML holds the training rows first, then the test rows
_MNIST_SHAPE = (70_000, 784)


class _Remote(NamedTuple):
    file: str  # in the directory that LAE_FAST_DATA names; arrays x_train and x_test
    openml: str  # name on OpenML, version 1


_REMOTE = {
    "mnist": _Remote("mnist.npz", "mnist_784"),
    "fashion_mnist": _Remote("fashion_mnist.npz", "Fashion-MNIST"),
}

NAMES = ("digits", *_REMOTE)
SUBSETS = ("train", "test", "all")


def load(name: str, *, subset: str = "train") -> np.ndarray:
    """Load a data set as one array, a row per sample.

    Parameters
    ----------
    name : {"digits", "mnist", "fashion_mnist"}
        "digits" ships with scikit-learn: 1797 images of 8 x 8 pixels, float32, values 0 to 16. "mnist" and
        "fashion_mnist" are 70 000 images of 28 x 28 pixels, uint8. They are looked for as ``mnist.npz`` or
        ``fashion_mnist.npz`` (arrays `x_train` and `x_test`) in the directory that the environment variable
        ``LAE_FAST_DATA`` names, then fetched through :func:`sklearn.datasets.fetch_openml`, which keeps a copy.
    subset : {"train", "test", "all"}, default="train"
        Which rows: of the two large sets 60 000, 10 000 or all 70 000, in their published order. "digits" has no
        published split: "train" and "all" are all of its rows, and "test" is an error.

    Returns
    -------
    numpy.ndarray of shape (n_samples, n_features), C-contiguous

    Raises
    ------
    ValueError
        Unknown `name` or `subset`.
    FileNotFoundError
        The set is not in ``LAE_FAST_DATA`` and cannot be downloaded.
    DataFileError
        The file is there and is not what its name says.

    Examples
    --------
    >>> from lae_fast import datasets
    >>> X = datasets.load("digits")
    >>> X.shape, X.dtype.name, float(X.max())
    ((1797, 64), 'float32', 16.0)
    """
    from .validation import check_choice  # which loads NumPy

    check_choice(name, NAMES, "name")
    check_choice(subset, SUBSETS, "subset")
    if name == "digits":
        return _digits(subset)
    path = local_file(name)
    return _from_openml(name, subset) if path is None else _from_file(path, subset)


def local_file(name: str) -> Path | None:
    """The file in the directory that LAE_FAST_DATA names, from which :func:`load` reads.

    Returns
    -------
    pathlib.Path or None
        None where there is none, or the set is read from elsewhere.

    Examples
    --------
    >>> from lae_fast import datasets
    >>> datasets.local_file("digits") is None  # which ships with scikit-learn
    True
    """
    path = _expected_file(name)
    return path if path is not None and path.is_file() else None


def _expected_file(name: str) -> Path | None:
    directory = os.environ.get(DATA_VARIABLE)
    return Path(directory, _REMOTE[name].file) if directory and name in _REMOTE else None


def _digits(subset: str) -> np.ndarray:
    if subset == "test":
        raise ValueError("the digits have no published test rows; use subset='train' or 'all' for all 1797")
    import numpy as np
    from sklearn.datasets import load_digits

    return load_digits().data.astype(np.float32)


def _from_file(path: Path, subset: str) -> np.ndarray:
    import numpy as np

    keys = ("x_train", "x_test") if subset == "all" else (f"x_{subset}",)
    try:
        # opened here: one that np.load opens stays open where the archive is cut
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            missing = [key for key in keys if key not in file]
            parts = [file[key] for key in keys if key not in missing]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataFileError(f"{path} cannot be read, it may be truncated: {error}") from error
    if missing:
        raise DataFileError(f"{path} holds no array {missing[0]!r}")
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.ascontiguousarray(rows.reshape(len(rows), -1))


def _from_openml(name: str, subset: str) -> np.ndarray:
    import numpy as np
    from sklearn.datasets import fetch_openml

    # The pandas parser takes seconds where the other one takes minutes, but scikit-learn does not need pandas.
    parser = "pandas" if importlib.util.find_spec("pandas") is not None else "liac-arff"
    try:
        rows = fetch_openml(_REMOTE[name].openml, version=1, as_frame=False, parser=parser).data
    except (OSError, ValueError) as error:  # no network, or OpenML's own error, which is a ValueError
        looked_for = _expected_file(name)
        where = f"{DATA_VARIABLE} is not set" if looked_for is None else f"{looked_for} does not exist"
        raise FileNotFoundError(
            f"data set {name!r} was not found: {where}, and the download from OpenML failed ({error}). Either point "
            f"{DATA_VARIABLE} at a directory that holds {_REMOTE[name].file} (arrays x_train and x_test), or run once "
            f"with network access so that scikit-learn can fetch and keep it."
        ) from error
    if rows.shape != _MNIST_SHAPE:
        raise DataFileError(f"OpenML answered for {name!r} with shape {rows.shape}, expected {_MNIST_SHAPE}")
    part = {"train": slice(0, _MNIST_TRAIN), "test": slice(_MNIST_TRAIN, None), "all": slice(None)}[subset]
    return np.ascontiguousarray(rows[part], dtype=np.uint8)
