"""Cross-validation by entries held out: blocks of rows and columns, predicted by components of all the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.linalg

from .. import backends, plan, validation
from ..data import sources
from ..eigen.request import start_seed
from ..errors import MemoryLimitError
from ..operators.moments import Moments
from ..sizes import format_bytes
from ._spectrum import Choice

# Bytes of rows that are read at once.
_BLOCK_BYTES = 1 << 24
# Variances of the other columns below this share of the largest are rounding: they predict nothing.
_LEAST = 1e-12


def cross_validated(
    X: Any,
    n_components: int | None = None,
    *,
    n_folds: int = 5,
    n_column_folds: int = 5,
    standardize: bool = False,
    random_state: Any = None,
    max_memory: Any = None,
    backend: str = "auto",
) -> Choice:
    """The number of components that predicts entries best which it has not seen: bi-cross-validation.

    Rows and columns are dealt to folds at random.  A block A of held-out rows and columns is predicted from the rest of
    its rows, B, by the first k components of the rest of both, D, and the rest of its columns, C: B D_k^+ C, after the
    mean of the other rows has been taken off.  No entry has part in its own prediction, and each is held out once.

    Parameters
    ----------
    X : rows that can be read, as of `PCA.fit`: arrays, sparse matrices, files, row blocks; not Dask
    n_components : the largest number that is tried; None: as many as the smallest D has
    n_folds, n_column_folds : >= 2, of the rows and of the columns
    standardize : unit variance of the features, over all rows
    random_state : None for a fixed seed, an integer or a NumPy generator
    max_memory : bytes, or text such as "500MB", for the moments of the folds
    backend : "auto", "cpu" or "cuda", for the moments

    Returns
    -------
    Choice
        errors : (r + 1,) mean squared error of an entry, for 0, 1, ..., r components, 0 being the mean;  the choice is
        the smallest of the least

    Raises
    ------
    ValueError, TypeError
        Fewer rows or columns than folds; NaN or inf; rows on Dask.
    MemoryLimitError
        The moments do not fit `max_memory`.

    Notes
    -----
    Owen and Perry, Annals of Applied Statistics 3 (2009); that the mean is taken off is ours.  All numbers of
    components come from the moments of the row folds: one pass over the data, at the cost of a Gram matrix, then
    n_folds n_column_folds eigenproblems of d (1 - 1 / n_column_folds) columns.  n_folds + 2 matrices d x d are held.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((100, 2)) @ rng.standard_normal((2, 8)) + 0.1 * rng.standard_normal((100, 8))
    >>> selection.cross_validated(X)
    Choice('cross-validated', n_components=2)
    """
    validation.check_bool(standardize, "standardize")
    n_folds = validation.check_integer(n_folds, "n_folds", low=2)
    n_column_folds = validation.check_integer(n_column_folds, "n_column_folds", low=2)
    random = np.random.default_rng(start_seed(random_state))
    with sources.opened(X) as source:
        parts = _moments_of_folds(source, n_folds, random, validation.memory_bytes(max_memory), backend)
    d = source.n_features
    if d < n_column_folds:
        raise ValueError(f"n_column_folds={n_column_folds} exceeds the {d} features: use fewer folds.")
    columns = random.permutation(d) % n_column_folds
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    scale = np.ones(d)
    if standardize:
        deviations = np.sqrt(total.covariance().diagonal())
        scale = np.divide(1.0, deviations, out=np.zeros(d), where=deviations > 0.0)
    fewest = min(part.n_samples for part in parts)
    largest = min(int(np.count_nonzero(columns != fold)) for fold in range(n_column_folds))
    largest = min(largest, total.n_samples - max(part.n_samples for part in parts) - 1)
    if fewest < 1 or largest < 1:
        raise ValueError(
            f"n_folds={n_folds} leaves too few of the {total.n_samples} rows to learn from: use fewer folds, or more "
            "rows."
        )
    tried = largest if n_components is None else validation.check_integer(n_components, "n_components", low=1)
    errors = np.zeros(min(tried, largest) + 1)
    for held, others in _splits(parts):
        learned = others.xx * np.multiply.outer(scale, scale)
        shift = (held.mean - others.mean) * scale
        seen = held.xx * np.multiply.outer(scale, scale) + held.weight_sum * np.multiply.outer(shift, shift)
        for fold in range(n_column_folds):
            errors += _squared_errors(learned, seen, columns == fold, errors.size - 1)
    errors = np.maximum(errors, 0.0) / (total.n_samples * d)
    return Choice("cross-validated", int(errors.argmin()), errors=errors)


def _moments_of_folds(
    source: sources.Source, n_folds: int, random: Any, max_memory: int | None, backend: str
) -> list[Moments]:
    """Moments of the rows of each fold, in one pass; which rows these are is drawn."""
    if isinstance(source, sources.DaskSource):
        raise TypeError("X is on Dask, whose rows are not dealt to folds: compute a part of it, or pass a file.")
    d = source.n_features
    need = (n_folds + 2) * 8 * d * d
    if d > plan.LARGEST_GRAM or (max_memory is not None and need > max_memory):
        raise MemoryLimitError(
            f"Cross-validation over {d} features keeps {n_folds + 2} matrices d x d, "
            f"{format_bytes(need, at_least=True)} (max_memory={max_memory!r}, at most {plan.LARGEST_GRAM} features): "
            "raise max_memory, take fewer folds, or selection.gavish_donoho, which needs the spectrum alone."
        )
    source.read_within(max_memory)
    m = source.shape[0]
    if m < n_folds:
        raise ValueError(f"n_folds={n_folds} exceeds the {m} rows: use fewer folds.")
    folds = random.permutation(m) % n_folds
    parts = [Moments(d) for _ in range(n_folds)]
    used = backends.resolve(backend) if backend != "auto" else "auto"
    for first, block in _blocks(source, m, max(n_folds, _BLOCK_BYTES // (8 * d))):
        bad = np.argwhere(~np.isfinite(block)) if block.dtype.kind == "f" else np.empty((0, 2), dtype=np.int64)
        if bad.size:
            row, column = map(int, bad[0])
            raise ValueError(validation.nonfinite_message(first + row, source.label(column), float(block[row, column])))
        own = folds[first : first + block.shape[0]]
        for fold in range(n_folds):
            if (own == fold).any():
                parts[fold].update(block[own == fold], backend=used)
    return parts


def _blocks(source: sources.Source, m: int, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    for first in range(0, m, rows):
        yield first, np.asarray(source.block(first, min(m, first + rows), False))


def _splits(parts: list[Moments]) -> Iterator[tuple[Moments, Moments]]:
    """Each fold, and the moments of the others."""
    for i, held in enumerate(parts):
        others = [part for j, part in enumerate(parts) if j != i]
        learned = others[0]
        for part in others[1:]:
            learned = learned.merged(part)
        yield held, learned


def _squared_errors(learned: np.ndarray, seen: np.ndarray, out: np.ndarray, most: int) -> np.ndarray:
    """(most + 1,) sums of squared errors of the columns `out` of held-out rows, by 0, ..., most components.

    learned, seen : (d, d) second moments, scale "sum", of the other rows, and of the held-out ones about their mean
    With eigenpairs (l, v) of learned[in, in] it is |A - B sum_i v_i w_i'|^2, w_i = learned[out, in] v_i / l_i.
    """
    inside = ~out
    values, vectors = scipy.linalg.eigh(learned[np.ix_(inside, inside)])
    values, vectors = values[::-1][:most], vectors[:, ::-1][:, :most]
    used = values > _LEAST * max(float(values[0]), 0.0)
    inverse = np.divide(1.0, values, out=np.zeros(most), where=used)
    slopes = (vectors.T @ learned[np.ix_(inside, out)]) * inverse[:, None]
    explained = np.einsum("ij,ij->i", slopes, vectors.T @ seen[np.ix_(inside, out)])
    cross = (vectors.T @ seen[np.ix_(inside, inside)] @ vectors) * (slopes @ slopes.T)
    spent = np.cumsum(2.0 * np.tril(cross, -1).sum(axis=1) + cross.diagonal())
    start = float(seen.diagonal()[out].sum())
    return np.concatenate([[start], start - 2.0 * np.cumsum(explained) + spent])
