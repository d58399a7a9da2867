"""How far a trained model is from the optimum: the loss it leaves, the directions it has, and what the two allow.

Everything is measured in float64 from the moments, or by one more pass over the rows; the optimum comes from the
eigenvalues (docs/math.md Eq. 18, 19).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .. import losses, rules
from ..backends.threads import serial_blas
from ..eigen import solve
from ..losses import _family
from ..theory import _closed_forms
from .problem import MomentProblem, Problem, RowProblem

# Flops that are spent on the optimum whatever the training cost.
_FREE_FLOPS = 1e10
# Passes over rows that finding their eigenvalues takes, and passes of training from which on that is worth it.
_SOLVER_PASSES, _ENOUGH_PASSES = 12, 100
# What is allowed of a direction, in units of the root of tol: a loss is quadratic in the error of a direction.  Plain
# descent by rag keeps A'A - BB' only to the first order of its rate, which leaves some 1e-3 at the rate "auto".
_DIRECTIONS = 4.0
# Largest residual of the eigenvalues that are looked for: their error is its square.
_SOLVER_TOL = 1e-6
_ROWS_TOL = 1e-4


@dataclass(frozen=True)
class Optimum:
    """The best that a rule can reach on these data.

    values : (p,) leading eigenvalues of Sigma at the scale of the run, descending (docs/math.md Eq. 16)
    loss : the loss that is solved;  minimum, at_zero : its value there, and at weights of zero
    share : what the smallest component that can be told from rounding takes off the loss
    removed : (p,) bool, components that are zero there: the penalty removes them, or the data have no variance left
    largest : the largest eigenvalue of Sigma, which is the unit of rounding for `values`;  nan where it is not known
    spectrum : of Sigma, with targets;  reason : why there is no minimum, or empty
    skipped : whether it may be found with more effort
    """

    values: np.ndarray
    loss: Any
    minimum: float
    at_zero: float
    share: float
    removed: np.ndarray
    largest: float
    spectrum: Any
    reason: str
    skipped: bool = False


class Effort(NamedTuple):
    """What training has cost so far, which finding the optimum should not exceed: flops, and passes on rows."""

    flops: float
    passes: float


class Promise(NamedTuple):
    """Whether a run ends at the eigenvectors, and whether in their order."""

    directions: bool
    order: bool


class Weights(NamedTuple):
    """A trained model: encoder (p, d);  decoder (p, q), A';  extra (p + 1,), e and log s^2 of the vae, or None."""

    encoder: np.ndarray
    decoder: np.ndarray
    extra: np.ndarray | None = None


class _Measured(NamedTuple):
    """Of a model: see `Assessment`;  quotients : (p,) r_i = a_i' S a_i of its directions."""

    excess: float
    residuals: np.ndarray
    quotients: np.ndarray


@dataclass(frozen=True)
class Assessment:
    """What a model has reached.

    excess : (L - L*) / (L at zero weights - L*);  residuals : (p,) of the decoder's columns as eigenvectors; nan where
    they are not known.  reason : why not;  lacking : what is not within what the tolerance allows, or empty
    """

    excess: float
    residuals: np.ndarray
    reason: str
    lacking: str


def solved_loss(rule: rules.Rule, loss: Any) -> Any:
    """The deterministic loss whose minimisers a rule reaches: its own or its expectation; for rules without a loss
    the ordered one with A = B', for oja mse."""
    if loss is None:
        return losses.mse() if isinstance(rule, rules.oja) else losses.ordered()
    return loss.expectation if loss.needs_samples else loss


def promise(rule: rules.Rule, loss: losses.Loss | None, p: int) -> Promise:
    """What is known of where rule and loss end."""
    if loss is None or isinstance(rule, rules.rag):
        return Promise(not isinstance(rule, rules.oja), not isinstance(rule, rules.oja))
    if loss.name == "vae":
        return Promise(True, False)
    return Promise(p == 1 or loss.breaks_rotation(p), loss.breaks_rotation(p))


