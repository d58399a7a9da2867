"""The contract of a backend: what its functions take and give, and what of it is exact.

A backend is a `Backend`: dense passes (`GramPasses`, `RowPasses`), passes over stored entries (`SparsePasses`) and
products of tall matrices (`Panels`).  Each of the four is a module of functions; backends/cpu and backends/cuda have
them under the same names, a type checker compares them with the protocols below, and so does
tests/backends/test_contract.py.

The data matrix is seen as lines of entries: lines are samples and entries features (S is d x d), or the other way round
(`by_feature`; S is the m x m Gram of a wide matrix).  A chunk of lines is one commit to a float64 total, a tile of
lines is one product.  Chunks commit in order, and how they are cut depends on shapes alone.

What passes read and return is in lines.py.  Arrays are NumPy's, except panels: a `Panel` lies where the backend works.
"The compute dtype" is the source's, float32 or float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .drift import Runs
from .lines import GramChunk, Known, Lines, Panel, PassResult, SparsePassResult, Statistics, View


class GramPasses(Protocol):
    """Second moments of dense lines, one chunk after the other.

    MOST_BYTE_LINES : of a chunk whose bytes are summed in 32 bits
    """

    MOST_BYTE_LINES: int

    def float_gram(
        self, view: View, pilot_variance: np.ndarray | None, commit: Callable[[GramChunk], None], start: int = 0
    ) -> None:
        """Read the lines once, from chunk `start` on, and hand each chunk's moments to `commit`, in order.

        pilot_variance : (n,) scaled, or None where lines are features.  With it, a chunk whose mean lies more than two
        standard deviations off the shift is summed again about its own mean, so that drifting data lose nothing.
        A chunk of float32 is summed in float64 where its lines are short, where its squares leave the range of float32,
        and where rounding errors of its sums are not independent.
        """

    def has_exact_byte_gram(self, source: Any) -> bool:
        """Whether data of this dtype can be summed by `exact_byte_gram` here."""

    def can_try_byte_gram(self, source: Any) -> bool:
        """Whether `exact_byte_gram` may be tried on data of another dtype that look like bytes: it costs little."""

    def exact_byte_gram(self, view: View, commit: Callable[[GramChunk], None], start: int = 0) -> None:
        """`float_gram` of bytes by sample, without scale and weights: every sum is exact.

        Raises
        ------
        NotBytesError
            A number is no byte.
        """

    def square(self, n: int) -> Panel:
        """An (n, n) float64 total of zeros, for `GramChunk.add_to`."""

    def symmetric(self, total: Panel) -> np.ndarray:
        """The total on the host, both triangles, the same bits in both; neither it nor the total is written after."""


class RowPasses(Protocol):
    """Products with dense lines; each function reads them once.

    known : sums and squares of an earlier pass, which then are not gathered
    offset : (b,) that is taken off every line's product, by sample, times the root of its weight
    """

    def row_pass(
        self,
        view: View,
        block: Panel,
        with_inner: bool = False,
        known: Known | None = None,
        offset: np.ndarray | None = None,
        compares: bool = False,
    ) -> PassResult:
        """sum over lines of line' (line block), and where asked the Gram of (line block).

        block : (n, b) in the compute dtype or float64, C-ordered.  4 (lines) n b flops, in its dtype within a tile and
        in float64 over chunks.
        compares : also measure the drift, where the backend's sums are long enough for one.
        """

    def statistics(self, view: View, dtype: np.dtype) -> PassResult:
        """Sums and squares alone, of tiles in this dtype."""

    def project(
        self,
        view: View,
        block: Panel,
        out: Any,
        known: Known | None = None,
        offset: np.ndarray | None = None,
    ) -> np.ndarray:
        """out[r] <- line_r block - offset for every line; returns the sums, in which the caller sees NaN and Inf.

        block : (n, b) in the compute dtype;  offset : (b,) same dtype, or None
        out : (lines, b) of that dtype, an array of the host or a panel, unit stride along the last axis; or a callable
            that is given the rows of one chunk after the other, on the host: they are its to read until it returns.
        """


class SparsePasses(Protocol):
    """Products with the stored entries of compressed lines: line l minus alpha_l beta', never densified.

    LONGEST_RUN : lines whose products with one entry are summed in the compute dtype
    alpha, weights : (lines,) float64 or empty for ones;  offset : (b,) beta' block, in the block's dtype
    """

    LONGEST_RUN: int

    def statistics(self, lines: Lines, weights: np.ndarray) -> Statistics:
        """One read of the stored entries, float64.  weights : per sample, or empty.

        Raises
        ------
        ValueError
            An index lies outside the matrix, or an entry is stored twice, where the backend checks that.
        """

    def row_pass(
        self,
        lines: Lines,
        block: Panel,
        offset: np.ndarray,
        alpha: np.ndarray,
        weights: np.ndarray,
        heavy: np.ndarray,
        with_inner: bool,
        compares: bool = False,
    ) -> SparsePassResult:
        """sum over lines of w_l line_l' y_l, y_l = line_l block - alpha_l offset.

        block : (n, b) in the compute dtype or float64;  heavy : (h,) int64, ascending, entries that more than
        LONGEST_RUN lines of a chunk store;  with_inner : also the sum of w_l y_l' y_l;  compares : measure the drift.
        """

    def tile_bytes(self, lines: Lines, width: int, n_heavy: int, itemsize: int) -> int:
        """Bytes of a worker's products in a pass with a block of `width` columns, without its image."""

    def can_hold(self, source: Any) -> bool:
        """Whether there is room for what `gram` reads."""

    def gram(self, lines: Lines, weights: np.ndarray) -> np.ndarray:
        """Second moments about zero (n, n) over pairs of stored entries: float64 sums of exact products of float32."""

    def project(self, lines: Lines, block: Panel, offset: np.ndarray, alpha: np.ndarray, out: np.ndarray) -> None:
        """out[l] <- line_l block - alpha_l offset for every line.  out : (lines, b) on the host."""


