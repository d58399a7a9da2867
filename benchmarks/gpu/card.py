"""What both halves of the GPU benchmark use: clock, ceilings of the card, data, checks, bare cuBLAS calls."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

import lae_fast
from benchmarks.lib import harness
from lae_fast import backends, plan
from lae_fast.data import sources
from lae_fast.operators.pilot import pilot_view

COARSE = tuple(name for name in backends.PRECISIONS if name != "float32")
# Worst relative residual that counts as the same answer.
TOLERANCE = 1e-4

# A function that gives values (scale "sum") and vectors (d, p).
Contestant = Callable[[], tuple[np.ndarray, np.ndarray]]


class Clock:
    """Seconds of a function, the device's queue empty before and after; None in a dry run, which runs it once."""

    def __init__(self, rounds: int, until: float, dry: bool) -> None:
        self.rounds, self.until, self.dry = rounds, until, dry

    def __call__(self, run: Callable[[], Any]) -> dict[str, float] | None:
        run()
        if self.dry:
            return None
        times: list[float] = []
        while len(times) < self.rounds and (len(times) < 3 or time.monotonic() < self.until):
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            times.append(time.perf_counter() - start)
        return harness.summarise(times)


def synchronize() -> None:
    from lae_fast.backends.cuda import arrays

    if arrays.xp is not np:
        arrays.xp.cuda.get_current_stream().synchronize()


def rate(amount: float, seconds: dict[str, float] | None) -> float | None:
    """Amount per second, or None in a dry run."""
    return None if seconds is None else amount / seconds["median"]


def attempt(notes: dict[str, str], name: str, run: Callable[[], Any]) -> Any:
    """What `run` returns; None where it fails, for any reason, which is noted: the other results are not lost."""
    try:
        return run()
    except Exception as error:
        notes[name] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return None


def make(m: int, d: int, dtype: str) -> np.ndarray:
    """Data with a decaying spectrum and a mean; bytes cover their range."""
    rng = np.random.default_rng(0)
    r = min(m, d, 64)
    X = rng.standard_normal((m, r), dtype=np.float32) @ (
        rng.standard_normal((r, d), dtype=np.float32) * (0.9 ** np.arange(r, dtype=np.float32))[:, None]
    )
    X += 0.1 * rng.standard_normal((m, d), dtype=np.float32) + 3.0
    if dtype == "uint8":
        X = np.clip(128 + 12 * X, 0, 255)
    return X.astype(dtype)


def worst_residual(X: Any, values: np.ndarray, vectors: np.ndarray) -> float:
    """Largest |S u - l u| / l, S = Xc' Xc in float64 by blocks of rows; values have scale "sum"."""
    mean = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
    vectors = np.asarray(vectors, dtype=np.float64)
    images = np.zeros_like(vectors)
    for first in range(0, X.shape[0], 4096):
        rows = X[first : first + 4096].astype(np.float64)
        if scipy.sparse.issparse(rows):
            scores = rows @ vectors - mean @ vectors
            images += rows.T @ scores - np.multiply.outer(mean, scores.sum(axis=0))
        else:
            rows -= mean
            images += rows.T @ (rows @ vectors)
    return float((np.linalg.norm(images - vectors * values, axis=0) / values).max())


def on_device(X: np.ndarray) -> Any:
    """X in CuPy's arrays; in a dry run something that looks like them."""
    from lae_fast.backends.cuda import arrays

    if arrays.xp is not np:
        return arrays.upload(X)
    holder = type("OnDevice", (), {"__cuda_array_interface__": X.__array_interface__})()
    holder.shape, holder.dtype, holder.array = X.shape, X.dtype, X
    return holder


def with_mode(precision: str, run: Callable[[], Any]) -> Callable[[], Any] | None:
    """The function, or None where the card or its cuBLAS has no such mode."""
    try:
        backends.require_precision(precision)
    except lae_fast.UnsupportedOnBackendError as error:
        print(error, flush=True)
        return None
    return run


