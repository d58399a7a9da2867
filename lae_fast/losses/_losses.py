"""Losses of linear autoencoders, as small frozen descriptions.

Every deterministic loss is one member of the prefix-weighted family (docs/math.md Eq. 5)

    L(A, B) = c_1 tr Syy - 2 tr(A D B Sxy) + tr((M o A'A) B Sxx B')
              + sum_i lam_i (|a_i|^2 + |b_i|^2) + lam_pi |AB|_F^2,        D = diag(c), M_ij = c_max(i,j)

and is described by three things: the prefix weights `prefix(p)` = c, the row penalties `row_penalty(p)` = lam and the
`product_penalty` = lam_pi.  Two losses are outside the family: `stochastic_nested_dropout` needs the samples, and
`vae` has parameters of its own.

Their base is in _base.py, their names are in _names.py, their values in _family.py, loops over data in the backends.
The classes are in lower case because users call them like functions: ``losses.sum_l2(0.1)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NoReturn

import numpy as np
from numpy.typing import DTypeLike

from ..validation import UNIT_TOLERANCE, check_float_dtype, check_integer, check_real, check_vector
from ._base import Loss
from ._priors import Prior, check_prior, geometric_prior


@dataclass(frozen=True)
class mse(Loss):
    """Squared error |Y - X B' A'|_F^2: c = 1, no penalty.  It finds the principal subspace, not the directions.

    Source: Baldi and Hornik 1989; Kunin et al. 2019, L; Oftadeh et al. 2020, Eq. 2.

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.mse().prefix(3), losses.mse().breaks_rotation(3)
    (array([1., 1., 1.]), False)
    """

    name: ClassVar[str] = "mse"


@dataclass(frozen=True)
class ordered(Loss):
    """Sum of the squared errors of all p prefixes of the latent units: c = (p, p-1, ..., 1).

    Its minimisers are the ordered principal directions themselves, up to the length of each.
    Source: Oftadeh et al. 2020, Eq. 1, 6, 7, 21.

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.ordered().prefix(3), losses.ordered().breaks_rotation(3)
    (array([3., 2., 1.]), True)
    """

    name: ClassVar[str] = "ordered"

    def prefix(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return (p, p-1, ..., 1), shape (p,)."""
        return np.arange(check_integer(p, "p", low=1), 0, -1).astype(check_float_dtype(dtype))


