"""The arguments of the cuBLAS calls: leading dimensions, transposes, steps, scalars, types and modes.

A stand-in does on host memory what cuBLAS's reference says of column-major arrays behind pointers, and refuses what
cuBLAS refuses.  None of it needs a device.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from lae_fast.backends.cuda import arrays, blas
from tests.oracle import naive
from tests.oracle.cublas import Cublas


class Device(np.ndarray):
    """An array whose `data` is a pointer, as CuPy's is."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


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
def test_triangles_of_tiles(library, dtype, precision, monkeypatch):
    """In panels of two columns and more; what a panel leaves out stays as it was."""
    monkeypatch.setattr(blas, "_PANEL", 2)
    for n, k, panels in [(1, 1, 1), (4, 3, 2), (5, 1, 2), (40, 2, 10)]:
        a, out = filled((3, k, n), dtype), filled((3, n, n), dtype, seed=1)
        before = np.array(out)
        library.computed.clear()
        blas.triangles(a, out, precision)
        for tile, found in zip(a, np.asarray(out)):
            lower = np.tril_indices(n)
            np.testing.assert_array_equal(found[lower], naive.gram(tile)[lower])
        above = np.asarray(out)[:, : n // 4, -1]
        np.testing.assert_array_equal(above, before[:, : n // 4, -1])
        code = {"float32": 68, "tf32": 77, "bf16x9": 78}[precision] if dtype is np.float32 else 70
        assert library.computed == [code] * panels


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
