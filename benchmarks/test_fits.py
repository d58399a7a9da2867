"""Micro-benchmark: fits and transforms by shape and dtype, scikit-learn's beside them.

    python -m pytest benchmarks/test_fits.py --benchmark-only -k transform

Runs of a group follow each other; who is faster by how much is for the interleaved races of `python -m benchmarks.pca`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import scipy.sparse

import lae_fast
from benchmarks.lib import accuracy, shapes

# name -> rows, columns, components
SHAPES = {"small": (200, 16, 5), "digits": (1797, 64, 10), "tall": (50_000, 100, 10), "wide": (500, 4000, 10),
          "large": (10_000, 1000, 20)}  # fmt: skip
DTYPES = ("float32", "float64", "uint8")


@functools.cache
def data(shape: str, dtype: str) -> np.ndarray:
    m, d, _ = SHAPES[shape]
    if dtype != "uint8":
        return shapes.synthetic(m, d, dtype)
    x = shapes.synthetic(m, d, "float32")
    return np.clip(np.rint(20.0 * x + 100.0), 0, 255).astype(np.uint8)


def estimator(who: str, p: int) -> Any:
    if who == "lae_fast":
        return lae_fast.PCA(p)
    from sklearn.decomposition import PCA

    return PCA(p)


@pytest.mark.parametrize("who", ["lae_fast", "scikit-learn"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_fit(benchmark: Any, shape: str, dtype: str, who: str) -> None:
    m, d, p = SHAPES[shape]
    x = data(shape, dtype)
    benchmark.group = f"fit {m} x {d}, {dtype}, p = {p}"
    model = estimator(who, p).fit(x)
    found = accuracy.measure(x, model.explained_variance_, model.components_)
    benchmark.extra_info["worst residual"] = found.worst
    if who == "lae_fast":
        assert found.meets(accuracy.tolerance_for(x.dtype))
    benchmark(lambda: estimator(who, p).fit(x))


@pytest.mark.parametrize("who", ["lae_fast", "scikit-learn"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_transform(benchmark: Any, rates: Any, shape: str, dtype: str, who: str) -> None:
    m, d, p = SHAPES[shape]
    x = data(shape, dtype)
    benchmark.group = f"transform {m} x {d}, {dtype}, p = {p}"
    model = estimator(who, p).fit(x)
    expected = (x.astype(np.float64) - model.mean_) @ model.components_.T.astype(np.float64)
    allowed = 1e-4 if dtype != "float64" else 1e-10
    assert np.abs(model.transform(x) - expected).max() <= allowed * np.abs(expected).max()
    benchmark(model.transform, x)
    rates(2.0 * m * d * p, float(x.nbytes))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_sparse(benchmark: Any, dtype: str) -> None:
    x = scipy.sparse.random(5000, 2000, density=0.01, format="csr", random_state=0, dtype=np.float64).astype(dtype)
    benchmark.group = "fit 5000 x 2000, 1 % stored, p = 10"
    model = lae_fast.PCA(10).fit(x)
    found = accuracy.measure(x.toarray(), model.explained_variance_, model.components_)
    assert found.meets(accuracy.tolerance_for(x.dtype))
    benchmark(lambda: lae_fast.PCA(10).fit(x))
