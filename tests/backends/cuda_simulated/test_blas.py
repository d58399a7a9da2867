"""The arguments of the cuBLAS calls: leading dimensions, transposes, steps, scalars, types and modes.

A stand-in does on host memory what cuBLAS's reference says of column-major arrays behind pointers, and refuses what
cuBLAS refuses.  None of it needs a device.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

from lae_fast.backends.cuda import arrays, blas
from tests.oracle import naive

TYPES = {0: np.float32, 1: np.float64, 3: np.int8, 10: np.int32}
SCALARS = {68: np.float32, 77: np.float32, 78: np.float32, 70: np.float64, 72: np.int32}


class Device(np.ndarray):
    """An array whose `data` is a pointer, as CuPy's is."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


class Cublas:
    """Column-major products on host memory; remembers modes and compute types."""

    CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
    CUBLAS_FILL_MODE_LOWER, CUBLAS_FILL_MODE_UPPER = 0, 1
    CUBLAS_POINTER_MODE_HOST, CUBLAS_POINTER_MODE_DEVICE = 0, 1
    CUBLAS_DEFAULT_MATH, CUBLAS_TF32_TENSOR_OP_MATH, CUBLAS_GEMM_DEFAULT = 0, 3, -1

    def __init__(self):
        self.pointers, self.math = self.CUBLAS_POINTER_MODE_DEVICE, self.CUBLAS_TF32_TENSOR_OP_MATH  # left by others
        self.computed = []

    def getPointerMode(self, handle):
        return self.pointers

    def setPointerMode(self, handle, mode):
        self.pointers = mode

    def getMathMode(self, handle):
        return self.math

    def setMathMode(self, handle, mode):
        self.math = mode

    def matrix(self, pointer, dtype, rows, columns, leading):
        assert leading >= max(1, rows)  # CUBLAS_STATUS_INVALID_VALUE
        n_bytes = ((columns - 1) * leading + rows) * np.dtype(dtype).itemsize
        memory = np.frombuffer((ctypes.c_byte * n_bytes).from_address(pointer), dtype)
        return np.lib.stride_tricks.as_strided(memory, (rows, columns), (memory.itemsize, leading * memory.itemsize))

    def scalar(self, pointer, dtype):
        assert self.pointers == self.CUBLAS_POINTER_MODE_HOST and self.math == self.CUBLAS_DEFAULT_MATH
        return self.matrix(pointer, dtype, 1, 1, 1)[0, 0]

    def gemmStridedBatchedEx(
        self, handle, ta, tb, m, n, k, alpha, a, kind_a, lda, step_a, b, kind_b, ldb, step_b, beta, c, kind_c, ldc,
        step_c, batch, compute, algorithm,
    ):  # fmt: skip
        self.computed.append(compute)
        alpha, beta = (self.scalar(pointer, SCALARS[compute]) for pointer in (alpha, beta))
        kinds = [TYPES[kind] for kind in (kind_a, kind_b, kind_c)]
        for t in range(batch):
            left, right, out = (
                pointer + t * step * np.dtype(kind).itemsize
                for pointer, step, kind in zip((a, b, c), (step_a, step_b, step_c), kinds)
            )
            left = self.matrix(left, kinds[0], *((m, k) if ta == self.CUBLAS_OP_N else (k, m)), lda)
            right = self.matrix(right, kinds[1], *((k, n) if tb == self.CUBLAS_OP_N else (n, k)), ldb)
            left, right = (side.T if turned else side for side, turned in ((left, ta), (right, tb)))
            out = self.matrix(out, kinds[2], m, n, ldc)
            product = alpha * (left.astype(kinds[2]) @ right.astype(kinds[2]))
            out[...] = product if beta == 0 else product + beta * out

    def gemmEx(
        self, handle, ta, tb, m, n, k, alpha, a, kind_a, lda, b, kind_b, ldb, beta, c, kind_c, ldc, compute, algorithm
    ):
        self.gemmStridedBatchedEx(
            handle, ta, tb, m, n, k, alpha, a, kind_a, lda, 0, b, kind_b, ldb, 0, beta, c, kind_c, ldc, 0, 1, compute,
            algorithm,
        )  # fmt: skip

    def syrk(self, dtype, uplo, trans, n, k, alpha, a, lda, beta, c, ldc):
        alpha, beta = self.scalar(alpha, dtype), self.scalar(beta, dtype)
        left = self.matrix(a, dtype, *((n, k) if trans == self.CUBLAS_OP_N else (k, n)), lda)
        left = left.T if trans else left
        out = self.matrix(c, dtype, n, n, ldc)
        kept = np.triu_indices(n) if uplo == self.CUBLAS_FILL_MODE_UPPER else np.tril_indices(n)
        product = alpha * (left @ left.T)
        out[kept] = product[kept] if beta == 0 else product[kept] + beta * out[kept]

    def ssyrk(self, handle, *arguments):
        self.syrk(np.float32, *arguments)

    def dsyrk(self, handle, *arguments):
        self.syrk(np.float64, *arguments)


