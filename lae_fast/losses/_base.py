"""The base of all losses: what describes one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..validation import check_float_dtype, check_integer


@dataclass(frozen=True)
class Loss:
    """Base of all losses (docs/math.md Eq. 3): prefix weights 1 and no penalty, which is the mean squared error.

    Attributes
    ----------
    name : str
        The name users type.
    in_family : bool
        True if the loss is a function of the moments through `prefix`, `row_penalty` and `product_penalty`.
    needs_samples : bool
        True if moments are not enough (per-sample dropout).

    Examples
    --------
    >>> from lae_fast import losses
    >>> loss = losses.mixed_l2(0.5, w_sum=0.75, w_product=0.25)
    >>> loss.describe(), loss.in_family, loss.needs_samples
    ('mixed_l2(lam=0.5, w_sum=0.75, w_product=0.25)', True, False)
    >>> loss.prefix(3), loss.row_penalty(3), loss.product_penalty
    (array([1., 1., 1.]), array([0.375, 0.375, 0.375]), 0.125)
    >>> loss.breaks_rotation(3), losses.ordered().breaks_rotation(3)
    (False, True)
    """

    name: ClassVar[str] = ""
    in_family: ClassVar[bool] = True
    needs_samples: ClassVar[bool] = False

    def prefix(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return the prefix weights c.

        Parameters
        ----------
        p : int
            Latent width.
        dtype : float32 or float64

        Returns
        -------
        ndarray, shape (p,)
            c_1 >= ... >= c_p > 0, normal numbers of `dtype`.

        Raises
        ------
        ValueError
            If a weight would underflow in `dtype`, or a prior given as an array has another length than p.
        TypeError
            If the loss is not in the family, or dtype is neither float32 nor float64.
        """
        return np.ones(check_integer(p, "p", low=1), dtype=check_float_dtype(dtype))

    def row_penalty(self, p: int, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Return lam, shape (p,): the weight of |a_i|^2 + |b_i|^2, in the units of the chosen scale of the moments.

        Errors are those of `prefix`.
        """
        return np.zeros(check_integer(p, "p", low=1), dtype=check_float_dtype(dtype))

    @property
    def product_penalty(self) -> float:
        """lam_pi, the weight of |AB|_F^2, a float, in the units of the chosen scale of the moments."""
        return 0.0

    def breaks_rotation(self, p: int) -> bool:
        """Return True if the minimiser is unique up to the sign or scale of each component (ordered and aligned)."""
        c, lam = self.prefix(p), self.row_penalty(p)
        ordered_by_prefix = bool(np.all(np.diff(c) < 0))
        ordered_by_penalty = bool(np.all(np.diff(lam) > 0))
        return ordered_by_prefix or ordered_by_penalty

    def describe(self) -> str:
        """Return a one-line text such as ``sum_l2(lam=0.1)``."""
        inside = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
        return f"{self.name}({inside})"
