"""How close learned components are to the true directions (docs/math.md Eq. 38 to 45).

Matrices of directions hold one direction per COLUMN, as decoders and `numpy.linalg.eigh` do: truth U (q, p), decoder
A (q, p).  With scikit-learn's layout pass ``components_.T``.  Signs and lengths never matter; a zero column is no
direction and counts as similarity 0.  Everything is computed in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .validation import check_matrix, check_real

__all__ = [
    "acs",
    "axis_alignment_distance",
    "longest_correct_streak",
    "matched_alignment",
    "nondiagonality",
    "ratio_fp",
    "ratio_total",
    "ratio_tp",
    "subspace_distance",
    "transpose_gap",
]


def _check_pair(truth: ArrayLike, decoder: ArrayLike, same_width: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and decoder as float64 matrices with equal numbers of rows (and columns)."""
    truth, decoder = check_matrix(truth, "truth"), check_matrix(decoder, "decoder")
    if truth.shape[0] != decoder.shape[0] or (same_width and truth.shape != decoder.shape):
        raise ValueError(
            f"truth has shape {truth.shape} and decoder {decoder.shape}; both hold one direction per column and must "
            f"have equal {'shapes' if same_width else 'numbers of rows'} (components_ needs a transpose)"
        )
    return truth, decoder


def _unit_columns(matrix: np.ndarray) -> np.ndarray:
    """Scale each column to length 1, in two steps so that tiny and huge columns neither underflow nor overflow."""
    largest = np.abs(matrix).max(axis=0)
    matrix = matrix / np.where(largest > 0, largest, 1.0)
    length = np.sqrt(np.sum(matrix * matrix, axis=0))
    return matrix / np.where(length > 0, length, 1.0)


def acs(truth: ArrayLike, decoder: ArrayLike) -> np.ndarray:
    """Absolute cosine similarities ACS_ij = |<u_i, a_j>| / (|u_i| |a_j|) (Oftadeh et al. 2020, Eq. 22).

    Parameters
    ----------
    truth : array, shape (q, p)
        True directions in columns.
    decoder : array, shape (q, r)
        Learned directions in columns; r may differ from p.

    Returns
    -------
    ndarray, shape (p, r), float64
        In [0, 1]; rows and columns that belong to a zero column are 0.

    Raises
    ------
    ValueError
        If the numbers of rows differ, or an entry is not finite.
    TypeError
        If the entries are not real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> metrics.acs(np.eye(2), [[3.0, 0.0], [4.0, -2.0]])  # lengths and signs do not matter
    array([[0.6, 0. ],
           [0.8, 1. ]])
    """
    truth, decoder = _check_pair(truth, decoder, same_width=False)
    return np.minimum(np.abs(_unit_columns(truth).T @ _unit_columns(decoder)), 1.0)


def _found(truth: ArrayLike, decoder: ArrayLike, eps: float) -> np.ndarray:
    truth, decoder = _check_pair(truth, decoder)
    return acs(truth, decoder) > 1.0 - check_real(eps, "eps", above=0, high=1)


def ratio_tp(truth: ArrayLike, decoder: ArrayLike, eps: float = 0.01) -> float:
    """Share of the components that are the right direction in the right place (Oftadeh et al. 2020, Eq. 23).

    Parameters
    ----------
    truth, decoder : array, shape (q, p)
    eps : float in (0, 1], default 0.01
        A direction counts as found if its absolute cosine exceeds 1 - eps.

    Returns
    -------
    float
        mean_i [ACS_ii > 1 - eps].

    Raises
    ------
    ValueError, TypeError
        As `acs`; the shapes differ, or `eps` is outside (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> decoder = np.eye(4)[:, [0, 2, 1]]  # the second and the third direction are exchanged
    >>> round(metrics.ratio_tp(np.eye(4)[:, :3], decoder), 3)
    0.333
    """
    return float(np.mean(np.diagonal(_found(truth, decoder, eps))))