def ceilings(clock: Clock, dry: bool) -> dict[str, Any]:
    """Copies and square GEMM: what the card can do."""
    from lae_fast.backends.cuda import arrays, blas

    xp, n_bytes, n = arrays.xp, (1 << 12 if dry else 1 << 29), (8 if dry else 8192)
    host, here, there = arrays.pinned(n_bytes), xp.empty(n_bytes, np.uint8), xp.empty(n_bytes, np.uint8)
    host[:] = 1
    here[...] = 1
    stream = arrays.CopyStream()
    found: dict[str, Any] = {
        "copy_gbps": rate(2e-9 * n_bytes, clock(lambda: there.__setitem__(slice(None), here))),
        "host_to_device_gbps": rate(
            1e-9 * n_bytes, clock(lambda: arrays.wait(stream.copy(host, here, arrays.event())))
        ),
    }
    for dtype in ("float32", "float64"):
        a = arrays.upload(np.random.default_rng(0).standard_normal((n, n)).astype(dtype))
        out = xp.empty_like(a)
        for mode in ("float32", *COARSE) if dtype == "float32" else ("float32",):
            name = mode if dtype == "float32" else dtype
            run = with_mode(mode, lambda mode=mode, a=a, out=out: blas.gemm(a, a, out, mode))
            found[f"gemm_{name}_gflops"] = None if run is None else rate(2e-9 * n**3, clock(run))
    return found


def products(X: np.ndarray, p: int, clock: Clock) -> dict[str, Any]:
    """Gram and row pass of data on the device, and the bare cuBLAS calls of the same shapes.

    Bare ones are several, and the quickest is the ceiling: how many multiprocessors a call fills depends on how lines
    are cut.  A Gram counts as one triangle, whatever was computed.
    """
    from lae_fast.backends.cuda import arrays, blas

    (m, d), xp, used = X.shape, arrays.xp, backends.get_backend("cuda")
    source = sources.as_source(on_device(X))
    by_feature = m < d
    view, variance = pilot_view(source, None, by_feature=by_feature, backend="cuda")
    lines, entries, width = max(m, d), min(m, d), p + 10
    tile = view.tiling.tile
    count = -(-view.tiling.bounds(0, lines)[1] // tile)
    raw, block = (arrays.upload(np.ones((n, k)), np.float32) for n, k in ((count * tile, entries), (entries, width)))
    rows, grams = xp.empty((count * tile, width), np.float32), xp.empty((count, entries, entries), np.float32)
    tiles, images = raw.reshape(count, tile, entries), xp.empty((count, entries, width), np.float32)
    whole = plan.gram_flops(lines, entries), plan.pass_flops(lines, entries, width)
    part = plan.gram_flops(count * tile, entries), plan.pass_flops(count * tile, entries, width)

    first = used.rows.row_pass(view, block)
    known = first.sums, first.squares

    def bare_pass(cut: int) -> None:
        blas.gemm(raw, block, rows)
        blas.cross(raw.reshape(cut, -1, entries), rows.reshape(cut, -1, width), images[:cut])

    runs: dict[str, tuple[float, Callable[[], Any]]] = {
        "gram": (whole[0], lambda: used.gram.float_gram(view, None if by_feature else variance, lambda chunk: None)),
        "bare_triangles": (part[0], lambda: blas.triangles(tiles, grams)),
        "bare_gram_by_gemm": (part[0], lambda: blas.cross(tiles, tiles, grams)),
        "bare_syrk": (part[0], lambda: syrk(raw, grams[0])),
        "first_row_pass": (whole[1], lambda: used.rows.row_pass(view, block)),
        "row_pass": (whole[1], lambda: used.rows.row_pass(view, block, known=known)),
        "bare_gemms": (part[1], lambda: bare_pass(count)),
        "bare_gemms_uncut": (part[1], lambda: bare_pass(1)),
    }
    for mode in COARSE:
        coarse = dataclasses.replace(view, precision=mode)
        if run := with_mode(mode, lambda coarse=coarse: used.gram.float_gram(coarse, None, lambda chunk: None)):
            runs[f"gram_{mode}"] = whole[0], run
            runs[f"row_pass_{mode}"] = whole[1], lambda coarse=coarse: used.rows.row_pass(coarse, block, known=known)
    return {f"{name}_tflops": rate(1e-12 * flops, clock(run)) for name, (flops, run) in runs.items()}


def syrk(a: Any, out: Any) -> None:
    """out <- a'a by one call of cuBLAS, one triangle; by NumPy in a dry run."""
    from lae_fast.backends.cuda import arrays

    if arrays.xp is np:
        out[...] = a.T @ a
        return
    import cupy.cublas

    cupy.cublas.syrk("T", a, out=out, lower=True)
