"""Optima, critical points and curvature of linear autoencoders (docs/math.md Eq. 16 to 20 and 29 to 32).

`data` is everywhere one of

- moments: any object with the attributes xx (d, d), xy (d, q) or None, yy_trace, n_samples and weight_sum, all sums
  over the centred samples; `scale="mean"` divides them by weight_sum, `scale="sum"` does not.  `xy` None means Y = X;
- an array (d, d), the second moments of X with Y = X, taken at the scale it is in (`scale` does not apply).

Penalties are in the units of the chosen scale.  Decoders are A (q, p), encoders B (p, d).  Signs are fixed: the entry
of largest magnitude of every direction is positive.  Everything is computed in float64.  Imports NumPy only.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np

from lae_fast import losses as _losses
from lae_fast.metrics import _check_matrix

__all__ = [
    "VaeOptimum",
    "condition_bound",
    "critical_point",
    "descending_directions",
    "flat_directions",
    "minimum",
    "optimum",
    "ppca",
    "shrinkage",
    "vae_optimum",
]

# Eigenvalues closer than this, relative to the largest, count as equal where a theorem asks for distinct ones.
_DISTINCT = 1e-10


# ---------------------------------------------------------------------------------------------------------------------
# data


class _Moments(NamedTuple):
    sxx: np.ndarray
    sxy: np.ndarray | None
    yy_trace: float


def _moments(data, scale):
    """Return the scaled moments of `data`; raise naming what is wrong."""
    if scale not in ("mean", "sum"):
        raise ValueError(f"scale must be 'mean' or 'sum', got {scale!r}")
    if hasattr(data, "xx") and hasattr(data, "weight_sum"):
        factor = 1.0 if scale == "sum" else 1.0 / float(data.weight_sum)
        sxx = _check_matrix(data.xx, "data.xx") * factor
        sxy = None if data.xy is None else _check_matrix(data.xy, "data.xy") * factor
        yy_trace = float(data.yy_trace) * factor
    else:
        sxx, sxy = _check_matrix(data, "data"), None
        yy_trace = float(np.trace(sxx)) if sxx.shape[0] == sxx.shape[1] else 0.0
    d = sxx.shape[0]
    if sxx.shape != (d, d) or not np.allclose(sxx, sxx.T, rtol=1e-6, atol=1e-6 * np.abs(sxx).max()):
        raise ValueError(
            f"data must be moments or a symmetric (d, d) matrix of second moments, got shape {sxx.shape}; "
            "from samples X (centred) pass X.T @ X / len(X)"
        )
    if sxy is not None and sxy.shape[0] != d:
        raise ValueError(f"data.xy must have d = {d} rows, got shape {sxy.shape}")
    return _Moments((sxx + sxx.T) * 0.5, sxy, yy_trace)


def _fix_signs(vectors):
    """Make the entry of largest magnitude of each column positive."""
    largest = np.argmax(np.abs(vectors), axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


class _Spectrum(NamedTuple):
    """Eigenvalues (n,) descending, eigenvectors U (q, n), and U'Syx Sxx^-1 (n, d) (U' itself for Y = X)."""

    values: np.ndarray
    vectors: np.ndarray
    right: np.ndarray


def _spectrum(moments, ridge=0.0):
    """Eigenpairs of Sigma = Syx (Sxx + ridge I)^-1 Sxy, or of Sxx itself (without ridge) for Y = X."""
    values, vectors = np.linalg.eigh(moments.sxx)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if moments.sxy is None:
        vectors = _fix_signs(vectors)
        return _Spectrum(values, vectors, vectors.T)
    # Sigma = K K' with K = Syx V w^(-1/2): its singular values keep the digits that forming Sigma would lose.
    shifted = values + ridge
    keep = shifted > shifted[0] * len(shifted) * np.finfo(np.float64).eps
    inverse_root = np.where(keep, 1.0 / np.sqrt(np.where(keep, shifted, 1.0)), 0.0)
    left, singular, right = np.linalg.svd((moments.sxy.T @ vectors) * inverse_root, full_matrices=False)
    signed = _fix_signs(left)
    right = right * np.sum(signed * left, axis=0)[:, None]
    return _Spectrum(singular**2, signed, (singular[:, None] * right * inverse_root) @ vectors.T)


def _check_p(p, n):
    """Return p as an int in 1..n; raise naming the limit."""
    if isinstance(p, bool) or not isinstance(p, Integral):
        raise TypeError(f"p must be an integer, got {p!r} of type {type(p).__name__}")
    if not 1 <= p <= n:
        raise ValueError(f"p must be between 1 and min(d, q) = {n}, got {p}")
    return int(p)


def _check_loss(loss, has_targets):
    """Return the deterministic loss object behind `loss`, and raise where no closed form is known."""
    loss = _losses.resolve(loss)
    if isinstance(loss, _losses.stochastic_nested_dropout):
        loss = loss.expectation
    if not loss.in_family:
        raise ValueError(f"loss {loss.name!r} is not a prefix-weighted loss; see vae_optimum")
    penalised = isinstance(loss, (_losses.sum_l2, _losses.nonuniform_l2, _losses.mixed_l2))
    if has_targets and penalised:
        raise ValueError(
            f"no closed form is known for loss {loss.name!r} with targets Y other than X; "
            "use mse, ordered, nested_dropout or product_l2, or moments without xy"
        )
    return loss


def _group(loss):
    """Symmetry of the minimisers of `loss`: "linear" GL(p), "orthogonal" O(p), "scale" or "sign" (diagonal only)."""
    if isinstance(loss, (_losses.ordered, _losses.nested_dropout)):
        return "scale"
    if isinstance(loss, _losses.nonuniform_l2):
        return "sign"
    # A sum penalty of strength 0 is no penalty.
    return "orthogonal" if loss.row_penalty(1)[0] > 0 else "linear"


def _shrink(values, lam, lam_pi):
    """max(l - lam, 0)/(l + lam_pi) elementwise; 0 where the denominator is 0."""
    denominator = values + lam_pi
    return np.where(denominator > 0, np.maximum(values - lam, 0.0) / np.where(denominator > 0, denominator, 1.0), 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# optima


def shrinkage(eigenvalues, loss):
    """Eigenvalues of the map AB at the optimum, Y = X: t_i = max(l_i - lam_i, 0)/(l_i + lam_pi) (docs/math.md Eq. 18).

    Parameters
    ----------
    eigenvalues : array, shape (n,)
        Eigenvalues l_i >= 0 at the scale the penalty is meant in.  For nonuniform_l2 the p leading ones, descending.
    loss : Loss or str
        A member of the prefix-weighted family.

    Returns
    -------
    ndarray, shape (n,), float64
        In [0, 1]: 1 without penalty, 1 - lam/l for sum, l/(l + lam) for product.

    Raises
    ------
    ValueError
        If an eigenvalue is negative or not finite, or the loss is outside the family.
    """
    loss = _check_loss(loss, False)
    values = _losses._check_vector(eigenvalues, "eigenvalues")
    if values.min() < 0:
        raise ValueError(f"eigenvalues must be non-negative, the smallest is {values.min()}")
    return _shrink(values, loss.row_penalty(len(values)), loss.product_penalty)


def _balanced(spectrum, indices, p, shrink, has_targets, mixing, group):
    """Assemble A (q, p) = U_I t^(1/2) left, B (p, d) = G t^(1/2) right_I for the symmetry of the loss."""
    r = len(indices)
    left, right = _mixing(mixing, p, r, group)
    vectors, rows = spectrum.vectors[:, indices], spectrum.right[indices]
    # With targets the whole shrinkage is already in `right`, because the ridge is part of its inverse.
    root = np.ones(r) if has_targets else np.sqrt(shrink)
    return (vectors * root) @ right, left @ (root[:, None] * rows)


def _mixing(mixing, p, r, group):
    """Return G (p, r) and its left inverse (r, p) from the user's `mixing`, checked for the symmetry group."""
    if mixing is None:
        identity = np.eye(p, r)
        return identity, identity.T
    if group in ("scale", "sign"):
        factors = _losses._check_vector(mixing, "mixing")
        if factors.shape != (r,) or np.any(factors == 0):
            raise ValueError(f"mixing must hold {r} nonzero factors, one per component, got {mixing!r}")
        if group == "sign" and np.any(np.abs(factors) != 1.0):
            raise ValueError(f"mixing must hold +1 and -1 only for this loss, got {mixing!r}")
        return np.eye(p, r) * factors, (np.eye(p, r) / factors).T
    matrix = _check_matrix(mixing, "mixing")
    if matrix.shape != (p, r):
        raise ValueError(f"mixing must have shape ({p}, {r}), got {matrix.shape}")
    if group == "orthogonal":
        if not np.allclose(matrix.T @ matrix, np.eye(r), atol=1e-8):
            raise ValueError("mixing must have orthonormal columns for this loss")
        return matrix, matrix.T
    if np.linalg.matrix_rank(matrix) < r:
        raise ValueError("mixing must have linearly independent columns")
    return matrix, np.linalg.pinv(matrix)


