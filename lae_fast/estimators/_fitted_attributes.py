"""The fitted attributes of PCA and IncrementalPCA, made of eigenpairs: one dictionary, so that all change at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..backends import host_panels
from ..data import sources
from ..eigen import dense, em
from ..eigen.eigenpairs import Eigenpairs, held
from ..operators import remainder
from ..operators.dense import inverse_deviations
from ..operators.moments import Moments
from ..selection import Spectrum, chosen


@dataclass(frozen=True)
class LeftOut:
    """How to measure the variance that components leave out, where the trace less the values is only rounding.

    measure : components (p, d) -> what they leave of the trace;  n_passes : over the data that it takes
    squared : it is known from squared data alone, which have lost what rows still hold
    """

    measure: Callable[[np.ndarray], float]
    n_passes: int = 0
    squared: bool = False


def left_out_of_rows(
    source: sources.Source, pairs: Eigenpairs, weights: np.ndarray | None, standardize: bool, max_memory: int | None
) -> LeftOut:
    """By one more pass over the rows that the eigenpairs are of."""
    inverse = _inverse_deviations(pairs) if standardize else None
    mean = cast(np.ndarray, pairs.mean)  # which eigenpairs of rows have

    def measure(components: np.ndarray) -> float:
        return remainder.of_rows(source, mean, components, weights, inverse, pairs.backend, max_memory)

    return LeftOut(measure, n_passes=1)


def left_out_of_moments(moments: Moments, standardize: bool) -> LeftOut:
    """From the moments that the eigenpairs are of."""

    def measure(components: np.ndarray) -> float:
        operator = dense.of_moments(moments, standardize, host_panels)
        roughest = np.dtype(np.float32) if moments.float32_run else moments.dtype
        return remainder.of_moments(operator.matrix, components, roughest) / operator.scale**2

    return LeftOut(measure, squared=True)


def from_eigenpairs(
    pairs: Eigenpairs,
    asked: Any,
    n_samples: int,
    n_counted: int,
    left_out: LeftOut | None = None,
    *,
    standardize: bool = False,
    random_state: Any = None,
) -> dict[str, Any]:
    """Fitted attributes by name.

    pairs : of rows or moments, at least as many as were asked for
    asked : how many components, as an int; a fraction of the variance, or a name (all pairs)
    n_samples : rows seen;  n_counted : rows that count (`validation.rows_that_count`), which bound the rank
    random_state : of the draws of "parallel"
    left_out : for noise_variance_;  None: from the trace less the values alone
    """
    denominator = pairs.weight_sum - 1.0
    dtype = pairs.vectors.dtype
    variances, choice = pairs.values / denominator, None
    if isinstance(asked, str):
        choice = chosen(asked, Spectrum.of_eigenpairs(pairs, standardize), random_state)
        p = choice.n_components
    else:
        p = int(asked) if isinstance(asked, int) else pairs.values.size
    trace = max(pairs.trace, 0.0)
    components = np.ascontiguousarray(pairs.vectors.T[:p])
    rest, passes = _mean_left_out(components, trace, pairs.values[:p], n_counted, left_out)
    variance = held(variances[:p], dtype)
    mean = np.asarray(pairs.mean, dtype=np.float64)
    return {
        "components_": components,
        "explained_variance_": variance,
        "explained_variance_ratio_": (pairs.values[:p] / trace if trace > 0 else np.zeros(p)).astype(dtype),
        "singular_values_": held(np.sqrt(pairs.values[:p]), dtype),
        "noise_variance_": rest / denominator,
        "_rounding": remainder.share_of_rounding(dtype, left_out is not None and left_out.squared),
        "_exact_mean": mean,
        "mean_": mean.astype(dtype),
        "scale_": held(1.0 / _inverse_deviations(pairs), dtype) if standardize else None,
        "n_components_": p,
        "n_samples_": n_samples,
        # a bound for the variances as they are returned: half a unit in the last place off
        "residuals_": pairs.residuals[:p] + np.finfo(variance.dtype).eps / 2,
        "converged_": pairs.converged[:p],
        "solver_": pairs.solver,
        "backend_": pairs.backend,
        "route_reason_": pairs.reason,
        "n_passes_": pairs.n_passes + passes,
        "workspace_bytes_": pairs.workspace_bytes,
    } | ({} if choice is None else {"choice_": choice})


def from_em(model: em.Model, source: sources.Source, weight_sum: float, n_counted: int) -> dict[str, Any]:
    """Fitted attributes by name, of the model that EM found; its noise is over all features that components leave."""
    p = model.values.size
    unbiased = weight_sum / (weight_sum - 1.0)  # maximum likelihood divides by the weight sum
    signs = np.sign(model.vectors[np.abs(model.vectors).argmax(axis=0), np.arange(p)])
    pairs = Eigenpairs(
        values=model.values * weight_sum,  # scale "sum", as if nothing were missing
        vectors=np.ascontiguousarray(model.vectors * signs, dtype=source.compute_dtype),
        residuals=np.full(p, np.nan),
        converged=np.full(p, model.converged),
        solver="em",
        reason="missing='em': maximum likelihood of the observed entries",
        n_passes=len(model.log_likelihood) + 1,
        workspace_bytes=3 * 8 * source.n_features**2,
        trace=model.trace * weight_sum,
        mean=model.mean,
        variances=None,
        weight_sum=weight_sum,
    )
    return from_eigenpairs(pairs, p, source.shape[0], n_counted) | {
        "_missing_model": (model.mean, model.loadings * np.sqrt(unbiased), model.noise * unbiased),
        "noise_variance_": model.noise * unbiased,
        "log_likelihood_": np.array(model.log_likelihood),
    }


def _inverse_deviations(pairs: Eigenpairs) -> np.ndarray:
    """(d,), of eigenpairs that know the variances of the features."""
    return inverse_deviations(cast(np.ndarray, pairs.variances), pairs.weight_sum)


def _mean_left_out(
    components: np.ndarray, trace: float, values: np.ndarray, n_counted: int, left_out: LeftOut | None
) -> tuple[float, int]:
    """Mean of the values that are left out, scale "sum", and the passes over the data that it took."""
    p, d = components.shape
    rank = min(n_counted, d)
    if p >= rank:
        return 0.0, 0
    rest = max(trace - float(values.sum()), 0.0)
    if left_out is None or not remainder.is_lost(rest, trace, components.dtype):
        return rest / (rank - p), 0
    return left_out.measure(components) / (rank - p), left_out.n_passes
