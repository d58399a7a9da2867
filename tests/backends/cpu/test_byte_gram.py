"""The exact Gram of bytes, and the choice of BLAS.

The kernel's arithmetic is tested everywhere, in plain loops where the processor does not multiply bytes; in `Moments`
where it does.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import backends
from lae_fast.backends.cpu import mkl, registers
from lae_fast.backends.cpu.passes import byte_gram
from lae_fast.data import sources
from lae_fast.operators import pilot
from tests.oracle import cases, naive

TILE = 16
# Every dtype compiles the kernels anew.
BYTES = pytest.mark.parametrize("dtype", [np.uint8, np.int8], ids=lambda t: t.__name__)
FITTED = pytest.mark.parametrize("dtype", [np.uint8, *cases.only_full(np.int8)], ids=lambda t: t.__name__)
WIDER = pytest.mark.parametrize(
    "wide",
    [np.float32, np.int16, *cases.only_full(np.float64, np.int64)],
    ids=lambda dtype: dtype.__name__,
)

by_processor = pytest.mark.skipif(not registers.HAS_BYTE_PRODUCTS, reason="this processor does not multiply bytes")


def bytes_of(rng, shape, dtype):
    X = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    X[0], X[-1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return X


def bounds_of(X):
    return np.array([0, 255] if X.min() >= 0 else [-128, 127], np.float64)


def gram_of(X, first=0, tile=TILE, entries=()):
    """The kernel's Gram and sums of the lines from `first` on, out of a workspace that has been used before."""
    m, d = X.shape
    chunk = sources.ArraySource(X).chunk(0, m, False)
    *workspace, memory = byte_gram.workspace(tile, d)
    memory[:] = 77
    entries = np.array(entries, np.int64)
    for lines, some in ((m - first, entries[:0]), ((m - first + 1) // 2, entries), (m - first, entries)):
        n = some.size or d
        gram, sums, shift = byte_gram.gram_in(memory, n), np.full(n, 77, np.int64), np.full(n, 77, np.int64)
        counted = byte_gram.byte_gram_chunk(
            chunk.flat, bounds_of(X), chunk.line_stride, chunk.entry_stride, d, first, lines, some, tile,
            np.empty(tile * d, np.uint8), *workspace, gram, sums, shift,
        )  # fmt: skip
        assert counted
    return gram[:n], sums, shift


def check(X, gram, sums, shift):
    """Against whole numbers about the rounded mean."""
    assert (np.abs(shift - X.mean(axis=0)) <= 0.5).all()
    wide = X.astype(np.int64) - shift
    np.testing.assert_array_equal(np.tril(gram), np.tril(wide.T @ wide))
    np.testing.assert_array_equal(sums, wide.sum(axis=0))


@BYTES
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (5, 3), (40, 9), (19, 16), (18, 20)]
    + [pytest.param(shape, marks=pytest.mark.needs_jit) for shape in ((33, 100), (18, 49), (66, 95), (17, 96))],
)
def test_gram_of_bytes_is_exact(dtype, order, shape):
    X = np.asarray(bytes_of(np.random.default_rng(0), shape, dtype), order=order)
    check(X, *gram_of(X))


@pytest.mark.needs_jit
@BYTES
def test_gram_of_some_lines(dtype):
    X = bytes_of(np.random.default_rng(1), (41, 50), dtype)
    check(X[7:], *gram_of(X, first=7))


@pytest.mark.needs_jit
@BYTES
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "entries",
    [
        range(3, 51),  # 16 in a row, and the last 32 bytes of a line
        [*range(0, 32, 2), 99],  # as far apart as two loads reach; and an end of a line
        [*range(0, 30, 2), 40, *range(84, 100)],  # further
        [5],
    ],
    ids=["dense", "spread", "far", "one"],
)
def test_gram_of_some_entries(dtype, order, entries):
    X = np.asarray(bytes_of(np.random.default_rng(2), (23, 100), dtype), order=order)
    check(X[:, list(entries)], *gram_of(X, entries=entries))


@pytest.mark.needs_jit
@WIDER
@BYTES
@pytest.mark.parametrize("order", ["C", "F"])
def test_gram_of_bytes_in_another_dtype(dtype, wide, order):
    X = bytes_of(np.random.default_rng(2), (39, 70), dtype).astype(wide, order=order)
    check(X, *gram_of(X))
    check(X[:, 7:55], *gram_of(X, entries=range(7, 55)))


