"""One table of tolerances per dtype and kind, each with its reason.  In tests: `tolerance("product", np.float32)`.

All are relative to the size of what is summed (the norm-wise or sum-of-absolute-values bound the test computes), so
that no tolerance has to be enlarged for one shape or one scale.
"""

from __future__ import annotations

import numpy as np

_EPS = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float64): 2.0**-52}

# In units of eps of the compute dtype.
_UNITS = {
    # one subtraction, one or two products and a square root, each correctly rounded
    "load": 4.0,
    # sums of at most 128 products in any order: sqrt(128) if errors are independent, and slack for short sums
    "product": 16.0,
    # two products one after the other (X'(X V)): their errors add
    "row_pass": 32.0,
    # float64 accumulators of values rounded to the compute dtype: the rounding of the value itself
    "statistic": 4.0,
    # promise 1 of the contract: |dl| <= 1e-5 l_i in float32 at any mean; tiles of 128 lines measure under 1e-6
    "eigenvalue": 40.0,
    # the ordinary error of a second moment over hundreds of rows, relative to sqrt(S_ii S_jj)
    "moment": 16.0,
    # merging only adds float64 numbers: a handful of roundings per merge, relative to the total
    "merge": 64.0,
    # columns of vectors stored in the dtype: U'U = I to a few roundings of unit vectors
    "orthonormality": 16.0,
    # sine of the angle to a reference subspace, divided by l_1 / gap
    "subspace": 64.0,
}
# Kinds whose arithmetic is float64 whatever the data's dtype.
_ALWAYS_DOUBLE = frozenset({"merge"})


def eps(dtype) -> float:
    """Machine epsilon of a compute dtype."""
    return _EPS[np.dtype(dtype)]


def tolerance(kind: str, dtype) -> float:
    """Tolerance of `kind` for results whose compute dtype is `dtype`."""
    return _UNITS[kind] * (_EPS[np.dtype(np.float64)] if kind in _ALWAYS_DOUBLE else eps(dtype))


# The oracle's own error in float64, for float64 results compared with it.
ORACLE = 1e-14
