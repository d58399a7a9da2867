"""``lae-fast warmup``: compiles kernels ahead, for images and CI, by small fits of the kinds that people make.

A kernel is compiled for types, not for sizes: dtype, order in memory, and the solver's way with few columns or many.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


def run_warmup(options: WarmupOptions) -> None:
    """Run every job, and say what was compiled and where it is kept."""
    import numpy as np

    from lae_fast.backends.cpu import jit

    directory = jit.cache_directory()
    if jit.JIT_DISABLED or directory is None:
        raise ValueError(
            "there is nothing to warm up: "
            + ("compilation is switched off" if jit.JIT_DISABLED else "compiled kernels are not kept (see lae-fast info)")
        )
    jobs = list(common(np.random.default_rng(0)))
    if options.all:
        jobs += rare(np.random.default_rng(1))
    began, before = time.perf_counter(), jit.counts()
    for name, job in jobs:
        start, compiled = time.perf_counter(), jit.counts()[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of training runs that end early
            job()
        compiled = jit.counts()[1] - compiled
        if compiled and not options.quiet:
            print_line(name, f"{counted(compiled, 'kernel')}, {time.perf_counter() - start:.1f} s", "green")
    loaded, compiled = (after - old for after, old in zip(jit.counts(), before))
    if not options.quiet:
        fields = {"compiled": counted(compiled, "kernel"), "there already": counted(loaded, "kernel")}
        print_fields(fields | {"seconds": f"{time.perf_counter() - began:.1f}", "kept in": str(directory)})


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
    import scipy.sparse

    import lae_fast as lf

    x = _data(rng)
    weights = rng.uniform(0.5, 2.0, len(x))
    kinds = [np.float32, np.float64, np.float16, np.uint8, np.int8, np.int16, np.uint16, np.int32, np.int64, np.bool_]
    for kind in kinds:
        rows = ((30 * x).clip(-100, 100) if kind != np.bool_ else x > 0).astype(kind)
        if kind == np.uint8:
            rows = (30 * x + 128).clip(0, 255).astype(kind)
        few = np.ascontiguousarray(rows[:, :20])
        orders = {"": rows, ", by columns": np.asfortranarray(rows), ", wide": np.ascontiguousarray(rows[:70].repeat(2, 1))}
        for order, matrix in (orders | {", few columns": few}).items():
            for solver in ("auto", "gram", "krylov"):
                yield f"PCA {np.dtype(kind)}{order}, {solver}", _fit(lf.PCA(3, svd_solver=solver), matrix)
            yield f"PCA {np.dtype(kind)}{order}, standardize", _fit(lf.PCA(3, standardize=True), matrix)
        yield f"IncrementalPCA {np.dtype(kind)}", _fit(lf.IncrementalPCA(3, batch_size=100), rows)
    for kind in (np.float32, np.float64):
        rows = x.astype(kind)
        for solver in ("gram", "krylov"):
            pca = lf.PCA(3, svd_solver=solver)
            yield f"PCA {np.dtype(kind)}, weights, {solver}", lambda pca=pca, rows=rows: pca.fit(rows, sample_weight=weights)
        gaps = np.where(rng.random(x.shape) < 0.05, np.nan, x).astype(kind)
        yield f"PCA {np.dtype(kind)}, missing values", _fit(lf.PCA(2, missing="em", tol=1e-2), gaps[:, :20])
        yield f"TruncatedSVD {np.dtype(kind)}", _fit(lf.TruncatedSVD(3), rows)
        for index in (np.int32, np.int64):
            for make in (scipy.sparse.csr_array, scipy.sparse.csc_array):
                sparse = make(np.where(np.abs(rows) > 1, rows, 0).astype(kind))
                sparse.indices, sparse.indptr = sparse.indices.astype(index), sparse.indptr.astype(index)
                for solver in ("gram", "krylov"):
                    name = f"PCA {np.dtype(kind)}, {sparse.format}, {np.dtype(index)} indices, {solver}"
                    yield name, _fit(lf.PCA(3, svd_solver=solver), sparse)
                yield f"TruncatedSVD {np.dtype(kind)}, {sparse.format}", _fit(lf.TruncatedSVD(3), sparse)
        yield f"LinearAutoencoder {np.dtype(kind)}", _fit(lf.LinearAutoencoder(3, max_iter=120), rows)
        for matrix in (rows, np.asfortranarray(rows)):
            model = lf.LinearAutoencoder(3, batch_size=50, max_iter=40)
            yield f"LinearAutoencoder {np.dtype(kind)}, mini-batches", _fit(model, matrix)
        model = lf.LinearAutoencoder(3, max_iter=40)
        yield f"LinearAutoencoder {np.dtype(kind)}, targets", lambda model=model, rows=rows: model.fit(rows, rows[:, :40])


def _data(rng: Any) -> Any:
    """(640, 80) float64 with a few directions that stand out; more than 64 columns, so that unused ones are looked for."""
    import numpy as np

    return rng.standard_normal((640, 80)) * np.linspace(2.0, 0.2, 80)


def _fit(model: Any, matrix: Any) -> Callable[[], object]:
    """Fits, and transforms what was fitted."""
    return lambda: model.fit(matrix).transform(matrix)