@WIDER
@pytest.mark.parametrize("value", [-1, 256, 0.5, -129, 1e9, np.nan, np.inf, -np.inf, 2**40])
def test_other_numbers_are_found(wide, value):
    if not np.issubdtype(wide, np.floating) and (value != value // 1 or abs(value) > np.iinfo(wide).max):
        pytest.skip("not a number of this dtype")
    X = np.ones((9, 40), wide)
    X[8, 39] = value
    for lowest in (0, -128):
        out, bounds = np.empty(X.size, np.uint8), np.array([lowest, lowest + 255.0])
        fits = lowest <= value <= lowest + 255 and value == int(value)
        assert byte_gram._convert(X.reshape(-1), 40, 1, 0, 9, 40, bounds, out) == fits
        transposed = np.ascontiguousarray(X.T).reshape(-1)
        assert byte_gram._convert(transposed, 1, 9, 0, 9, 40, bounds, out) == fits
        if fits:
            np.testing.assert_array_equal(out.view(np.int8 if lowest else np.uint8).reshape(X.shape), X)


def test_lines_of_fewer_than_32_bytes():
    X = bytes_of(np.random.default_rng(2), (23, 30), np.uint8)
    check(X, *gram_of(X, entries=range(30)))


@BYTES
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("rows", [1, 70])
def test_used_entries(dtype, order, rows):
    X = np.zeros((rows, 70), dtype, order=order)
    X[-1, [3, 69]] = 1, -128 if dtype == np.int8 else 128
    chunk = sources.ArraySource(X).chunk(0, rows, False)
    used = np.full(70, 7, np.int32)
    seen = np.empty(70, np.uint8)
    byte_gram.mark_used(chunk.flat.view(np.uint8), chunk.line_stride, chunk.entry_stride, rows, seen, used)
    np.testing.assert_array_equal(used, naive.used_entries(X, np.zeros(70)))
    X[:] = 1
    byte_gram.mark_used(chunk.flat.view(np.uint8), chunk.line_stride, chunk.entry_stride, rows, seen, used)
    assert used.all()


@by_processor
@FITTED
@pytest.mark.parametrize("n", [2, 50])
def test_the_largest_chunk_does_not_overflow(dtype, n):
    """All entries at the extremes, in the longest chunk allowed: alike, and as far apart as they can be."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    X = np.full((byte_gram.MOST_LINES, n), low if dtype == np.int8 else high, dtype)
    check(X, *gram_of(X, tile=512))
    X[: len(X) // 2] = high if dtype == np.int8 else low
    X[:, 1::2] = X[::-1, 1::2]
    check(X, *gram_of(X, tile=512))


@by_processor
@FITTED
def test_equal_numbers_have_no_variance(dtype):
    X = np.full((9000, 80), 43, dtype)
    X[:, 3] = np.arange(9000) % 100
    pca = lf.PCA(2, standardize=True).fit(X)
    np.testing.assert_allclose(pca.explained_variance_[0], 1.0, rtol=1e-6)
    assert pca.explained_variance_[1] == 0.0
    assert lf.Moments.from_data(X).xx.diagonal()[0] == 0.0


@by_processor
@FITTED
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


@by_processor
@FITTED
def test_pca_of_bytes_is_that_of_floats(dtype):
    X = bytes_of(np.random.default_rng(1), (700, 70), dtype)
    exact, plain = lf.PCA(5).fit(X), lf.PCA(5).fit(X.astype(np.float64))
    np.testing.assert_allclose(exact.explained_variance_, plain.explained_variance_, rtol=1e-6)
    np.testing.assert_allclose(exact.components_, plain.components_, atol=1e-4)


@pytest.mark.full
@by_processor
@WIDER
def test_moments_of_bytes_in_another_dtype(wide, monkeypatch):
    X = bytes_of(np.random.default_rng(1), (4100, 80), np.uint8)
    same = X.astype(wide)
    expected = lf.Moments.from_data(X)
    monkeypatch.setattr(pilot, "_BYTE_FLOPS", 0.0)
    found = lf.Moments.from_data(same)
    np.testing.assert_array_equal(found.xx, expected.xx)
    np.testing.assert_array_equal(found.mean, expected.mean)
    assert found.dtype == sources.compute_dtype(same.dtype)
    assert lf.PCA(3).fit(same).components_.dtype == found.dtype


@by_processor
@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan])
def test_rows_unlike_those_that_were_looked_at(value, monkeypatch):
    """They are met in the middle of the pass, and what was summed before must not count twice."""
    X = bytes_of(np.random.default_rng(1), (4100, 80), np.uint8).astype(np.float32)
    X[3100, 7] = value
    monkeypatch.setattr(pilot, "_BYTE_FLOPS", np.inf)
    plain = None if np.isnan(value) else lf.Moments.from_data(X)
    monkeypatch.setattr(pilot, "_BYTE_FLOPS", 0.0)
    assert pilot.byte_view(sources.as_source(X), None, backends.get_backend("cpu")) is not None
    if plain is None:
        with pytest.raises(ValueError, match="row 3100, column 7"):
            lf.Moments.from_data(X)
        return
    found = lf.Moments.from_data(X)
    np.testing.assert_array_equal(found.xx, plain.xx)
    assert (found.n_samples, found.weight_sum) == (4100, 4100.0)
    assert lf.PCA(2).fit(X).n_passes_ == 2


@by_processor
@pytest.mark.filterwarnings("error")
def test_what_is_looked_at(monkeypatch):
    def view(data):
        return pilot.byte_view(sources.as_source(data), None, backends.get_backend("cpu"))

    X = bytes_of(np.random.default_rng(5), (900, 80), np.uint8)
    floats = X.astype(np.float32)
    assert view(floats) is None  # too few to pay
    monkeypatch.setattr(pilot, "_BYTE_FLOPS", 0.0)
    assert view(floats).lowest == view(X).lowest == view(X > 3).lowest == 0
    assert view(floats - 128).lowest == view(X.astype(np.int64) - 128).lowest == -128
    assert view([floats]) is None  # rows in blocks may come once
    for value in (-1.0, 256.0, 0.5, 1e300, np.inf, np.nan):
        other = X.astype(np.float64)
        other[0, 0] = value
        assert view(other) is None


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
