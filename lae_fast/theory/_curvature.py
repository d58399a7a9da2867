"""Critical points of linear autoencoders and their curvature (docs/math.md Eq. 29 to 31)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import losses
from ..validation import ParameterTypeError, check_vector
from ._closed_forms import (
    ScaledMoments,
    Spectrum,
    balanced_pair,
    check_width_within,
    closed_form_loss,
    scaled_moments,
    shrink_factors,
    spectrum_of,
    symmetry,
)

# Eigenvalues closer than this, relative to the largest, count as equal where a theorem asks for distinct ones.
_DISTINCT = 1e-10


def _check_indices(indices: Sequence[int], p: int, n: int) -> list[int]:
    """Return the eigenvector indices as a list of distinct ints in 0..n-1, at most p of them."""
    array = np.asarray(indices)
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ParameterTypeError(f"indices={indices!r} must be a sequence of integers (eigenvectors, counted from 0).")
    chosen = array.tolist()
    if len(chosen) > p:
        raise ValueError(f"indices={indices!r} has {len(chosen)} entries, more than p = {p}.")
    if min(chosen) < 0 or max(chosen) >= n:
        raise ValueError(f"indices={indices!r} must be between 0 and {n - 1}.")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"indices={indices!r} must be distinct.")
    return chosen


def _critical(
    data: Any, indices: Sequence[int], p: int, loss: losses.Loss | str, scale: str
) -> tuple[ScaledMoments, losses.Loss, Spectrum, int, list[int], np.ndarray]:
    """Check what critical points are asked for: returns moments, loss, spectrum, p, indices and row penalties (p,)."""
    moments = scaled_moments(data, scale)
    loss = closed_form_loss(loss, moments.sxy is not None)
    spectrum = spectrum_of(moments, loss.product_penalty if moments.sxy is not None else 0.0)
    p = check_width_within(p, len(spectrum.values))
    loss.prefix(p)
    indices = _check_indices(indices, p, len(spectrum.values))
    lam = loss.row_penalty(p)
    for slot, index in enumerate(indices):
        if lam[slot] > 0 and spectrum.values[index] <= lam[slot]:
            raise ValueError(
                f"{loss.describe()} has no critical point with eigenvector {index} in component {slot}: its eigenvalue "
                f"{spectrum.values[index]:.6g} does not exceed the penalty {lam[slot]:.6g}"
            )
    return moments, loss, spectrum, p, indices, lam


def critical_point(
    data: Any,
    indices: Sequence[int],
    p: int,
    loss: losses.Loss | str = "mse",
    *,
    scale: str = "mean",
    mixing: ArrayLike | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A critical point (A, B) that uses the given eigenvectors (docs/math.md Eq. 29).

    Parameters
    ----------
    data : moments or array, shape (d, d)
    indices : sequence of int, at most p
        Eigenvectors, counted from 0 in descending order of eigenvalue.  For the losses that order (ordered,
        nested_dropout, nonuniform_l2) entry k is the eigenvector of component k, so permutations differ; for the
        others the order only fixes a basis.  Components beyond the last index are zero.
    p : int
        Latent width.
    loss : Loss or str, default "mse"
    scale : {"mean", "sum"}
    mixing : array, optional
        As in `optimum`, with shape (p, r) or (r,), r = len(indices).

    Returns
    -------
    A : ndarray, shape (q, p)
    B : ndarray, shape (p, d)

    Raises
    ------
    ValueError
        If an index is out of range or repeated, its eigenvalue does not exceed the penalty of its component, or as
        `optimum`.

    Notes
    -----
    Sources: Kunin et al. 2019, Thm. 4.2; Oftadeh et al. 2020, Thm. 2; Bao et al. 2020, Thm. 2.  These are all critical
    points of sum_l2 and nonuniform_l2.  For mse and product_l2 with r < p the decoder may use any left inverse of G;
    this function uses the pseudo-inverse.  For the ordered losses with r < p there are also critical points without
    zero columns, which this function does not build.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> S = np.diag([4.0, 2.0, 1.0])
    >>> A, B = theory.critical_point(S, [0, 2], 2, "ordered")  # a saddle: the second direction is left out
    >>> A.T
    array([[1., 0., 0.],
           [0., 0., 1.]])
    >>> theory.descending_directions(S, [0, 2], 2, "ordered")
    1
    """
    moments, loss, spectrum, p, indices, lam = _critical(data, indices, p, loss, scale)
    shrink = shrink_factors(spectrum.values[indices], lam[: len(indices)], loss.product_penalty)
    return balanced_pair(spectrum, indices, p, shrink, moments.sxy is not None, mixing, symmetry(loss))


