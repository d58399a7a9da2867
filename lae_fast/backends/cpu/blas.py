"""The one binding to BLAS: GEMM and SYRK callable from nopython code, with `beta`, without allocation.

SciPy exports the BLAS it ships through `scipy.linalg.cython_blas`.  With the extra `mkl` the float32 routines are
Intel's; in float64 MKL was slower.  Each routine's address is registered with LLVM under a name of ours and called as
an external function: unlike a pointer baked into the code, a name survives the compile cache.  With
`NUMBA_DISABLE_JIT=1` the same functions run on SciPy's Python wrappers.

All arrays are row-major (C-ordered rows, unit stride along the last axis; rows may be further apart than they are
long, as in a slice of columns).  BLAS is column-major, so every call computes the transposed product.  NumPy gives an
array of one row or none any stride, so a leading dimension is never taken below the row's length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg.blas as scipy_blas
from numba import types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic, overload

from . import mkl
from .jit import JIT_DISABLED, kernel
from .typed import MATRIX, WRITTEN, checked

PROVIDER = "scipy" if mkl.loaded() is None else "mkl"


def provider() -> str:
    """The library that multiplies: another one rounds differently."""
    return PROVIDER


def _gemm(alpha, a, transpose_a, b, transpose_b, beta, c):
    """c <- alpha op(a) op(b) + beta c on SciPy's wrappers; the twin that runs when JIT is off."""
    op_a = a.T if transpose_a else a
    op_b = b.T if transpose_b else b
    routine = scipy_blas.sgemm if c.dtype == np.float32 else scipy_blas.dgemm
    product = routine(alpha, np.asfortranarray(op_a), np.asfortranarray(op_b))
    if beta == 0.0:
        c[:, :] = product
    else:
        c *= beta
        c += product


def _syrk(a, beta, c):
    """Lower triangle of c <- a'a + beta c on NumPy; the twin that runs when JIT is off."""
    product = a.T @ a
    rows, columns = np.tril_indices(c.shape[0])
    if beta == 0.0:
        c[rows, columns] = product[rows, columns]
    else:
        c[rows, columns] = beta * c[rows, columns] + product[rows, columns]


if not JIT_DISABLED:
    import llvmlite.binding as llvm

    def _external(name: str, n_arguments: int) -> Any:
        symbol = f"lae_fast_{name}"
        if PROVIDER == "mkl" and name not in ("dgemm", "dsyrk"):
            llvm.add_symbol(symbol, mkl.address(name))
        else:
            llvm.add_symbol(symbol, get_cython_function_address("scipy.linalg.cython_blas", name))
        return types.ExternalFunction(symbol, types.void(*[types.voidptr] * n_arguments))

    _SGEMM, _DGEMM = _external("sgemm", 13), _external("dgemm", 13)
    _SSYRK, _DSYRK = _external("ssyrk", 10), _external("dsyrk", 10)

    @intrinsic
    def _address(typingctx, value):
        """Pointer to a stack copy of a scalar: Fortran passes everything by reference."""

        def codegen(context, builder, signature, args):
            slot = cgutils.alloca_once_value(builder, args[0])
            return builder.bitcast(slot, cgutils.voidptr_t)

        return types.voidptr(value), codegen

    @intrinsic
    def _data(typingctx, array):
        """Pointer to the first element of an array."""

        def codegen(context, builder, signature, args):
            struct = context.make_array(signature.args[0])(context, builder, args[0])
            return builder.bitcast(struct.data, cgutils.voidptr_t)

        return types.voidptr(array), codegen

    @overload(_gemm)
    def _gemm_overload(alpha, a, transpose_a, b, transpose_b, beta, c):
        routine = _SGEMM if c.dtype == types.float32 else _DGEMM
        real = np.float32 if c.dtype == types.float32 else np.float64

        def implementation(alpha, a, transpose_a, b, transpose_b, beta, c):
            rows, columns = c.shape
            inner = a.shape[0] if transpose_a else a.shape[1]
            if rows == 0 or columns == 0:
                return
            routine(
                _address(np.int8(84 if transpose_b else 78)),
                _address(np.int8(84 if transpose_a else 78)),
                _address(np.int32(columns)),
                _address(np.int32(rows)),
                _address(np.int32(inner)),
                _address(real(alpha)),
                _data(b),
                _address(np.int32(max(1, b.shape[1], b.strides[0] // b.itemsize))),
                _data(a),
                _address(np.int32(max(1, a.shape[1], a.strides[0] // a.itemsize))),
                _address(real(beta)),
                _data(c),
                _address(np.int32(max(1, c.shape[1], c.strides[0] // c.itemsize))),
            )

        return implementation

    @overload(_syrk)
    def _syrk_overload(a, beta, c):
        routine = _SSYRK if c.dtype == types.float32 else _DSYRK
        real = np.float32 if c.dtype == types.float32 else np.float64

        def implementation(a, beta, c):
            if c.shape[0] == 0:
                return
            routine(
                _address(np.int8(85)),
                _address(np.int8(78)),
                _address(np.int32(c.shape[0])),
                _address(np.int32(a.shape[0])),
                _address(real(1.0)),
                _data(a),
                _address(np.int32(max(1, a.shape[1], a.strides[0] // a.itemsize))),
                _address(real(beta)),
                _data(c),
                _address(np.int32(max(1, c.shape[1], c.strides[0] // c.itemsize))),
            )

        return implementation


_check_gemm, _check_syrk = checked("gemm", a=MATRIX, b=MATRIX, c=WRITTEN), checked("syrk", a=MATRIX, c=WRITTEN)


@kernel
def gemm(alpha, a, transpose_a, b, transpose_b, beta, c):
    """c <- alpha op(a) op(b) + beta c, op(x) = x or x'.

    a, b, c : 2-D, same dtype float32|float64, unit stride along the last axis.  `beta = 0` overwrites c.
    2 (rows of c)(columns of c)(inner) flops, by BLAS.  Naive twin: oracle/naive.py::gemm.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> c = np.empty((2, 2))
    >>> kernels.gemm(2.0, np.eye(2), False, np.array([[1.0, 2.0], [3.0, 4.0]]), True, 0.0, c)
    >>> c
    array([[2., 6.],
           [4., 8.]])
    """
    _check_gemm(a, b, c)
    _gemm(alpha, a, transpose_a, b, transpose_b, beta, c)


@kernel
def syrk(a, beta, c):
    """Lower triangle of c <- a'a + beta c; the strict upper triangle is not touched.

    a : (k, n);  c : (n, n), same dtype float32|float64, unit stride along the last axis.
    k n (n + 1) flops, by BLAS.  Naive twin: oracle/naive.py::syrk.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> c = np.zeros((2, 2))
    >>> kernels.syrk(np.array([[1.0, 2.0], [3.0, 4.0]]), 0.0, c)
    >>> c  # the lower triangle
    array([[10.,  0.],
           [14., 20.]])
    """
    _check_syrk(a, c)
    _syrk(a, beta, c)
