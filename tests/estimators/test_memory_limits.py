"""max_memory of a fit of wide data: the arrays that it makes stay below, or it refuses and says what is needed.

NumPy reports its arrays to tracemalloc, so the peaks are counted, not sampled.
"""

import re
import tracemalloc

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.errors import MemoryLimitError
from lae_fast.sizes import parse_bytes

pytestmark = pytest.mark.needs_jit


@pytest.fixture(autouse=True)
def two_threads():
    lf.set_num_threads(2)
    yield
    lf.set_num_threads(None)


def wide(m, d, dtype, order="C"):
    X = np.random.default_rng(0).standard_normal((m, d)) * (np.arange(d, 0, -1) / d)
    return (40 * X + 128 * (dtype == np.uint8)).clip(0 if dtype == np.uint8 else None).astype(dtype, order=order)


def fitted(X, p, limit, solver):
    """The model, and the most bytes that its fit held beside the result."""
    tracemalloc.start()
    try:
        pca = lf.PCA(p, svd_solver=solver, tol=1e-3, max_memory=limit).fit(X)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return pca, peak - sum(value.nbytes for value in vars(pca).values() if isinstance(value, np.ndarray))


def least(X, p, solver):
    """The smallest limit that is not refused, by asking: each refusal names a larger figure."""
    limit = 1e5
    for _ in range(8):
        try:
            lf.PCA(p, svd_solver=solver, tol=1e-3, max_memory=limit).fit(X)
            return limit
        except MemoryLimitError as error:
            figure = parse_bytes(re.search(r"needs ([0-9.]+ [kMG]?B)", str(error)).group(1))
            assert figure > limit, str(error)
            limit = figure
    raise AssertionError(f"no limit is enough, though {limit} was said to be")


@pytest.mark.parametrize("solver", ["auto", "krylov"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_fit_of_wide_data_stays_within_any_limit_that_it_accepts(solver, dtype, order):
    X = wide(120, 20_000, dtype, order)
    fitted(X[:30, :300], 3, None, solver)  # compiles
    smallest = least(X, 6, solver)
    for limit in (smallest, 1.5 * smallest, 4 * smallest):
        pca, held = fitted(X, 6, limit, solver)
        assert held <= limit and pca.workspace_bytes_ <= limit, (limit, held, pca.workspace_bytes_)
    unlimited = lf.PCA(6, svd_solver=solver, tol=1e-3).fit(X)
    np.testing.assert_allclose(pca.explained_variance_, unlimited.explained_variance_, rtol=2e-3)


def test_a_sample_of_long_lines_counts():
    """Sixteen lines of 200 000 numbers would be 26 MB, and several arrays of that size."""
    X = wide(40, 200_000, np.float32)
    fitted(X[:30, :300], 2, None, "auto")  # compiles
    limit = 160e6
    pca, held = fitted(X, 2, limit, "auto")
    assert held <= limit, held
    values = np.linalg.svd(X - X.mean(axis=0, dtype=float), compute_uv=False) ** 2 / 39
    np.testing.assert_allclose(pca.explained_variance_, values[:2], rtol=1e-5)


def test_refusals_are_sums_of_what_is_needed():
    with pytest.raises(MemoryLimitError, match=r"max_memory=1 MB is too small.*needs 1?[0-9](\.[0-9])? MB"):
        lf.PCA(20, max_memory=1e6).fit(wide(300, 8000, np.float32))


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("shape", [(1800, 64), (300, 80), (50, 1500)])
def test_the_figure_that_a_refusal_names_is_enough(shape, k):
    X = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with pytest.raises(MemoryLimitError) as refusal:
        lf.PCA(k, max_memory="1kB").fit(X)
    lf.PCA(k, max_memory=re.search(r"needs ([\d.]+ \w?B)", str(refusal.value))[1]).fit(X)
