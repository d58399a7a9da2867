"""What optima and critical points share: scaled moments, spectra, symmetries of the losses, balanced pairs.

Everything is in float64.  Signs are fixed: the entry of largest magnitude of every direction is positive.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import losses
from ..validation import check_choice, check_integer, check_matrix, check_vector


class ScaledMoments(NamedTuple):
    """Sxx (d, d), Sxy (d, q) or None where Y = X, and tr Syy, at one scale: sum or mean."""

    sxx: np.ndarray
    sxy: np.ndarray | None
    yy_trace: float


def scaled_moments(data: Any, scale: str) -> ScaledMoments:
    """Return the scaled moments of `data`; raise naming what is wrong."""
    check_choice(scale, ("mean", "sum"), "scale")
    if hasattr(data, "xx") and hasattr(data, "weight_sum"):
        factor = 1.0 if scale == "sum" else 1.0 / float(data.weight_sum)
        sxx = check_matrix(data.xx, "data.xx") * factor
        sxy = None if data.xy is None else check_matrix(data.xy, "data.xy") * factor
        yy_trace = float(data.yy_trace) * factor
    else:
        sxx, sxy = check_matrix(data, "data"), None
        yy_trace = float(np.trace(sxx)) if sxx.shape[0] == sxx.shape[1] else 0.0
    d = sxx.shape[0]
    if sxx.shape != (d, d) or not np.allclose(sxx, sxx.T, rtol=1e-6, atol=1e-6 * np.abs(sxx).max()):
        raise ValueError(
            f"data must be moments or a symmetric (d, d) matrix of second moments, got shape {sxx.shape}; "
            "from samples X (centred) pass X.T @ X / len(X)"
        )
    if sxy is not None and sxy.shape[0] != d:
        raise ValueError(f"data.xy must have d = {d} rows, got shape {sxy.shape}")
    return ScaledMoments((sxx + sxx.T) * 0.5, sxy, yy_trace)


def fix_signs(vectors: np.ndarray) -> np.ndarray:
    """Make the entry of largest magnitude of each column positive."""
    largest = np.argmax(np.abs(vectors), axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


class Spectrum(NamedTuple):
    """Eigenvalues (n,) descending, eigenvectors U (q, n), and U'Syx Sxx^-1 (n, d) (U' itself for Y = X)."""

    values: np.ndarray
    vectors: np.ndarray
    right: np.ndarray


def spectrum_of(moments: ScaledMoments, ridge: float = 0.0) -> Spectrum:
    """Eigenpairs of Sigma = Syx (Sxx + ridge I)^-1 Sxy, or of Sxx itself (without ridge) for Y = X."""
    values, vectors = np.linalg.eigh(moments.sxx)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if moments.sxy is None:
        vectors = fix_signs(vectors)
        return Spectrum(values, vectors, vectors.T)
    # Sigma = K K' with K = Syx V w^(-1/2): its singular values keep the digits that forming Sigma would lose.
    shifted = values + ridge
    keep = shifted > shifted[0] * len(shifted) * np.finfo(np.float64).eps
    inverse_root = np.where(keep, 1.0 / np.sqrt(np.where(keep, shifted, 1.0)), 0.0)
    left, singular, right = np.linalg.svd((moments.sxy.T @ vectors) * inverse_root, full_matrices=False)
    signed = fix_signs(left)
    right = right * np.sum(signed * left, axis=0)[:, None]
    return Spectrum(singular**2, signed, (singular[:, None] * right * inverse_root) @ vectors.T)


def check_width_within(p: int, n: int) -> int:
    """Return p as an int in 1..n; raise naming the limit."""
    return check_integer(p, "p", low=1, high=n, high_is="min(d, q)")


def closed_form_loss(loss: losses.Loss | str, has_targets: bool) -> losses.Loss:
    """Return the deterministic loss object behind `loss`, and raise where no closed form is known."""
    loss = losses.resolve(loss)
    if isinstance(loss, losses.stochastic_nested_dropout):
        loss = loss.expectation
    if not loss.in_family:
        raise ValueError(f"loss {loss.name!r} is not a prefix-weighted loss; see vae_optimum")
    penalised = isinstance(loss, (losses.sum_l2, losses.nonuniform_l2, losses.mixed_l2))
    if has_targets and penalised:
        raise ValueError(
            f"no closed form is known for loss {loss.name!r} with targets Y other than X; "
            "use mse, ordered, nested_dropout or product_l2, or moments without xy"
        )
    return loss


def symmetry(loss: losses.Loss) -> str:
    """Symmetry of the minimisers of `loss`: "linear" GL(p), "orthogonal" O(p), "scale" or "sign" (diagonal only)."""
    if isinstance(loss, (losses.ordered, losses.nested_dropout)):
        return "scale"
    if isinstance(loss, losses.nonuniform_l2):
        return "sign"
    # A sum penalty of strength 0 is no penalty.
    return "orthogonal" if loss.row_penalty(1)[0] > 0 else "linear"


def shrink_factors(values: np.ndarray, lam: np.ndarray, lam_pi: float) -> np.ndarray:
    """max(l - lam, 0)/(l + lam_pi) elementwise; 0 where the denominator is 0."""
    denominator = values + lam_pi
    return np.where(denominator > 0, np.maximum(values - lam, 0.0) / np.where(denominator > 0, denominator, 1.0), 0.0)


def balanced_pair(
    spectrum: Spectrum,
    indices: list[int],
    p: int,
    shrink: np.ndarray,
    has_targets: bool,
    mixing: ArrayLike | None,
    group: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Assemble A (q, p) = U_I t^(1/2) left, B (p, d) = G t^(1/2) right_I for the symmetry of the loss."""
    r = len(indices)
    left, right = checked_mixing(mixing, p, r, group)
    vectors, rows = spectrum.vectors[:, indices], spectrum.right[indices]
    # With targets the whole shrinkage is already in `right`, because the ridge is part of its inverse.
    root = np.ones(r) if has_targets else np.sqrt(shrink)
    return (vectors * root) @ right, left @ (root[:, None] * rows)


def checked_mixing(mixing: ArrayLike | None, p: int, r: int, group: str) -> tuple[np.ndarray, np.ndarray]:
    """Return G (p, r) and its left inverse (r, p) from the user's `mixing`, checked for the symmetry group."""
    if mixing is None:
        identity = np.eye(p, r)
        return identity, identity.T
    if group in ("scale", "sign"):
        factors = check_vector(mixing, "mixing")
        if factors.shape != (r,) or np.any(factors == 0):
            raise ValueError(f"mixing must hold {r} nonzero factors, one per component, got {mixing!r}")
        if group == "sign" and np.any(np.abs(factors) != 1.0):
            raise ValueError(f"mixing must hold +1 and -1 only for this loss, got {mixing!r}")
        return np.eye(p, r) * factors, (np.eye(p, r) / factors).T
    matrix = check_matrix(mixing, "mixing")
    if matrix.shape != (p, r):
        raise ValueError(f"mixing must have shape ({p}, {r}), got {matrix.shape}")
    if group == "orthogonal":
        if not np.allclose(matrix.T @ matrix, np.eye(r), atol=1e-8):
            raise ValueError("mixing must have orthonormal columns for this loss")
        return matrix, matrix.T
    if np.linalg.matrix_rank(matrix) < r:
        raise ValueError("mixing must have linearly independent columns")
    return matrix, np.linalg.pinv(matrix)