def _curvature(
    data: Any, indices: Sequence[int], p: int, loss: losses.Loss | str, scale: str
) -> tuple[losses.Loss, np.ndarray, int, list[int], np.ndarray]:
    """Check what the two counts need: Y = X, distinct positive eigenvalues, none of them equal to a penalty."""
    moments, loss, spectrum, p, indices, lam = _critical(data, indices, p, loss, scale)
    if moments.sxy is not None:
        raise ValueError("directions are counted for Y = X only; pass moments without xy")
    values = spectrum.values
    gap = np.min(-np.diff(values), initial=values[-1]) / values[0] if values[0] > 0 else 0.0
    if gap <= _DISTINCT:
        raise ValueError("directions are counted for positive distinct eigenvalues only, and these are not")
    if symmetry(loss) == "scale" and np.any(np.diff(loss.prefix(p)) >= 0):
        raise ValueError("directions are counted for strictly decreasing prefix weights; this prior has a zero in it")
    for penalty in np.unique(lam[lam > 0]):
        if np.min(np.abs(values - penalty)) <= _DISTINCT * values[0]:
            raise ValueError(f"the penalty {penalty} equals an eigenvalue; there the count changes")
    return loss, values, p, indices, lam


def _inversions(indices: list[int]) -> int:
    return sum(later < earlier for i, earlier in enumerate(indices) for later in indices[i + 1 :])


def descending_directions(
    data: Any, indices: Sequence[int], p: int, loss: losses.Loss | str = "mse", *, scale: str = "mean"
) -> int:
    """Number of negative eigenvalues of the Hessian at a critical point, Y = X (docs/math.md Eq. 30).

    Parameters
    ----------
    data, indices, p, loss, scale
        As in `critical_point`, which builds the point.

    Returns
    -------
    int
        sum_j (i_j - j) over the sorted indices, plus
        mse, product: (p - r)(d - r);
        sum, mixed: (p - r)(m0 - r), m0 the number of eigenvalues over the row penalty;
        ordered, nested_dropout: (p - r)(d - r) and one per inversion of `indices`;
        nonuniform: for each zero component the number of unused eigenvalues over its penalty, and one per inversion.

    Raises
    ------
    ValueError
        With targets, for equal or zero eigenvalues, for a penalty equal to an eigenvalue, for tied prefix weights, or
        as `critical_point`.

    Notes
    -----
    Kunin et al. 2019, Thm. 4.4, prints (p - r)(d - r) for the sum loss too; the Hessian has (p - r)(m0 - r), because
    a zero component can only grow towards eigenvectors whose eigenvalue exceeds the penalty.  The counts for the
    losses that order are derived in docs/math.md.  All are tested against numerical Hessians.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> S = np.diag([4.0, 2.0, 1.0])
    >>> theory.descending_directions(S, [0, 1], 2), theory.descending_directions(S, [1, 2], 2)
    (0, 2)
    >>> theory.descending_directions(S, [1, 0], 2, "ordered")  # the order is wrong: a saddle of this loss
    1
    """
    loss, values, p, indices, lam = _curvature(data, indices, p, loss, scale)
    r = len(indices)
    rotating = sum(index - j for j, index in enumerate(sorted(indices)))
    unused = np.delete(values, indices)
    growing = sum(int(np.sum(unused > lam[slot])) for slot in range(r, p))
    crossing = _inversions(indices) if symmetry(loss) in ("scale", "sign") else 0
    return int(rotating + growing + crossing)


