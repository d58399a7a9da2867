"""How many components: Minka's maximum-likelihood choice of the dimension."""

from __future__ import annotations

from math import lgamma, log, pi

import numpy as np

# Below this share of the largest a variance is no signal, and logarithms of it are noise.  scikit-learn takes the same
# number for a variance itself, so that its choice depends on the unit of the data.
_NO_VARIANCE = 1e-15


def minka_dimension(spectrum: np.ndarray, n_samples: float) -> int:
    """Number of components with the largest evidence, in [1, d - 1] (Minka, NIPS 2000), or 0 where d = 1.

    spectrum : (d,) all eigenvalues of the covariance, descending;  n_samples : the sum of weights, m without.
    O(d^2) time and memory.
    """
    d = spectrum.size
    if d < 2 or not spectrum[0] > 0:
        return 0
    spectrum = spectrum / spectrum[0]  # which of the ranks has the largest evidence does not depend on the unit
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(spectrum)
        upper = np.triu(np.ones((d, d), dtype=bool), 1)
        gaps = np.where(upper, np.log(spectrum[:, None] - spectrum[None, :]), 0.0)
        # over pairs i < j <= rank: log(1/l_j - 1/l_i) = log(l_i - l_j) - log l_i - log l_j
        inner = np.where(upper, gaps - logs[:, None] - logs[None, :], 0.0)
    all_gaps = np.cumsum(gaps.sum(axis=1))
    inner_gaps = np.cumsum(inner.sum(axis=0))
    tails = spectrum[::-1].cumsum()[::-1]
    evidence = np.full(d, -np.inf)
    volume = 0.0
    for rank in range(1, d):
        volume += lgamma((d - rank + 1) / 2.0) - log(pi) * (d - rank + 1) / 2.0
        if spectrum[rank - 1] < _NO_VARIANCE:
            continue
        noise = max(_NO_VARIANCE, float(tails[rank]) / (d - rank))
        n_parameters = d * rank - rank * (rank + 1.0) / 2.0
        with np.errstate(divide="ignore", invalid="ignore"):
            against_noise = (d - rank) * float(np.log(1.0 / noise - 1.0 / spectrum[:rank]).sum())
        hessian = float(all_gaps[rank - 1] + inner_gaps[rank - 1]) + against_noise + log(n_samples) * n_parameters
        evidence[rank] = (
            volume
            - rank * log(2.0)
            - (float(logs[:rank].sum()) + log(noise) * (d - rank)) * n_samples / 2.0
            + log(2.0 * pi) * (n_parameters + rank) / 2.0
            - hessian / 2.0
            - rank * log(n_samples) / 2.0
        )
    evidence[np.isnan(evidence)] = -np.inf
    return int(np.argmax(evidence))
