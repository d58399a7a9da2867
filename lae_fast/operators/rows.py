"""S as an operator: a dense matrix, or rows of X that are multiplied without ever forming S.

An operator works in *scaled units*: its eigenvalues are those of the centred sum-of-squares matrix times `scale`^2, a
power of two that keeps every dtype in range.  The eigensolver needs only what `Operator` declares.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .. import plan
from ..backends import choose, get_backend, host_panels
from ..backends.drift import FEW_ENTRIES, LARGEST_DRIFT
from ..backends.lines import Tick, View
from ..backends.threads import READ_AHEAD
from ..data import sources
from ..data.checkpoint import Checkpoint, changing, fingerprint
from . import rounding as certificate
from . import sparse
from .pilot import coarse, pilot_view
from .sparse import IN_DOUBLE, inverse_deviations

# A pass whose shift was more than this many variances off the mean is repeated with the exact mean.
_DRIFT = 4.0
# Scores of a sparse matrix are handed on by so many rows.
_ROWS_HANDED = 16_384
# Loadings within this many powers of two from one need no scale.
_ORDINARY_EXPONENT = 60


class Operator(Protocol):
    """A symmetric positive semidefinite n x n matrix, seen through products.

    dim : n;  dtype : of the blocks it multiplies;
    scale : see the module;  trace : of S in scaled units, known after the first product;  n_passes : over the data.
    """

    dim: int
    dtype: np.dtype
    scale: float
    trace: float
    n_passes: int

    def apply(self, block: np.ndarray) -> np.ndarray:
        """S block in float64: (n, b) -> (n, b)."""
        ...


class DenseOperator:
    """A symmetric matrix in memory.

    Parameters
    ----------
    matrix : (n, n) float64, symmetric positive semidefinite, scaled units; used as it is, never written
    itemsize : of the dtype in which its entries were summed, 4 or 8; the iteration needs no more digits than they have
    panels : of the backend that multiplies (backends.Backend); the matrix goes there with the first product
    """

    def __init__(self, matrix: np.ndarray, *, scale: float = 1.0, itemsize: int = 8, panels: Any = host_panels) -> None:
        self.matrix = np.ascontiguousarray(matrix, dtype=np.float64)
        self.dim = self.matrix.shape[0]
        self.itemsize, self.panels = itemsize, panels
        self.dtype = np.dtype(np.float32 if itemsize == 4 else np.float64)
        self.scale = scale
        self.trace = float(np.trace(self.matrix))
        self.n_passes = 0
        self._rounded: np.ndarray | None = None
        self._placed: dict[Any, Any] = {}

    def apply(self, block: Any) -> Any:
        """S block in the operator's dtype: enough to iterate with."""
        if self.itemsize == 8:
            return self._product(self.matrix, block)
        return self._product(self.rounded, block).astype(np.float64)

    def _product(self, matrix: np.ndarray, block: Any) -> Any:
        if matrix.dtype not in self._placed:
            self._placed[matrix.dtype] = self.panels.place(matrix)
        panel = self.panels.place(block, matrix.dtype)
        return self.panels.like(self.panels.dense_product(self._placed[matrix.dtype], panel), block)

    @property
    def rounded(self) -> np.ndarray:
        """The matrix in the operator's dtype."""
        if self._rounded is None:
            self._rounded = self.matrix.astype(self.dtype)
        return self._rounded

    def apply_exactly(self, block: np.ndarray) -> np.ndarray:
        """S block in float64: to measure with."""
        return self._product(self.matrix, block)