class Panels(Protocol):
    """Products of tall, skinny matrices, sums over rows in float64, the same bits from run to run.

    Panels lie where the backend works; small matrices and vectors are NumPy's, and so is what is returned where the
    shape is not that of a panel.
    """

    def cross(self, first: Panel, second: Panel) -> np.ndarray:
        """first' second in float64, on the host: (n, a), (n, b) -> (a, b).  2 n a b flops."""

    def multiply(self, left: Panel, right: Panel, dtype: np.dtype | type | None = None) -> Panel:
        """left right in `dtype`, that of `left` unless given: (n, a), (a, b) -> (n, b).  2 n a b flops."""

    def subtract_product(self, target: Panel, left: Panel, right: Panel) -> None:
        """target <- target - left right in place: (n, b), (n, a), (a, b).  2 n a b flops."""

    def dense_product(self, matrix: Panel, block: Panel) -> Panel:
        """matrix block for a square matrix: (n, n), (n, b) -> (n, b)."""

    def place(self, array: Any, dtype: np.dtype | type | None = None) -> Panel:
        """An array as a panel: where the backend works, C-ordered, in `dtype`."""

    def fetch(self, array: Panel) -> np.ndarray:
        """A panel on the host."""

    def like(self, array: Panel, other: Any) -> Any:
        """`array` on the host if `other` is, else as it is."""

    def empty(self, shape: tuple[int, ...], dtype: np.dtype | type) -> Panel:
        """A panel that is not filled."""

    def columns(self, panel: Panel, kept: np.ndarray) -> Panel:
        """The columns that a mask (b,) keeps."""

    def scale_rows(self, panel: Panel, factors: np.ndarray) -> Panel:
        """diag(factors) panel, float64.  factors : (n,)."""

    def along(self, vector: np.ndarray, panel: Panel) -> np.ndarray:
        """vector' panel in float64: (n,), (n, b) -> (b,)."""

    def plus_outer(self, panel: Panel, factor: float, vector: np.ndarray, coefficients: np.ndarray) -> Panel:
        """panel + factor vector coefficients': (n, b), (n,), (b,)."""

    def residual(self, images: Panel, vectors: Panel, values: np.ndarray) -> Panel:
        """images - vectors diag(values): (n, p), (n, p), (p,)."""

    def is_finite(self, panel: Panel) -> bool:
        """Whether no entry is NaN or inf."""

    def deflated_is_positive(self, matrix: Panel, values: np.ndarray, vectors: Panel, level: float) -> bool:
        """Whether level I + sum_i l_i v_i v_i' - S is positive definite, by Cholesky: (n, n), (p,), (n, p)."""

    def eigh(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All eigenvalues, ascending, and eigenvectors of a symmetric float64 matrix of the host, on the host."""


class DeviceArrays(Protocol):
    """Arrays of any library that lie on a CUDA device."""

    def as_device(self, array: Any) -> Any:
        """A 2-D array that has `__cuda_array_interface__` as one of the backend's, without a copy."""

    def as_library(self, array: Any, like: Any) -> Any:
        """An array of the backend as one of the library that `like` belongs to, without a copy."""

    def download(self, array: Any) -> np.ndarray:
        """A copy on the host; waits for it."""


@dataclass(frozen=True)
class Backend:
    """What computes: modules of functions for each kind of work, and what is to be known about them.

    name : "cpu" | "cuda"
    runs : the longest sums in the compute dtype, which the certificate allows for
    provider : names the BLAS that multiplies; another one rounds differently, so that a checkpoint cannot go on
    n_workers : partial results that are held side by side.
    """

    name: str
    gram: GramPasses
    rows: RowPasses
    sparse: SparsePasses
    panels: Panels
    runs: Runs
    provider: Callable[[], str]
    n_workers: int
