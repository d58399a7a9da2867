"""The ratios that `lae_fast/plan.py` chooses routes by, measured, and the row pass beside BLAS.

`python -m benchmarks.ceilings` prints both. Everything that is compared runs in turn, so that a slow minute of the
machine meets all alike. Imports NumPy, SciPy and lae_fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from lae_fast import Moments, plan
from lae_fast.data.sources import SparseSource, as_source
from lae_fast.operators.rows import RowsOperator
from lae_fast.operators.sparse import SparseOperator

COLUMNS = 32
SHAPES = ((20160, 5000), (5040, 20000), (60000, 784), (500400, 200))
SMOKE_SHAPES = ((300, 100), (100, 300))


@dataclass(frozen=True)
class PassRate:
    """Rates of X'(XV) with `COLUMNS` columns, GF/s, and of a square product."""

    shape: tuple[int, int]
    ours: float
    two_products: float
    square: float


@dataclass(frozen=True)
class Constant:
    """A constant of plan.py: what was measured here, and what the code has."""

    name: str
    measured: float
    in_code: float


def interleaved(contestants: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Least seconds of each, every time after a run that does not count: threads of the BLAS before go on spinning."""
    least = [np.inf] * len(contestants)
    for _ in range(rounds):
        for i, work in enumerate(contestants):
            work()
            start = time.perf_counter()
            work()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def passes(smoke: bool, dtype: str = "float32") -> list[PassRate]:
    """Our row pass, two products of NumPy and a square product, by shape."""
    rng = np.random.default_rng(0)
    order = 200 if smoke else 2000
    square = rng.standard_normal((order, order)).astype(dtype)
    rates = []
    for m, d in SMOKE_SHAPES if smoke else SHAPES:
        X = rng.standard_normal((m, d), dtype=np.dtype(dtype).type)
        block = rng.standard_normal((d, COLUMNS)).astype(dtype)
        operator = RowsOperator(as_source(X), block=COLUMNS)
        codes, image, out = np.empty((m, COLUMNS), dtype), np.empty((d, COLUMNS), dtype), np.empty_like(square)

        def two_products(X=X, block=block, codes=codes, image=image) -> None:
            np.matmul(X, block, out=codes)
            np.matmul(X.T, codes, out=image)

        contestants = [
            lambda operator=operator, block=block: operator.apply(block),
            two_products,
            lambda out=out: np.matmul(square, square, out=out),
        ]
        seconds = interleaved(contestants, 2 if smoke else 9)
        flops = plan.pass_flops(m, d, COLUMNS)
        rates.append(PassRate((m, d), flops / seconds[0] / 1e9, flops / seconds[1] / 1e9, 2e-9 * order**3 / seconds[2]))
    return rates


def constants(smoke: bool) -> list[Constant]:
    """The costs of plan.py in flops of our Gram, of float32 data with 2000 features."""
    rng = np.random.default_rng(0)
    m, d = (400, 100) if smoke else (20000, 2000)
    X = rng.standard_normal((m, d), dtype=np.float32)
    thin = scipy.sparse.random_array((10 * m, d), density=0.01, format="csr", dtype=np.float32, rng=rng)
    block = rng.standard_normal((d, COLUMNS), dtype=np.float32)
    dense, stored = RowsOperator(as_source(X), block=COLUMNS), SparseOperator(SparseSource(thin), block=COLUMNS)
    found = interleaved(
        [
            lambda: Moments.from_data(X),
            lambda: dense.apply(block),
            lambda: stored.apply(block),
            lambda: Moments.from_data(thin),
        ],
        2 if smoke else 7,
    )
    unit = found[0] / plan.gram_flops(m, d)  # seconds of a flop of the Gram
    pairs = SparseSource(thin).pairs(False)
    return [
        Constant("PASS_FLOP_COST", found[1] / plan.pass_flops(m, d, COLUMNS) / unit, plan.PASS_FLOP_COST),
        Constant("SPARSE_FLOP_COST", found[2] / (4.0 * thin.nnz * COLUMNS) / unit, plan.SPARSE_FLOP_COST),
        Constant("SPARSE_PAIR_COST", found[3] / pairs / unit, plan.SPARSE_PAIR_COST),
    ]


def lines(rates: list[PassRate], costs: list[Constant]) -> list[str]:
    """Both tables, as text."""
    text = [f"X'(XV), {COLUMNS} columns      ours GF/s  two products  square  share of it"]
    for rate in rates:
        shape = f"{rate.shape[0]} x {rate.shape[1]}"
        share = rate.ours / rate.square
        text.append(f"{shape:24s} {rate.ours:10.1f} {rate.two_products:13.1f} {rate.square:7.1f} {share:12.0%}")
    text += ["", "constant of plan.py       measured    in the code"]
    text += [f"{cost.name:24s} {cost.measured:9.2f} {cost.in_code:14.2f}" for cost in costs]
    return text
