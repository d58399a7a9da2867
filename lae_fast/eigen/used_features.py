"""Eigenpairs of a sparse matrix most of whose features are empty: found on the others, then put back in place.

An empty feature has mean and variance zero, so its entry of every eigenvector of a positive eigenvalue is zero.
Without the empty features, the cost of a nearly empty matrix goes with its stored entries.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..data.sources import Source, SparseSource
from .eigenpairs import ScaledEigenpairs
from .request import Request

# Renumbering all stored entries pays where at most this share of the features have any.
_MOST_USED = 0.5


def find(source: Source, request: Request) -> np.ndarray | None:
    """(k,) int64, the features with a stored entry, where it pays to solve on them alone; else None."""
    if not isinstance(source, SparseSource) or request.n_components is None:
        return None
    m, d = source.shape
    stored = source.nnz or 0
    if not stored or (m <= d and stored > m * d * _MOST_USED):
        return None
    used = source.used_features()
    enough = request.count is None or request.count <= min(m, used.size)
    return used if enough and 0 < used.size <= _MOST_USED * d else None


def smaller_request(request: Request, source: Source) -> Request:
    """The same request of a source with fewer features."""
    return dataclasses.replace(request, largest=min(request.largest, *source.shape))


def put_back(found: ScaledEigenpairs, features: np.ndarray, n_features: int) -> ScaledEigenpairs:
    """What was found on `features` (k,) alone, with zeros for the others of all `n_features`."""

    def spread(array: np.ndarray) -> np.ndarray:
        whole = np.zeros((n_features, *array.shape[1:]), array.dtype)
        whole[features] = array
        return whole

    reason = f"{found.reason}; {n_features - features.size} of {n_features} features are empty and were left out"
    return dataclasses.replace(
        found,
        vectors=spread(found.vectors),
        mean=None if found.mean is None else spread(found.mean),
        variances=None if found.variances is None else spread(found.variances),
        location=None if found.location is None else spread(found.location),
        reason=reason,
    )