def find(described: Problem, target: losses.Loss, p: int, scale: str, backend: str, effort: Effort) -> Optimum:
    """The optimum on the data `described`, with as much work as the training makes up for.

    target : the loss that is solved, see `solved_loss`;  backend : where passes run
    """
    values, spectrum, reason = _eigenvalues(described, target, p, backend, effort)
    if reason:
        largest = described.largest if described.same else np.nan
        unknown = _unknown(np.full(p, np.nan), target, largest, None, reason)
        return replace(unknown, skipped=bool(np.isfinite(effort.flops)))
    largest = described.largest if described.same else float(spectrum.values[0])
    if target.name == "vae":
        return _vae_optimum(described, target, values, scale)
    c, lam = target.prefix(p), target.row_penalty(p)
    if not described.same and lam.any():
        reason = f"no closed form is known for loss {target.name!r} with targets Y other than X"
        return _unknown(values, target, largest, spectrum, reason)
    if described.same:
        gains = c * _closed_forms.shrink_factors(values, lam, target.product_penalty) * np.maximum(values - lam, 0.0)
    else:
        gains = c * values  # a product penalty is inside Sigma
    gains = np.maximum(gains, 0.0)
    floor = np.finfo(described.dtype).eps * p * max(float(gains.max(initial=0.0)), 0.0)
    told_apart = gains[gains > floor]
    at_zero = float(c[0]) * described.yy_trace
    least = at_zero - float(gains.sum())
    if not told_apart.size or least == at_zero:
        return _unknown(values, target, largest, spectrum, "at the optimum every component is zero")
    removed = values <= np.maximum(lam, 8.0 * np.finfo(described.dtype).eps * largest)
    return Optimum(values, target, least, at_zero, float(told_apart.min()), removed, largest, spectrum, "")


def _unknown(values: np.ndarray, target: Any, largest: float, spectrum: Any, reason: str) -> Optimum:
    return Optimum(values, target, np.nan, np.nan, np.nan, np.zeros(len(values), bool), largest, spectrum, reason)


def _eigenvalues(described: Any, target: Any, p: int, backend: str, effort: Effort) -> tuple[Any, Any, str]:
    """((p,) values, the spectrum of Sigma with targets, why there are none)."""
    on_moments = isinstance(described, MomentProblem)
    if not described.same:
        if not on_moments:
            return None, None, "with targets the optimum needs the moments: use regime='moments'"
        if 10.0 * described.d**3 > max(effort.flops, _FREE_FLOPS):
            return None, None, "the optimum with targets would take longer than the training"
        moments = _closed_forms.scaled_moments(described.moments, "mean" if described.factor != 1.0 else "sum")
        spectrum = _closed_forms.spectrum_of(moments, target.product_penalty if target.in_family else 0.0)
        return spectrum.values[:p], spectrum, ""
    most = min(p, described.n_samples)  # of fewer rows than components the other eigenvalues are zero
    if on_moments:
        pairs = solve.top_eigenpairs(described.moments, most, tol=_SOLVER_TOL, backend="cpu")
    else:
        work = 4.0 * described.n_samples * described.d * (p + 10) * _SOLVER_PASSES
        if effort.passes < _ENOUGH_PASSES and work > _FREE_FLOPS:
            reason = f"the eigenvalues take some {_SOLVER_PASSES} passes over the rows, and the training took "
            return None, None, reason + f"{effort.passes:.3g}"
        pairs = solve.top_eigenpairs(
            described.source,
            most,
            tol=_ROWS_TOL,
            sample_weight=described.weights,
            center=described.center,
            backend=backend,
        )
    if not pairs.converged.all():
        return None, None, "the eigenvalues have not converged"
    values = np.zeros(p)
    values[: len(pairs.values)] = np.maximum(pairs.values, 0.0) * described.factor
    return values, None, ""