class RowsOperator:
    """S = Xc' W Xc (or Xc Xc' on the sample side) by passes over the rows of X; X is never copied.

    Parameters
    ----------
    source : the data;  weights : (m,) float64 or None;  center : subtract the weighted mean
    standardize : divide every feature by its standard deviation (ddof 1), implicitly
    by_feature : lines are features, so the operator is m x m: the sample side of a wide matrix
    block : columns that `apply` expects, for the tiling
    location : (d,) the mean, where it is known; by sample only.  Products are then centred before they are squared:
        along a direction of tiny variance V'SV would cancel against the distance of the pilot's shift from the mean
    backend : "cpu" or "cuda", resolved;  precision : of products of float32 (backends.PRECISIONS)
    max_memory, held : bytes, and how many of them tiles do not have, which are cut to fit; None: no limit

    Attributes
    ----------
    mean, location : (d,) float64, what is subtracted, and where the mean is: they differ for center=False
    variances : (d,) float64, sum of weighted squares about the mean, data units; both known
    after the first pass
    note : what is to be said of the passes, or ""
    """

    def __init__(
        self,
        source: sources.Source,
        *,
        weights: np.ndarray | None = None,
        center: bool = True,
        standardize: bool = False,
        by_feature: bool = False,
        block: int = 16,
        location: np.ndarray | None = None,
        tick: Any = None,
        backend: str = "cpu",
        precision: str = "float32",
        max_memory: int | None = None,
        held: int = 0,
    ) -> None:
        self.source, self.center, self.by_feature = source, center, by_feature
        self.backend = get_backend(backend)
        self.panels = self.backend.panels
        self.weight_sum = float(source.shape[0]) if weights is None else float(weights.sum())
        self._standardize = standardize
        view, _ = pilot_view(
            source,
            weights,
            block=block,
            by_feature=by_feature,
            center=center,
            feature_denominator=self.weight_sum - 1.0 if standardize else 0.0,
            tick=tick,
            backend=backend,
            max_memory=max_memory,
            held=held,
        )
        self._view = dataclasses.replace(view, precision=precision)
        self.tiling = self._view.tiling
        self.dim = source.n_lines(not by_feature)
        self.dtype = source.compute_dtype
        self._n_lines = source.n_lines(by_feature)
        # standardized features are of order 1 already: their inverse deviations take the scale back
        self.scale = 1.0 if standardize else self._view.scale
        self.n_passes = 0
        self.trace = float("nan")
        self.mean = np.zeros(source.shape[1])
        self.variances: np.ndarray | None = None
        self.location = np.zeros(source.shape[1])
        self._given = location
        self._offset = np.zeros(self.dim)  # location - shift in scaled units, by sample
        self._inverse_deviation: np.ndarray | None = None
        self._recentred = False
        self._known: tuple[np.ndarray, np.ndarray] | None = None  # sums and squares, once a pass has gathered them
        self._gathered: tuple[np.ndarray, np.ndarray] | None = None  # the same, about the shift
        self._ones: np.ndarray | None = None  # unit vector of the samples' mean, where lines are centred features
        if by_feature and center:
            roots = np.ones(self.dim) if weights is None else np.sqrt(weights)
            self._ones = roots / np.linalg.norm(roots)
        self._products = np.dtype(np.float64) if min(source.shape) <= FEW_ENTRIES else self.dtype
        self._drift: float | None = None
        self.note = ""

    def apply(self, block: Any) -> Any:
        return self.apply_inner(block, False)[0]

    def apply_inner(self, block: Any, with_inner: bool = True) -> tuple[Any, np.ndarray]:
        """S block, and V'SV from the same pass as a sum of squares: (n, b), (b, b), float64.

        The image of a block on the backend's device is there too.
        """
        self._prepare()
        by_sample = not self.by_feature
        scaled = block
        if self._inverse_deviation is not None and by_sample:
            scaled = self.panels.scale_rows(block, self._inverse_deviation)
        panel = self.panels.place(scaled, self._products)
        if self._ones is not None:
            panel = self.panels.place(self._centred(panel), self._products)
        offset = None
        if self._given is not None and by_sample:
            offset = self.panels.along((self._given - self._view.shift) * self._view.scale, panel)
        compares = self._drift is None
        result = self.backend.rows.row_pass(self._view, panel, with_inner, self._known, offset, compares)
        self.n_passes += 1
        if compares and result.drift > LARGEST_DRIFT and self._products.itemsize == 4:
            # rounding errors of these data are not independent: all over in float64, what is known of them too
            self._products, self._known, self.variances = np.dtype(np.float64), None, None
            self.note = IN_DOUBLE
            return self.apply_inner(block, with_inner)
        if self.variances is None and not self._learn(result.sums, result.squares):
            return self.apply_inner(block, with_inner)
        if compares:
            self._drift = result.drift
        image, inner = result.image, result.inner
        if not self.panels.is_finite(image):  # the statistics were finite, so products of them have overflowed
            sources.raise_nonfinite(self.source)
        if self._ones is not None:
            image = self._centred(image)
        if by_sample:
            if offset is None:
                image, inner = self._moved(image, inner, panel, self._offset, -self.weight_sum)
            else:
                image = self.panels.plus_outer(image, -1.0, self._offset, result.total)
                if with_inner:
                    inner = inner - np.multiply.outer(result.total, result.total) / self.weight_sum
            if not self.center:
                image, inner = self._moved(image, inner, panel, self.location * self._view.scale, self.weight_sum)
        if self._inverse_deviation is not None and by_sample:
            image = self.panels.scale_rows(image, self._inverse_deviation)
        return self.panels.like(image, block), inner

    def _centred(self, panel: Any) -> Any:
        """Less what lies along the samples' unit vector, which S maps to zero.

        A mean is known to rounding only, and the first pass has another one than those that follow: far from zero S
        would change between them by that times the mean.
        """
        return self.panels.plus_outer(panel, -1.0, self._ones, self.panels.along(self._ones, panel))

    def _moved(
        self, image: Any, inner: np.ndarray, panel: Any, vector: np.ndarray, factor: float
    ) -> tuple[Any, np.ndarray]:
        """(S + f v v') V and V'(S + f v v') V from those of S."""
        along = self.panels.along(vector, panel)
        image = self.panels.plus_outer(image, factor, vector, along)
        return image, (inner + factor * np.multiply.outer(along, along) if inner.size else inner)

    def gram(self, checkpoint: Checkpoint | None = None) -> np.ndarray:
        """The operator as an (n, n) float64 matrix, in one pass; lines must be features."""
        passes = self.backend.gram
        total = passes.square(self.dim)
        nothing = np.zeros(self.dim)
        means, squares = np.zeros(self._n_lines), np.zeros(self._n_lines)

        def commit(chunk: Any) -> None:
            with changing(checkpoint):
                add(chunk)

        def add(chunk: Any) -> None:
            means[chunk.first : chunk.first + chunk.count] = chunk.sums
            squares[chunk.first : chunk.first + chunk.count] = chunk.squares
            chunk.add_to(total, nothing, nothing, nothing, 0.0)
            if checkpoint is not None:
                chunks = chunk.number + 1
                checkpoint.offer(
                    lambda: {
                        "chunks": chunks,
                        "means": means,
                        "squares": squares,
                        "scatter": self.panels.fetch(total),
                    },
                    f"chunk {chunks} of {self._view.n_chunks}",
                )

        start = 0
        if checkpoint is not None and (state := checkpoint.begin(self.fingerprint("Gram of the samples"))) is not None:
            means[:], squares[:] = state["means"], state["squares"]
            total[:] = self.panels.place(state["scatter"])
            start = int(state["chunks"])
        passes.float_gram(self._view, None, commit, start)
        self.n_passes += 1
        self._learn(means, squares)
        return passes.symmetric(total)

    def fingerprint(self, stage: str, **options: Any) -> dict[str, Any]:
        """What must be the same for a killed run to go on (checkpoint.py); before the first pass."""
        view = self._view
        weights = view.weights if view.weights.size else None
        return fingerprint(
            self.source, stage, weights, scale=view.scale, shift=view.shift.tolist(),
            centers_lines=view.center, denominator=view.denominator,
            tiling=[view.tiling.chunk, view.tiling.tile], blas=self.backend.provider(), **options,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What passes have found, numbers and arrays, for `restore`; after the first one."""
        sums, squares = self._gathered
        return {
            "n_passes": self.n_passes,
            "shift": self._view.shift,
            "sums": sums,
            "squares": squares,
            "products": self._products.itemsize,
            "drift": self._drift or 0.0,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be as the operator whose `state` this was; a new one, made of the same arguments."""
        self._view = dataclasses.replace(self._view, shift=state["shift"])
        self._recentred = True
        self._learn(state["sums"], state["squares"])
        self._products, self._drift = np.dtype(f"f{int(state['products'])}"), float(state["drift"])
        self.n_passes = int(state["n_passes"])

    def rounding(self, vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Bound of the rounding in `apply(vectors)`, (p,), scaled units."""
        diagonal = self.variances * self._view.scale**2
        if not self.by_feature:  # what is multiplied is about the shift
            diagonal = np.maximum(diagonal, self._gathered[1])
        if self._inverse_deviation is not None:
            diagonal = diagonal * self._inverse_deviation**2
        fewest = self.tiling.fewest_lines(self._n_lines)
        return certificate.pass_rounding(
            diagonal, vectors, values, self._products.itemsize, fewest, self.backend.runs,
            stored=self.dtype.itemsize, drift=self._drift or 0.0, standardize=self._standardize,
        )  # fmt: skip

    def tile_bytes(self, n_threads: int) -> int:
        """Bytes of all threads' buffers."""
        copied = self.dtype.itemsize if self.source.copies_chunks(self.by_feature) else 0
        ahead = READ_AHEAD * self.tiling.chunk * self.dim * copied if self.source.in_order else 0
        return plan.tile_bytes(self.tiling, self.dim, self._products.itemsize, n_threads, copied) + ahead

    def project(self, block: np.ndarray) -> np.ndarray:
        """(lines, b) in the compute dtype, scaled units: X'V on the sample side.  Half a pass."""
        panel = self.panels.place(block, self.dtype)
        out = np.empty((self.source.n_lines(self.by_feature), panel.shape[1]), self.dtype)
        sums = self.backend.rows.project(self._view, panel, out, self._known)
        self.n_passes += 1
        if not np.isfinite(sums).all():
            sources.raise_nonfinite(self.source)
        return out

    def _prepare(self) -> None:
        """Standard deviations by sample are needed before the first product."""
        if self._standardize and not self.by_feature:
            while self.variances is None:
                result = self.backend.rows.statistics(self._view, self._products)
                self.n_passes += 1
                self._learn(result.sums, result.squares)

    def _learn(self, sums: np.ndarray, squares: np.ndarray) -> bool:
        """Take mean, variances and trace from a pass; False when its shift was too far off: the pass is repeated."""
        if not (np.isfinite(sums).all() and np.isfinite(squares).all()):
            sources.raise_nonfinite(self.source)
        self._gathered = sums, squares
        if not self.by_feature:
            offset = sums / self.weight_sum
            mean = self._view.shift + offset / self._view.scale
            centred = np.maximum(squares - self.weight_sum * offset**2, 0.0)
            if not self._recentred and self._is_far(offset, centred):
                self._recentred = True
                self._view = dataclasses.replace(
                    self._view,
                    shift=coarse(mean, np.sqrt(centred / self.weight_sum) / self._view.scale).astype(self.dtype),
                )
                return False
            self._offset, self.location, squares = offset, mean, centred
            if self.center:
                self.mean = mean
            else:
                squares = centred + self.weight_sum * (mean * self._view.scale) ** 2
        elif self.center:
            self.mean = self.location = sums
        self._known = sums, squares
        self.variances = squares / self._view.scale**2
        if self._standardize:
            used = squares > 0
            self.trace = float(used.sum()) * (self.weight_sum - 1.0)
            if not self.by_feature:
                self._inverse_deviation = inverse_deviations(squares, self.weight_sum)
        else:
            self.trace = float(squares.sum())
        return True

    def _is_far(self, offset: np.ndarray, centred: np.ndarray) -> bool:
        """Whether some mean lies more than two standard deviations off the shift, and more than rounding explains."""
        rounding = 8 * np.finfo(self.dtype).eps * np.abs(self._view.shift * self._view.scale)
        far = offset**2 > _DRIFT * centred / self.weight_sum
        return bool((far & (np.abs(offset) > rounding)).any())


def scores(
    source: sources.Source,
    mean: np.ndarray,
    loadings: np.ndarray,
    out: np.ndarray | Callable[[np.ndarray], object] | None,
    backend: str = "auto",
    *,
    max_memory: int | None = None,
    tick: Tick | None = None,
) -> Any:
    """(x_r - mean) loadings' for every row, in one pass: (m, p) in the source's compute dtype, where the source is.

    mean : (d,) float64;  loadings : (p, d) float64
    out : (m, p) on the host, writable, with C-ordered rows;  None for a new array;  or a callable that is given the
        scores of some rows after the other, in order, on the host, so that they are never held together: the answer is
        None then
    max_memory : bytes for the workspace of the host, which is cut to fit: at least one row for each thread
    """
    dtype = source.compute_dtype
    factor = _middle(loadings, dtype)
    shape = (source.shape[0], loadings.shape[0])
    name = choose(backend, source.on_device, plan.device_pays(*source.shape, loadings.shape[0], source.nnz, passes=1))
    used = get_backend(name)
    stays = out is None and source.on_device and name == "cuda"
    if out is None:
        out = used.panels.empty(shape, dtype) if stays else np.empty(shape, dtype)
    elif callable(out):
        out = _HandedOn(out)
    else:
        _check_out(out, shape, dtype)
    if isinstance(source, sources.SparseSource) and plan.sparse_pays(*source.shape, source.nnz):
        if callable(out):
            _hand_on_sparse(source, mean, loadings, out, tick, name, factor)
        else:
            sparse.scores(source, mean, loadings, out, name, factor)
    else:
        shift = mean.astype(dtype)
        tiling = plan.tiling(shape[0], source.shape[1], dtype.itemsize, 2.0 * source.shape[1] * shape[1], name)
        held = source.read_within(max_memory)
        if max_memory is not None:
            # on the way to a device every chunk is copied, and products come back through memory of their own
            copied = dtype.itemsize if name == "cuda" or source.copies_chunks(False) else 0
            threads = plan.DEVICE_READERS if name == "cuda" else used.n_workers + READ_AHEAD * source.in_order
            width = shape[1] if name == "cuda" or callable(out) else 0
            tiling = plan.within(tiling, source.shape[1], width, dtype.itemsize, threads, copied, max_memory, held)
        view = View(source, False, shift, factor, np.empty(0), tiling, tick)
        left = (mean - shift) @ loadings.T  # what rounding the mean to the dtype left
        block = used.panels.place(loadings.T / factor, dtype)
        sums = used.rows.project(view, block, out, None, left.astype(dtype) if left.any() else None)
        if not np.isfinite(sums).all():
            sources.raise_nonfinite(source)
    if isinstance(out, _HandedOn):
        if not out.finite:
            sources.raise_nonfinite(source)
        return None
    if not (used.panels.is_finite(out) if stays else _all_finite(out)):
        sources.raise_nonfinite(source)
    return source.returned(out) if stays else out


class _HandedOn:
    """A callable that is given scores, and whether all of them were finite."""

    def __init__(self, out: Callable[[np.ndarray], object]) -> None:
        self._out = out
        self.finite = True

    def __call__(self, rows: np.ndarray) -> None:
        self.finite = self.finite and bool(np.isfinite(rows).all())
        self._out(rows)


def _all_finite(out: np.ndarray) -> bool:
    """Whether no score has left the range of the dtype; some rows at a time, because `out` may be a large file."""
    return all(bool(np.isfinite(out[first : first + _ROWS_HANDED]).all()) for first in range(0, len(out), _ROWS_HANDED))


def _middle(loadings: np.ndarray, dtype: np.dtype) -> float:
    """A power of two that multiplies rows and divides loadings (p, d), so that neither leaves the range of the dtype.

    1.0 where loadings are of ordinary size; else the middle of their sizes by feature, which are the inverse sizes of
    the features where scores are whitened or features are standardized.
    """
    sizes = np.abs(loadings).max(axis=0, initial=0.0)
    sizes = sizes[sizes > 0]
    if not sizes.size:
        return 1.0
    low, high = np.log2(sizes.min()), np.log2(sizes.max())
    if max(-low, high) < _ORDINARY_EXPONENT or not np.isfinite(high):
        return 1.0
    most = plan.MOST_FLOAT32_SCALE if dtype.itemsize == 4 else 2 * plan.MOST_EXPONENT
    return float(2.0 ** np.clip(np.round((low + high) / 2), -most, most))


def expanded(source: sources.DeviceSource, loadings: np.ndarray, mean: np.ndarray, dtype: np.dtype) -> Any:
    """Rows times loadings, plus the mean, on the device: (m, d) in the library that the rows came in.

    loadings : (p, d) and mean : (d,) of the host.
    """
    panels = get_backend("cuda").panels
    rows = panels.multiply(source.device_block(0, source.shape[0], False), loadings, dtype)
    rows += panels.place(mean, dtype)
    return source.returned(rows)


def _check_out(out: Any, shape: tuple[int, int], dtype: np.dtype) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array or np.memmap of shape {shape} and dtype {dtype}, not {type(out)}.")
    if out.shape != shape or out.dtype != dtype or (out.size and out.strides[1] != out.itemsize):
        raise ValueError(
            f"out must be a C-ordered array of shape {shape} and dtype {dtype}, not {out.shape} {out.dtype} with "
            f"strides {out.strides}: make it with np.empty({shape}, '{dtype}')."
        )
    if not out.flags.writeable:
        raise ValueError("out is read-only: pass an array that can be written, or a memmap opened with mode 'r+'.")


def _hand_on_sparse(
    source: sources.SparseSource,
    mean: np.ndarray,
    loadings: np.ndarray,
    out: Callable,
    tick: Tick | None,
    backend: str,
    factor: float,
) -> None:
    """`sparse.scores` of some rows after the other."""
    m, p = source.shape[0], loadings.shape[0]
    rows = np.empty((min(m, _ROWS_HANDED), p), source.compute_dtype)
    for first in range(0, m, len(rows)):
        last = min(m, first + len(rows))
        part = sources.SparseSource(source.matrix(first, last))
        part.compute_dtype, part.first_row = source.compute_dtype, first
        sparse.scores(part, mean, loadings, rows[: last - first], backend, factor)
        out(rows[: last - first])
        if tick is not None:
            tick(last, m)
