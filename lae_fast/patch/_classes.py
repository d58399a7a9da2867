"""The classes that stand in for scikit-learn's: ours, which say once for each option what it does not do here."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

from ..errors import user_level
from ..estimators import incremental_pca, pca, truncated_svd

# (class, option) of which it has been told.
told: set[tuple[str, str]] = set()

_IS_TOL = "is no option of lae_fast: it stops on tol, the largest residual (0.0: as far as the dtype goes)"
_ROUTE = "is mapped to the route {route!r}, which is exact to tol; solver_ and route_reason_ say what was done"
_MEANS = {
    "svd_solver": _ROUTE,
    "algorithm": _ROUTE,
    "iterated_power": _IS_TOL,
    "n_iter": _IS_TOL,
    "power_iteration_normalizer": "has no effect: blocks are orthonormalised in every step",
    "tol": "is the largest relative residual of a component on every route, not a tolerance of ARPACK's",
    "batch_size": "has no effect: rows are read in chunks of lae_fast's own, and no result depends on them",
}


class PatchWarning(UserWarning):
    """An option of a patched scikit-learn class means something else in lae_fast, or nothing."""


class _Telling:
    """Tells of the options that are not at scikit-learn's defaults and are not what they are there."""

    _defaults: ClassVar[dict[str, Any]]  # scikit-learn's, of the options that are told of
    _routes: ClassVar[dict[str, str]] = {}

    def _check_parameters(self) -> Any:
        checked = super()._check_parameters()  # type: ignore[misc]  # of the estimator beside it
        name = type(self).__name__
        for option, default in self._defaults.items():
            value = getattr(self, option)
            if value == default or (name, option) in told:
                continue
            told.add((name, option))
            means = _MEANS[option].format(route=self._routes.get(value) if isinstance(value, str) else None)
            warnings.warn(
                f"sklearn.decomposition.{name} is lae_fast.{name} here: {option}={value!r} {means}. Told once.",
                PatchWarning,
                stacklevel=user_level(),
            )
        return checked


class PCA(_Telling, pca.PCA):
    """`lae_fast.PCA` in the place of scikit-learn's."""

    _defaults: ClassVar = {
        "svd_solver": "auto",
        "tol": 0.0,
        "iterated_power": "auto",
        "power_iteration_normalizer": "auto",
    }
    _routes: ClassVar = pca._ROUTES


class IncrementalPCA(_Telling, incremental_pca.IncrementalPCA):
    """`lae_fast.IncrementalPCA` in the place of scikit-learn's."""

    _defaults: ClassVar = {"batch_size": None}


class TruncatedSVD(_Telling, truncated_svd.TruncatedSVD):
    """`lae_fast.TruncatedSVD` in the place of scikit-learn's, whose default algorithm is "randomized"."""

    _defaults: ClassVar = {"algorithm": "auto", "n_iter": 5, "tol": 0.0, "power_iteration_normalizer": "auto"}
    _routes: ClassVar = truncated_svd._ROUTES
