"""S of a sparse matrix by passes over its stored entries: centring and standardizing are implicit.

The counterpart of `rows.RowsOperator`, in the same scaled units and with the same attributes; equations:
docs/storage.md, "Sparse passes".
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np

from .. import plan, validation
from ..backends import Backend, get_backend
from ..backends.drift import FEW_ENTRIES, FEWEST_SUMS, LARGEST_DRIFT
from ..backends.lines import Lines, Statistics
from ..backends.sample_weights import are_even
from ..data import sources
from ..data.checkpoint import fingerprint
from . import certificate
from .dense import IN_DOUBLE, inverse_deviations

# Stored entries are multiplied as they are, so a mean this many deviations from zero costs digits: tiles, which are
# shifted first, are read instead.  Float64 has no digits to spare beyond those that are asked for, so less is allowed.
_FAR, _FAR_DOUBLE = 100.0, 10.0
# What is left of a sum of squares about zero when the mean is taken off is rounding below this share of the sum: the
# feature is constant.
_CONSTANT = 64 * np.finfo(np.float64).eps


def stored_entries_pay(source: sources.Source) -> TypeGuard[sources.SparseSource]:
    """Whether passes over the stored entries of a source are quicker than tiles made dense: never where it has none."""
    return isinstance(source, sources.SparseSource) and plan.sparse_pays(*source.shape, source.nnz or 0)


class SparseOperator:
    """S = Xc' W Xc (or Xc Xc' on the sample side) over the stored entries of X.

    Parameters and attributes are as of `rows.RowsOperator`, besides
    is_far : means are so far from zero that tiles, which are shifted before they are multiplied, keep more digits; the
        caller then takes `RowsOperator`

    Statistics are read when the operator is made, so that products are centred before they are summed: the error of an
    image then goes with the deviation of the data and not with its mean.
    """

    def __init__(
        self,
        source: sources.SparseSource,
        *,
        weights: np.ndarray | None = None,
        center: bool = True,
        standardize: bool = False,
        by_feature: bool = False,
        block: int = 16,
        tick: Any = None,
        backend: str = "cpu",
        settles: bool = False,
    ) -> None:
        self._settles = settles
        self._width = block
        self.backend = get_backend(backend)
        self.panels = self.backend.panels
        self.source, self.center, self.by_feature = source, center, by_feature
        self.dim, self.dtype = source.n_lines(not by_feature), source.compute_dtype
        self.weight_sum = float(source.shape[0]) if weights is None else float(weights.sum())
        factor = _power_of_two(source)
        self.scale = 1.0 if standardize else factor
        chunk = plan.sparse_chunk(source.n_lines(by_feature), self.dim, source.nnz or 0)
        self._lines = Lines(source, by_feature, chunk, factor, tick)
        self._products = np.dtype(np.float64) if min(source.shape) <= FEW_ENTRIES else self.dtype
        self._drift: float | None = None
        self.note = ""
        given = np.empty(0) if weights is None else weights
        found = self.backend.sparse.statistics(self._lines, given)
        if not (np.isfinite(found.sums).all() and np.isfinite(found.squares).all()):
            sources.raise_nonfinite(source)
        self.n_passes = 1
        self._learn(found, factor, standardize)
        self._entry_weights = np.sqrt(given) if by_feature else np.empty(0)
        self._line_weights = np.empty(0) if by_feature else given
        if not are_even(self._line_weights):  # products are compared before they are weighted
            self._products, self._drift = np.dtype(np.float64), float("inf")
        self._alpha = self._mean if by_feature else np.empty(0)
        if by_feature and self._inverse_deviation is not None:
            self._line_weights = self._inverse_deviation**2

    def _learn(self, found: Statistics, factor: float, standardize: bool) -> None:
        """Take mean, variances, trace, and what rounding depends on, from the statistics of the stored entries."""
        center = self.center
        self._longest, self._largest_line = found.longest, found.largest
        self._run = min(self.backend.sparse.LONGEST_RUN, int(found.run.max(initial=0)))
        self._heavy = np.flatnonzero(found.run > self.backend.sparse.LONGEST_RUN)
        mean = found.sums / self.weight_sum
        about_mean = found.squares - self.weight_sum * mean**2
        about_mean[about_mean <= _CONSTANT * found.squares] = 0.0
        squares = about_mean if center else found.squares
        self._about_zero = found.squares
        self._mean = mean if center else np.zeros_like(mean)
        self.mean, self.location = self._mean / factor, mean / factor
        self.variances = squares / factor**2
        self._inverse_deviation = inverse_deviations(squares, self.weight_sum) if standardize else None
        self.trace = float(squares.sum())
        if standardize:
            self.trace = float((squares > 0).sum()) * (self.weight_sum - 1.0)
        reference = about_mean if standardize else about_mean.max(initial=0.0)
        # deviations are roots of what is left of sums of squares
        used = squares > 0 if standardize else np.zeros(0, bool)
        self._cancelled = float((found.squares[used] / squares[used]).max(initial=1.0)) if used.any() else 0.0
        self.is_far = bool((self.weight_sum * mean**2 > _far(self.dtype) ** 2 * reference).any())

    def apply(self, block: Any) -> Any:
        return self.apply_inner(block, False)[0]

    def apply_inner(self, block: Any, with_inner: bool = True) -> tuple[Any, np.ndarray]:
        """See `rows.RowsOperator.apply_inner`."""
        panel, offset = self._panel(block, self._products)
        beta = self._beta()
        image, inner, total, drift, few = self.backend.sparse.row_pass(
            self._lines, panel, offset, self._alpha, self._line_weights, self._heavy, with_inner, self._drift is None
        )
        self.n_passes += 1
        adds_up = drift > LARGEST_DRIFT or (self._settles and few < FEWEST_SUMS)
        if self._drift is None and adds_up and self._products.itemsize == 4:
            self._products, self.note = np.dtype(np.float64), IN_DOUBLE
            return self.apply_inner(block, with_inner)
        self._drift = drift if self._drift is None else self._drift
        if not self.panels.is_finite(image):
            sources.raise_nonfinite(self.source)
        if self.center:
            image = self.panels.plus_outer(image, -1.0, beta, total)
            if inner.size and not self.by_feature:  # what rounding of the offset left in every row
                inner -= np.multiply.outer(total, total) / self.weight_sum
        sides = self._sides()
        image = image if sides is None else self.panels.scale_rows(image, sides)
        return self.panels.like(image, block), inner

    def _panel(self, block: Any, dtype: np.dtype) -> tuple[Any, np.ndarray]:
        """The block as it multiplies stored entries, and its product with beta (b,), both in `dtype`."""
        sides = self._sides()
        panel = self.panels.place(block if sides is None else self.panels.scale_rows(block, sides), dtype)
        return panel, self.panels.along(self._beta(), panel).astype(dtype)

    def project(self, block: np.ndarray) -> np.ndarray:
        """(lines, b) in the compute dtype, scaled units.  Half a pass."""
        panel, offset = self._panel(block, self.dtype)
        out = np.empty((self.source.n_lines(self.by_feature), panel.shape[1]), self.dtype)
        self.backend.sparse.project(self._lines, panel, offset, self._alpha, out)
        self.n_passes += 1
        if self.by_feature and self._inverse_deviation is not None:
            out *= self._inverse_deviation[:, None].astype(self.dtype)
        return out

    def gram(self) -> np.ndarray:
        """The operator as an (n, n) float64 matrix over pairs of stored entries, in one pass; lines must be features.

        sum_l t_l (x_l - mu_l 1)(x_l - mu_l 1)' with t_l the squared inverse deviation: products of float32 entries are
        exact and sums are in float64, so the mean is taken off at the end.
        """
        lines, dim = self._lines, self.dim
        chunk = plan.sparse_gram_chunk(lines.n_lines, dim, self.source.pairs(True))
        total = self.backend.sparse.gram(Lines(self.source, True, chunk, lines.factor, lines.tick), self._line_weights)
        if self.center:
            means = self._mean if self._inverse_deviation is None else self._mean * self._inverse_deviation**2
            products = _combination(lines, means)
            total -= products[:, None] + products
            total += means @ self._mean
        self.n_passes += 1
        sides = self._sides()
        return total if sides is None else total * np.multiply.outer(sides, sides)

    def fingerprint(self, stage: str, **options: Any) -> dict[str, Any]:
        """See `rows.RowsOperator.fingerprint`."""
        weights = self._entry_weights**2 if self.by_feature else self._line_weights
        return fingerprint(
            self.source, stage, weights if weights.size else None, scale=self._lines.factor, tiling=self._lines.chunk,
            blas=self.backend.provider(), **options,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What `restore` needs: statistics are read again."""
        return {"n_passes": self.n_passes, "products": self._products.itemsize, "drift": self._drift or 0.0}

    def restore(self, state: dict[str, Any]) -> None:
        """See `rows.RowsOperator.restore`."""
        self._products, self._drift = np.dtype(f"f{int(state['products'])}"), float(state["drift"])
        self.n_passes = int(state["n_passes"])

    def rounding(self, vectors: np.ndarray, values: np.ndarray) -> np.ndarray:
        """See `rows.RowsOperator.rounding`."""
        diagonal = self._about_zero
        if self._inverse_deviation is not None:
            diagonal = diagonal * self._inverse_deviation**2
        row = self._largest_line
        if self._inverse_deviation is not None:  # a row is no longer than the largest eigenvalue about zero
            row = float(values[0]) + self.weight_sum * float(((self._mean * self._inverse_deviation) ** 2).sum())
        made = certificate.Products(self._products.itemsize, self.dtype.itemsize, self._drift or 0.0)
        sums = certificate.EntrySums(self._longest, self._run, row, self._cancelled)
        return certificate.sparse_rounding(diagonal, vectors, values, made, sums)

    def tile_bytes(self, n_threads: int) -> int:
        """Bytes of all threads' tiles, heavy entries included; images are counted by `plan.krylov_bytes`."""
        itemsize = self.dtype.itemsize
        return n_threads * self.backend.sparse.tile_bytes(self._lines, self._width, self._heavy.size, itemsize)

    def _sides(self) -> np.ndarray | None:
        """What multiplies the block and the image entry by entry."""
        if self.by_feature:
            return self._entry_weights if self._entry_weights.size else None
        return self._inverse_deviation

    def _beta(self) -> np.ndarray:
        if self.by_feature:
            return np.full(self.dim, float(self.center))
        return self._mean


