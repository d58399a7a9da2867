"""Optima of linear autoencoders, probabilistic PCA and the linear VAE (docs/math.md Eq. 16 to 20 and 32).

`data` is everywhere one of

- moments: any object with the attributes xx (d, d), xy (d, q) or None, yy_trace, n_samples and weight_sum, all sums
  over the centred samples; `scale="mean"` divides them by weight_sum, `scale="sum"` does not.  `xy` None means Y = X;
- an array (d, d), the second moments of X with Y = X, taken at the scale it is in (`scale` does not apply).

Penalties are in the units of the chosen scale.  Decoders are A (q, p), encoders B (p, d).  Signs are fixed: the entry
of largest magnitude of every direction is positive.  Everything is computed in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import losses
from ..validation import check_real, check_vector
from ._closed_forms import (
    ScaledMoments,
    balanced_pair,
    check_width_within,
    checked_mixing,
    closed_form_loss,
    scaled_moments,
    shrink_factors,
    spectrum_of,
    symmetry,
)

# ---------------------------------------------------------------------------------------------------------------------
# optima


def shrinkage(eigenvalues: ArrayLike, loss: losses.Loss | str) -> np.ndarray:
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

    Notes
    -----
    Sources: Kunin et al. 2019, Thm. 4.2 and Fig. 5; Bao et al. 2020, Thm. 2; Petrevski, Sec. 4.2.

    Examples
    --------
    >>> from lae_fast import losses, theory
    >>> theory.shrinkage([4.0, 2.0, 0.5], losses.sum_l2(1.0))  # the last component collapses
    array([0.75, 0.5 , 0.  ])
    >>> theory.shrinkage([4.0, 1.0, 0.25], losses.product_l2(1.0))  # all are kept
    array([0.8, 0.5, 0.2])
    """
    loss = closed_form_loss(loss, False)
    values = check_vector(eigenvalues, "eigenvalues")
    if values.min() < 0:
        raise ValueError(f"eigenvalues must be non-negative, the smallest is {values.min()}")
    return shrink_factors(values, loss.row_penalty(len(values)), loss.product_penalty)


