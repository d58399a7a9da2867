"""Rows of a SciPy sparse matrix: stored entries by lines, or lines made dense chunk by chunk."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from .source_base import KERNEL_DTYPES, Source, read_only

# Stored entries that a sample of them has, about.
_SAMPLE_ENTRIES = 1 << 20


class SparseSource(Source):
    """A SciPy sparse matrix or array: stored entries by lines, or lines made dense chunk by chunk.

    CSR serves lines of samples and CSC lines of features.  A matrix in the other format is converted once, which takes
    memory of the size of the stored entries; so does putting unsorted or repeated indices in order.
    """

    def __init__(self, matrix: Any) -> None:
        super().__init__(matrix.shape, matrix.dtype)
        self._formats = {matrix.format: matrix}
        self._lock = threading.Lock()
        self.nnz = int(matrix.nnz)
        self.features: np.ndarray | None = None  # their numbers in the matrix that these were taken from

    def _lines_in(self, by_feature: bool) -> Any:
        wanted = "csc" if by_feature else "csr"
        with self._lock:
            if wanted not in self._formats:
                self._formats[wanted] = next(iter(self._formats.values())).asformat(wanted)
            return self._formats[wanted]

    def lines(self, first: int, last: int, by_feature: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(indptr, indices, data) of lines first..last: views but for a dtype that has no kernel.

        indptr : (last - first + 1,), counted from the beginning of the matrix.
        """
        matrix = self._lines_in(by_feature)
        indptr = matrix.indptr[first : last + 1]
        stored = slice(int(indptr[0]), int(indptr[-1]))
        data = matrix.data[stored]
        if data.dtype == np.bool_:
            data = data.view(np.uint8)
        if data.dtype not in KERNEL_DTYPES:
            data = data.astype(self.compute_dtype)
        return read_only(indptr), read_only(matrix.indices[stored]), read_only(data)

    def pairs(self, by_feature: bool = False) -> float:
        """Sum over the lines of the squared number of stored entries."""
        stored = self._formats.get("csc" if by_feature else "csr")
        if stored is not None:
            lengths = np.diff(stored.indptr)
        else:  # counted where they are: the other format would be a copy
            lengths = np.bincount(next(iter(self._formats.values())).indices, minlength=self.n_lines(by_feature))
        return float((lengths.astype(np.float64) ** 2).sum())

    def used_features(self) -> np.ndarray:
        """(k,) int64, ascending: the features with a stored entry."""
        matrix = next(iter(self._formats.values()))
        if matrix.format == "csc":
            return np.flatnonzero(np.diff(matrix.indptr))
        if matrix.indices.min(initial=0) < 0 or matrix.indices.max(initial=0) >= self.n_features:
            return np.arange(self.n_features)  # the first pass says what is wrong
        used = np.zeros(self.n_features, dtype=bool)
        used[matrix.indices] = True
        return np.flatnonzero(used)

    def of_features(self, features: np.ndarray) -> SparseSource:
        """The same rows with these features alone, which must hold all stored entries; the entries are shared.

        features : (k,) int64, ascending
        """
        matrix = next(iter(self._formats.values()))
        if matrix.format == "csc":
            indices, indptr = matrix.indices, matrix.indptr[np.append(features, self.n_features)]
        else:
            place = np.zeros(self.n_features, matrix.indices.dtype)
            place[features] = np.arange(features.size)
            indices, indptr = place[matrix.indices], matrix.indptr
        made = type(matrix)((matrix.data, indices, indptr), shape=(self.shape[0], features.size), copy=False)
        source = SparseSource(made)
        source.compute_dtype, source.first_row, source.features = self.compute_dtype, self.first_row, features
        return source

    def first_nonfinite(self) -> tuple[int, int, float] | None:
        """Row, column and value of the first NaN or Inf in row order, or None: by stored entries."""
        matrix = next(iter(self._formats.values()))
        bad = np.flatnonzero(~np.isfinite(matrix.data))
        if not bad.size:
            return None
        line = np.searchsorted(matrix.indptr, bad, side="right") - 1
        rows, columns = (line, matrix.indices[bad]) if matrix.format == "csr" else (matrix.indices[bad], line)
        first = np.lexsort((columns, rows))[0]
        column = columns[first] if self.features is None else self.features[columns[first]]
        return int(rows[first]), int(column), float(matrix.data[bad[first]])

    def _reordered(self, places: np.ndarray) -> Source:
        source = SparseSource(checked(self._lines_in(False)[:, places], "X"))
        source.file, source.names = self.file, self._names_at(places)
        return source

    def some_values(self) -> np.ndarray:
        """A sample of the stored entries, float64."""
        data = next(iter(self._formats.values())).data
        return np.asarray(data[:: max(1, data.size // _SAMPLE_ENTRIES)], dtype=np.float64)

    def matrix(self, first: int, last: int) -> Any:
        """Rows first..last, a copy, CSR."""
        return self._lines_in(False)[first:last]

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        matrix = self._lines_in(by_feature)
        if by_feature:
            return matrix[:, first:last].T.toarray()
        return matrix[first:last].toarray()


def checked(X: Any, name: str) -> Any:
    """CSR or CSC whose arrays fit together, without duplicates.

    Kernels trust the indices: what a broken matrix would make them read outside its arrays is refused here.
    """
    matrix = X if X.format in {"csr", "csc"} else X.tocsr()
    if not matrix.dtype.isnative:  # SciPy itself cannot do much with it
        native = matrix.data.astype(matrix.dtype.newbyteorder("="))
        matrix = type(matrix)((native, matrix.indices, matrix.indptr), shape=matrix.shape)
    lines, entries = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
    indptr, indices = matrix.indptr, matrix.indices
    stored = int(indptr[-1]) if indptr.size == lines + 1 else -1
    fits = (
        0 <= stored <= min(indices.size, matrix.data.size)
        and indptr[0] == 0
        and bool((indptr[1:] >= indptr[:-1]).all())
    )
    if not fits or (stored and not (0 <= indices[:stored].min() and indices[:stored].max() < entries)):
        raise ValueError(
            f"Sparse {name} is broken: its indptr or indices do not fit its shape {matrix.shape}; "
            f"{name}.check_format() says how."
        )
    if matrix.has_canonical_format:
        return matrix
    matrix = matrix.copy()  # sum_duplicates works in place, and the caller's matrix is not ours to change
    matrix.sum_duplicates()
    return matrix
