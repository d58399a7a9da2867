"""The front door of every fit on rows: here they are counted, weighted and, where that saves a pass, gathered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import validation
from ..data import sources
from ..operators.counted_rows import CountedRows
from ..operators.moments import Moments
from ..operators.pilot import widen
from ..progress import Reporter
from .request import Options
from .uncounted_rows import first_moments


@dataclass(frozen=True)
class WeightedRows(CountedRows):
    """Rows that are open, counted and weighted.

    weights : (m,) float64 or None;  weight_sum : their sum, m without;  n_positive : rows of positive weight
    moments : of these rows, where they are known already, or None
    """

    source: sources.Source
    weights: np.ndarray | None
    weight_sum: float
    n_positive: int
    moments: Moments | None = None


def weighted_rows(
    source: sources.Source,
    p: Any,
    sample_weight: Any,
    options: Options,
    report: Reporter | None = None,
    moments: Moments | None = None,
) -> WeightedRows:
    """The rows of an open source with their weights, for p components under these options.

    p : number of components, for the cost model: anything but a number is taken for a guess
    moments : of these rows, center and weights, where they are known;  None: gathered in the pass that counts rows
        which come in blocks, where that pass is the Gram route (`first_moments`)

    Raises
    ------
    ValueError, MemoryLimitError
        Bad weights; rows that come once, and one pass will not do; features too far apart to be standardized.
    """
    if options.standardize:
        widen(source)
    if moments is None:
        moments = first_moments(source, p, sample_weight, options, report)
    m = source.shape[0]
    weights = validation.sample_weights(sample_weight, m)
    if weights is None:
        return WeightedRows(source, None, float(m), m, moments)
    return WeightedRows(source, weights, float(weights.sum()), int(np.count_nonzero(weights)), moments)
