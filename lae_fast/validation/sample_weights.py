"""Checks of sample weights, and how many rows they count."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

# Weights whose sum exceeds one by less than this were meant to sum to one: float16 rounds that far.
_ONE_MARGIN = 2.0**-10
# How far rounding may move a whole weight sum, as a share of it.
_ROUNDED_WEIGHTS = 1e-9


def sample_weights(sample_weight: Any, n_samples: int | None) -> np.ndarray | None:
    """Frequency weights as float64 (n_samples,), or None.

    n_samples : None where rows come in blocks; then their number is compared at the end

    Raises
    ------
    ValueError
        Wrong length, negative, not finite, or all zero.
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, numbers.Real):
        if n_samples is None:
            raise ValueError(f"sample_weight={sample_weight!r} for rows that come in blocks: pass one weight per row.")
        sample_weight = np.full(n_samples, float(sample_weight))
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != ((weights.size if n_samples is None else n_samples),):
        raise ValueError(
            f"sample_weight has shape {weights.shape}, but X has {n_samples} samples: pass ({n_samples},)."
        )
    for wrong, what in ((~np.isfinite(weights), "contains NaN or inf"), (weights < 0, "must not be negative")):
        if wrong.any():
            raise ValueError(f"sample_weight {what}, first at row {int(np.argmax(wrong))} (counting from 0).")
    if weights.sum() == 0:
        raise ValueError("sample_weight is zero for every sample; at least one weight must be positive.")
    return weights


def rows_that_count(n_positive: int, weight_sum: float) -> int:
    """How many rows the data stand for: the whole part of the weight sum, and at least the rows of positive weight.

    So a whole weight counts as that many equal rows, and weights below one never count fewer rows than there are.
    """
    return max(int(n_positive), math.floor(weight_sum * (1.0 + _ROUNDED_WEIGHTS)))


def leaves_a_denominator(weight_sum: float, ddof: float = 1.0) -> bool:
    """Whether `weight_sum - ddof` is positive by more than the rounding of weights that sum to ddof."""
    return weight_sum > ddof * (1.0 + _ONE_MARGIN)


def check_weight_sum(weight_sum: float, n_positive: int, after: str = "") -> None:
    """Refuse weights whose sum leaves no denominator sum(w) - 1; `after` says what else made them small."""
    if leaves_a_denominator(weight_sum):
        return
    way = f": multiply them by {n_positive / weight_sum:g}" if n_positive > 1 else ""
    raise ValueError(
        f"sample_weight sums to {weight_sum:g}{after}; weights are frequencies, and the denominator sum(w) - 1 must be "
        f"positive: scale them so that they sum to the number of samples{way}."
    )


def few_weights_message(n_weights: int) -> str:
    """The message where rows that come in blocks turn out to be more than their weights."""
    return f"sample_weight has shape ({n_weights},), but X has more samples: pass one weight per row."