def ratio_fp(truth: ArrayLike, decoder: ArrayLike, eps: float = 0.01) -> float:
    """Right directions in the wrong place, per component (Oftadeh et al. 2020, Eq. 24).

    Parameters and errors as `ratio_tp`.

    Returns
    -------
    float
        sum_{i != j} [ACS_ij > 1 - eps] / p.  It exceeds 1 if several columns repeat one direction.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> decoder = np.eye(4)[:, [0, 2, 1]]
    >>> round(metrics.ratio_fp(np.eye(4)[:, :3], decoder), 3)
    0.667
    """
    found = _found(truth, decoder, eps)
    return float((np.sum(found) - np.trace(found)) / found.shape[0])


def ratio_total(truth: ArrayLike, decoder: ArrayLike, eps: float = 0.01) -> float:
    """ratio_tp + ratio_fp, a float (Oftadeh et al. 2020, Eq. 25).

    Parameters and errors as `ratio_tp`.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> metrics.ratio_total(np.eye(4)[:, :3], np.eye(4)[:, [0, 2, 1]])  # all are there, in some order
    1.0
    """
    return ratio_tp(truth, decoder, eps) + ratio_fp(truth, decoder, eps)


def axis_alignment_distance(truth: ArrayLike, decoder: ArrayLike) -> float:
    """d_align = 1 - (1/p) sum_i max_j cos^2(u_i, a_j) (Bao et al. 2020, Def. 7.1).

    Blind to order, and one column may serve two directions; `matched_alignment` allows each column once.

    Parameters
    ----------
    truth, decoder : array, shape (q, p)

    Returns
    -------
    float
        In [0, 1], 0 if every true direction is among the columns.

    Raises
    ------
    ValueError, TypeError
        As `acs`; or the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> truth = np.eye(3)[:, :2]
    >>> metrics.axis_alignment_distance(truth, truth[:, ::-1])  # order does not matter
    0.0
    >>> round(metrics.axis_alignment_distance(truth, [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), 3)
    0.5
    """
    truth, decoder = _check_pair(truth, decoder)
    return float(1.0 - np.mean(np.max(acs(truth, decoder) ** 2, axis=1)))


def matched_alignment(
    truth: ArrayLike, decoder: ArrayLike, return_matching: bool = False
) -> float | tuple[float, np.ndarray]:
    """1 - (1/p) sum_i cos^2(u_i, a_m(i)) for the best one-to-one matching m: d_align with each column used once.

    docs/math.md Eq. 41: ours, beside d_align of Bao et al. 2020.

    Parameters
    ----------
    truth, decoder : array, shape (q, p)
    return_matching : bool, default False

    Returns
    -------
    distance : float
        In [0, 1]; never under `axis_alignment_distance`.
    matching : ndarray of int, shape (p,)
        Only with `return_matching`: the column of `decoder` that stands for each true direction.

    Raises
    ------
    ValueError, TypeError
        As `axis_alignment_distance`.

    Notes
    -----
    The matching is the linear assignment problem, solved by SciPy.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> truth = np.eye(3)[:, :2]
    >>> metrics.matched_alignment(truth, truth[:, ::-1], return_matching=True)
    (0.0, array([1, 0]))
    >>> round(metrics.matched_alignment(truth, [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]), 3)  # each column serves once
    0.5
    """
    from scipy.optimize import linear_sum_assignment

    truth, decoder = _check_pair(truth, decoder)
    squared = acs(truth, decoder) ** 2
    rows, columns = linear_sum_assignment(squared, maximize=True)
    distance = float(1.0 - np.sum(squared[rows, columns]) / squared.shape[0])
    return (distance, columns) if return_matching else distance


def _column_basis(matrix: np.ndarray, every: bool = False) -> np.ndarray:
    """Left singular vectors of the singular values that are not rounding, (q, rank); or of every one, (q, p)."""
    # Column lengths are part of the result (they decide the numerical rank), so only a common factor is removed.
    largest = np.abs(matrix).max()
    if largest == 0.0 and not every:
        return np.zeros((matrix.shape[0], 0))
    vectors, values, _ = np.linalg.svd(matrix / (largest if largest > 0.0 else 1.0), full_matrices=False)
    return vectors if every else vectors[:, values > values[0] * max(matrix.shape) * np.finfo(np.float64).eps]


