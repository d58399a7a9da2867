"""Distributions of the number of kept units in nested dropout (docs/math.md Eq. 3; Rippel et al. 2014).

The classes are in lower case, like the losses that take them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..validation import UNIT_TOLERANCE, check_integer, check_real, check_vector


@dataclass(frozen=True)
class Prior:
    """Distribution of the number b of kept latent units in nested dropout, b = 1..p (Rippel et al. 2014).

    Subclasses give the tail P(b >= i), which is what every formula needs and what can be computed without
    cancellation; one minus a running sum of probabilities would lose all accuracy in the tail.

    Examples
    --------
    >>> from lae_fast import losses
    >>> prior = losses.array_prior([0.5, 0.25, 0.25])
    >>> prior.probabilities(3), prior.tail(3)
    (array([0.5 , 0.25, 0.25]), array([1.  , 0.5 , 0.25]))
    """

    def tail(self, p: int) -> np.ndarray:
        """Return P(b >= i) for i = 1..p, shape (p,), float64, non-increasing, first entry exactly 1."""
        raise TypeError(f"{type(self).__name__} is a base class: a prior defines tail(p)")

    def probabilities(self, p: int) -> np.ndarray:
        """Return P(b = i) for i = 1..p, shape (p,), float64; they sum to 1."""
        tail = self.tail(p)
        return tail - np.append(tail[1:], 0.0)


@dataclass(frozen=True)
class geometric_prior(Prior):
    """P(b = i) = rho^(i-1) (1 - rho) for i < p, and what is left, rho^(p-1), on b = p; so P(b >= i) = rho^(i-1).

    Parameters
    ----------
    rho : float in (0, 1), default 0.9
        Probability of keeping one more unit.  0.9 is the value of the experiments of Bao et al. 2020.

    Notes
    -----
    With rho = 0.9 the weights fall under the smallest normal float32 from about p = 830 on, see
    `nested_dropout.prefix`.

    Examples
    --------
    >>> from lae_fast import losses
    >>> prior = losses.geometric_prior(0.5)
    >>> prior.probabilities(4), prior.tail(4)
    (array([0.5  , 0.25 , 0.125, 0.125]), array([1.   , 0.5  , 0.25 , 0.125]))
    """

    rho: float = 0.9

    def __post_init__(self) -> None:
        object.__setattr__(self, "rho", check_real(self.rho, "rho", above=0, below=1))

    def tail(self, p: int) -> np.ndarray:
        """Return rho^(i-1), shape (p,), float64, as exact powers (no running sums)."""
        return self.rho ** np.arange(check_integer(p, "p", low=1), dtype=np.float64)

    def probabilities(self, p: int) -> np.ndarray:
        """Return P(b = i), shape (p,), float64, from the closed form: differences of tails would round."""
        tail = self.tail(p)
        probabilities = tail * (1.0 - self.rho)
        probabilities[-1] = tail[-1]
        return probabilities


@dataclass(frozen=True)
class uniform_prior(Prior):
    """P(b = i) = 1/p, so P(b >= i) = (p - i + 1)/p: the ordered loss divided by p (Oftadeh et al. 2020).

    Examples
    --------
    >>> from lae_fast import losses
    >>> prior = losses.uniform_prior()
    >>> prior.probabilities(4), prior.tail(4)
    (array([0.25, 0.25, 0.25, 0.25]), array([1.  , 0.75, 0.5 , 0.25]))
    """

    def tail(self, p: int) -> np.ndarray:
        """Return (p - i + 1)/p, shape (p,), float64."""
        p = check_integer(p, "p", low=1)
        return np.arange(p, 0, -1, dtype=np.float64) / p

    def probabilities(self, p: int) -> np.ndarray:
        """Return 1/p, shape (p,), float64."""
        p = check_integer(p, "p", low=1)
        return np.full(p, 1.0 / p)


@dataclass(frozen=True)
class array_prior(Prior):
    """A prior given by its p probabilities (Rippel et al. 2014).

    Parameters
    ----------
    probabilities_ : sequence of float, shape (p,)
        P(b = 1), ..., P(b = p): non-negative, sum 1 (to 1e-6, then rescaled), the last one positive, because a unit
        that is never kept is never trained.  A zero before the last place is allowed but leaves two neighbouring
        units with equal weight, and then only the plane they span is determined.

    Raises
    ------
    ValueError
        If an entry is negative or not finite, the sum is not 1, or the last entry is zero.
    TypeError
        If the entries are not real numbers.

    Examples
    --------
    >>> from lae_fast import losses
    >>> prior = losses.array_prior([0.5, 0.0, 0.5])
    >>> prior.tail(3)  # units 2 and 3 have equal weight: only their plane is determined
    array([1. , 0.5, 0.5])
    >>> losses.array_prior([0.5, 0.5, 0.5])
    Traceback (most recent call last):
        ...
    ValueError: prior must sum to 1, got 1.5; divide it by its sum
    """

    probabilities_: tuple[float, ...]

    def __post_init__(self) -> None:
        array = check_vector(self.probabilities_, "prior")
        negative = np.flatnonzero(array < 0)
        if negative.size:
            raise ValueError(f"prior[{negative[0]}] is negative: {array[negative[0]]}; probabilities must be >= 0")
        total = float(array.sum())
        if abs(total - 1.0) > UNIT_TOLERANCE:
            raise ValueError(f"prior must sum to 1, got {total}; divide it by its sum")
        if array[-1] == 0.0:
            raise ValueError(
                "the last entry of prior is 0, so the last unit is never kept and never trained; "
                "give it a positive probability or lower n_components"
            )
        object.__setattr__(self, "probabilities_", tuple((array / total).tolist()))

    def _for_width(self, p: int) -> np.ndarray:
        p = check_integer(p, "p", low=1)
        if len(self.probabilities_) != p:
            raise ValueError(f"prior has {len(self.probabilities_)} entries but the latent width is p = {p}")
        return np.array(self.probabilities_)

    def tail(self, p: int) -> np.ndarray:
        """Return P(b >= i), shape (p,), float64, summed from the far end so that small tails keep their digits."""
        tail = np.cumsum(self._for_width(p)[::-1])[::-1].copy()
        tail[0] = 1.0
        return np.minimum(tail, 1.0)

    def probabilities(self, p: int) -> np.ndarray:
        """Return the probabilities, shape (p,), float64."""
        return self._for_width(p)


def check_prior(prior: Any) -> Prior:
    """Return `prior` as a Prior: a Prior as it is, the name of a parameter-free one, or an array of probabilities."""
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, str):
        if prior == "geometric":
            return geometric_prior()
        if prior == "uniform":
            return uniform_prior()
        raise ValueError(
            f"prior={prior!r} is unknown; choose one of 'geometric', 'uniform', geometric_prior(rho), uniform_prior(), "
            "or an array of p probabilities."
        )
    return array_prior(prior)
