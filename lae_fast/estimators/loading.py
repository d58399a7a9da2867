"""Fitted estimators from their files."""

from __future__ import annotations

import os
from typing import Any

from ..errors import DataFileError
from . import model_file
from .incremental_pca import IncrementalPCA
from .linear_autoencoder import LinearAutoencoder
from .pca import PCA
from .truncated_svd import TruncatedSVD

_CLASSES = {made.__name__: made for made in (PCA, IncrementalPCA, TruncatedSVD, LinearAutoencoder)}


def load(path: str | os.PathLike[str]) -> Any:
    """Return the estimator that `save` wrote to a file, or `lae-fast pca -o` or `lae-fast train -o`.

    Parameters
    ----------
    path : str or os.PathLike
        An .npz; nothing in it is executed.

    Returns
    -------
    PCA, IncrementalPCA, TruncatedSVD or LinearAutoencoder
        Fitted, with its parameters.  IncrementalPCA, PCA with `partial_fit` and LinearAutoencoder with warm_start=True
        go on from where they were.  Of LinearAutoencoder the state of `partial_fit` is not in the file.

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is cut, no model, or of a newer version.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.random.default_rng(0).standard_normal((50, 4))
    >>> model = lf.PCA(2).fit(X)
    >>> model.save("model.npz")
    >>> again = lf.load("model.npz")
    >>> again, np.array_equal(again.transform(X), model.transform(X))
    (PCA(n_components=2), True)
    """
    model = model_file.read(path)
    if model.estimator not in _CLASSES:
        raise DataFileError(
            f"{path} holds a {model.estimator}; this lae_fast has {', '.join(_CLASSES)}: use a newer lae_fast"
        )
    try:
        estimator = _CLASSES[model.estimator](**model.parameters)
    except TypeError as error:
        raise DataFileError(f"{path} has a parameter that this lae_fast does not know: {error}") from error
    estimator.__dict__.update(model.fitted)
    return estimator