def optimum(
    data: Any, p: int, loss: losses.Loss | str = "ordered", *, scale: str = "mean", mixing: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
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

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import losses, theory
    >>> S = np.diag([4.0, 2.0, 1.0])
    >>> A, B = theory.optimum(S, 2)
    >>> A.T, B
    (array([[1., 0., 0.],
           [0., 1., 0.]]), array([[1., 0., 0.],
           [0., 1., 0.]]))
    >>> A, B = theory.optimum(S, 2, losses.sum_l2(1.0))
    >>> np.diagonal(A @ B)  # shrunk by 1 - lam / l
    array([0.75, 0.5 , 0.  ])
    """
    moments = scaled_moments(data, scale)
    has_targets = moments.sxy is not None
    loss = closed_form_loss(loss, has_targets)
    spectrum = spectrum_of(moments, loss.product_penalty if has_targets else 0.0)
    p = check_width_within(p, len(spectrum.values))
    loss.prefix(p)  # the length of a prior given as an array
    shrink = shrink_factors(spectrum.values[:p], loss.row_penalty(p), loss.product_penalty)
    return balanced_pair(spectrum, list(range(p)), p, shrink, has_targets, mixing, symmetry(loss))


def minimum(data: Any, p: int, loss: losses.Loss | str = "ordered", *, scale: str = "mean") -> float:
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

    Notes
    -----
    Sources: as of `optimum`; for "vae" Tipping and Bishop 1999, Lucas et al. 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> S = np.diag([4.0, 2.0, 1.0])
    >>> theory.minimum(S, 2, "mse"), theory.minimum(S, 2, "ordered")  # 7 - (4 + 2), and 2 * 7 - (2 * 4 + 2)
    (1.0, 4.0)
    >>> A, B = theory.optimum(S, 2, "mse")
    >>> float(np.trace((np.eye(3) - A @ B) @ S @ (np.eye(3) - A @ B).T))
    1.0
    """
    moments = scaled_moments(data, scale)
    resolved = losses.resolve(loss)
    if isinstance(resolved, losses.vae):
        if scale != "mean":
            raise ValueError("the minimum of 'vae' is a likelihood per sample: it needs scale='mean'")
        values, noise = _ppca_spectrum(moments, p, None)
        d = len(values)
        return float(0.5 * (d * np.log(2.0 * np.pi) + np.sum(np.log(values[:p])) + (d - p) * np.log(noise) + d))
    has_targets = moments.sxy is not None
    loss = closed_form_loss(resolved, has_targets)
    spectrum = spectrum_of(moments, loss.product_penalty if has_targets else 0.0)
    p = check_width_within(p, len(spectrum.values))
    c, lam = loss.prefix(p), loss.row_penalty(p)
    values = spectrum.values[:p]
    if has_targets:
        # The ridge is inside Sigma, so its eigenvalues are the gains themselves.
        return float(c[0] * moments.yy_trace - c @ values)
    gain = shrink_factors(values, lam, loss.product_penalty) * np.maximum(values - lam, 0.0)
    # tr Sxx is the sum of all eigenvalues; term by term nothing large cancels.
    return float(np.sum(c[0] * values - c * gain) + c[0] * np.sum(spectrum.values[p:]))


# ---------------------------------------------------------------------------------------------------------------------
# probabilistic PCA and the linear VAE


def _ppca_spectrum(moments: ScaledMoments, p: int, noise_variance: float | None) -> tuple[np.ndarray, float]:
    """Return all eigenvalues and the noise variance (given, or the mean of the discarded eigenvalues)."""
    if moments.sxy is not None:
        raise ValueError("probabilistic PCA is a model of X alone; pass moments without xy")
    values = spectrum_of(moments).values
    p = check_width_within(p, len(values))
    if noise_variance is not None:
        return values, check_real(noise_variance, "noise_variance", low=0, below=np.inf)
    if p == len(values):
        raise ValueError(f"p = {p} leaves no eigenvalue to estimate the noise from; give noise_variance, or lower p")
    noise = float(np.mean(values[p:]))
    if noise <= 0:
        raise ValueError("the discarded eigenvalues are all zero, so the likelihood is unbounded; give noise_variance")
    return values, noise


def ppca(
    data: Any, p: int, noise_variance: float | None = None, *, scale: str = "mean", mixing: ArrayLike | None = None
) -> tuple[np.ndarray, float]:
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

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> W, noise = theory.ppca(np.diag([5.0, 2.0, 1.0, 1.0]), 2)
    >>> W.T.tolist(), noise
    ([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], 1.0)
    >>> np.diagonal(W @ W.T) + noise  # the model has the variances of the data
    array([5., 2., 1., 1.])
    """
    moments = scaled_moments(data, scale)
    values, noise = _ppca_spectrum(moments, p, noise_variance)
    _, transposed = checked_mixing(mixing, p, p, "orthogonal")
    vectors = spectrum_of(moments).vectors[:, :p]
    return (vectors * np.sqrt(np.maximum(values[:p] - noise, 0.0))) @ transposed, noise


class VaeOptimum(NamedTuple):
    """Minimiser of the linear VAE (Lucas et al. 2019), float64.

    Attributes
    ----------
    decoder : ndarray (d, p)
    encoder : ndarray (p, d)
    log_latent_variances : ndarray (p,)
    log_noise_variance : float

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> best = theory.vae_optimum(np.diag([4.0, 2.0, 1.0]), 2)
    >>> isinstance(best, theory.VaeOptimum), best.decoder.shape, best.encoder.shape
    (True, (3, 2), (2, 3))
    """

    decoder: np.ndarray
    encoder: np.ndarray
    log_latent_variances: np.ndarray
    log_noise_variance: float


def vae_optimum(data: Any, p: int) -> VaeOptimum:
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

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import theory
    >>> best = theory.vae_optimum(np.diag([5.0, 2.0, 1.0]), 2)
    >>> best.decoder.T.tolist(), np.exp(best.log_noise_variance)  # of probabilistic PCA
    ([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float64(1.0))
    >>> np.exp(best.log_latent_variances)  # noise over eigenvalue
    array([0.2, 0.5])
    """
    moments = scaled_moments(data, "mean")
    values, noise = _ppca_spectrum(moments, p, None)
    vectors = spectrum_of(moments).vectors[:, :p]
    root = np.sqrt(np.maximum(values[:p] - noise, 0.0))
    return VaeOptimum(
        vectors * root, (root / values[:p])[:, None] * vectors.T, np.log(noise / values[:p]), float(np.log(noise))
    )
