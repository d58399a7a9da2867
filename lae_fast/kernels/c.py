"""The kernels for C: addresses of compiled functions, and a header with their types, shapes and contract.

    from lae_fast.kernels import c
    c.address("row_pass_f32")           # an integer: a function pointer, valid as long as the process
    c.ctypes_function("row_pass_f32")   # the same, to be called with pointers
    c.header()                          # text of a C header with a type for each

`lae-fast kernels --header FILE` writes the header.  Each kernel is there for float (_f32) and double (_f64), and
compiles when it is first asked for.  They hold no lock, may be called from any thread, and check nothing.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
from numba import carray, types

from .. import _version
from ..backends.cpu.jit import JIT_DISABLED
from ..backends.formulas import ADAM, MOMENTUM, N_ROW_SUMS, N_SUMS, NESTEROV, SGD
from ..validation import check_choice
from . import fused_step as _fused_step
from . import gemm as _gemm
from . import gram as _gram
from . import masked_gram as _masked_gram
from . import normalise_rows as _normalise_rows
from . import quotients as _quotients
from . import rotation as _rotation
from . import row_pass as _row_pass
from . import syrk as _syrk
from . import tril as _tril

__all__ = ["address", "ctypes_function", "header", "names"]


def _c_gemm(rows, columns, inner, alpha, a, transpose_a, b, transpose_b, beta, c):
    shape_a = (inner, rows) if transpose_a else (rows, inner)
    shape_b = (columns, inner) if transpose_b else (inner, columns)
    _gemm(
        alpha, carray(a, shape_a), transpose_a != 0, carray(b, shape_b), transpose_b != 0, beta,
        carray(c, (rows, columns)),
    )  # fmt: skip


def _c_syrk(m, n, a, beta, c):
    _syrk(carray(a, (m, n)), beta, carray(c, (n, n)))


def _c_gram(m, d, rows, shift, weights, n_weights, tile, n_tile, out):
    _gram(
        carray(rows, (m, d)), carray(shift, (d,)), carray(weights, (n_weights,)), carray(tile, (n_tile, d)),
        carray(out, (d, d)),
    )  # fmt: skip


def _c_row_pass(m, d, b, rows, shift, weights, n_weights, block, tile, codes, n_tile, out):
    _row_pass(
        carray(rows, (m, d)), carray(shift, (d,)), carray(weights, (n_weights,)), carray(block, (d, b)),
        carray(tile, (n_tile, d)), carray(codes, (n_tile, b)), carray(out, (d, b)),
    )  # fmt: skip


def _c_masked_gram(p, gram, prefix, out):
    _masked_gram(carray(gram, (p, p)), carray(prefix, (p,)), carray(out, (p, p)))


def _c_rotation(p, gram, out):
    _rotation(carray(gram, (p, p)), carray(out, (p, p)))


def _c_tril(p, gram, diagonal, out):
    _tril(carray(gram, (p, p)), diagonal, carray(out, (p, p)))


def _c_quotients(p, gram, out):
    _quotients(carray(gram, (p, p)), carray(out, (p, p)))


def _c_normalise_rows(p, n, weights):
    _normalise_rows(carray(weights, (p, n)))


def _c_fused_step(
    optimizer, p, w, scalars, rate, iteration, dense, product, on_product, on_weights, penalty, prefix, with_cross,
    weights, first, second, sums, row_sums, row_squares, n_row_sums,
):  # fmt: skip
    _fused_step(
        optimizer, carray(scalars, (3,)), rate, iteration, carray(dense, (p, w)), carray(product, (p, w)),
        carray(on_product, (p,)), carray(on_weights, (p,)), carray(penalty, (p,)), carray(prefix, (p,)),
        with_cross != 0, carray(weights, (p, w)), carray(first, (p, w)), carray(second, (p, w)),
        carray(sums, (N_SUMS,)), carray(row_sums, (n_row_sums, N_ROW_SUMS)), carray(row_squares, (n_row_sums,)),
    )  # fmt: skip


class _Kernel(NamedTuple):
    """A wrapper, what it computes, and its parameters: name -> (kind, shape or meaning)."""

    function: Callable[..., None]
    text: str
    parameters: dict[str, tuple[str, str]]


_C_REAL = {types.float32: ctypes.c_float, types.float64: ctypes.c_double}
# Kinds of parameters: C type with REAL for float or double, Numba's type and that of ctypes for a dtype.
_KINDS: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "size": ("int64_t", lambda real: types.int64, lambda real: ctypes.c_int64),
    "flag": ("int64_t", lambda real: types.int64, lambda real: ctypes.c_int64),
    "real": ("REAL", lambda real: real, lambda real: _C_REAL[real]),
    "double": ("double", lambda real: types.float64, lambda real: ctypes.c_double),
    "in": ("const REAL *", types.CPointer, lambda real: ctypes.c_void_p),
    "out": ("REAL *", types.CPointer, lambda real: ctypes.c_void_p),
    "doubles": ("const double *", lambda real: types.CPointer(types.float64), lambda real: ctypes.c_void_p),
    "sums": ("double *", lambda real: types.CPointer(types.float64), lambda real: ctypes.c_void_p),
}
_REALS = {"f32": (types.float32, "float"), "f64": (types.float64, "double")}

_WEIGHTS = {"weights": ("doubles", "(n_weights,), one for each row"), "n_weights": ("size", "m, or 0 for no weights")}
_KERNELS = {
    "gemm": _Kernel(_c_gemm, "c <- alpha op(a) op(b) + beta c", {
        "rows": ("size", "of c"), "columns": ("size", "of c"), "inner": ("size", "length of the sums"),
        "alpha": ("real", ""), "a": ("in", "(rows, inner), or (inner, rows) if transpose_a"),
        "transpose_a": ("flag", "0 or 1"), "b": ("in", "(inner, columns), or (columns, inner) if transpose_b"),
        "transpose_b": ("flag", "0 or 1"), "beta": ("real", ""), "c": ("out", "(rows, columns)"),
    }),
    "syrk": _Kernel(_c_syrk, "lower triangle of c <- a'a + beta c", {
        "m": ("size", ""), "n": ("size", ""), "a": ("in", "(m, n)"), "beta": ("real", ""), "c": ("out", "(n, n)"),
    }),
    "gram": _Kernel(_c_gram, "out <- sum_r w_r (x_r - shift)(x_r - shift)'", {
        "m": ("size", "rows"), "d": ("size", "columns"), "rows": ("in", "(m, d)"), "shift": ("in", "(d,)"), **_WEIGHTS,
        "tile": ("out", "(n_tile, d), workspace"), "n_tile": ("size", "64 to 128"), "out": ("out", "(d, d)"),
    }),
    "row_pass": _Kernel(_c_row_pass, "out <- sum_r w_r (x_r - shift)((x_r - shift)' block)", {
        "m": ("size", "rows"), "d": ("size", "columns"), "b": ("size", "columns of block"), "rows": ("in", "(m, d)"),
        "shift": ("in", "(d,)"), **_WEIGHTS, "block": ("in", "(d, b)"), "tile": ("out", "(n_tile, d), workspace"),
        "codes": ("out", "(n_tile, b), workspace"), "n_tile": ("size", "64 to 128"), "out": ("out", "(d, b)"),
    }),
    "masked_gram": _Kernel(_c_masked_gram, "out_ij <- prefix[max(i, j)] gram_ij", {
        "p": ("size", ""), "gram": ("in", "(p, p)"), "prefix": ("in", "(p,)"), "out": ("out", "(p, p), may be gram"),
    }),
    "rotation": _Kernel(_c_rotation, "out <- (striu(gram) - stril(gram)) / 2", {
        "p": ("size", ""), "gram": ("in", "(p, p)"), "out": ("out", "(p, p), may be gram"),
    }),
    "tril": _Kernel(_c_tril, "out <- the lower triangle of gram, zeros above", {
        "p": ("size", ""), "gram": ("in", "(p, p)"), "diagonal": ("flag", "1 keeps the diagonal, 0 clears it"),
        "out": ("out", "(p, p), may be gram"),
    }),
    "quotients": _Kernel(_c_quotients, "out_ij <- gram_ij / gram_jj for j < i, zeros elsewhere", {
        "p": ("size", ""), "gram": ("in", "(p, p)"), "out": ("out", "(p, p), another array"),
    }),
    "normalise_rows": _Kernel(_c_normalise_rows, "each row divided by its length; a zero row stays", {
        "p": ("size", ""), "n": ("size", ""), "weights": ("out", "(p, n), in place"),
    }),
    "fused_step": _Kernel(
        _c_fused_step, "a step of the optimizer along g = dense + diag(on_product) product + 2 diag(penalty) weights", {
        "optimizer": ("size", f"{SGD} sgd, {MOMENTUM} momentum, {NESTEROV} nesterov, {ADAM} adam"),
        "p": ("size", "rows of the weights"),
        "w": ("size", "columns, about 256 at most: sums along them are in the dtype of the weights"),
        "scalars": ("doubles", "(3,): mu, 0, 0, or beta1, beta2, eps"), "rate": ("double", ""),
        "iteration": ("size", "from 0"), "dense": ("in", "(p, w)"), "product": ("in", "(p, w)"),
        "on_product": ("in", "(p,)"), "on_weights": ("in", "(p,), for the norms alone: zeros"),
        "penalty": ("in", "(p,)"), "prefix": ("in", "(p,)"), "with_cross": ("flag", "0, or 1 for the last of sums"),
        "weights": ("out", "(p, w), in place"), "first": ("out", "(p, w), in place, but of sgd"),
        "second": ("out", "(p, w), in place, of adam alone"),
        "sums": ("sums", f"({N_SUMS},): of g g, weights weights, penalty weights weights, prefix product weights"),
        "row_sums": ("sums", f"(n_row_sums, {N_ROW_SUMS}): row by row, of g g, g weights, weights weights"),
        "row_squares": ("sums", "(n_row_sums,), of the new weights"), "n_row_sums": ("size", "p, or 0 for none"),
    }),
}  # fmt: skip


def names() -> tuple[str, ...]:
    """Return the names that `address` and `ctypes_function` take, such as "gram_f32".

    Examples
    --------
    >>> from lae_fast.kernels import c
    >>> c.names()[:4]
    ('gemm_f32', 'gemm_f64', 'syrk_f32', 'syrk_f64')
    """
    return tuple(f"{kernel}_{suffix}" for kernel in _KERNELS for suffix in _REALS)


def _parts(name: str) -> tuple[_Kernel, Any, str]:
    """(kernel, Numba's type of a real, C's)."""
    check_choice(name, names(), "name")
    kernel, _, suffix = name.rpartition("_")
    return (_KERNELS[kernel], *_REALS[suffix])


@functools.cache
def _compiled(name: str) -> Any:
    """The compiled callback; kept, for an address is valid as long as its owner lives."""
    if JIT_DISABLED:
        raise RuntimeError("NUMBA_DISABLE_JIT=1 switches compilation off, so there are no functions for C.")
    kernel, real, _ = _parts(name)
    signature = types.void(*(_KINDS[kind][1](real) for kind, _ in kernel.parameters.values()))
    return numba.cfunc(signature)(kernel.function)


def address(name: str) -> int:
    """Return the address of a kernel, a C function of the type that `header` gives; it compiles when first asked for.

    Parameters
    ----------
    name : str
        One of `names()`.

    Returns
    -------
    int
        Valid until the process ends.

    Raises
    ------
    ValueError
        Unknown name; the message lists all.
    RuntimeError
        Compilation is switched off (NUMBA_DISABLE_JIT=1).

    Examples
    --------
    >>> import ctypes
    >>> import numpy as np
    >>> from lae_fast.kernels import c
    >>> normalise_rows = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    >>> weights = np.array([[3.0, 4.0]])
    >>> normalise_rows(c.address("normalise_rows_f64"))(1, 2, weights.ctypes.data)
    >>> weights
    array([[0.6, 0.8]])
    """
    return int(_compiled(name).address)


def ctypes_function(name: str) -> Any:
    """Return a kernel as a ctypes function: pointers are `array.ctypes.data`; parameters and errors of `address`.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast.kernels import c
    >>> weights = np.array([[3.0, 4.0]])
    >>> c.ctypes_function("normalise_rows_f64")(1, 2, weights.ctypes.data)
    >>> weights
    array([[0.6, 0.8]])
    """
    kernel, real, _ = _parts(name)
    arguments = (_KINDS[kind][2](real) for kind, _ in kernel.parameters.values())
    return ctypes.CFUNCTYPE(None, *arguments)(address(name))


def header() -> str:
    """Return a C header: a function type for each of `names()`, such as `lae_gram_f32`, with shapes and contract.

    Examples
    --------
    >>> from lae_fast.kernels import c
    >>> print(c.header().partition("typedef void (*lae_tril_f64)")[2].partition(";")[0])
    (
        int64_t p,
        const double *gram, /* (p, p) */
        int64_t diagonal, /* 1 keeps the diagonal, 0 clears it */
        double *out /* (p, p), may be gram */
    )
    """
    lines = [
        f"/* Kernels of lae_fast {_version.__version__}, written by `lae-fast kernels --header FILE`.", " *",
        " * Matrices are row-major without gaps. Nothing is checked: a wrong length is a crash, as in BLAS. Arrays",
        " * overlap only where it says so. What gram and row_pass write replaces what was there. A function may be",
        " * called from any thread and holds no lock; products run on the threads of the BLAS that SciPy ships.",
        " * Addresses: lae_fast.kernels.c.address(\"gram_f32\") in the same process. */",
        "#ifndef LAE_FAST_KERNELS_H", "#define LAE_FAST_KERNELS_H", "#include <stdint.h>", "",
        "#ifdef __cplusplus", 'extern "C" {', "#endif", "",
    ]  # fmt: skip
    for name in names():
        kernel, _, real = _parts(name)
        lines.append(f"/* {kernel.text} */")
        lines.append(f"typedef void (*lae_{name})(")
        last = len(kernel.parameters) - 1
        for i, (parameter, (kind, meaning)) in enumerate(kernel.parameters.items()):
            declared = _KINDS[kind][0].replace("REAL", real)
            space = "" if declared.endswith("*") else " "
            end = "," if i < last else ""
            lines.append(f"    {declared}{space}{parameter}{end}" + (f" /* {meaning} */" if meaning else ""))
        lines += [");", ""]
    return "\n".join([*lines, "#ifdef __cplusplus", "}", "#endif", "#endif", ""])