def optimum(data, p, loss="ordered", *, scale="mean", mixing=None):
    """A global minimiser (A, B) of a prefix-weighted loss (docs/math.md Eq. 16 to 18).

    Parameters
    ----------
    data : moments or array, shape (d, d)
    p : int
        Latent width, 1 <= p <= min(d, q).
    loss : Loss or str, default "ordered"
        stochastic_nested_dropout is treated as its expectation.
    scale : {"mean", "sum"}
        Scale of the moments; it matters if the loss has a penalty.
    mixing : array, optional
        Picks another minimiser: A = U t^(1/2) G^+, B = G t^(1/2) U'.  G is any invertible (p, p) matrix for mse and
        product_l2, orthogonal for sum_l2 and mixed_l2; p nonzero factors for ordered and nested_dropout, p signs for
        nonuniform_l2.  Default: the identity.

    Returns
    -------
    A : ndarray, shape (q, p)
    B : ndarray, shape (p, d)

    Raises
    ------
    ValueError
        If p is out of range, `mixing` does not fit the symmetry of the loss, no closed form is known (a sum penalty
        with Y other than X), or the loss is "vae" (see `vae_optimum`).

    Notes
    -----
    Components whose eigenvalue is at most their penalty are zero.  Sources: Oftadeh et al. 2020, Thm. 1; Kunin et al.
    2019, Thm. 4.2; Bao et al. 2020, Thm. 3; Petrevski, Sec. 4.2.
    """
    moments = _moments(data, scale)
    has_targets = moments.sxy is not None
    loss = _check_loss(loss, has_targets)
    spectrum = _spectrum(moments, loss.product_penalty if has_targets else 0.0)
    p = _check_p(p, len(spectrum.values))
    loss.prefix(p)  # the length of a prior given as an array
    shrink = _shrink(spectrum.values[:p], loss.row_penalty(p), loss.product_penalty)
    return _balanced(spectrum, list(range(p)), p, shrink, has_targets, mixing, _group(loss))


