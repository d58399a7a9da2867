"""What the choices of a number of components take and give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from .. import validation
from ..eigen.eigenpairs import Eigenpairs
from ..eigen.solve import top_eigenpairs
from ..operators.moments import Moments


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All variances along principal axes, and what else a choice of their number needs.

    Attributes
    ----------
    variances : (r,) float64, descending, denominator n_samples - 1; those beyond r are zero
    n_samples : float > 1, rows, or the sum of their weights
    feature_variances : (d,) float64, of each feature, the same denominator; all ones stand for unit variance
    standardize : the variances are those of features scaled to unit variance

    Raises
    ------
    ValueError, TypeError
        Arrays that are empty, not finite, negative or not descending; more variances than features; too few samples.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> spectrum = selection.Spectrum(np.array([6.0, 3.0, 1.0]), n_samples=100.0, feature_variances=np.ones(5))
    >>> spectrum.rank, spectrum.explained_variance_ratio_
    (5, array([0.6, 0.3, 0.1]))

    From rows, of which one feature is constant:

    >>> from lae_fast import top_eigenpairs
    >>> X = np.array([[0.0, 1.0, 7.0], [2.0, 0.0, 7.0], [1.0, 5.0, 7.0], [3.0, 2.0, 7.0]])
    >>> spectrum = selection.Spectrum.of_eigenpairs(top_eigenpairs(X, 3))
    >>> spectrum.n_varying, spectrum.rank
    (2, 2)
    """

    variances: np.ndarray
    n_samples: float
    feature_variances: np.ndarray
    standardize: bool = False

    def __post_init__(self) -> None:
        for name in ("variances", "feature_variances"):
            array = validation.check_vector(getattr(self, name), name)
            if (array < 0.0).any():
                raise ValueError(f"{name}[{int(array.argmin())}]={array.min()} is negative: variances are not.")
            object.__setattr__(self, name, array)
        if (np.diff(self.variances) > 0.0).any():
            raise ValueError("variances must descend: pass explained_variance_, or np.sort(variances)[::-1].")
        if self.variances.size > self.feature_variances.size:
            raise ValueError(
                f"variances has {self.variances.size} entries and feature_variances {self.feature_variances.size}: "
                "there are at most as many variances as features."
            )
        validation.check_real(self.n_samples, "n_samples", above=1.0, below=float("inf"))
        validation.check_bool(self.standardize, "standardize")

    @property
    def n_varying(self) -> int:
        """Features that are not constant."""
        return int(np.count_nonzero(self.feature_variances))

    @property
    def rank(self) -> int:
        """How many variances noise alone would make positive, min(n_samples - 1, features that vary)."""
        return min(int(self.n_samples - 1.0), self.n_varying)

    @property
    def explained_variance_ratio_(self) -> np.ndarray:
        """(r,) shares of the total, as of an estimator."""
        total = float(self.variances.sum())
        return self.variances / total if total > 0.0 else np.zeros_like(self.variances)

    @classmethod
    def of_eigenpairs(cls, pairs: Eigenpairs, standardize: bool = False) -> Spectrum:
        """Of all eigenpairs of rows or moments."""
        if not validation.leaves_a_denominator(pairs.weight_sum):
            raise ValueError(f"Variances need a weight sum above 1, but it is {pairs.weight_sum:g}: add samples.")
        denominator = pairs.weight_sum - 1.0
        features = cast(np.ndarray, pairs.variances) / denominator
        if standardize:
            features = (features > 0.0).astype(np.float64)
        return cls(np.maximum(pairs.values, 0.0) / denominator, pairs.weight_sum, features, standardize)


@dataclass(frozen=True, eq=False)
class Choice:
    """A number of components, and what it was chosen by.

    Attributes
    ----------
    method : "minka", "parallel", "gavish-donoho" or "cross-validated"
    n_components : int >= 0
    thresholds : (r,) variances that components had to exceed, or None where there are none such
    errors : (r + 1,) mean squared error of an entry held out, for 0, 1, ... components, or None

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> spectrum = selection.Spectrum(np.array([6.0, 3.0, 0.6, 0.5, 0.4]), 100.0, np.ones(5))
    >>> choice = selection.minka(spectrum)
    >>> choice.method, choice.n_components, choice.thresholds
    ('minka', 2, None)
    """

    method: str
    n_components: int
    thresholds: np.ndarray | None = None
    errors: np.ndarray | None = None

    def __repr__(self) -> str:
        return f"Choice({self.method!r}, n_components={self.n_components})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Choice):
            return NotImplemented
        mine, theirs = ((made.method, made.n_components, made.thresholds, made.errors) for made in (self, other))
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs))  # type: ignore[arg-type]  # texts and None too


def spectrum(
    data: Any,
    *,
    sample_weight: Any = None,
    standardize: bool = False,
    max_memory: Any = None,
    backend: str = "auto",
    progress: Any = False,
) -> Spectrum:
    """The whole spectrum of rows or moments, by the Gram route: it costs what `PCA()` with all components does.

    Parameters
    ----------
    data : anything that `PCA.fit` takes, or `Moments` about the mean
    sample_weight, standardize, max_memory, backend, progress : as of `top_eigenpairs`

    Returns
    -------
    Spectrum
        All variances, denominator n_samples - 1.

    Raises
    ------
    ValueError, TypeError, MemoryLimitError
        As `top_eigenpairs`; moments about zero.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> X = np.random.default_rng(0).standard_normal((200, 4)) * [8.0, 4.0, 2.0, 1.0]
    >>> found = selection.spectrum(X)
    >>> bool(np.allclose(found.variances.sum(), X.var(axis=0, ddof=1).sum()))
    True
    """
    validation.check_bool(standardize, "standardize")
    if isinstance(data, Moments) and not data.center:
        raise ValueError("data are moments about zero: gather them with center=True.")
    pairs = top_eigenpairs(
        data, None, sample_weight=sample_weight, standardize=standardize, max_memory=max_memory, backend=backend,
        progress=progress,
    )  # fmt: skip
    return Spectrum.of_eigenpairs(pairs, standardize)


def check_spectrum(spectrum: Any) -> Spectrum:
    """`spectrum`, which is one."""
    if not isinstance(spectrum, Spectrum):
        raise TypeError(
            f"spectrum is of the type {type(spectrum).__name__!r}: pass selection.spectrum(X), of the rows X or their "
            "moments."
        )
    return spectrum