@dataclass(frozen=True)
class nested_dropout(Loss):
    """Expectation of nested dropout: c_i = P(b >= i).

    Parameters
    ----------
    prior : Prior, array of p probabilities, "geometric" or "uniform"; default geometric_prior(0.9)
        Distribution of the number of kept units.  The uniform prior gives the ordered loss divided by p.

    Raises
    ------
    ValueError, TypeError
        As `array_prior`; or an unknown name.

    Notes
    -----
    Source: Bao et al. 2020, Eq. 6, without its factor 1/2 (their published code has none either).

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.nested_dropout(losses.geometric_prior(0.5)).prefix(3)
    array([1.  , 0.5 , 0.25])
    """

    prior: Prior = field(default_factory=geometric_prior)
    name: ClassVar[str] = "nested_dropout"

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", check_prior(self.prior))

    def prefix(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return P(b >= i), shape (p,).

        Raises
        ------
        ValueError
            If a weight is under the smallest normal number of `dtype`.  Such a unit gets a gradient of exactly zero
            or of a few bits, so it would never be trained; clipping the weight would be another loss.
        """
        dtype = check_float_dtype(dtype)
        tail = self.prior.tail(p)
        tiny = float(np.finfo(dtype).tiny)
        if tail[-1] < tiny:
            first = int(np.argmax(tail < tiny)) + 1
            ways = "use the uniform prior, fewer components"
            if isinstance(self.prior, geometric_prior):
                ways += f", rho >= {tiny ** (1.0 / (p - 1)) + 5e-5:.4f}"
            if dtype == np.float32 and tail[-1] >= np.finfo(np.float64).tiny:
                ways += ", or float64 data"
            raise ValueError(
                f"the prior leaves units {first} to {p} with prefix weights under {tiny:.2g}, the smallest normal "
                f"{dtype} (the last is {tail[-1]:.2g}), so they would never be trained; {ways}"
            )
        return tail.astype(dtype)


@dataclass(frozen=True)
class stochastic_nested_dropout(Loss):
    """Nested dropout with one draw of the number b of kept units per SAMPLE; needs the samples, not the moments.

    Parameters
    ----------
    prior : Prior, array of p probabilities, "geometric" or "uniform"; default geometric_prior(0.9)

    Notes
    -----
    Source: Rippel et al. 2014; Bao et al. 2020, Sec. 5.  Its expectation is `expectation`.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import losses
    >>> loss = losses.stochastic_nested_dropout([0.5, 0.3, 0.2])
    >>> loss.sample(8, 3, np.random.default_rng(0))  # units that each of 8 rows keeps
    array([1, 2, 3, 3, 1, 1, 1, 1])
    >>> loss.expectation.prefix(3)
    array([1. , 0.5, 0.2])
    """

    prior: Prior = field(default_factory=geometric_prior)
    name: ClassVar[str] = "stochastic_nested_dropout"
    in_family: ClassVar[bool] = False
    needs_samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", check_prior(self.prior))

    @property
    def expectation(self) -> nested_dropout:
        """The deterministic loss `nested_dropout(prior)` that this one has as its mean."""
        return nested_dropout(self.prior)

    def sample(self, n_samples: int, p: int, random_state: np.random.Generator) -> np.ndarray:
        """Draw the number of kept units of each sample.

        Parameters
        ----------
        n_samples : int
        p : int
            Latent width.
        random_state : numpy.random.Generator

        Returns
        -------
        ndarray of int64, shape (n_samples,)
            Values in 1..p, P(value >= i) = c_i: the count of tails above one uniform number, which is exact however
            small the tail is.
        """
        tail = self.prior.tail(p)
        uniform = random_state.random(n_samples)
        # tail is non-increasing; searchsorted wants it rising.  The number of i with c_i > u is p - #(c_i <= u).
        return (len(tail) - np.searchsorted(tail[::-1], uniform, side="right")).astype(np.int64)

    def prefix(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Raise TypeError: a drawn mask is not a prefix weight; see `expectation`."""
        raise TypeError(
            "stochastic_nested_dropout draws a mask per sample and has no fixed prefix weights; "
            "use .expectation (nested_dropout with the same prior) on moments"
        )

    def breaks_rotation(self, p: int) -> bool:
        """Return True if its expectation orders and aligns the components."""
        return self.expectation.breaks_rotation(p)


@dataclass(frozen=True)
class sum_l2(Loss):
    """mse + lam (|A|_F^2 + |B|_F^2): weight decay on encoder and decoder.

    Parameters
    ----------
    lam : float >= 0
        In the units of the eigenvalues at the chosen scale: a component survives iff its eigenvalue exceeds lam.

    Raises
    ------
    ValueError, TypeError
        `lam` is negative, not finite, or no number.

    Notes
    -----
    Source: Kunin et al. 2019, L_sigma.  Its minimiser is determined up to one rotation of the latent space.

    Examples
    --------
    >>> from lae_fast import losses, theory
    >>> losses.sum_l2(0.5).row_penalty(3)
    array([0.5, 0.5, 0.5])
    >>> theory.shrinkage([4.0, 1.0, 0.4], losses.sum_l2(0.5))
    array([0.875, 0.5  , 0.   ])
    """

    lam: float
    name: ClassVar[str] = "sum_l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", check_real(self.lam, "lam", low=0, below=math.inf))

    def row_penalty(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return lam for every component, shape (p,)."""
        return np.full(check_integer(p, "p", low=1), self.lam, dtype=check_float_dtype(dtype))


@dataclass(frozen=True)
class nonuniform_l2(Loss):
    """mse + sum_i lam_i (|a_i|^2 + |b_i|^2) with 0 <= lam_1 < ... < lam_p: orders and aligns the components.

    Parameters
    ----------
    lams : sequence of float, shape (p,)
        Strictly increasing.  Component i survives iff its eigenvalue exceeds lam_i; the theorems ask for
        lam_p < l_p.

    Raises
    ------
    ValueError
        If they are negative, not finite, or not strictly increasing.

    Notes
    -----
    Source: Bao et al. 2020, Eq. 3.  Their published code squares the numbers it is given; here they are the lam_i of
    the equation.

    Examples
    --------
    >>> from lae_fast import losses
    >>> loss = losses.nonuniform_l2([0.1, 0.2, 0.3])
    >>> loss.row_penalty(3), loss.breaks_rotation(3)
    (array([0.1, 0.2, 0.3]), True)
    """

    lams: Sequence[float]
    name: ClassVar[str] = "nonuniform_l2"

    def __post_init__(self) -> None:
        array = check_vector(self.lams, "lams")
        if array[0] < 0:
            raise ValueError(f"lams must be non-negative, lams[0] is {array[0]}")
        bad = np.flatnonzero(np.diff(array) <= 0)
        if bad.size:
            i = int(bad[0])
            raise ValueError(
                f"lams must be strictly increasing, but lams[{i}] = {array[i]} and lams[{i + 1}] = {array[i + 1]}; "
                "for equal penalties use sum_l2(lam)"
            )
        object.__setattr__(self, "lams", tuple(array.tolist()))

    def row_penalty(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return (lam_1, ..., lam_p), shape (p,); ValueError if their number is not p."""
        p = check_integer(p, "p", low=1)
        if len(self.lams) != p:
            raise ValueError(f"lams has {len(self.lams)} entries but the latent width is p = {p}")
        return np.array(self.lams, dtype=check_float_dtype(dtype))


@dataclass(frozen=True)
class product_l2(Loss):
    """mse + lam |AB|_F^2: ridge on the product.  Shrinks, keeps the rank, and does not break the GL(p) symmetry.

    Parameters
    ----------
    lam : float >= 0
        In the units of the eigenvalues at the chosen scale.

    Raises
    ------
    ValueError, TypeError
        `lam` is negative, not finite, or no number.

    Notes
    -----
    Source: Kunin et al. 2019, L_pi.

    Examples
    --------
    >>> from lae_fast import losses, theory
    >>> losses.product_l2(0.5).product_penalty
    0.5
    >>> theory.shrinkage([4.5, 1.0, 0.5], losses.product_l2(0.5))
    array([0.9       , 0.66666667, 0.5       ])
    """

    lam: float
    name: ClassVar[str] = "product_l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", check_real(self.lam, "lam", low=0, below=math.inf))

    @property
    def product_penalty(self) -> float:
        """lam, a float."""
        return self.lam