def minimum(data, p, loss="ordered", *, scale="mean"):
    """Smallest value of a loss (docs/math.md Eq. 19).

    Parameters
    ----------
    data : moments or array, shape (d, d)
    p : int
    loss : Loss or str, default "ordered"
        Also "vae": then -ELBO, which at its optimum is the negative log likelihood of probabilistic PCA per sample;
        it needs scale="mean".
    scale : {"mean", "sum"}

    Returns
    -------
    float
        c_1 tr Syy - sum_i c_i l_i without penalty; with one, each of the first p components contributes
        l_i - max(l_i - lam_i, 0)^2/(l_i + lam_pi) in place of l_i.

    Raises
    ------
    ValueError
        As `optimum`.
    """
    moments = _moments(data, scale)
    resolved = _losses.resolve(loss)
    if isinstance(resolved, _losses.vae):
        if scale != "mean":
            raise ValueError("the minimum of 'vae' is a likelihood per sample: it needs scale='mean'")
        values, noise = _ppca_spectrum(moments, p, None)
        d = len(values)
        return float(0.5 * (d * np.log(2.0 * np.pi) + np.sum(np.log(values[:p])) + (d - p) * np.log(noise) + d))
    has_targets = moments.sxy is not None
    loss = _check_loss(resolved, has_targets)
    spectrum = _spectrum(moments, loss.product_penalty if has_targets else 0.0)
    p = _check_p(p, len(spectrum.values))
    c, lam = loss.prefix(p), loss.row_penalty(p)
    values = spectrum.values[:p]
    if has_targets:
        # The ridge is inside Sigma, so its eigenvalues are the gains themselves.
        return float(c[0] * moments.yy_trace - c @ values)
    gain = _shrink(values, lam, loss.product_penalty) * np.maximum(values - lam, 0.0)
    # tr Sxx is the sum of all eigenvalues; term by term nothing large cancels.
    return float(np.sum(c[0] * values - c * gain) + c[0] * np.sum(spectrum.values[p:]))


