"""What components leave of rows and of their moments, without the difference of two large numbers.

Equations: docs/pca.md, "What components leave".  The total variance minus that of the components is right to a few eps
of the total: where less than that is left, the difference says nothing.  Here rows are projected off the components
before they are squared.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from .. import plan
from ..backends import choose, get_backend, host_panels
from ..data import sources
from .projection import scores
from .sparse import stored_entries_pay

# A difference of totals is off by up to two eps of the total: what is left is measured where the difference is smaller
# than this many eps.
_DIFFERENCE = 1024.0
# Components are right to about this many eps, at which the solver stops; their error leaves the square of that.
_DIRECTIONS = 8.0
# Arrays of a chunk of rows, in float64, and the bytes of all of them.
_ARRAYS, _MOST_BYTES = 5, 1 << 27
# Rows of a sparse matrix that are looked at together, through their stored entries.
_SPARSE_ROWS = 16_384
# |z|^2 - |U'z|^2 is used where its rounding is at most this share of it, or too small to matter to the caller.
_DOUBT = 1e-8
# A sparse matrix of more entries than these, with those that are not stored, is not made dense for the last digits.
_MANY_ENTRIES = 1 << 27
# An entry of a Gram matrix is right to so many eps of the norms of its two columns, and errors are independent.
_ENTRY = 16.0


class ProjectedRows(NamedTuple):
    """Rows first..last, z = D (x - mean), beside components U (docs/pca.md, "What components leave").

    latent : U'z (n, p);  rest, along : |z - U U'z|^2 and |z|^2 (n,); all on the host, float64
    """

    first: int
    last: int
    latent: np.ndarray
    rest: np.ndarray
    along: np.ndarray


def is_lost(left: float, trace: float, dtype: np.dtype) -> bool:
    """Whether a difference `left` of numbers as large as `trace` is too near to their rounding."""
    return not left > _DIFFERENCE * float(np.finfo(dtype).eps) * trace


def share_of_rounding(dtype: np.dtype, of_moments: bool) -> float:
    """The share of the largest variance below which one is rounding: squared data lose what rows still hold."""
    eps = float(np.finfo(dtype).eps)
    return eps if of_moments else (_DIRECTIONS * eps) ** 2


def of_rows(
    source: sources.Source,
    mean: np.ndarray,
    components: np.ndarray,
    weights: np.ndarray | None,
    inverse: np.ndarray | None,
    backend: str,
    max_memory: int | None = None,
) -> float:
    """sum_r w_r |z_r - U U' z_r|^2, z_r = D (x_r - mean), in one pass in float64; 0.0 where rounding is all there is.

    mean : (d,);  components : (p, d), U';  weights : (m,) or None;  inverse : (d,) diagonal of D, or None
    4 m d min(p, d - p) flops, over stored entries where more than rounding is left.  Right to (8 eps)^2 of the total,
    eps of the components' dtype; of a huge sparse matrix to 64 eps of float64.
    """
    p, d = components.shape
    least = share_of_rounding(components.dtype, False)
    others = p > d // 2
    if others:  # fewer are left out: rows are projected onto those
        components = _others(components).T
    if isinstance(source, sources.SparseSource) and source.shape[0] * d > _MANY_ENTRIES:
        least = max(least, 64 * np.finfo(np.float64).eps)
    given = (mean, components, inverse, backend, 0.0 if others else least, others, max_memory)
    if isinstance(source, sources.DaskSource):
        own = None if weights is None else source.split(weights)
        total, kept = source.reduced(_sums_of_squares, np.add, given, own)
    else:
        total, kept = _sums_of_squares(source, weights, *given)
    return kept if kept > least * total else 0.0


def _sums_of_squares(
    source: sources.Source,
    weights: np.ndarray | None,
    mean: np.ndarray,
    components: np.ndarray,
    inverse: np.ndarray | None,
    backend: str,
    share: float,
    inside_counts: bool,
    max_memory: int | None,
) -> np.ndarray:
    """(sum_r w_r |z_r|^2, sum_r w_r |z_r - U U' z_r|^2), the last one of U U' z_r where `inside_counts`."""
    total, kept = 0.0, 0.0
    parts = projected(source, mean, components, inverse, backend, max_memory, share=share)
    for first, last, latent, rest, along in parts:
        here = 1.0 if weights is None else weights[first:last]
        inside = np.einsum("ij,ij->i", latent, latent)
        total += float(np.sum(here * along))
        kept += float(np.sum(here * (inside if inside_counts else rest)))
    return np.array([total, kept])


def of_moments(matrix: np.ndarray, components: np.ndarray, dtype: np.dtype) -> float:
    """Trace of Q'SQ, the columns of Q an orthonormal basis of what components leave; 0.0 where it may be all rounding.

    matrix : (d, d) float64, S;  components : (p, d);  dtype : of the products that S is the sum of
    Right to 16 eps sum_i s_ii |Q_i|^2: some eps of the total where components mix all features, and far less where the
    large ones are features of their own.  About 2 d^2 (d + p) flops.
    """
    others = _others(components)
    diagonal = np.maximum(matrix.diagonal(), 0.0)
    bound = _ENTRY * float(np.finfo(dtype).eps) * float(diagonal @ np.einsum("ij,ij->i", others, others))
    left = float(np.einsum("ij,ij->", host_panels.multiply(matrix, others), others))
    return left if left > bound else 0.0


def _others(components: np.ndarray) -> np.ndarray:
    """An orthonormal basis (d, d - p) of what p components (p, d) leave, float64."""
    p, d = components.shape
    basis, _ = scipy.linalg.qr(components.T.astype(np.float64), check_finite=False)
    return basis[:, min(p, d) :]


def projected(
    source: sources.Source,
    mean: np.ndarray,
    components: np.ndarray,
    inverse: np.ndarray | None,
    backend: str = "auto",
    max_memory: int | None = None,
    *,
    least: float = 0.0,
    share: float = 0.0,
) -> Iterator[ProjectedRows]:
    """Rows z = D (x - mean) beside components, chunk by chunk.

    mean : (d,);  components : (p, d), U';  inverse : (d,) diagonal of D, or None;  max_memory : bytes for the chunks
    least, share : what is left of a row on average does not matter below `least`, or below this share of |z|^2
    4 m d p flops, all in float64; 2 nnz p over stored entries of a sparse matrix, where |z|^2 - |U'z|^2 says enough.

    Raises
    ------
    ValueError
        NaN or inf in X (names the first).
    """
    if not stored_entries_pay(source):
        yield from _of_dense_rows(source, mean, components, inverse, backend, max_memory)
        return
    for first in range(0, source.shape[0], _SPARSE_ROWS):
        last = min(source.shape[0], first + _SPARSE_ROWS)
        part = sources.SparseSource(source.matrix(first, last))
        part.first_row = first
        latent, rest, along, doubt = _of_entries(part, mean, components.astype(np.float64), inverse, backend)
        known = doubt.max() <= max(_DOUBT * float(rest.mean()), least) or doubt.mean() <= share * float(along.mean())
        if known:
            yield ProjectedRows(first, last, latent, rest, along)
            continue
        for rows in _of_dense_rows(part, mean, components, inverse, backend, max_memory):
            yield rows._replace(first=first + rows.first, last=first + rows.last)


def mahalanobis(
    source: sources.Source,
    mean: np.ndarray,
    components: np.ndarray,
    precisions: tuple[np.ndarray, float],
    inverse: np.ndarray | None,
    backend: str,
    least: float,
) -> Any:
    """sum_i v_i (u_i'z)^2 + n |z - U U'z|^2 of every row, (m,) float64 on the host; precisions : v (p,) and n.

    Of rows on Dask a Dask array, and nothing is computed yet.  Other arguments are those of `projected`.
    """
    given = (mean, components, precisions, inverse, backend, least)
    if isinstance(source, sources.DaskSource):
        return source.lazily(_mahalanobis_of_chunk, 1, given, np.dtype(np.float64))[:, 0]
    return _mahalanobis_of_chunk(source, None, *given)[:, 0]


def _mahalanobis_of_chunk(
    source: sources.Source,
    own: None,
    mean: np.ndarray,
    components: np.ndarray,
    precisions: tuple[np.ndarray, float],
    inverse: np.ndarray | None,
    backend: str,
    least: float,
) -> np.ndarray:
    """As a column."""
    along, off = precisions
    squares = np.empty((source.shape[0], 1))
    for first, last, latent, rest, _ in projected(source, mean, components, inverse, backend, least=least):
        squares[first:last, 0] = ((latent * np.sqrt(along)) ** 2).sum(axis=1) + off * rest
    return squares


def _of_entries(
    source: sources.SparseSource, mean: np.ndarray, components: np.ndarray, inverse: np.ndarray | None, backend: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(U'z, |z|^2 less what lies in the components, |z|^2, what the difference is off by) of rows of a sparse matrix.

    U'U is not exactly the identity for components of float32, and is taken as it is.
    """
    source.compute_dtype = np.dtype(np.float64)
    loadings = components if inverse is None else components * inverse
    latent = np.zeros((source.shape[0], 0))
    if len(components):
        latent = scores(source, mean, loadings, None, backend)
    centre = mean if inverse is None else mean * inverse
    indptr, indices, values = source.lines(0, source.shape[0], False)
    values = values.astype(np.float64) if inverse is None else values * inverse[indices]
    lines = np.repeat(np.arange(source.shape[0]), np.diff(indptr))
    length = float(centre @ centre)
    along = length + np.bincount(lines, values * (values - 2.0 * centre[indices]), source.shape[0])
    inside = 2.0 * np.eye(len(components)) - components @ components.T
    rest = np.maximum(along - np.einsum("ij,ij->i", latent @ inside, latent), 0.0)
    along = np.maximum(along, 0.0)
    return latent, rest, along, np.finfo(np.float64).eps * (length + along)


def _of_dense_rows(
    source: sources.Source,
    mean: np.ndarray,
    components: np.ndarray,
    inverse: np.ndarray | None,
    backend: str,
    max_memory: int | None,
) -> Iterator[ProjectedRows]:
    """`projected` by rows that are made dense if they are not."""
    m, d = source.shape
    p = components.shape[0]
    name = choose(backend, source.on_device, plan.device_pays(m, d, max(p, 1), source.nnz, passes=1))
    panels = get_backend(name).panels
    read: Any = source.block
    if isinstance(source, sources.DeviceSource) and name == "cuda":
        read = source.device_block
    mean, loadings = panels.place(mean), panels.place(components.T, np.float64)
    across = panels.place(components, np.float64)
    sides = None if inverse is None else panels.place(inverse, np.float64)
    most = _MOST_BYTES if max_memory is None else min(_MOST_BYTES, max_memory)
    rows = min(1024, most // (8 * _ARRAYS * d)) if name == "cpu" else min(plan.DEVICE_LINES, 2**24 // d)
    rows = max(1, rows)
    for first in range(0, m, rows):
        last = min(m, first + rows)
        centred = panels.place(read(first, last, False), np.float64) - mean
        if not panels.is_finite(centred):
            sources.raise_nonfinite(source)
        if sides is not None:
            centred = centred * sides
        along = (centred * centred).sum(axis=1)
        latent = panels.multiply(centred, loadings)
        rest = centred - panels.multiply(latent, across)
        left = panels.fetch((rest * rest).sum(axis=1))
        yield ProjectedRows(first, last, panels.fetch(latent), left, panels.fetch(along))
