"""The one binding to cuBLAS: GEMM and batches of it in float32 and float64, and GEMM of bytes.

float32 is float32: the math mode of the handle is set to the default for every call, so that TF32 is not used whatever
CUPY_TF32 says; a call that may be faster and coarser says so with `precision`.  One stream, no split atomics: the same
bits from run to run on one card with one version of cuBLAS.  Rows of all arrays are contiguous; cuBLAS is told of their
transposes, in its own column order.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ...errors import UnsupportedOnBackendError
from . import arrays

# Numbers of cuBLAS's and CUDA's headers: data types and compute types.  The last two are modes of float32.
_DATA = {"float32": 0, "float64": 1, "int8": 3, "int32": 10}
_COMPUTE = {"float32": 68, "float64": 70, "int32": 72, "tf32": 77, "bf16x9": 78}
# The oldest cards of each mode: cuBLAS takes BF16x9 on others too, as a whole GEMM in float32, which gains nothing.
_LEAST_CAPABILITY = {"tf32": 80, "bf16x9": 100}
# The oldest cuBLAS (12.9) with BF16x9.
_LEAST_VERSION = 120_900
# Columns of the narrowest panel of `triangles`, a multiple of what cuBLAS's blocks are wide.
_PANEL = 128


def require(precision: str) -> None:
    """Refuse a mode of float32 that this card or this cuBLAS does not have.

    Raises
    ------
    UnsupportedOnBackendError
        Says what is needed and what is here.
    """
    if precision == "float32" or arrays.xp is np:
        return
    capability, version = arrays.capability(), arrays.cublas_version()
    if capability < (least := _LEAST_CAPABILITY[precision]):
        others = "'tf32' or " if capability >= _LEAST_CAPABILITY["tf32"] else ""
        raise UnsupportedOnBackendError(
            f"precision={precision!r} needs a card of compute capability {least / 10} or later, and this one has "
            f"{capability / 10}: use precision={others}'float32'."
        )
    if precision == "bf16x9" and version < _LEAST_VERSION:
        raise UnsupportedOnBackendError(
            f"precision='bf16x9' needs cuBLAS 12.9 or later, and this is {version}: update nvidia-cublas, or use "
            "'tf32' or 'float32'."
        )


def triangles(a: Any, out: Any, precision: str = "float32") -> None:
    """Lower triangle of out[t] <- a[t]'a[t] for every tile t; above it there may be anything.

    (t, k, n) -> (t, n, n).  t k n (n + w) flops, w the width of a panel: GEMM, panel by panel of columns without the
    rows above it, and all tiles in one call.  SYRK has no batched form, and the triangle of one tile gives work to a
    few multiprocessors only.
    """
    n = out.shape[2]
    width = _PANEL * max(1, n // (8 * _PANEL))
    starts = [width * k for k in range(max(1, n // width))]
    panels = [
        (a[:, :, left:], a[:, :, left:right], out[:, left:, left:right])
        for left, right in zip(starts, [*starts[1:], n])
    ]
    _multiply(panels, of_first=True, precision=precision)


def gemm(a: Any, b: Any, out: Any, precision: str = "float32") -> None:
    """out <- a b.  (m, k), (k, n) -> (m, n).  2 m n k flops."""
    _multiply([(a[None], b[None], out[None])], precision=precision)


def cross(a: Any, b: Any, out: Any, precision: str = "float32") -> None:
    """out[t] <- a[t]' b[t] for every tile t.  (t, k, m), (t, k, n) -> (t, m, n).  2 t m n k flops."""
    _multiply([(a, b, out)], of_first=True, precision=precision)


def batched(a: Any, b: Any, out: Any, transposed: bool = False, add: bool = False) -> None:
    """out[t] <- a[t] b[t], or a[t] b[t]' where `transposed`, plus out[t] where `add`: one call for all t.

    (t, m, k), (t, k, n) or (t, n, k) -> (t, m, n).  2 t m n k flops.
    """
    _multiply([(a, b, out)], of_second=transposed, beta=float(add))


