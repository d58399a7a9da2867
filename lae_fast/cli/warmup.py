"""``lae-fast warmup``: compiles kernels ahead, for images and CI, by small fits of the kinds that people make.

A kernel is compiled for types, not for sizes: dtype, order in memory, and the solver's way with few columns or many.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from lae_fast.cli.options import option
from lae_fast.cli.output import counted, print_fields, print_line

Job = tuple[str, Callable[[], object]]


@dataclass(frozen=True, kw_only=True)
class WarmupOptions:
    """``lae-fast warmup``."""

    all: Annotated[
        bool, option("--all", help="Sparse data, weights, files, mini-batches, every estimator: minutes, not seconds.")
    ] = False
    quiet: Annotated[bool, option("-q", "--quiet", help="Print warnings and errors only.")] = False


def run_warmup(options: WarmupOptions, only: str = "") -> None:
    """Run every job, or those whose names begin with `only`, and say what was compiled and where it is kept."""
    import numpy as np

    cache = _cache()
    if not (cache["jit"] and cache["enabled"]):
        reason = "compiled kernels are not kept (see lae-fast info)" if cache["jit"] else "compilation is switched off"
        raise ValueError(f"there is nothing to warm up: {reason}")
    jobs = list(common(np.random.default_rng(0)))
    if options.all:
        jobs += rare(np.random.default_rng(1))
    began = time.perf_counter()
    for name, job in jobs:
        if not name.startswith(only):
            continue
        start, before = time.perf_counter(), _cache()["compiled"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of training runs that end early
            job()
        compiled = _cache()["compiled"] - before
        if compiled and not options.quiet:
            print_line(name, f"{counted(compiled, 'kernel')}, {time.perf_counter() - start:.1f} s", "green")
    if not options.quiet:
        after = _cache()
        compiled, loaded = (counted(after[kind] - cache[kind], "kernel") for kind in ("compiled", "loaded"))
        fields = {"compiled": compiled, "there already": loaded, "seconds": f"{time.perf_counter() - began:.1f}"}
        print_fields(fields | {"kept in": cache["path"]})


def _cache() -> dict[str, Any]:
    """What the library says of its compile cache."""
    import lae_fast

    found: dict[str, Any] = lae_fast.backend_info()["cache"]
    return found


def common(rng: Any) -> Iterator[Job]:
    """Dense PCA of float32, float64 and uint8, by both routes, and the default training of an autoencoder."""
    import numpy as np

    import lae_fast as lf

    x = _data(rng)
    bytes_ = (30 * x + 128).clip(0, 255).astype(np.uint8)
    for matrix in (x.astype(np.float32), x, bytes_):
        for kind, part in (("", matrix), (", few columns", np.ascontiguousarray(matrix[:, :20]))):
            for solver in ("auto", "krylov"):
                yield f"PCA {matrix.dtype}{kind}, {solver}", _fit(lf.PCA(3, svd_solver=solver), part)
    yield "LinearAutoencoder float32", _fit(lf.LinearAutoencoder(3, max_iter=120), x.astype(np.float32))


def rare(rng: Any) -> Iterator[Job]:
    """What is left: other types and orders, wide and sparse data, weights, options, streams, other estimators."""
    import numpy as np

    import lae_fast as lf

    x = _data(rng)
    floats = np.float32, np.float64
    for kind in (*floats, np.float16, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64):
        rows = (30 * x).clip(0, 100).astype(kind)
        yield from _dense(rows, (rows, np.asfortranarray(rows), np.ascontiguousarray(rows[:70].repeat(2, 1))))
        yield f"IncrementalPCA {rows.dtype}", _fit(lf.IncrementalPCA(3, batch_size=100), rows)
    for kind in floats:
        yield from _sparse(np.where(np.abs(x) > 1, x, 0).astype(kind))
        rows = x.astype(kind)
        gaps = np.where(rng.random(x.shape) < 0.05, np.nan, rows)
        yield f"PCA {rows.dtype}, missing values", _fit(lf.PCA(2, missing="em", tol=1e-2), gaps[:, :20])
        zeros = np.where(np.arange(x.shape[1]) < 40, rows, rows.dtype.type(0))
        yield f"PCA {rows.dtype}, columns of zeros", _fit(lf.PCA(3, svd_solver="gram"), zeros)
        yield f"TruncatedSVD {rows.dtype}", _fit(lf.TruncatedSVD(3), rows)
        for solver in ("gram", "krylov"):
            weighted = partial(lf.PCA(3, svd_solver=solver).fit, rows, sample_weight=rng.uniform(0.5, 2.0, len(x)))
            yield f"PCA {rows.dtype}, weights, {solver}", weighted
        model = lf.LinearAutoencoder(3, max_iter=40)
        yield f"LinearAutoencoder {rows.dtype}", _fit(model, rows)
        yield f"LinearAutoencoder {rows.dtype}, targets", partial(model.fit, rows, targets=rows[:, :40])
        for loss in ("ordered", "vae"):  # by its gradient, and of the other kinds
            batches = lf.LinearAutoencoder(3, loss=loss, batch_size=50, max_iter=40)
            yield f"LinearAutoencoder {rows.dtype}, mini-batches, {loss}", _fit(batches, rows)


def _dense(rows: Any, matrices: tuple[Any, ...]) -> Iterator[Job]:
    """PCA of a matrix by rows, by columns and wide, standardized, and with few columns."""
    import numpy as np

    import lae_fast as lf

    for matrix in (*matrices, np.ascontiguousarray(rows[:, :20])):
        name = f"PCA {matrix.dtype}, {matrix.shape[0]} x {matrix.shape[1]}"
        name += "" if matrix.flags.c_contiguous else ", by columns"
        for solver in ("auto", "gram", "krylov"):
            yield f"{name}, {solver}", _fit(lf.PCA(3, svd_solver=solver), matrix)
        yield f"{name}, standardized", _fit(lf.PCA(3, standardize=True), matrix)


def _sparse(rows: Any) -> Iterator[Job]:
    """PCA and TruncatedSVD by rows and by columns, with indices of 32 and 64 bits."""
    import numpy as np
    import scipy.sparse

    import lae_fast as lf

    for make in (scipy.sparse.csr_array, scipy.sparse.csc_array):
        for index in (np.int32, np.int64):
            matrix = make(rows)
            matrix.indices, matrix.indptr = matrix.indices.astype(index), matrix.indptr.astype(index)
            name = f"{matrix.dtype}, {matrix.format}, {np.dtype(index)} indices"
            for solver in ("gram", "krylov"):
                yield f"PCA {name}, {solver}", _fit(lf.PCA(3, svd_solver=solver), matrix)
            yield f"TruncatedSVD {name}", _fit(lf.TruncatedSVD(3), matrix)


def _data(rng: Any) -> Any:
    """(640, 80) float64, some directions larger; over 64 columns, for which passes look for unused ones."""
    import numpy as np

    return rng.standard_normal((640, 80)) * np.linspace(2.0, 0.2, 80)


def _fit(model: Any, matrix: Any) -> Callable[[], object]:
    """Fits, and transforms what was fitted."""
    return lambda: model.fit(matrix).transform(matrix)
