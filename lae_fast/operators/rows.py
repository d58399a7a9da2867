"""S by passes over the rows of X, which are shifted tile by tile: centring and standardizing are implicit.

The counterpart for stored entries of a sparse matrix is sparse.py; scaled units are explained in dense.py.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .. import plan
from ..backends import get_backend
from ..backends.drift import FEW_ENTRIES, FEWEST_SUMS, LARGEST_DRIFT
from ..backends.threads import READ_AHEAD
from ..data import sources
from ..data.checkpoint import Checkpoint, changing, fingerprint
from . import certificate
from .chunk_passes import ChunkPasses, passes_over
from .dense import IN_DOUBLE, inverse_deviations
from .pilot import coarse, pilot_view

# A pass whose shift was more than this many variances off the mean is repeated with the exact mean.
_DRIFT = 4.0


class RowsOperator:
    """S = Xc' W Xc (or Xc Xc' on the sample side) by passes over the rows of X; X is never copied.

    Parameters
    ----------
    source : the data;  weights : (m,) float64 or None;  center : subtract the weighted mean
    standardize : divide every feature by its standard deviation (ddof 1), implicitly
    by_feature : lines are features, so the operator is m x m: the sample side of a wide matrix
    block : columns that `apply` expects, for the tiling
    location : (d,) the mean, where it is known; by sample only.  Products are then centred before they are squared.
        Otherwise V'SV would lose, along a direction of tiny variance, what the pilot's shift is off the mean
    backend : "cpu" or "cuda", resolved;  precision : of products of float32 (backends.PRECISIONS)
    max_memory, held : bytes that are allowed, None: any number, and how many of them something else takes
    settles : blocks are components.  Where a few lines make up one of them, nothing averages the rounding of their
        products, and errors along a line may add up: products are in float64 then

    Attributes
    ----------
    mean, location : (d,) float64, what is subtracted, and where the mean is: they differ for center=False
    variances : (d,) float64, sums of weighted squares of what is left, in units of the data.  All three are found by
        the first pass; before it `variances` is empty
    note : what `route_reason_` says of the passes, or ""
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
        settles: bool = False,
    ) -> None:
        self.source, self.center, self.by_feature, self._settles = source, center, by_feature, settles
        self.backend = get_backend(backend)
        self.panels = self.backend.panels
        self._passes = passes_over(source, weights, backend)
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
        self.variances = np.zeros(0)
        self.location = np.zeros(source.shape[1])
        self._given = location
        self._offset = np.zeros(self.dim)  # location - shift in scaled units, by sample
        self._inverse_deviation: np.ndarray | None = None
        self._recentred = False
        self._known: tuple[np.ndarray, np.ndarray] | None = None  # sums and squares; None: no pass has found them yet
        self._gathered = np.zeros(0), np.zeros(0)  # the same, about the shift
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
            panel = self.panels.place(self._centred(panel, self._ones), self._products)
        offset = None
        if self._given is not None and by_sample:
            offset = self.panels.along((self._given - self._view.shift) * self._view.scale, panel)
        compares = self._drift is None
        result = self._passes.row_pass(self._view, panel, with_inner, self._known, offset, compares)
        self.n_passes += 1
        adds_up = result.drift > LARGEST_DRIFT or (self._settles and result.fewest_lines < FEWEST_SUMS)
        if compares and adds_up and self._products.itemsize == 4:
            # rounding errors of these data are not independent: all starts again in float64, statistics too
            self._products, self._known = np.dtype(np.float64), None
            self.note = IN_DOUBLE
            return self.apply_inner(block, with_inner)
        if self._known is None and not self._learn(result.sums, result.squares):
            return self.apply_inner(block, with_inner)
        if compares:
            self._drift = result.drift
        image, inner = result.image, result.inner
        if not self.panels.is_finite(image):  # the statistics were finite, so products of them have overflowed
            sources.raise_nonfinite(self.source)
        if self._ones is not None:
            image = self._centred(image, self._ones)
        if by_sample:
            image, inner = self._about_mean(image, inner, panel, None if offset is None else result.total)
        if self._inverse_deviation is not None and by_sample:
            image = self.panels.scale_rows(image, self._inverse_deviation)
        return self.panels.like(image, block), inner

    def _about_mean(
        self, image: Any, inner: np.ndarray, panel: Any, total: np.ndarray | None
    ) -> tuple[Any, np.ndarray]:
        """S V and V'S V about the mean, or about zero for center=False, from those of a pass over samples.

        total : (b,) sums of products that the pass has centred itself;  None: products were about the shift
        """
        if total is None:
            image, inner = self._moved(image, inner, panel, self._offset, -self.weight_sum)
        else:
            image = self.panels.plus_outer(image, -1.0, self._offset, total)
            if inner.size:
                inner = inner - np.multiply.outer(total, total) / self.weight_sum
        if not self.center:
            image, inner = self._moved(image, inner, panel, self.location * self._view.scale, self.weight_sum)
        return image, inner

    def _centred(self, panel: Any, ones: np.ndarray) -> Any:
        """The panel less its part along `ones`, the samples' unit vector, which S maps to zero.

        Without it, S would not be the same in all passes: means are known to rounding only, and the first pass uses
        others than those that follow, which far from zero makes a difference.
        """
        return self.panels.plus_outer(panel, -1.0, ones, self.panels.along(ones, panel))

    def _moved(
        self, image: Any, inner: np.ndarray, panel: Any, vector: np.ndarray, factor: float
    ) -> tuple[Any, np.ndarray]:
        """(S + f v v') V and V'(S + f v v') V from S V and V'S V."""
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
        """What must be the same for a killed run to go on (data/checkpoint.py); before the first pass."""
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
        """Take over the `state` of an operator made of the same arguments; this one must be new."""
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
        if isinstance(self._passes, ChunkPasses):
            fewest = self._passes.fewest_lines(vectors.shape[1])
        made = certificate.Products(self._products.itemsize, self.dtype.itemsize, self._drift or 0.0)
        runs = self.backend.runs
        return certificate.pass_rounding(diagonal, vectors, values, made, fewest, runs, self._standardize)

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
            while self._known is None:
                result = self._passes.statistics(self._view, self._products)
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
        noise = 8 * np.finfo(self.dtype).eps * np.abs(self._view.shift * self._view.scale)
        far = offset**2 > _DRIFT * centred / self.weight_sum
        return bool((far & (np.abs(offset) > noise)).any())
