"""The exact Gram of bytes, and the choice of BLAS.

The kernel's arithmetic is tested everywhere without JIT, where NumPy stands in for the product; compiled, and in
`Moments`, where the extra `mkl` is installed.
"""

from __future__ import annotations

import subprocess
import sys

import naive
import numpy as np
import pytest

import lae_fast as lf
from lae_fast import sources
from lae_fast.backends.cpu import blas, integers, jit, mkl

TILE = 16
BYTES = pytest.mark.parametrize("dtype", [np.uint8, np.int8], ids=lambda t: t.__name__)

multiplies = pytest.mark.skipif(
    not (blas.HAS_INTEGER_GEMM or jit.JIT_DISABLED), reason="the product of bytes needs the extra mkl"
)
with_mkl = pytest.mark.skipif(not blas.HAS_INTEGER_GEMM, reason="needs the extra mkl")


def bytes_of(rng, shape, dtype):
    X = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    X[0], X[-1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return X


@multiplies
@BYTES
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 9), (33, 200)])
def test_gram_of_bytes_is_exact(dtype, order, shape):
    X = bytes_of(np.random.default_rng(0), shape, dtype)
    chunk = sources.ArraySource(np.asarray(X, order=order)).chunk(0, shape[0], False)
    n = shape[1]
    gram, sums = np.full((n, n), 77, np.int32), np.full(n, 77, np.int64)
    integers.integer_gram_chunk(
        chunk.flat, dtype == np.int8, chunk.line_stride, chunk.entry_stride, 0, shape[0],
        np.empty((TILE, n), np.int8), np.empty((TILE, n), np.uint8), np.empty(n, np.int32), gram, sums,
    )  # fmt: skip
    expected = X.astype(np.int64).T @ X.astype(np.int64)
    np.testing.assert_array_equal(np.tril(gram), np.tril(expected))
    np.testing.assert_array_equal(sums, X.sum(axis=0, dtype=np.int64))


@with_mkl
@BYTES
def test_the_largest_chunk_does_not_overflow(dtype):
    """All entries at the extreme, in the longest chunk allowed."""
    X = np.full((integers.MOST_LINES, 2), np.iinfo(dtype).max, dtype)
    if dtype == np.int8:
        X[:] = -128
    flat, n = X.reshape(-1), 2
    gram, sums = np.zeros((n, n), np.int32), np.zeros(n, np.int64)
    integers.integer_gram_chunk(
        flat, dtype == np.int8, n, 1, 0, len(X), np.empty((128, n), np.int8),
        np.empty((128, n), np.uint8), np.empty(n, np.int32), gram, sums,
    )  # fmt: skip
    assert gram[1, 0] == int(X[0, 0]) ** 2 * len(X)


@with_mkl
@BYTES
@pytest.mark.parametrize("center", [True, False])
def test_moments_of_bytes(dtype, center):
    rng = np.random.default_rng(1)
    X = bytes_of(rng, (900, 80), dtype)
    X[:, 20:70] = 0
    X[700, 30] = 1
    moments = lf.Moments.from_data(X, center=center)
    total, mean, scatter = naive.moments(X, center=center)
    assert moments.weight_sum == total
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-15, atol=1e-13)
    np.testing.assert_allclose(moments.xx, scatter, rtol=1e-13, atol=1e-15 * np.abs(scatter).max())
    halves = lf.Moments.from_data(X[:300], center=center) + lf.Moments.from_data(X[300:].astype(float), center=center)
    np.testing.assert_allclose(halves.xx, scatter, rtol=1e-12, atol=1e-14 * np.abs(scatter).max())


@with_mkl
@BYTES
def test_pca_of_bytes_is_that_of_floats(dtype):
    X = bytes_of(np.random.default_rng(1), (700, 70), dtype)
    exact, plain = lf.PCA(5).fit(X), lf.PCA(5).fit(X.astype(np.float64))
    np.testing.assert_allclose(exact.explained_variance_, plain.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(exact.components_, plain.components_, atol=1e-4)


def run_python(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_scipy_can_be_asked_for():
    done = run_python("from lae_fast.backends.cpu import blas; print(blas.PROVIDER)", LAE_FAST_BLAS="scipy")
    assert done.stdout.strip() == "scipy", done.stderr


@pytest.mark.parametrize("choice", ["atlas", "mkl"])
def test_a_blas_that_is_not_there_says_so(choice):
    if choice == "mkl" and mkl.find() is not None:
        pytest.skip("MKL is installed here")
    done = run_python("from lae_fast.backends.cpu import blas", LAE_FAST_BLAS=choice)
    assert done.returncode != 0
    assert (
        "unknown; choose one of auto, scipy, mkl" if choice == "atlas" else "pip install 'lae-fast[mkl]'"
    ) in done.stderr


def test_info_names_what_multiplies():
    roles = {entry["role"] for entry in lf.backend_info()["blas"]}
    assert any(role.startswith("tile kernels") for role in roles)