@pytest.fixture
def library(monkeypatch):
    found = Cublas()
    monkeypatch.setattr(arrays, "xp", None)
    monkeypatch.setattr(arrays, "cublas", lambda: (found, 7))
    yield found
    # both as they were
    assert (found.pointers, found.math) == (found.CUBLAS_POINTER_MODE_DEVICE, found.CUBLAS_TF32_TENSOR_OP_MATH)


def filled(shape, dtype, room=0, seed=0):
    """Small whole numbers, so that every product is exact, in rows that are `room` numbers longer than their part."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(-4, 5, (*shape[:-1], shape[-1] + room)).astype(dtype).view(Device)
    return whole[..., : shape[-1]]


SHAPES = [(1, 1, 1), (3, 5, 2), (5, 3, 7), (1, 4, 3), (6, 1, 2), (4, 2, 1)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("room", [0, 3])
def test_gemm(library, dtype, room):
    for m, k, n in SHAPES:
        a, b, out = (filled(shape, dtype, room, seed) for seed, shape in enumerate([(m, k), (k, n), (m, n)]))
        blas.gemm(a, b, out)
        np.testing.assert_array_equal(out, naive.gemm(1.0, a, False, b, False, 0.0, None))
    assert set(library.computed) == {68 if dtype is np.float32 else 70}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("room", [0, 3])
def test_cross_of_tiles(library, dtype, room):
    for k, m, n in SHAPES:
        for tiles in (1, 3):
            shapes = [(tiles, k, m), (tiles, k, n), (tiles, m, n)]
            a, b, out = (filled(shape, dtype, room, seed) for seed, shape in enumerate(shapes))
            blas.cross(a, b, out)
            np.testing.assert_array_equal(out, [naive.gemm(1.0, x, True, y, False, 0.0, None) for x, y in zip(a, b)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_batches(library, dtype, transposed, add):
    for m, k, n in SHAPES:
        shapes = [(2, m, k), (2, n, k) if transposed else (2, k, n), (2, m, n)]
        a, b, out = (filled(shape, dtype, 3, seed) for seed, shape in enumerate(shapes))
        before = np.array(out)
        blas.batched(a, b, out, transposed, add)
        wanted = [naive.gemm(1.0, x, False, y, transposed, float(add), z) for x, y, z in zip(a, b, before)]
        np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16x9"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_syrk(library, dtype, precision):
    for n, k in [(1, 1), (4, 3), (3, 5), (5, 1)]:
        a, out = filled((k, n), dtype), filled((n, n), dtype, seed=1)
        for beta in (0.0, 1.0):
            lower = np.tril_indices(n)
            wanted = naive.syrk(np.asarray(a), beta, np.asarray(out))[lower]
            blas.syrk(a, beta, out, precision)
            np.testing.assert_array_equal(np.asarray(out)[lower], wanted)
    coarse = dtype is np.float32 and precision != "float32"
    assert set(library.computed) == ({{"tf32": 77, "bf16x9": 78}[precision]} if coarse else set())


def test_modes_of_float32_are_asked_for_and_never_of_float64(library):
    for dtype, codes in ((np.float32, [68, 77, 78]), (np.float64, [70, 70, 70])):
        library.computed.clear()
        for precision in ("float32", "tf32", "bf16x9"):
            blas.gemm(filled((2, 3), dtype), filled((3, 2), dtype), filled((2, 2), dtype), precision)
        assert library.computed == codes


def test_bytes(library):
    for n, k in [(16, 32), (32, 16)]:
        a, out = filled((n, k), np.int8), filled((n, n), np.int32)
        blas.byte_gram(a, out)
        wide = np.asarray(a).astype(np.int64)
        np.testing.assert_array_equal(out, wide @ wide.T)
    assert set(library.computed) == {72}


def test_an_error_of_cublas_leaves_the_handle_as_it_was(library, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(library, "gemmStridedBatchedEx", fails)
    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
        blas.gemm(filled((2, 3), np.float32), filled((3, 2), np.float32), filled((2, 2), np.float32))