def _vae_optimum(described: Any, target: Any, values: np.ndarray, scale: str) -> Optimum:
    """docs/math.md Eq. 20; at zero weights e = 0 and s^2 = 1, where training starts."""
    p, d, trace = len(values), described.d, described.yy_trace
    noise = (trace - float(values.sum())) / max(d - p, 1)
    if scale != "mean" or p == d or noise <= 1e-12 * trace or values[-1] <= noise:
        reason = "the likelihood has a minimum only at scale='mean' and where components leave some variance"
        return _unknown(values, target, described.largest, None, reason)
    minimum = 0.5 * (d * np.log(2.0 * np.pi) + np.sum(np.log(values)) + (d - p) * np.log(noise) + d)
    at_zero = 0.5 * (trace + d * np.log(2.0 * np.pi))
    ratios = values / noise
    # What the bound loses when a component is left to the noise.
    share = 0.5 * float(np.min(ratios - 1.0 - np.log(ratios)))
    return Optimum(
        values, target, float(minimum), float(at_zero), share, np.zeros(p, bool), described.largest, None, ""
    )


def assess(described: Problem, optimum: Optimum, promised: Promise, weights: Weights, tol: float) -> Assessment:
    """Measure a model against the optimum.

    tol : of the run; see docs/math.md Eq. 48 for what it allows
    """
    encoder, decoder = weights.encoder.astype(np.float64), weights.decoder.astype(np.float64)
    p = len(encoder)
    # By the largest entry first: the squares of a component that a penalty has shrunk to nothing would underflow.
    sizes = np.abs(decoder).max(axis=1)
    unit = decoder / np.where(sizes > 0.0, sizes, 1.0)[:, None]
    norms = np.sqrt(np.einsum("ij,ij->i", unit, unit))
    unit /= np.where(norms > 0.0, norms, 1.0)[:, None]
    lengths = sizes * norms
    zb, images, zxy = _products(described, encoder, unit)
    if optimum.spectrum is not None:
        vectors = optimum.spectrum.vectors
        images = ((unit @ vectors) * optimum.spectrum.values) @ vectors.T
    quotients = np.einsum("ij,ij->i", images, unit)
    known = (lengths > 0.0) & (quotients > 0.0) & (described.same or optimum.spectrum is not None)
    # A component that is zero at the optimum has no direction once it is as small as tol asks.
    sizes = lengths**2 * np.einsum("ij,ij->i", zb, encoder)
    known &= ~(optimum.removed & (sizes <= tol * optimum.share))
    residuals = np.full(p, np.nan)
    off = images - quotients[:, None] * unit
    residuals[known] = np.sqrt(np.einsum("ij,ij->i", off, off))[known] / quotients[known]
    if optimum.reason:
        excess = np.nan
    else:
        value = _value(described, optimum.loss, Weights(encoder, decoder, weights.extra), zb, zxy)
        excess = (value - optimum.minimum) / (optimum.at_zero - optimum.minimum)
    lacking = _lacking(described, optimum, promised, _Measured(excess, residuals, quotients), tol)
    if optimum.reason and not lacking:
        lacking = _unlearned(zb @ encoder.T, decoder @ decoder.T, described, tol)
    return Assessment(float(excess), residuals, optimum.reason, lacking)


def _unlearned(latent: np.ndarray, outer: np.ndarray, described: Any, tol: float) -> str:
    """Where the optimum is not known, a component that contributes next to nothing may be one that is not learned."""
    values = np.linalg.eigvals(outer @ latent).real  # the variances of the map A B
    few = int(np.count_nonzero(values <= tol * described.yy_trace))
    if not few or not described.largest:
        return ""
    return f"{few} of {len(values)} components are near zero, and without the optimum it is not known whether they stay"


