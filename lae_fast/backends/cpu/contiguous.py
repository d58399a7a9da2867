"""Rows of a slice of columns, typed as what they are: contiguous.

Numba gives `a[:, lo:hi]` and its rows the layout of any strides, and LLVM then leaves loops with a square root or a
division scalar.  Where rows are known to have unit stride, `contiguous_row` says so: the fused step is several times
faster with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import JIT_DISABLED

if JIT_DISABLED:

    def contiguous_row(array: np.ndarray, index: int) -> np.ndarray:
        """Row `index` of a 2-D array."""
        return array[index]

else:
    from numba import types
    from numba.core import cgutils
    from numba.core.imputils import impl_ret_borrowed
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array, populate_array

    @intrinsic
    def contiguous_row(typingctx: Any, array: Any, index: Any) -> Any:
        """Row `index` >= 0 of a 2-D array with unit stride along its last axis, as a contiguous 1-D array; a view."""
        row = types.Array(array.dtype, 1, "C", readonly=not array.mutable)

        def codegen(context, builder, signature, args):
            whole = make_array(signature.args[0])(context, builder, args[0])
            shape = cgutils.unpack_tuple(builder, whole.shape)
            strides = cgutils.unpack_tuple(builder, whole.strides)
            start = cgutils.pointer_add(builder, whole.data, builder.mul(args[1], strides[0]), whole.data.type)
            part = make_array(row)(context, builder)
            populate_array(
                part, start, [shape[1]], [whole.itemsize], whole.itemsize, meminfo=whole.meminfo, parent=whole.parent
            )
            return impl_ret_borrowed(context, builder, row, part._getvalue())

        return row(array, types.intp), codegen
