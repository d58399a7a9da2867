"""What the machine can do: GEMM, SYRK and parallel-read ceilings, measured on the shapes that the benchmarks use.

`python -m benchmarks.ceilings [--smoke]` prints them, and beside them our row pass and the constants of
`lae_fast/plan.py` as they would be here. A benchmark divides the flops that a route needs by its time and
by these, so that "fast" has an absolute meaning. GEMM and SYRK are the BLAS that NumPy and SciPy ship, as users get it;
another provider may have a higher ceiling. Imports NumPy, SciPy, `shapes`, `plan_constants`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.linalg import blas

from benchmarks.lib import plan_constants, shapes

# SYRK reaches its rate after some thousand rows: more flops than these buy no accuracy, only time.
_SYRK_FLOPS = 2e11
_READ_BYTES = 256 << 20


@dataclass(frozen=True)
class Ceilings:
    """Rates for one shape and dtype, each the best of a few runs.

    Attributes
    ----------
    syrk_gflops : float
        Gram matrix of the short side, counted as L s (s + 1) flops for L lines of s entries.
    gemm_gflops : float
        The two products of a Krylov pass, X V and X' (X V), counted as 4 m d b flops.
    square_gflops : float
        Square GEMM of order 2000, the highest rate BLAS reaches.
    read_gbps : float
        All cores reading memory, 1e9 bytes a second.
    block : int
        Columns of V.
    """

    syrk_gflops: float
    gemm_gflops: float
    square_gflops: float
    read_gbps: float
    block: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def gram_flops(n_samples: int, n_features: int) -> float:
    """Flops of the Gram matrix of the short side, symmetry used: L s (s + 1)."""
    short, long = sorted((n_samples, n_features))
    return float(long) * short * (short + 1)


def pass_flops(n_samples: int, n_features: int, block: int) -> float:
    """Flops of one pass X' (X V) with `block` columns."""
    return 4.0 * n_samples * n_features * block


def measure(
    X: np.ndarray, block: int, *, repeats: int = 3, square: float | None = None, read: float | None = None
) -> Ceilings:
    """Ceilings for the data X (m, d), float32 or float64, C-contiguous.

    `square` and `read` may hand in the rates that do not depend on the data, if they have been measured already.
    """
    syrk, syrk_flops = gram_alone(X)
    products, products_flops = pass_alone(X, block)
    return Ceilings(
        syrk_gflops=syrk_flops / _best(syrk, repeats) / 1e9,
        gemm_gflops=products_flops / _best(products, repeats) / 1e9,
        square_gflops=square_gemm(X.dtype) if square is None else square,
        read_gbps=parallel_read() if read is None else read,
        block=block,
    )


def gram_alone(X: np.ndarray, most_flops: float = _SYRK_FLOPS) -> tuple[Callable[[], Any], float]:
    """SYRK for the short side of X (m, d), and its flops; of so many lines that these stay below `most_flops`."""
    short, long = sorted(X.shape)
    n_lines = int(min(long, max(1, most_flops / (short * (short + 1.0)))))
    syrk = blas.ssyrk if X.dtype == np.float32 else blas.dsyrk
    # A transposed C array is a Fortran array, which SciPy hands to BLAS without a copy.
    tall = X.shape[0] >= X.shape[1]
    part = np.ascontiguousarray(X[:n_lines] if tall else X[:, :n_lines])
    return partial(syrk, 1.0, part.T, trans=0 if tall else 1), float(n_lines) * short * (short + 1)


def pass_alone(X: np.ndarray, block: int) -> tuple[Callable[[], Any], float]:
    """The two products of a Krylov pass, X V and X' (X V) with `block` columns, and their flops; no centring."""
    right = np.random.default_rng(0).standard_normal((X.shape[1], block)).astype(X.dtype)
    image, back = np.empty((X.shape[0], block), X.dtype), np.empty((X.shape[1], block), X.dtype)

    def products() -> None:
        np.matmul(X, right, out=image)
        np.matmul(X.T, image, out=back)

    return products, pass_flops(*X.shape, block)


def square_gemm(dtype: np.dtype | type | str, order: int = 2000, repeats: int = 3) -> float:
    """Rate of a square matrix product, GF/s."""
    left = np.random.default_rng(0).standard_normal((order, order)).astype(dtype)
    out = np.empty_like(left)
    return 2.0 * order**3 / _best(lambda: np.matmul(left, left, out=out), repeats) / 1e9


def parallel_read(n_bytes: int = _READ_BYTES, repeats: int = 5) -> float:
    """Rate at which all cores together read an array that no cache holds, 1e9 bytes a second.

    One thread per core takes the maximum of its part: NumPy does that in vector registers without the GIL, so memory
    is what limits it.
    """
    data = np.ones(n_bytes // 4, dtype=np.float32)
    n_threads = os.cpu_count() or 1
    # Pieces that are handed out as threads get free: one slow core then does not set the rate.
    parts = np.array_split(data, 8 * n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        seconds = _best(lambda: list(pool.map(np.max, parts)), repeats)
    return data.nbytes / seconds / 1e9


def _best(work: Callable[[], Any], repeats: int) -> float:
    """A ceiling is the best of several runs; the first one warms up and does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main(arguments: list[str] | None = None) -> int:
    """Print the ceilings for every shape."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceilings", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny shapes")
    options = parser.parse_args(arguments)
    squares = {dtype: square_gemm(dtype) for dtype in ("float32", "float64")}
    read = parallel_read()
    print(f"{'case':24s} {'SYRK GF/s':>10s} {'pass GF/s':>10s} {'square GF/s':>12s} {'read GB/s':>10s}")
    for case in shapes.SMOKE if options.smoke else shapes.FULL:
        try:
            X = case.load()
        except shapes.DataUnavailableError as error:
            print(f"{case.name:24s} {error}")
            continue
        found = measure(X, case.n_components + 10, square=squares[case.dtype], read=read)
        print(
            f"{case.name:24s} {found.syrk_gflops:10.1f} {found.gemm_gflops:10.1f} {found.square_gflops:12.1f}"
            f" {found.read_gbps:10.1f}"
        )
    print()
    print(
        "\n".join(plan_constants.lines(plan_constants.passes(options.smoke), plan_constants.constants(options.smoke)))
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