def flat_directions(
    data: Any, indices: Sequence[int], p: int, loss: losses.Loss | str = "mse", *, scale: str = "mean"
) -> int:
    """Number of zero eigenvalues of the Hessian at a critical point, Y = X (docs/math.md Eq. 30).

    Parameters and errors as `descending_directions`.

    Returns
    -------
    int
        mse, product: 2 p r - r^2;  sum, mixed: p r - r (r + 1)/2;  ordered, nested_dropout: r + 2 r (p - r);
        nonuniform: 0 (1 if lam_1 is zero and component 1 is used).

    Notes
    -----
    Kunin et al. 2019, Thm. 4.4, prints p r for mse and product, which is right at r = p only: for r < p the decoder
    may be any left inverse, so the critical manifold has dimension 2 p r - r^2.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import losses, theory
    >>> S = np.diag([4.0, 2.0, 1.0])
    >>> [theory.flat_directions(S, [0, 1], 2, loss) for loss in ("mse", losses.sum_l2(0.5), "ordered")]
    [4, 1, 2]
    """
    loss, _, p, indices, lam = _curvature(data, indices, p, loss, scale)
    r = len(indices)
    group = symmetry(loss)
    if group == "linear":
        return 2 * p * r - r * r
    if group == "orthogonal":
        return p * r - r * (r + 1) // 2
    if group == "scale":
        return r + 2 * r * (p - r)
    return int(r > 0 and lam[0] == 0.0)


def condition_bound(eigenvalues: ArrayLike, loss: losses.Loss | str) -> float:
    """Lower bound of the condition number of the Hessian at the balanced optimum (docs/math.md Eq. 31).

    Parameters
    ----------
    eigenvalues : array, shape (p,)
        The p leading eigenvalues s_i, descending, positive, s_1 > s_p.  The bound does not depend on their scale.
    loss : Loss or str
        nonuniform_l2, "nonuniform_l2", nested_dropout, "nested_dropout" or "ordered"; its parameters are not used,
        because the bound holds for every choice of penalties or prior.

    Returns
    -------
    float
        nonuniform_l2: 2 (p-1)(s_1 - s_p) sum_{i=2}^{p-1} (s_i - s_p)/(s_1 s_p), which is 0, so void, at p = 2;
        nested_dropout, ordered: 8 s_1 (p-1)^2/(s_1 - s_p), of the nonzero part of the spectrum (the p directions that
        rescale a component are flat).

    Raises
    ------
    ValueError
        If p < 2, the eigenvalues are not positive and descending with s_1 > s_p, or there is no bound for the loss.

    Notes
    -----
    Source: Bao et al. 2020, Sec. 4.3.1 and 5, where s_i is sigma_i^2.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> spectrum = np.linspace(100.0, 1.0, 20)
    >>> round(theory.condition_bound(spectrum, "nonuniform_l2")), round(theory.condition_bound(spectrum, "ordered"))
    (33519, 2917)
    """
    name = loss if isinstance(loss, str) else losses.resolve(loss).name
    if name not in ("nonuniform_l2", "nested_dropout", "ordered"):
        raise ValueError(f"no bound is known for loss {name!r}; valid: 'nonuniform_l2', 'nested_dropout', 'ordered'")
    s = check_vector(eigenvalues, "eigenvalues")
    p = len(s)
    if p < 2 or s[-1] <= 0 or np.any(np.diff(s) > 0) or s[0] == s[-1]:
        raise ValueError(
            "eigenvalues must be the p >= 2 leading ones, positive and descending with the first over the last"
        )
    if name == "nonuniform_l2":
        return float(2.0 * (p - 1) * (s[0] - s[-1]) * np.sum(s[1:-1] - s[-1]) / (s[0] * s[-1]))
    return float(8.0 * s[0] * (p - 1) ** 2 / (s[0] - s[-1]))