# ---------------------------------------------------------------------------------------------------------------------
# critical points and their curvature


def _check_indices(indices, p, n):
    """Return the eigenvector indices as a list of distinct ints in 0..n-1, at most p of them."""
    array = np.asarray(indices)
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"indices must be a sequence of integers (eigenvectors counted from 0), got {indices!r}")
    chosen = array.tolist()
    if len(chosen) > p:
        raise ValueError(f"indices has {len(chosen)} entries, more than p = {p}")
    if min(chosen) < 0 or max(chosen) >= n:
        raise ValueError(f"indices must be between 0 and {n - 1}, got {indices!r}")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"indices must be distinct, got {indices!r}")
    return chosen


def _critical(data, indices, p, loss, scale):
    """Shared checks: return moments, loss, spectrum, p, indices and the penalties of the used slots."""
    moments = _moments(data, scale)
    loss = _check_loss(loss, moments.sxy is not None)
    spectrum = _spectrum(moments, loss.product_penalty if moments.sxy is not None else 0.0)
    p = _check_p(p, len(spectrum.values))
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


def critical_point(data, indices, p, loss="mse", *, scale="mean", mixing=None):
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
    """
    moments, loss, spectrum, p, indices, lam = _critical(data, indices, p, loss, scale)
    shrink = _shrink(spectrum.values[indices], lam[: len(indices)], loss.product_penalty)
    return _balanced(spectrum, indices, p, shrink, moments.sxy is not None, mixing, _group(loss))


def _curvature(data, indices, p, loss, scale):
    """Checks of the two counts: Y = X, positive distinct eigenvalues, strict penalties."""
    moments, loss, spectrum, p, indices, lam = _critical(data, indices, p, loss, scale)
    if moments.sxy is not None:
        raise ValueError("directions are counted for Y = X only; pass moments without xy")
    values = spectrum.values
    gap = np.min(-np.diff(values), initial=values[-1]) / values[0] if values[0] > 0 else 0.0
    if gap <= _DISTINCT:
        raise ValueError("directions are counted for positive distinct eigenvalues only, and these are not")
    if _group(loss) == "scale" and np.any(np.diff(loss.prefix(p)) >= 0):
        raise ValueError("directions are counted for strictly decreasing prefix weights; this prior has a zero in it")
    for penalty in np.unique(lam[lam > 0]):
        if np.min(np.abs(values - penalty)) <= _DISTINCT * values[0]:
            raise ValueError(f"the penalty {penalty} equals an eigenvalue; there the count changes")
    return loss, values, p, indices, lam


def _inversions(indices):
    return sum(later < earlier for i, earlier in enumerate(indices) for later in indices[i + 1 :])


def descending_directions(data, indices, p, loss="mse", *, scale="mean"):
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
    """
    loss, values, p, indices, lam = _curvature(data, indices, p, loss, scale)
    r = len(indices)
    rotating = sum(index - j for j, index in enumerate(sorted(indices)))
    unused = np.delete(values, indices)
    growing = sum(int(np.sum(unused > lam[slot])) for slot in range(r, p))
    crossing = _inversions(indices) if _group(loss) in ("scale", "sign") else 0
    return int(rotating + growing + crossing)


def flat_directions(data, indices, p, loss="mse", *, scale="mean"):
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
    """
    loss, _, p, indices, lam = _curvature(data, indices, p, loss, scale)
    r = len(indices)
    group = _group(loss)
    if group == "linear":
        return 2 * p * r - r * r
    if group == "orthogonal":
        return p * r - r * (r + 1) // 2
    if group == "scale":
        return r + 2 * r * (p - r)
    return int(r > 0 and lam[0] == 0.0)


def condition_bound(eigenvalues, loss):
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
    """
    name = loss if isinstance(loss, str) else _losses.resolve(loss).name
    if name not in ("nonuniform_l2", "nested_dropout", "ordered"):
        raise ValueError(f"no bound is known for loss {name!r}; valid: 'nonuniform_l2', 'nested_dropout', 'ordered'")
    s = _losses._check_vector(eigenvalues, "eigenvalues")
    p = len(s)
    if p < 2 or s[-1] <= 0 or np.any(np.diff(s) > 0) or s[0] == s[-1]:
        raise ValueError(
            "eigenvalues must be the p >= 2 leading ones, positive and descending with the first over the last"
        )
    if name == "nonuniform_l2":
        return float(2.0 * (p - 1) * (s[0] - s[-1]) * np.sum(s[1:-1] - s[-1]) / (s[0] * s[-1]))
    return float(8.0 * s[0] * (p - 1) ** 2 / (s[0] - s[-1]))