@dataclass(frozen=True)
class mixed_l2(Loss):
    """w_sum L_sigma + w_product L_pi: the symmetry of the sum loss, rank kept while w_sum lam < l_p.

    Parameters
    ----------
    lam : float >= 0
        In the units of the eigenvalues at the chosen scale.
    w_sum, w_product : float >= 0
        They must sum to 1.

    Raises
    ------
    ValueError, TypeError
        A number is negative or not finite, or the two weights do not sum to 1.

    Notes
    -----
    Source: Petrevski, Sec. 4.2 ("synthetic loss").

    Examples
    --------
    >>> from lae_fast import losses
    >>> loss = losses.mixed_l2(2.0, w_sum=0.25, w_product=0.75)
    >>> loss.row_penalty(2), loss.product_penalty
    (array([0.5, 0.5]), 1.5)
    """

    lam: float
    w_sum: float
    w_product: float
    name: ClassVar[str] = "mixed_l2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", check_real(self.lam, "lam", low=0, below=math.inf))
        object.__setattr__(self, "w_sum", check_real(self.w_sum, "w_sum", low=0, below=math.inf))
        object.__setattr__(self, "w_product", check_real(self.w_product, "w_product", low=0, below=math.inf))
        total = self.w_sum + self.w_product
        if abs(total - 1.0) > UNIT_TOLERANCE:
            raise ValueError(
                f"w_sum + w_product must be 1, got {self.w_sum} + {self.w_product} = {total}; "
                "scale both, and put the strength in lam"
            )

    def row_penalty(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return w_sum * lam for every component, shape (p,)."""
        return np.full(check_integer(p, "p", low=1), self.w_sum * self.lam, dtype=check_float_dtype(dtype))

    @property
    def product_penalty(self) -> float:
        """w_product * lam, a float."""
        return self.w_product * self.lam


@dataclass(frozen=True)
class vae(Loss):
    """Negative evidence lower bound of the linear VAE with learned latent variances and noise (docs/math.md Eq. 11).

    Outside the family: it has two more parameters, the log latent variances (p,) and the log noise variance.
    Source: Lucas et al. 2019; Bao et al. 2020, Sec. 7.

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.vae().in_family, losses.vae().breaks_rotation(3)
    (False, False)
    >>> losses.vae().prefix(3)
    Traceback (most recent call last):
        ...
    TypeError: vae is not a prefix-weighted loss: it has no prefix weights and no penalties
    """

    name: ClassVar[str] = "vae"
    in_family: ClassVar[bool] = False

    def _refuse(self) -> NoReturn:
        raise TypeError("vae is not a prefix-weighted loss: it has no prefix weights and no penalties")

    def prefix(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Raise TypeError: the VAE is outside the prefix-weighted family, and has no (p,) prefix weights."""
        self._refuse()

    def row_penalty(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Raise TypeError: the VAE is outside the prefix-weighted family, and has no (p,) penalties."""
        self._refuse()

    @property
    def product_penalty(self) -> float:
        """Raise TypeError: the VAE is outside the prefix-weighted family."""
        self._refuse()

    def breaks_rotation(self, p: int) -> bool:
        """Return False: its minimiser is aligned, but in any order of the components."""
        return False
