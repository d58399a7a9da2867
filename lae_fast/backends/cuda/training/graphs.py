"""An iteration as a CUDA graph: captured once, launched again and again.  Switched on by LAE_FAST_CUDA_GRAPHS=1.

CuPy captures streams but refuses cuBLAS while it does (cupy#6290), so in a capture the one GEMM that training needs is
called by its C symbol, on CuPy's handle; everywhere else it is blas.py's. Under the simulator a graph is the list of
its launches.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import arrays, blas, target


def wanted() -> bool:
    """Whether iterations are to be captured.  Not by default: no card has shown yet that it works."""
    return os.environ.get("LAE_FAST_CUDA_GRAPHS", "0") == "1"


class Product:
    """`blas.prepared`: a call on the default stream, or part of a capture on another.

    a, b, out : three dimensions;  see there
    """

    def __init__(self, a: Any, b: Any, out: Any, transposed: bool, add: bool) -> None:
        self._memory = a, b, out  # of which cuBLAS is told the addresses
        self._call = blas.prepared(a, b, out, transposed, add)

    def __call__(self, stream: int = 0) -> None:
        self._call(None if stream == 0 else _captured(stream))


def capture(runs: list[Callable[[int], None]]) -> Callable[[], Any]:
    """A function that launches all of these, which take a stream's address, as one graph.

    The kernels must have run before, so that nothing is loaded during the capture.

    Raises
    ------
    any of `failures()`
        Something refuses to be captured.  Nothing has been launched, and launches outside of graphs go on as before.
    """
    if arrays.xp is np:
        return lambda: [run(0) for run in runs]
    symbols = _library()
    _, handle = arrays.cublas()
    try:
        with arrays.xp.cuda.Stream(non_blocking=True) as stream:
            stream.begin_capture()
            with contextlib.ExitStack() as broken_off:
                broken_off.callback(_discard, stream)
                for run in runs:
                    run(stream.ptr)
                broken_off.pop_all()
            graph = stream.end_capture()
    finally:
        symbols.cublasSetStream_v2(handle, arrays.xp.cuda.get_current_stream().ptr)
    return graph.launch


def _discard(stream: Any) -> None:
    """End a capture that something interrupted: one that has failed ends with an error of its own."""
    with contextlib.suppress(*failures()):
        stream.end_capture()


def failures() -> tuple[type[Exception], ...]:
    """What `capture` raises where it cannot be done; AttributeError: a library without these symbols."""
    return (*target.failures(), AttributeError)


@functools.cache
def _library() -> Any:
    """The cuBLAS that CuPy has loaded, by its C symbols."""
    library, handle = arrays.cublas()
    major = library.getVersion(handle) // 10_000
    symbols = ctypes.CDLL(f"cublas64_{major}.dll" if os.name == "nt" else f"libcublas.so.{major}")
    pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong
    symbols.cublasSetStream_v2.argtypes = [pointer, pointer]
    operand: list[Any] = [pointer, integer, integer, long]
    symbols.cublasGemmStridedBatchedEx.argtypes = [
        pointer, integer, integer, integer, integer, integer, pointer, *operand, *operand, pointer, *operand, integer,
        integer, integer,
    ]  # fmt: skip
    return symbols


def _captured(stream: int) -> Callable[..., None]:
    """cublasGemmStridedBatchedEx on a stream that is being captured."""
    symbols = _library()

    def by(handle: int, *rest: Any) -> None:
        _checked(symbols.cublasSetStream_v2(handle, stream))
        _checked(symbols.cublasGemmStridedBatchedEx(handle, *rest))

    return by


def _checked(status: int) -> None:
    if status != 0:
        raise RuntimeError(
            f"cuBLAS returned status {status} while a CUDA graph was captured; unset LAE_FAST_CUDA_GRAPHS"
        )
