"""The one binding to cuBLAS: SYRK and GEMM in float32 and float64, batches of GEMM, and GEMM of bytes.

May import arrays.py only.  float32 is float32: the math mode of the handle is set to the default for every call, so
that TF32 is not used whatever CUPY_TF32 says.  One stream, no split atomics: the same bits from run to run on one card
with one version of cuBLAS.  Rows of all arrays are contiguous; cuBLAS is told of their transposes, in its own column
order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import arrays

# Numbers of cuBLAS's and CUDA's headers: data types and compute types.
_DATA = {"float32": 0, "float64": 1, "int8": 3, "int32": 10}
_COMPUTE = {"float32": 68, "float64": 70, "int32": 72}


def syrk(a: Any, beta: float, out: Any) -> None:
    """Lower triangle of out <- a'a + beta out.  a : (k, n);  out : (n, n).  k n (n + 1) flops."""
    k, n = a.shape
    if arrays.xp is np:
        with np.errstate(over="ignore", invalid="ignore"):
            product = a.T @ a
            lower = np.tril_indices(n)
            out[lower] = product[lower] if beta == 0 else product[lower] + out.dtype.type(beta) * out[lower]
        return
    with _handle() as (cublas, handle):
        function = cublas.ssyrk if out.dtype == np.float32 else cublas.dsyrk
        one, factor = np.array(1, out.dtype), np.array(beta, out.dtype)
        # in column order `a` is its transpose, and the lower triangle the upper one
        function(
            handle, cublas.CUBLAS_FILL_MODE_UPPER, cublas.CUBLAS_OP_N, n, k, one.ctypes.data, a.data.ptr, n,
            factor.ctypes.data, out.data.ptr, n,
        )  # fmt: skip


def gemm(a: Any, b: Any, out: Any) -> None:
    """out <- a b.  (m, k), (k, n) -> (m, n).  2 m n k flops."""
    _multiply(a[None], False, b[None], out[None])


def cross(a: Any, b: Any, out: Any) -> None:
    """out[t] <- a[t]' b[t] for every tile t.  (t, k, m), (t, k, n) -> (t, m, n).  2 t m n k flops."""
    _multiply(a, True, b, out)


def _multiply(a: Any, transpose: bool, b: Any, out: Any) -> None:
    tiles, m, n = out.shape
    k = b.shape[1]
    if not out.size:
        return
    if arrays.xp is np:
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(a.transpose(0, 2, 1) if transpose else a, b, out=out)
        return
    with _handle() as (cublas, handle):
        one, zero = np.array(1, out.dtype), np.array(0, out.dtype)
        kind, compute = _DATA[out.dtype.name], _COMPUTE[out.dtype.name]
        # out' = b' op(a)', and in column order b and out are their transposes already
        operation = cublas.CUBLAS_OP_T if transpose else cublas.CUBLAS_OP_N
        cublas.gemmStridedBatchedEx(
            handle, cublas.CUBLAS_OP_N, operation, n, m, k, one.ctypes.data, b.data.ptr, kind, *_steps(b), a.data.ptr,
            kind, *_steps(a), zero.ctypes.data, out.data.ptr, kind, *_steps(out), tiles, compute,
            cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip


def _steps(array: Any) -> tuple[int, int]:
    """From row to row, at least a row's length, and from tile to tile, in numbers."""
    return max(array.strides[1] // array.itemsize, array.shape[2]), array.strides[0] // array.itemsize


def integer_gram(a: Any, out: Any) -> None:
    """out <- a a', exact.  a : (n, k) int8;  out : (n, n) int32.  n and k multiples of 16.  2 n^2 k operations."""
    n, k = a.shape
    if arrays.xp is np:
        np.matmul(a.astype(np.int32), a.T.astype(np.int32), out=out)
        return
    with _handle() as (cublas, handle):
        one, zero = np.array(1, np.int32), np.array(0, np.int32)
        # in column order: k x n, transposed times itself, the one form that tensor cores take bytes in
        cublas.gemmEx(
            handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, n, n, k, one.ctypes.data, a.data.ptr, _DATA["int8"], k,
            a.data.ptr, _DATA["int8"], k, zero.ctypes.data, out.data.ptr, _DATA["int32"], n, _COMPUTE["int32"],
            cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip


@contextlib.contextmanager
def _handle() -> Iterator[tuple[Any, int]]:
    """CuPy's handle with scalars from the host and no TF32; both as they were afterwards."""
    cublas, handle = arrays.cublas()
    pointers, math = cublas.getPointerMode(handle), cublas.getMathMode(handle)
    cublas.setPointerMode(handle, cublas.CUBLAS_POINTER_MODE_HOST)
    cublas.setMathMode(handle, cublas.CUBLAS_DEFAULT_MATH)
    try:
        yield cublas, handle
    finally:
        cublas.setPointerMode(handle, pointers)
        cublas.setMathMode(handle, math)


def batched(
    a: Any,
    b: Any,
    out: Any,
    transposed: bool = False,
    add: bool = False,
    by: Callable[..., None] | None = None,
) -> None:
    """out[t] <- a[t] b[t], or a[t] b[t]' where `transposed`, plus out[t] where `add`: one call for all t.

    (t, m, k), (t, k, n) or (t, n, k) -> (t, m, n).  2 t m n k flops.
    by : takes what cublasGemmStridedBatchedEx takes, in its place: graphs.py has one
    """
    if arrays.xp is np:
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = np.matmul(a, b.transpose(0, 2, 1) if transposed else b) + (out if add else out.dtype.type(0))
        return
    tiles, m, n = out.shape
    with _handle() as (cublas, handle):
        one, beta = np.array(1, out.dtype), np.array(int(add), out.dtype)
        kind, compute = _DATA[out.dtype.name], _COMPUTE[out.dtype.name]
        # out' = op(b)' a', and in column order b, a and out are their transposes already
        (by or cublas.gemmStridedBatchedEx)(
            handle, cublas.CUBLAS_OP_T if transposed else cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_N, n, m, a.shape[2],
            one.ctypes.data, b.data.ptr, kind, *_steps(b), a.data.ptr, kind, *_steps(a), beta.ctypes.data,
            out.data.ptr, kind, *_steps(out), tiles, compute, cublas.CUBLAS_GEMM_DEFAULT,
        )  # fmt: skip