def _far(dtype: np.dtype) -> float:
    return _FAR if dtype.itemsize == 4 else _FAR_DOUBLE


def _combination(lines: Lines, coefficients: np.ndarray) -> np.ndarray:
    """sum_l c_l line_l, float64, scaled units."""
    total = np.zeros(lines.n_entries)
    for index in range(lines.n_chunks):
        first, last = lines.bounds(index)
        indptr, indices, data = lines.source.lines(first, last, lines.by_feature)
        total += np.bincount(indices, np.repeat(coefficients[first:last], np.diff(indptr)) * data, total.size)
    return total * lines.factor


def moments_about_mean(
    source: sources.SparseSource, weights: np.ndarray | None, tick: Any, used: Backend
) -> tuple[np.ndarray, np.ndarray, float] | None:
    """Scatter about the mean (d, d) in scaled units, the mean (d,), and the scale: a Gram over stored entries.

    None where tiles made dense are quicker, or where means are so far from zero that they keep more digits.
    """
    m, d = source.shape
    pairs = source.pairs()
    if not (plan.sparse_gram_pays(m, d, pairs, used.name) and used.sparse.can_hold(source)):
        return None
    given = np.empty(0) if weights is None else weights
    total = float(m) if weights is None else float(weights.sum())
    factor = _power_of_two(source)
    lines = Lines(source, False, plan.sparse_gram_chunk(m, d, pairs), factor, tick)
    found = used.sparse.statistics(lines, given)
    if not (np.isfinite(found.sums).all() and np.isfinite(found.squares).all()):
        sources.raise_nonfinite(source)
    mean = found.sums / total
    centred = found.squares - total * mean**2
    if (total * mean**2 > _far(source.compute_dtype) ** 2 * np.maximum(centred, 0.0)).any():
        return None
    scatter = used.sparse.gram(lines, given)
    scatter -= total * np.multiply.outer(mean, mean)
    return scatter, mean / factor, factor


def _power_of_two(source: sources.SparseSource) -> float:
    """A power of two near the reciprocal size of the stored entries: keeps their squares in range."""
    few = source.some_values()
    largest = float(np.abs(few[np.isfinite(few)]).max(initial=0.0))
    exponent = -int(np.round(np.log2(largest))) if largest > 0 else 0
    if abs(exponent) > validation.MOST_EXPONENT:
        raise ValueError(validation.range_message(largest))
    if source.compute_dtype.itemsize == 4:
        exponent = int(np.clip(exponent, -validation.MOST_FLOAT32_SCALE, validation.MOST_FLOAT32_SCALE))
    return 2.0**exponent
