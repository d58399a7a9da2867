"""The fitted attributes of the PCA estimators, from eigenpairs; one dictionary: an estimator changes at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import host_panels
from ..data import sources
from ..eigen import dense, em, minka
from ..eigen.eigenpairs import Eigenpairs, held
from ..operators import remainder, rows
from ..operators.moments import Moments


@dataclass(frozen=True)
class Left:
    """How to know what some components leave of the trace.

    measure : components (p, d) -> what they leave;  n_passes : over the data that it takes
    squared : it is known from squared data alone, which have lost what rows still hold
    """

    measure: Callable[[np.ndarray], float]
    n_passes: int = 0
    squared: bool = False


def left_of_rows(
    source: sources.Source,
    pairs: Eigenpairs,
    weights: np.ndarray | None,
    standardize: bool,
    max_memory: int | None = None,
) -> Left:
    """By one more pass over the rows that the eigenpairs are of."""
    inverse = rows.inverse_deviations(pairs.variances, pairs.weight_sum) if standardize else None

    def measure(components: np.ndarray) -> float:
        return remainder.of_rows(source, pairs.mean, components, weights, inverse, pairs.backend, max_memory)

    return Left(measure, n_passes=1)


def left_of_moments(moments: Moments, standardize: bool) -> Left:
    """From the moments that the eigenpairs are of."""

    def measure(components: np.ndarray) -> float:
        operator = dense.of_moments(moments, standardize, host_panels)
        roughest = np.dtype(np.float32) if moments.float32_run else moments.dtype
        return remainder.of_moments(operator.matrix, components, roughest) / operator.scale**2

    return Left(measure, squared=True)


def of_pairs(
    pairs: Eigenpairs,
    asked: Any,
    n_samples: int,
    n_counted: int,
    left: Left | None = None,
    *,
    standardize: bool = False,
) -> dict[str, Any]:
    """Fitted attributes by name.

    pairs : at least as many as were asked for;  asked : their number, a fraction (all of them), or "mle"
    n_samples : rows seen;  n_counted : rows that count (`validation.rows_that_count`), which bound the rank
    left : for noise_variance_, where the trace less the values is nothing but rounding;  None: there is only that
    """
    denominator = pairs.weight_sum - 1.0
    dtype = pairs.vectors.dtype
    variances = pairs.values / denominator
    if asked == "mle":
        p = minka.minka_dimension(variances, pairs.weight_sum)
    else:
        p = int(asked) if isinstance(asked, int) else pairs.values.size
    trace = max(pairs.trace, 0.0)
    components = np.ascontiguousarray(pairs.vectors.T[:p])
    rest, passes = _rest(components, trace, pairs.values[:p], n_counted, left)
    variance = held(variances[:p], dtype)
    mean = np.asarray(pairs.mean, dtype=np.float64)
    scale = held(1.0 / rows.inverse_deviations(pairs.variances, pairs.weight_sum), dtype) if standardize else None
    return {
        "components_": components,
        "explained_variance_": variance,
        "explained_variance_ratio_": (pairs.values[:p] / trace if trace > 0 else np.zeros(p)).astype(dtype),
        "singular_values_": held(np.sqrt(pairs.values[:p]), dtype),
        "noise_variance_": rest / denominator,
        "_rounding": remainder.share_of_rounding(dtype, left is not None and left.squared),
        "_exact_mean": mean,
        "mean_": mean.astype(dtype),
        "scale_": scale,
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
    }


def _rest(
    components: np.ndarray, trace: float, values: np.ndarray, n_counted: int, left: Left | None
) -> tuple[float, int]:
    """Mean of the values that are left out, scale "sum", and the passes over the data that it took."""
    p, d = components.shape
    rank = min(n_counted, d)
    if p >= rank:
        return 0.0, 0
    rest = max(trace - float(values.sum()), 0.0)
    if left is None or not remainder.is_lost(rest, trace, components.dtype):
        return rest / (rank - p), 0
    return left.measure(components) / (rank - p), left.n_passes


def of_missing(model: em.Model, weight_sum: float) -> dict[str, Any]:
    """What is kept of EM, beside the eigenpairs: its noise too, which is over all features that components leave."""
    unbiased = weight_sum / (weight_sum - 1.0)  # maximum likelihood divides by the weight sum
    return {
        "_missing_model": (model.mean, model.loadings * np.sqrt(unbiased), model.noise * unbiased),
        "noise_variance_": model.noise * unbiased,
        "log_likelihood_": np.array(model.log_likelihood),
    }