def _products(described: Any, encoder: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B Sxx, unit rows times Sxx for Y = X, B Sxy), float64 on moments; on rows of the precision of a pass."""
    if isinstance(described, MomentProblem):
        moments, factor = described.moments, described.factor
        with serial_blas():
            zb = (encoder @ moments.xx) * factor
            if described.same:
                return zb, (unit @ moments.xx) * factor, zb
            return zb, np.zeros_like(unit), (encoder @ moments.xy) * factor
    panels = described.operator.panels
    found = described.products(panels.place(encoder), panels.place(unit))
    zb, za, zxy = (np.asarray(panels.fetch(part), dtype=np.float64) for part in found)
    return zb, (za if described.same else np.zeros_like(unit)), zxy


def _value(described: Problem, loss: losses.Loss, weights: Weights, zb: np.ndarray, zxy: np.ndarray) -> float:
    """The loss at these weights  (docs/math.md Eq. 5, 11)."""
    encoder, decoder, extra = weights
    latent, outer = zb @ encoder.T, decoder @ decoder.T
    latent = (latent + latent.T) * 0.5
    cross = np.einsum("ij,ij->i", zxy, decoder)
    if extra is None:
        return _family.family_value(
            loss, yy_trace=described.yy_trace, cross=cross, gram_decoder=outer, gram_latent=latent,
            gram_encoder=encoder @ encoder.T,
        )  # fmt: skip
    spread, noise = np.exp(extra[:-1]), float(np.exp(extra[-1]))
    error = float(spread @ np.diagonal(outer) + np.sum(outer * latent) - 2.0 * cross.sum() + described.yy_trace)
    fit = error / (2.0 * noise) + 0.5 * described.d * np.log(2.0 * np.pi * noise)
    return float(fit + 0.5 * np.sum(np.diagonal(latent) - extra[:-1] - 1.0 + spread))


def _lacking(described: Problem, optimum: Optimum, promised: Promise, measured: _Measured, tol: float) -> str:
    """What is not within docs/math.md Eq. 48: the loss, a direction, its place; empty if all is, as far as is known."""
    found = []
    excess, residuals, quotients = measured
    tol, eps = min(tol, 0.1), float(np.finfo(described.dtype).eps)
    allowed = allowance(described, optimum, tol, eps)
    if excess > allowed:
        found.append(f"excess_loss_ is {excess:.2g}, where tol allows {allowed:.2g}")
    largest = optimum.largest
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        limits = np.maximum(_DIRECTIONS * np.sqrt(tol), 8.0 * eps * largest / quotients)
        if promised.directions:
            late = np.flatnonzero(residuals > limits)
            if late.size:
                worst = int(late[np.argmax(residuals[late] / limits[late])])
                found.append(
                    f"{late.size} of {len(residuals)} directions are no eigenvectors yet, the worst is component "
                    f"{worst} (counting from 0) with alignment_residuals_[{worst}] = {residuals[worst]:.2g}, where tol "
                    f"allows {limits[worst]:.2g}"
                )
            elif promised.order and np.isfinite(optimum.values).all():
                off = np.abs(quotients - optimum.values) - (residuals + limits) * quotients
                out = np.flatnonzero(np.isfinite(residuals) & (off > 8.0 * eps * largest))
                if out.size:
                    found.append(
                        f"component {int(out[0])} (counting from 0) is an eigenvector, but not the one of its place"
                    )
    return "; ".join(found)


def allowance(described: Problem, optimum: Optimum, tol: float, eps: float) -> float:
    """The largest excess that counts as none  (docs/math.md Eq. 48).

    tol of the share of the smallest component; what is left where every component is as exact as rounding lets it be
    (eps : of the compute dtype); and the rounding of the loss itself, which on rows is that of a pass.
    """
    if optimum.reason:
        return np.inf
    span = optimum.at_zero - optimum.minimum
    values = optimum.values
    with np.errstate(divide="ignore"):
        relative = np.minimum(np.where(values > 0.0, 8.0 * eps * optimum.largest / values, 1.0), 1.0)
    if optimum.loss.name == "vae":
        left = float(np.sum(relative**2))
        scale = abs(optimum.at_zero) + abs(optimum.minimum)
    else:
        # Of equal eigenvalues an error of first order remains: rounding of S decides which directions they have.
        left = float(np.sum(optimum.loss.prefix(len(values)) * (relative**2 + eps) * values))
        scale = abs(optimum.at_zero)
    measured = 64.0 * float(np.finfo(np.float64).eps)
    if isinstance(described, RowProblem):
        measured = 8.0 * max(float(np.finfo(described.operator.dtype).eps), _ROWS_TOL**2)
    return (tol * optimum.share + left + measured * scale) / span