# ---------------------------------------------------------------------------------------------------------------------
# probabilistic PCA and the linear VAE


def _ppca_spectrum(moments, p, noise_variance):
    """Return all eigenvalues and the noise variance (given, or the mean of the discarded eigenvalues)."""
    if moments.sxy is not None:
        raise ValueError("probabilistic PCA is a model of X alone; pass moments without xy")
    values = _spectrum(moments).values
    p = _check_p(p, len(values))
    if noise_variance is not None:
        return values, _losses._check_real(noise_variance, "noise_variance", 0.0)
    if p == len(values):
        raise ValueError(f"p = {p} leaves no eigenvalue to estimate the noise from; give noise_variance, or lower p")
    noise = float(np.mean(values[p:]))
    if noise <= 0:
        raise ValueError("the discarded eigenvalues are all zero, so the likelihood is unbounded; give noise_variance")
    return values, noise


def ppca(data, p, noise_variance=None, *, scale="mean", mixing=None):
    """Maximum likelihood of probabilistic PCA: W = U (l - s2)^(1/2) O' (docs/math.md Eq. 32; Tipping and Bishop 1999).

    Parameters
    ----------
    data : moments or array, shape (d, d)
        Without targets.
    p : int
    noise_variance : float >= 0, optional
        s2; default the mean of the discarded eigenvalues, its own maximum likelihood.  With s2 = lam the columns
        shrink like those of sum_l2(lam) at the same scale (Kunin et al. 2019, Thm. 3.1).
    scale : {"mean", "sum"}
        "mean" is the likelihood of the samples.
    mixing : array, shape (p, p), optional
        Orthogonal O.

    Returns
    -------
    W : ndarray, shape (d, p)
        Columns whose eigenvalue is at most s2 are zero (before mixing).
    noise_variance : float

    Raises
    ------
    ValueError
        With targets, if p is out of range, or if the noise cannot be estimated.
    """
    moments = _moments(data, scale)
    values, noise = _ppca_spectrum(moments, p, noise_variance)
    _, transposed = _mixing(mixing, p, p, "orthogonal")
    vectors = _spectrum(moments).vectors[:, :p]
    return (vectors * np.sqrt(np.maximum(values[:p] - noise, 0.0))) @ transposed, noise


class VaeOptimum(NamedTuple):
    """Minimiser of the linear VAE: decoder (d, p), encoder (p, d), log latent variances (p,), log noise variance."""

    decoder: np.ndarray
    encoder: np.ndarray
    log_latent_variances: np.ndarray
    log_noise_variance: float


def vae_optimum(data, p):
    """A minimiser of -ELBO of the linear VAE (docs/math.md Eq. 20; Lucas et al. 2019).

    Parameters
    ----------
    data : moments or array, shape (d, d)
        Without targets; moments are used at scale "mean".
    p : int
        1 <= p < d.

    Returns
    -------
    VaeOptimum
        W = U (l - s2)^(1/2), V = (l - s2)^(1/2)/l U', exp(e) = s2/l, s2 the mean of the discarded eigenvalues.  The
        components may be permuted and their signs changed without changing the value, min -ELBO = `minimum`.

    Raises
    ------
    ValueError
        As `ppca`.
    """
    moments = _moments(data, "mean")
    values, noise = _ppca_spectrum(moments, p, None)
    vectors = _spectrum(moments).vectors[:, :p]
    root = np.sqrt(np.maximum(values[:p] - noise, 0.0))
    return VaeOptimum(
        vectors * root, (root / values[:p])[:, None] * vectors.T, np.log(noise / values[:p]), float(np.log(noise))
    )
