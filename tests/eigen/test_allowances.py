"""The allowances of certificates are never below the true rounding.

The truth is computed in extended precision (`np.longdouble`, 64-bit mantissa), where a product of two float64 numbers
is wrong by 5e-20 of itself.
"""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.data import sources
from lae_fast.operators import certificate
from lae_fast.operators.moments import Moments
from lae_fast.operators.rows import RowsOperator
from tests.oracle import naive
from tests.oracle.certificate_cases import (
    CENTER,
    D,
    long_scatter,
    tall,
    wide,
)

pytestmark = [
    pytest.mark.usefixtures("serial_oracle"),
    pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="needs extended precision as the truth for float64"),
]


@pytest.mark.needs_jit
@CENTER
def test_gram_allowance_covers_the_rounding_of_the_gram(data, center):
    """|E u| for E the error of the moments' matrix, for every eigenvector."""
    X = data
    moments = Moments.from_data(X, center=center)
    matrix, scale = moments.scaled_xx()
    # a float32 Gram may be checked in float64, whose own error is 5e8 times smaller
    work = np.float64 if moments.dtype == np.float32 else np.longdouble
    error = matrix.astype(work) - long_scatter(X, center, work) * work(scale) ** 2
    values, vectors = naive.leading_eigenpairs(matrix, D)
    allowance = certificate.gram_rounding(
        matrix, vectors, np.maximum(values, 0), certificate.GramSums(moments.dtype.itemsize)
    )
    true = np.sqrt(((error @ vectors.astype(work)) ** 2).sum(axis=0)).astype(float)
    assert (true <= allowance).all(), f"worst {np.max(true / allowance):.3g} of the allowance"


def square(X):
    return np.ascontiguousarray(X[:1200].reshape(160, -1))


@pytest.mark.needs_jit
@CENTER
@pytest.mark.parametrize("shape", [tall, wide, square], ids=lambda f: f.__name__)
def test_pass_allowance_covers_the_rounding_of_a_pass(data, center, shape):
    check_pass(shape(data), center)


def outlier_among_long_lines(rng):
    X = rng.standard_normal((300, 3000))
    X[7] *= 300
    return X


LONG = {
    "gaussian": lambda rng: rng.standard_normal((300, 4000)) + 1,
    "heavy_tails": lambda rng: rng.exponential(1, (300, 4000)) ** 3,
    "all_positive": lambda rng: rng.random((300, 3)) @ rng.random((3, 4000)) + 0.01 * rng.random((300, 4000)),
    "outlier": outlier_among_long_lines,
    "binary": lambda rng: (rng.random((300, 3000)) < 0.1).astype(float),
    "repeated_rows": lambda rng: np.repeat(rng.standard_normal((20, 3000)), 20, axis=0),
}


@pytest.mark.needs_jit
@CENTER
@pytest.mark.parametrize("name", LONG)
def test_pass_allowance_covers_lines_of_thousands_of_entries(name, center):
    check_pass(LONG[name](np.random.default_rng(3)).astype(np.float32), center)


def check_pass(X, center):
    """S u as RowsOperator computes it against S u, for the leading eigenvectors stored in the compute dtype."""
    operator = RowsOperator(sources.as_source(X), center=center, block=12)
    centred = X.astype(float) - (X.astype(float).mean(axis=0) if center else 0.0)
    vectors = np.linalg.svd(centred, full_matrices=False)[2][:24].T.astype(operator.dtype)
    image = operator.apply(vectors)
    work = np.float64 if operator.dtype == np.float32 else np.longdouble
    exact = naive.apply_scatter(X, vectors, center=center, dtype=work) * work(operator.scale) ** 2
    values = np.maximum(np.einsum("ij,ij->j", vectors, image), 0)
    allowance = operator.rounding(vectors, values)
    true = np.sqrt(((image - exact) ** 2).sum(axis=0)).astype(float)
    assert (true <= allowance).all(), f"worst {np.max(true / np.maximum(allowance, 1e-300)):.3g} of the allowance"