def subspace_distance(truth: ArrayLike, decoder: ArrayLike, published: bool = False) -> float:
    """d_sub = 1 - tr(U U' Q Q')/p with Q the left singular vectors of A (Bao et al. 2020, Def. 7.2).

    Parameters
    ----------
    truth, decoder : array, shape (q, p)
        `truth` is orthonormalised first, so any basis of the true subspace will do.
    published : bool, default False
        Take all p singular vectors of both, as the code of Bao et al. does, whatever their singular values.

    Returns
    -------
    float
        In [0, 1], 0 if the columns span the true subspace.

    Raises
    ------
    ValueError, TypeError
        As `axis_alignment_distance`.

    Notes
    -----
    Singular vectors of zero singular values are arbitrary and are left out, so a decoder of rank r < p has a distance
    of at least 1 - r/p.  With `published` they are kept, which takes some 1/q off for each: by chance they lie in the
    true subspace that far.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> truth = np.eye(3)[:, :2]
    >>> rotated = truth @ [[0.6, 0.8], [-0.8, 0.6]]
    >>> round(metrics.subspace_distance(truth, rotated), 12), round(metrics.axis_alignment_distance(truth, rotated), 3)
    (0.0, 0.36)
    """
    truth, decoder = _check_pair(truth, decoder)
    overlap = _column_basis(truth, published).T @ _column_basis(decoder, published)
    return float(np.clip(1.0 - np.sum(overlap * overlap) / truth.shape[1], 0.0, 1.0))


def transpose_gap(decoder: ArrayLike, encoder: ArrayLike, per_component: bool = False) -> float:
    """|B - A'|_F^2, which is 0 at every critical point of the sum loss (Kunin et al. 2019, Fig. 3).

    Parameters
    ----------
    decoder : array, shape (d, p)
    encoder : array, shape (p, d)
    per_component : bool, default False
        Divide by p, as Bao et al. 2020 do.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the shapes are not transposes of each other.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> decoder = np.eye(3)[:, :2]
    >>> metrics.transpose_gap(decoder, decoder.T), metrics.transpose_gap(2 * decoder, decoder.T)
    (0.0, 2.0)
    """
    decoder, encoder = check_matrix(decoder, "decoder"), check_matrix(encoder, "encoder")
    if decoder.shape != encoder.shape[::-1]:
        raise ValueError(f"decoder {decoder.shape} and encoder {encoder.shape} must be (d, p) and (p, d)")
    gap = float(np.sum((encoder - decoder.T) ** 2))
    return gap / encoder.shape[0] if per_component else gap


def nondiagonality(gram: ArrayLike) -> float:
    """Nd(G) = sum_{i != j} |G_ij| (Bao et al. 2020, Def. 6.1).

    Parameters
    ----------
    gram : array, shape (p, p)
        For instance the latent second moments B Sxx B'.

    Returns
    -------
    float
        In the units of `gram`.

    Raises
    ------
    ValueError
        If the matrix is not square.

    Examples
    --------
    >>> from lae_fast import metrics
    >>> metrics.nondiagonality([[4.0, 0.5], [-0.25, 1.0]])
    0.75
    """
    gram = check_matrix(gram, "gram")
    if gram.shape[0] != gram.shape[1]:
        raise ValueError(f"gram must be square, got shape {gram.shape}")
    magnitude = np.abs(gram)
    np.fill_diagonal(magnitude, 0.0)
    return float(magnitude.sum())


def longest_correct_streak(truth: ArrayLike, decoder: ArrayLike, angle: float = np.pi / 8) -> int:
    """Number of LEADING columns within `angle` of their own true direction (Gemp et al. 2020).

    Parameters
    ----------
    truth, decoder : array, shape (q, p)
    angle : float in (0, pi/2], default pi/8
        In radians, between lines (signs do not matter).

    Returns
    -------
    int
        0..p; the first column that misses ends the count.

    Raises
    ------
    ValueError, TypeError
        As `axis_alignment_distance`; or `angle` is outside (0, pi/2].

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import metrics
    >>> metrics.longest_correct_streak(np.eye(4), np.eye(4)[:, [0, 1, 3, 2]])
    2
    """
    truth, decoder = _check_pair(truth, decoder)
    angle = check_real(angle, "angle", above=0, high=np.pi / 2)
    right = np.diagonal(acs(truth, decoder)) > np.cos(angle)
    return int(right.shape[0] if right.all() else np.argmin(right))