def prepared(
    a: Any, b: Any, out: Any, transposed: bool = False, add: bool = False
) -> Callable[[Callable[..., None] | None], None]:
    """`batched` with these arguments, to be repeated: they are looked at once, and must live as long as it does.

    It takes None, or what is called with cublasGemmStridedBatchedEx's arguments in its place: graphs.py has one.
    """
    if arrays.xp is np or not out.size:
        return lambda by: batched(a, b, out, transposed, add)
    arguments = _arguments(a, b, out, False, transposed, float(add), "float32")

    def call(by: Callable[..., None] | None) -> None:
        with _handle() as (cublas, handle):
            (by or cublas.gemmStridedBatchedEx)(handle, *arguments)

    return call


def _multiply(
    calls: list[tuple[Any, Any, Any]],
    *,
    of_first: bool = False,
    of_second: bool = False,
    beta: float = 0.0,
    precision: str = "float32",
) -> None:
    """out[t] <- op(a[t]) op(b[t]) + beta out[t] for each (a, b, out), op the transpose of the first or second factor or
    nothing.

    precision : of float32 arrays only.
    """
    calls = [call for call in calls if call[2].size]
    if arrays.xp is np:
        with np.errstate(over="ignore", invalid="ignore"):
            for a, b, out in calls:
                a, b = _as_read(a, precision), _as_read(b, precision)
                product = np.matmul(a.transpose(0, 2, 1) if of_first else a, b.transpose(0, 2, 1) if of_second else b)
                out[...] = product if beta == 0 else product + out.dtype.type(beta) * out
        return
    listed = [_arguments(*call, of_first, of_second, beta, precision) for call in calls]
    with _handle() as (cublas, handle):
        for arguments in listed:
            cublas.gemmStridedBatchedEx(handle, *arguments)


def _arguments(
    a: Any, b: Any, out: Any, of_first: bool, of_second: bool, beta: float, precision: str
) -> tuple[Any, ...]:
    """What cublasGemmStridedBatchedEx takes after the handle."""
    tiles, m, n = out.shape
    k, name = a.shape[1 if of_first else 2], out.dtype.name
    cublas, _ = arrays.cublas()
    kind, compute = _DATA[name], _COMPUTE[precision if name == "float32" else name]
    # out' = op(b)' op(a)', and in column order a, b and out are their transposes already
    first, second = (cublas.CUBLAS_OP_T if turned else cublas.CUBLAS_OP_N for turned in (of_first, of_second))
    return (
        second, first, n, m, k, _scalar(1.0, name), b.data.ptr, kind, *_steps(b), a.data.ptr, kind, *_steps(a),
        _scalar(beta, name), out.data.ptr, kind, *_steps(out), tiles, compute, cublas.CUBLAS_GEMM_DEFAULT,
    )  # fmt: skip


_scalars: dict[tuple[float, str], np.ndarray] = {}


@functools.cache
def _scalar(value: float, dtype: str) -> int:
    """The address of a number on the host, which stays."""
    return _scalars.setdefault((value, dtype), np.array(value, dtype)).ctypes.data


def _as_read(array: np.ndarray, precision: str) -> np.ndarray:
    """What a product reads of an array in the stand-in: TF32 keeps 10 bits of mantissa, three BF16 keep all of them."""
    if precision != "tf32" or array.dtype != np.float32:
        return array
    bits = np.ascontiguousarray(array).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def _steps(array: Any) -> tuple[int, int]:
    """From row to row, at least a row's length, and from tile to tile, in numbers."""
    return max(array.strides[1] // array.itemsize, array.shape[2]), array.strides[0] // array.itemsize


def byte_gram(a: Any, out: Any) -> None:
    """out <- a a', exact.  a : (n, k) int8;  out : (n, n) int32.  n and k multiples of 16.  2 n^2 k operations."""
    n, k = a.shape
    if arrays.xp is np:
        np.matmul(a.astype(np.int32), a.T.astype(np.int32), out=out)
        return
    with _handle() as (cublas, handle):
        one, zero = (_scalar(value, "int32") for value in (1.0, 0.0))
        # in column order: k x n, transposed times itself, the one form that tensor cores take bytes in
        cublas.gemmEx(
            handle, cublas.CUBLAS_OP_T, cublas.CUBLAS_OP_N, n, n, k, one, a.data.ptr, _DATA["int8"], k,
            a.data.ptr, _DATA["int8"], k, zero, out.data.ptr, _DATA["int32"], n, _COMPUTE["int32"],
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
