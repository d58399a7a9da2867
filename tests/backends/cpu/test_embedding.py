"""`lae_fast.kernels` called from other people's nopython code, against the naive oracles; its documented example."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from lae_fast import kernels, optimizers
from tests.oracle import cases, naive, naive_autoencoder

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "kernels.md").read_text(encoding="utf-8")
RTOL = {np.float32: 2e-5, np.float64: 1e-12}
# Each dtype is a compilation of everything in the public kernels.
dtypes = pytest.mark.parametrize("dtype", [np.float32, *cases.only_full(np.float64)])


@numba.njit
def users_masks(gram, prefix, out):
    """Everything that makes one p x p matrix of another, called with plain arrays and Python literals."""
    kernels.masked_gram(gram, prefix, out[0])
    kernels.rotation(gram, out[1])
    kernels.tril(gram, 1, out[2])
    kernels.tril(gram, 0, out[3])
    kernels.quotients(gram, out[4])


@numba.njit
def users_products(rows, shift, weights, block, alpha):
    """Allocates, which the lean kernels may not, and calls BLAS, SYRK and both passes over rows."""
    d, b = block.shape
    tile, codes = np.empty((3, d), block.dtype), np.empty((3, b), block.dtype)
    gram, image = np.empty((d, d), block.dtype), np.empty((d, b), block.dtype)
    product, square = np.ones((d, b), block.dtype), np.ones((b, b), block.dtype)
    kernels.gram(rows, shift, weights, tile, gram)
    kernels.row_pass(rows, shift, weights, block, tile, codes, image)
    kernels.gemm(alpha, gram, True, block, False, 2.0, product)
    kernels.syrk(block, 1.0, square)
    return gram, image, product, square


@numba.njit
def users_step(code, scalars, rate, iteration, dense, product, on_product, penalty, weights, first, second):
    sums, squares, zeros = np.zeros(kernels.N_SUMS), np.zeros(weights.shape[0]), np.zeros_like(penalty)
    row_sums = np.zeros((weights.shape[0], kernels.N_ROW_SUMS))
    kernels.fused_step(
        code, scalars, rate, iteration, dense, product, on_product, zeros, penalty, penalty, True, weights, first,
        second, sums, row_sums, squares,
    )  # fmt: skip
    kernels.normalise_rows(weights)
    return sums, squares


@dtypes
@pytest.mark.parametrize("p", [1, 5, 33])
def test_masks(p, dtype):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((p, p + 2)).astype(dtype)
    gram = half @ half.T
    lower = np.where(np.tri(p, dtype=bool), gram, dtype(np.nan))  # what lies above the diagonal is not read
    prefix = np.arange(p, 0, -1).astype(dtype)
    out = np.full((5, p, p), np.nan, dtype)
    users_masks(lower, prefix, out)
    np.testing.assert_allclose(out[0], naive_autoencoder.masked_gram(gram, prefix), rtol=1e-5)
    np.testing.assert_allclose(out[1], naive_autoencoder.rotation(gram), rtol=1e-5)
    np.testing.assert_array_equal(out[2], np.tril(gram))
    np.testing.assert_array_equal(out[3], np.tril(gram, -1))
    np.testing.assert_allclose(out[4], np.tril(gram / np.diagonal(gram), -1), rtol=1e-6)


@dtypes
@pytest.mark.parametrize("stored", [np.uint8, *cases.only_full(np.float32)])
@pytest.mark.parametrize("weighted", [False, True])
def test_products(weighted, stored, dtype):
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 9, (10, 6)).astype(stored)
    shift = rng.standard_normal(6).astype(dtype)
    weights = rng.uniform(0.5, 2.0, 10) if weighted else np.empty(0)
    block = rng.standard_normal((6, 2)).astype(dtype)
    gram, image, product, square = users_products(rows, shift, weights, block, 0.5)
    root = np.sqrt(weights if weighted else np.ones(10))
    tile = (rows.astype(np.float64) - shift) * root[:, None]
    wide = {"rtol": RTOL[dtype], "atol": 30 * RTOL[dtype]}
    np.testing.assert_allclose(gram, naive.gram(tile), **wide)
    np.testing.assert_allclose(image, naive.row_pass(tile, block.astype(np.float64))[0], **wide)
    np.testing.assert_allclose(product, 0.5 * naive.gram(tile) @ block + 2.0, **wide)
    np.testing.assert_allclose(np.tril(square), np.tril(naive.gram(block.astype(np.float64)) + 1.0), **wide)
    np.testing.assert_array_equal(np.triu(square, 1), np.triu(np.ones((2, 2)), 1))


@dtypes
@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "adam"])
def test_step(name, dtype):
    rng = np.random.default_rng(2)
    dense, product, weights, first, second = rng.standard_normal((5, 3, 7)).astype(dtype)
    second = np.abs(second)
    on_product, penalty = rng.uniform(0.1, 1.0, (2, 3)).astype(dtype)
    g = (dense + on_product[:, None] * product + 2 * penalty[:, None] * weights).astype(np.float64)
    old, states = weights.astype(np.float64), [first.astype(np.float64), second.astype(np.float64)]
    expected = naive_autoencoder.optimizer_step(name, old, g, states, 0.01, 3)
    chosen = getattr(optimizers, name)(0.01)
    code = {"sgd": kernels.SGD, "momentum": kernels.MOMENTUM, "nesterov": kernels.NESTEROV, "adam": kernels.ADAM}[name]
    assert code == chosen.code
    sums, squares = users_step(
        code, np.array(chosen.scalars), 0.01, 3, dense, product, on_product, penalty, weights, first, second
    )
    rtol = 1e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(weights, naive_autoencoder.normalise_rows(expected), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(squares, np.sum(expected**2, axis=1), rtol=rtol)
    np.testing.assert_allclose(sums[0], np.sum(g**2), rtol=rtol)


def test_every_kernel_is_documented_and_has_a_docstring():
    functions = [name for name in kernels.__all__ if not name.isupper()]
    listed = re.findall(r"^\| `(\w+)\(", GUIDE, re.MULTILINE)
    assert sorted(listed) == sorted(functions)
    for name in functions:
        kernel = getattr(kernels, name)
        assert "twin" in kernel.__doc__, name


@pytest.mark.needs_jit
def test_the_documented_example_finds_the_directions(tmp_path, monkeypatch):
    """As a file, because Numba caches no function that was typed in."""
    code = re.search(r"```python\n(.*?)```", GUIDE, re.DOTALL)[1]
    path = tmp_path / "example.py"
    path.write_text(code.replace("lf.metrics.ratio_tp", "found = lf.metrics.ratio_tp"), encoding="utf-8")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    namespace = {"__name__": "example", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
    assert namespace["found"] == 1.0


@numba.njit(parallel=True)
def users_parallel_passes(rows, block, n_parts, out):
    """A pass over each part of the rows in a prange; workspace of its own for each."""
    d, b = block.shape
    size = rows.shape[0] // n_parts
    for part in numba.prange(n_parts):
        tile, codes = np.empty((4, d), block.dtype), np.empty((4, b), block.dtype)
        chunk = rows[part * size : (part + 1) * size]
        kernels.row_pass(chunk, np.zeros(d, block.dtype), np.empty(0), block, tile, codes, out[part])


@pytest.mark.needs_jit
def test_in_a_prange():
    rng = np.random.default_rng(3)
    rows, block = rng.standard_normal((24, 5)).astype(np.float32), rng.standard_normal((5, 2)).astype(np.float32)
    out = np.full((3, 5, 2), np.nan, np.float32)
    users_parallel_passes(rows, block, 3, out)
    for part in range(3):
        expected = naive.row_pass(rows[8 * part : 8 * part + 8].astype(np.float64), block.astype(np.float64))[0]
        np.testing.assert_allclose(out[part], expected, rtol=1e-4, atol=1e-4)


CACHED = """
import numba, numpy as np
from lae_fast import kernels

@numba.njit(cache=True)
def mask(gram, prefix, out):
    kernels.masked_gram(gram, prefix, out)

gram, prefix, out = np.ones((3, 3)), np.array([3.0, 2.0, 1.0]), np.empty((3, 3))
mask(gram, prefix, out)
print(sum(mask.stats.cache_hits.values()), out[2, 0], out[1, 1])
"""


@pytest.mark.needs_jit
def test_a_cached_caller_loads_in_the_next_process(tmp_path):
    path = tmp_path / "caller.py"
    path.write_text(CACHED, encoding="utf-8")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    root = Path(__file__).resolve().parents[3]
    printed = [
        subprocess.run(
            [sys.executable, str(path)],
            cwd=root,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout.split()
        for _ in range(2)
    ]
    assert printed == [["0", "1.0", "2.0"], ["1", "1.0", "2.0"]]
