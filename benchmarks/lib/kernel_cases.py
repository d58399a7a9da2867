"""Every kernel of the CPU that says what it costs: a call of it, its cost line, and what it should give.

A case is made for one dtype. Sizes are those of a tile or a chunk in real use, so that a call takes between some
microseconds and some milliseconds. Expected answers are NumPy's in float64; tests/ has the naive twins and all shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from lae_fast import kernels
from lae_fast.backends import formulas
from lae_fast.backends.cpu import blas, few_columns, products, registers
from lae_fast.backends.cpu.passes import byte_gram, sparse, tiles, totals
from lae_fast.backends.cpu.structs import by_reference
from lae_fast.backends.cpu.training import coefficients, minibatch, packed_gemm, step

TILE, N, B, P = 64, 1000, 32, 200
LINES = 1024
_NONE, _EVERY = np.empty(0), np.empty(0, np.int64)


class Call(NamedTuple):
    """A call that may be repeated, `run()`; what it made, `answer()`, and what it should have made."""

    run: Callable[[], Any]
    answer: Callable[[], np.ndarray]
    expected: np.ndarray


@dataclass(frozen=True)
class KernelCase:
    """A kernel with its cost line.

    Attributes
    ----------
    kernel : callable
    flops : str
        As it stands in the docstring.
    sizes : dict
        A number for each name in `flops` and `traffic`; `itemsize` is added.
    make : callable
        dtype -> Call.
    traffic : str
        Bytes, as they stand in the docstring, where they do.
    times : float
        What the cost line is for one of: stored entries, say.
    dtypes : tuple
    """

    kernel: Any
    flops: str
    sizes: dict[str, float]
    make: Callable[[np.dtype], Call]
    traffic: str = ""
    times: float = 1.0
    dtypes: tuple[str, ...] = ("float32", "float64")
    label: str = ""

    @property
    def name(self) -> str:
        module = self.kernel.__module__.rpartition(".")[2]
        return f"{module}.{self.kernel.__name__}{self.label}"


def _numbers(shape: tuple[int, ...], dtype: np.dtype, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _gemm(dtype: np.dtype) -> Call:
    a, b, c = _numbers((TILE, N), dtype), _numbers((N, B), dtype, 1), np.zeros((TILE, B), dtype)
    no = np.bool_(False)
    return Call(lambda: blas.gemm(1.0, a, no, b, no, 0.0, c), lambda: c, _double(a) @ _double(b))


def _syrk(dtype: np.dtype) -> Call:
    a, c = _numbers((128, N), dtype), np.zeros((N, N), dtype)
    return Call(lambda: blas.syrk(a, 0.0, c), lambda: np.tril(c), np.tril(_double(a).T @ _double(a)))


def _packed(dtype: np.dtype) -> Call:
    rows, s = _numbers((40, N), dtype), _numbers((N, N), dtype, 1)
    panels, packed = packed_gemm.pack_columns(s), packed_gemm.new_packed_rows(len(rows), N, dtype)
    packed_gemm.pack_rows(rows, 0, len(packed), packed)
    out = np.zeros((len(packed) * packed_gemm.BLOCK_ROWS, N), dtype)
    return Call(
        lambda: packed_gemm.multiply(packed, panels, 0, len(panels), out),
        lambda: out[: len(rows)],
        _double(rows) @ _double(s),
    )


def _tile_times(kernel: Callable[..., Any], right: tuple[int, int], out: tuple[int, int], twin: Any, *add: Any) -> Any:
    def make(dtype: np.dtype) -> Call:
        tile, factor, found = _numbers((TILE, N), dtype), _numbers(right, dtype, 1), np.empty(out, dtype)
        ahead = tile.reshape(-1), 0, 0, 0
        return Call(
            lambda: kernel(tile, factor, *add, found, *ahead), lambda: found, twin(_double(tile), _double(factor))
        )

    return make


_lines = _tile_times(products.multiply_lines, (N, B), (TILE, B), lambda tile, block: tile @ block)
_back = _tile_times(products.multiply_back, (TILE, B), (N, B), lambda tile, codes: tile.T @ codes, np.bool_(False))


def _itself(dtype: np.dtype) -> Call:
    tile, gram = _numbers((TILE, N), dtype), np.empty((N, N), dtype)
    ahead, add = tile.reshape(-1), np.bool_(False)
    twin = np.tril(_double(tile).T @ _double(tile))
    return Call(lambda: products.multiply_itself(tile, add, gram, ahead, 0, 0, 0), lambda: np.tril(gram), twin)


def _load(dtype: np.dtype) -> Call:
    x, shift = _numbers((TILE, N), dtype), _numbers((N,), dtype, 1)
    buffer, partial, sums = np.empty((TILE, N), dtype), np.zeros((2, N)), np.zeros((2, N))
    flat = x.reshape(-1)
    return Call(
        lambda: tiles.load(
            flat, N, 1, 0, TILE, None, False, _EVERY, shift, 1.0, _NONE, buffer, partial, sums[0], sums[1]
        ),
        lambda: buffer,
        _double(x) - shift,
    )


def _gram(dtype: np.dtype) -> Call:
    x, shift = _numbers((LINES, N), dtype), _numbers((N,), dtype, 1)
    tile, out = np.empty((TILE, N), dtype), np.empty((N, N), dtype)
    centred = _double(x) - shift
    return Call(lambda: kernels.gram(x, shift, _NONE, tile, out), lambda: out, centred.T @ centred)


def _row_pass(dtype: np.dtype) -> Call:
    x, shift, block = _numbers((LINES, N), dtype), _numbers((N,), dtype, 1), _numbers((N, B), dtype, 2)
    tile, codes, out = np.empty((TILE, N), dtype), np.empty((TILE, B), dtype), np.empty((N, B), dtype)
    centred = _double(x) - shift
    return Call(
        lambda: kernels.row_pass(x, shift, _NONE, block, tile, codes, out), lambda: out,
        centred.T @ (centred @ _double(block)),
    )  # fmt: skip


def _project(dtype: np.dtype) -> Call:
    x, shift, block = _numbers((LINES, N), dtype), _numbers((N,), dtype, 1), _numbers((N, B), dtype, 2)
    buffer, partial, sums = np.empty((TILE, N), dtype), np.zeros((2, N)), np.zeros((2, N))
    flat, few, out = x.reshape(-1), np.empty((0, N), dtype), np.empty((LINES, B), dtype)
    return Call(
        lambda: tiles.project_chunk(
            flat, N, 1, 0, LINES, None, False, shift, 1.0, _NONE, buffer, partial, block, few, out, 0, sums[0], sums[1]
        ), lambda: out, (_double(x) - shift) @ _double(block),
    )  # fmt: skip


def _few(dtype: np.dtype) -> Call:
    tile, columns, found = _numbers((TILE, N), dtype), _numbers((2, N), dtype, 1), np.empty((TILE, 2), dtype)
    twin = _double(tile) @ _double(columns).T
    return Call(lambda: few_columns.multiply_few(tile, columns, found), lambda: found, twin)


def _byte_gram(dtype: np.dtype) -> Call:
    x = np.random.default_rng(0).integers(0, 256, (LINES, N), dtype=np.uint8)
    *room, memory = byte_gram.workspace(TILE, N)
    gram, bounds = byte_gram.gram_in(memory, N), np.array([0.0, 255.0])
    sums, shift, flat, empty = np.zeros(N, np.int64), np.zeros(N, np.int64), x.reshape(-1), np.empty(0, np.uint8)
    rounded = np.round(_double(x).mean(axis=0))
    centred = _double(x) - rounded
    return Call(
        lambda: byte_gram.byte_gram_chunk(
            flat, bounds, N, 1, N, 0, LINES, _EVERY, TILE, empty, *room, gram, sums, shift
        ),
        lambda: np.tril(gram[:N]),
        np.tril(centred.T @ centred),
    )


def _commit_gram(dtype: np.dtype) -> Call:
    gram, sums, offset = _numbers((N, N), dtype), _numbers((N,), np.dtype(float), 1), _numbers((N,), np.dtype(float), 2)
    mean, total = sums / LINES, np.zeros((N, N))

    def run() -> None:
        total[:] = 0.0
        totals.commit_gram(gram, sums, mean, offset, 2.0, total)

    expected = _double(gram) - np.outer(sums, mean) + 2.0 * np.outer(offset, offset)
    return Call(run, lambda: total, np.tril(expected))


def _commit_used(dtype: np.dtype) -> Call:
    entries = np.arange(0, N, 2)
    gram, sums = _numbers((N // 2, N // 2), dtype), _numbers((N,), np.dtype(float), 1)
    mean, total = sums / LINES, np.zeros((N, N))

    def run() -> None:
        total[:] = 0.0
        totals.commit_used(gram, entries, sums, mean, total)

    expected = np.zeros((N, N))
    expected[np.ix_(entries, entries)] = _double(gram) - np.outer(sums[entries], mean[entries])
    return Call(run, lambda: total, np.tril(expected))


# --------------------------------------------------------------------------------------------- stored entries

_SPARSE = scipy.sparse.random(LINES, N, density=0.02, format="csr", random_state=0, dtype=np.float64)
_SPARSE.sort_indices()
_STORED = float(_SPARSE.nnz)


def _stored(dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _SPARSE.indptr.copy(), _SPARSE.indices.copy(), _SPARSE.data.astype(dtype)


def _dense(dtype: np.dtype) -> np.ndarray:
    return _SPARSE.astype(dtype).toarray().astype(np.float64)


def _sparse_statistics(dtype: np.dtype) -> Call:
    part, marks, counts = _stored(dtype), np.empty(N, np.int64), np.zeros(N, np.int64)
    few, largest = np.zeros((2, N)), np.zeros(1)

    def run() -> None:
        marks[:], few[:] = -1, 0.0
        sparse.statistics_chunk(*part, False, 1.0, _NONE, marks, counts, few[0], few[1], largest)

    dense = _dense(dtype)
    return Call(run, lambda: few, np.stack([dense.sum(axis=0), (dense**2).sum(axis=0)]))


def _sparse_pass(dtype: np.dtype) -> Call:
    part, block, offset = _stored(dtype), sparse.aligned(N, B, dtype), _numbers((B,), dtype, 1)
    block[:] = _numbers((N, B), dtype, 2)
    cursor, rest = np.empty(TILE, np.int64), np.empty(TILE, dtype)
    product, image = sparse.aligned(TILE, B, dtype), sparse.aligned(N, B, dtype)
    nothing, exact, total = np.zeros((0, 0), dtype), np.zeros((0, B)), np.zeros(B)
    runs, drift = np.zeros((3, B), dtype), np.zeros((0, B))

    def run() -> None:
        image[:] = 0.0
        sparse.pass_chunk(
            *part, dtype.type(1.0), _NONE, _NONE, block, offset, N, cursor, rest, product, image, nothing, _EVERY,
            exact, total, runs, drift,
        )  # fmt: skip

    dense = _dense(dtype)
    return Call(run, lambda: image, dense.T @ (dense @ _double(block) - offset))


def _sparse_project(dtype: np.dtype) -> Call:
    part, block, offset = _stored(dtype), sparse.aligned(N, B, dtype), _numbers((B,), dtype, 1)
    block[:] = _numbers((N, B), dtype, 2)
    cursor, out = np.empty(LINES, np.int64), sparse.aligned(LINES, B, dtype)
    return Call(
        lambda: sparse.project_chunk(*part, dtype.type(1.0), _NONE, block, offset, N, cursor, out),
        lambda: out,
        _dense(dtype) @ _double(block) - offset,
    )


def _sparse_gram(dtype: np.dtype) -> Call:
    part, gram = _stored(dtype), np.zeros((N, N))

    def run() -> None:
        gram[:] = 0.0
        sparse.gram_chunk(*part, 1.0, _NONE, gram)

    dense = _dense(dtype)
    return Call(run, lambda: gram, np.tril(dense.T @ dense))


def _sparse_commit(dtype: np.dtype) -> Call:
    source, image, exact, total = _numbers((N, B), dtype), np.empty((N, B), dtype), np.zeros((0, B)), np.empty((N, B))

    def run() -> None:
        image[:], total[:] = source, 0.0
        sparse.commit(image, _EVERY, exact, total)

    return Call(run, lambda: total, _double(source))


def _masked_gram(dtype: np.dtype) -> Call:
    gram, prefix, out = _symmetric(dtype), np.arange(P, 0, -1).astype(dtype), np.empty((P, P), dtype)
    index = np.arange(P)
    mask = _double(prefix)[np.maximum(index[:, None], index)]
    return Call(lambda: kernels.masked_gram(gram, prefix, out), lambda: out, mask * gram)


def _symmetric(dtype: np.dtype, seed: int = 0) -> np.ndarray:
    half = _numbers((P, P), dtype, seed)
    return half + half.T


def _rotation(dtype: np.dtype) -> Call:
    gram, out = _symmetric(dtype), np.empty((P, P), dtype)
    return Call(
        lambda: kernels.rotation(gram, out), lambda: out, 0.5 * (np.triu(_double(gram), 1) - np.tril(_double(gram), -1))
    )


def _rotation_rows(dtype: np.dtype) -> Call:
    gram, out = _symmetric(dtype), np.empty((P, P), dtype)
    expected = 0.5 * (np.triu(_double(gram), 1) - np.tril(_double(gram), -1))
    return Call(lambda: coefficients.rotation_rows(gram, 0.5, 0, P, out), lambda: out, expected)


def _quotients(dtype: np.dtype) -> Call:
    gram, out = _symmetric(dtype), np.empty((P, P), dtype)
    np.fill_diagonal(gram, np.abs(gram.diagonal()) + 1)
    return Call(lambda: kernels.quotients(gram, out), lambda: out, np.tril(_double(gram) / gram.diagonal(), -1))


def _normalise_rows(dtype: np.dtype) -> Call:
    weights = _numbers((P, N), dtype)
    expected = _double(weights) / np.linalg.norm(_double(weights), axis=1, keepdims=True)
    return Call(lambda: kernels.normalise_rows(weights), lambda: weights, expected)


class _Rule(NamedTuple):
    """What coefficients.py reads of a Spec."""

    rule: int
    product_penalty: float


_RAG = by_reference(_Rule(formulas.RAG, 0.0))


def _encoder_coefficients(dtype: np.dtype) -> Call:
    gram, prefix, p1, p3 = _symmetric(dtype), np.ones(P, dtype), np.empty((P, P), dtype), np.zeros((P, P), dtype)
    return Call(
        lambda: coefficients.encoder_coefficients(_RAG, prefix, 1.0, gram, gram, 0, P, p1, p3),
        lambda: np.stack([p1, p3]),
        np.stack([2.0 * _double(gram), 0.5 * (np.tril(_double(gram), -1) - np.triu(_double(gram), 1))]),
    )


def _decoder_coefficients(dtype: np.dtype) -> Call:
    gram, prefix, q3, latent = _symmetric(dtype), np.ones(P, dtype), np.empty((P, P), dtype), np.zeros(P + 1)
    rotation = 0.5 * (np.triu(_double(gram), 1) - np.tril(_double(gram), -1))
    return Call(
        lambda: coefficients.decoder_coefficients(_RAG, prefix, 1.0, latent, gram, gram, 0, P, q3),
        lambda: q3,
        2.0 * _double(gram) - rotation,
    )


def _fused_step(optimizer: int) -> Callable[[np.dtype], Call]:
    def make(dtype: np.dtype) -> Call:
        dense, product, start = (_numbers((P, N), dtype, seed) for seed in range(3))
        weights, first, second = start.copy(), np.zeros((P, N), dtype), np.zeros((P, N), dtype)
        twice, nothing = np.full(P, -2.0, dtype), np.zeros(P, dtype)
        sums, row_sums, squares = np.zeros(kernels.N_SUMS), np.zeros((P, kernels.N_ROW_SUMS)), np.zeros(0)
        scalars = np.array([0.9, 0.999, 1e-8])

        def run() -> None:
            step.fused_step(
                optimizer, scalars, 0.1, 0, dense, product, twice, nothing, nothing, nothing, False, weights, first,
                second, sums, row_sums, squares,
            )  # fmt: skip

        gradient = _double(dense) - 2.0 * product
        moved = gradient if optimizer == kernels.SGD else gradient / (np.abs(gradient) + 1e-8)  # its first step
        return Call(run, lambda: (weights.astype(np.float64) - start) / 0.1, -moved)

    return make


def _gather(dtype: np.dtype) -> Call:
    x, shift = _numbers((4 * LINES, N), dtype), _numbers((N,), dtype, 1)
    rows = np.random.default_rng(0).permutation(len(x))[: 2 * TILE]
    flat, buffer = x.reshape(-1), np.empty((len(rows), N), dtype)
    return Call(
        lambda: minibatch.gather(flat, N, 1, rows, shift, 1.0, _NONE, 0, len(rows), buffer),
        lambda: buffer,
        _double(x[rows]) - shift,
    )


def _dropout_codes(dtype: np.dtype) -> Call:
    gram2, codes, targets = _symmetric(dtype), _numbers((TILE, P), dtype, 1), _numbers((TILE, P), dtype, 2)
    kept = np.random.default_rng(0).integers(1, P + 1, TILE)
    latent, target = codes.copy(), targets.copy()

    def run() -> None:
        latent[:], target[:] = codes, targets
        minibatch.dropout_codes(gram2, kept, 0, TILE, latent, target)

    keep = np.arange(P) < kept[:, None]
    expected = keep * (_double(targets) - 0.5 * (keep * _double(codes)) @ _double(gram2))
    return Call(run, lambda: target, expected)


_WORD = ("float32",) if registers.HAS_BYTE_PRODUCTS else ()
_TRIANGLE = {"p": P}
_CHUNK = {"count": LINES, "n": N, "b": B}
_TILES = {"t": TILE, "n": N, "b": B}
_ROWS = {"m": LINES, "d": N, "b": B}
CASES = (
    KernelCase(
        blas.gemm, "2 (rows of c)(columns of c)(inner)", {"rows of c": TILE, "columns of c": B, "inner": N}, _gemm
    ),
    KernelCase(blas.syrk, "k n (n + 1)", {"k": 128, "n": N}, _syrk),
    KernelCase(packed_gemm.multiply, "2 r k (columns)", {"r": 40, "k": N, "columns": N}, _packed),
    KernelCase(products.multiply_lines, "2 t n b", _TILES, _lines),
    KernelCase(products.multiply_back, "2 t n b", _TILES, _back),
    KernelCase(products.multiply_itself, "t n (n + 1)", _TILES, _itself),
    KernelCase(few_columns.multiply_few, "2 t n c", {"t": TILE, "n": N, "c": 2}, _few),
    KernelCase(tiles.load, "2 count n", {"count": TILE, "n": N}, _load),
    KernelCase(kernels.gram, "m d (d + 1)", _ROWS, _gram),
    KernelCase(kernels.row_pass, "4 m d b", _ROWS, _row_pass),
    KernelCase(tiles.project_chunk, "2 count n (b + c)", _CHUNK | {"c": 0}, _project),
    KernelCase(byte_gram.byte_gram_chunk, "count n (n + 1)", _CHUNK, _byte_gram, dtypes=_WORD),
    KernelCase(totals.commit_gram, "5 n^2 / 2", {"n": N}, _commit_gram),
    KernelCase(totals.commit_used, "3 k^2 / 2", {"k": N // 2}, _commit_used),
    KernelCase(sparse.statistics_chunk, "4", {}, _sparse_statistics, times=_STORED),
    KernelCase(sparse.pass_chunk, "4 b", {"b": B}, _sparse_pass, traffic="3 b itemsize", times=_STORED),
    KernelCase(sparse.project_chunk, "2 b", {"b": B}, _sparse_project, times=_STORED),
    KernelCase(sparse.gram_chunk, "k (k + 1)", {"k": _STORED / LINES}, _sparse_gram, times=LINES),
    KernelCase(sparse.commit, "4 n b", {"n": N, "b": B}, _sparse_commit),
    KernelCase(coefficients.masked_gram, "p^2 / 2", _TRIANGLE, _masked_gram, traffic="3/2 p^2 itemsize"),
    KernelCase(kernels.rotation, "p^2 / 2", _TRIANGLE, _rotation),
    KernelCase(coefficients.rotation_rows, "p^2 / 2", _TRIANGLE, _rotation_rows),
    KernelCase(kernels.quotients, "p^2 / 2", _TRIANGLE, _quotients),
    KernelCase(kernels.normalise_rows, "3 p n", {"p": P, "n": N}, _normalise_rows),
    KernelCase(coefficients.encoder_coefficients, "2 p^2", _TRIANGLE, _encoder_coefficients, label=", rag"),
    KernelCase(coefficients.decoder_coefficients, "2 p^2", _TRIANGLE, _decoder_coefficients, label=", rag"),
    KernelCase(step.fused_step, "12 p w", {"p": P, "w": N}, _fused_step(kernels.SGD), label=", sgd"),
    KernelCase(
        step.fused_step, "22 p w", {"p": P, "w": N}, _fused_step(kernels.ADAM), "8 p w itemsize", label=", adam"
    ),
    KernelCase(minibatch.gather, "2 (last - first) n", {"last": 2 * TILE, "first": 0, "n": N}, _gather),
    KernelCase(minibatch.dropout_codes, "2 p^2 (last - first)", {"p": P, "last": TILE, "first": 0}, _dropout_codes),
)

# Kernels with a cost line that no case calls by itself, and the case in which they run.
WITHIN = {
    "tiles.gram_chunk": "kernels.gram",
    "tiles.pass_chunk": "kernels.row_pass",
}
