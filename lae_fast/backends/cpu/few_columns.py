"""A product with a few columns, summed in registers along the lines: what whole vectors of columns leave over.

`registers.py` lays columns side by side in a vector, so four of them cost as much as sixteen.  Here a vector holds the
entries of a line, and each column costs what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import lean_kernel
from .registers import VECTOR_BYTES

# Lines of a block: with four columns 24 sums in 32 registers, or 12 in the 16 of AVX2.
_LINES = 3 if VECTOR_BYTES == 32 else 6


def n_left_over(width: int, dtype: np.dtype) -> int:
    """How many of so many columns are better multiplied by `multiply_few`: at most a quarter of a vector."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    left = width % lanes if lanes else 0
    return left if left <= lanes // 4 else 0


@lean_kernel
def multiply_few(tile, columns, out):
    """out <- tile columns'.

    tile : (t, n);  columns : (c, n), c = `n_left_over`;  out : (t, c);  float32|float64, one dtype, rows contiguous
    2 t n c flops.  Sums run over a vector's share of the entries.  Naive twin: oracle/naive.py::gemm.  Serial.
    """
    n, size, count = tile.shape[1], tile.itemsize, columns.shape[0]
    tile_row, columns_row, out_row = tile.strides[0] // size, columns.strides[0] // size, out.strides[0] // size
    lanes = VECTOR_BYTES // size
    whole = n - n % lanes if lanes > 0 else 0
    for top in range(0, tile.shape[0], _LINES):
        lines = min(_LINES, tile.shape[0] - top)
        if count > 0 and whole > 0:
            sum_lines(
                tile, top * tile_row, tile_row, columns, columns_row, whole, out, top * out_row, out_row, lines, count
            )
        for r in range(top, top + lines):
            for c in range(count):
                total = out[r, c] if whole > 0 else out.dtype.type(0.0)
                for j in range(whole, n):
                    total += tile[r, j] * columns[c, j]
                out[r, c] = total


if VECTOR_BYTES == 0:

    @lean_kernel
    def sum_lines(left, left_at, left_row, right, right_row, run, out, out_at, out_row, lines, columns):
        """Nothing: without vectors no columns are left over."""

else:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _INT = ir.IntType(64)

    @intrinsic
    def sum_lines(typingctx: Any, left: Any, left_at: Any, left_row: Any, right: Any, right_row: Any, run: Any,
                  out: Any, out_at: Any, out_row: Any, lines: Any, columns: Any) -> Any:  # fmt: skip
        """out[i, j] <- sum over k < `run` of left[i, k] right[j, k].

        left, right, out : arrays, of which the data begin at element 0;  *_at : element where the block's part begins
        left_row, right_row, out_row : elements from one row to the next;  run : a multiple of a vector's numbers, >= 1
        lines, columns : 1 <= lines <= _LINES, 1 <= columns <= a quarter of a vector.  All float32|float64.
        """

        def codegen(context, builder, signature, args):
            kinds = dict(enumerate(signature.args))
            data = {i: context.make_array(kinds[i])(context, builder, args[i]).data for i in (0, 3, 6)}
            number = context.get_data_type(kinds[6].dtype)
            left_row, right_row, run, out_row, lines, columns = (args[i] for i in (2, 4, 5, 8, 9, 10))
            left, out = builder.gep(data[0], [args[1]]), builder.gep(data[6], [args[7]])
            end = builder.append_basic_block("summed")
            choice = builder.switch(columns, end)
            for count in range(1, 2 * VECTOR_BYTES // kinds[6].dtype.bitwidth + 1):
                case = builder.append_basic_block(f"columns{count}")
                choice.add_case(_INT(count), case)
                builder.position_at_end(case)
                together = builder.icmp_signed("==", lines, _INT(_LINES))
                with builder.if_else(together) as (all_, some):
                    with all_:
                        block = _dots(builder.module, number, _LINES, count)
                        builder.call(block, [left, left_row, data[3], right_row, run, out, out_row])
                    with some:
                        block = _dots(builder.module, number, 1, count)
                        with cgutils.for_range(builder, lines) as loop:
                            first = builder.gep(left, [builder.mul(loop.index, left_row)])
                            target = builder.gep(out, [builder.mul(loop.index, out_row)])
                            builder.call(block, [first, left_row, data[3], right_row, run, target, out_row])
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        whole = types.intp
        return types.void(left, whole, whole, right, whole, whole, out, whole, whole, whole, whole), codegen

    def _dots(module: ir.Module, number: ir.Type, height: int, count: int) -> ir.Function:
        """LLVM function that sums the products of so many lines with so many columns.

        Its arguments: left, from a row to the next, right, from a row to the next, run, out, from a row to the next.
        """
        bits = 64 if isinstance(number, ir.DoubleType) else 32
        lanes, size = 8 * VECTOR_BYTES // bits, bits // 8
        kind = f"v{lanes}f{bits}"
        pointer, vector = number.as_pointer(), ir.VectorType(number, lanes)
        zero = ir.Constant(vector, [0.0] * lanes)

        def declared(name, result, arguments):
            return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)

        arguments = [pointer, _INT, pointer, _INT, _INT, pointer, _INT]
        function = declared(f"lae_fast_dots_{kind}_{height}x{count}", ir.VoidType(), arguments)
        if not function.is_declaration:
            return function
        function.linkage = "linkonce_odr"
        # as blocks of registers.py: inlined or unrolled, it would hold more numbers than there are registers
        function.attributes.add("noinline")
        function.attributes.add("optsize")
        left, left_row, right, right_row, run, out, out_row = function.args
        for argument in (left, right, out):
            argument.add_attribute("noalias")
        multiply = declared(f"llvm.fma.{kind}", vector, [vector] * 3)
        add_up = declared(f"llvm.vector.reduce.fadd.{kind}", number, [number, vector])
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        entry, loop, done = builder.block, function.append_basic_block("loop"), function.append_basic_block("done")
        lines = [builder.gep(left, [builder.mul(left_row, _INT(i))]) for i in range(height)]
        columns = [builder.gep(right, [builder.mul(right_row, _INT(j))]) for j in range(count)]
        builder.branch(loop)

        builder.position_at_end(loop)
        at = builder.phi(_INT)
        sums = [[builder.phi(vector) for _ in range(count)] for _ in range(height)]

        def load(row):
            return builder.load(builder.bitcast(builder.gep(row, [at]), vector.as_pointer()), align=size)

        factors, results = [load(column) for column in columns], []
        for line, totals in zip(lines, sums):
            entries = load(line)
            results.append([builder.call(multiply, [entries, f, total]) for f, total in zip(factors, totals)])
        following = builder.add(at, _INT(lanes))
        at.add_incoming(_INT(0), entry)
        at.add_incoming(following, loop)
        for i in range(height):
            for j in range(count):
                sums[i][j].add_incoming(zero, entry)
                sums[i][j].add_incoming(results[i][j], loop)
        builder.cbranch(builder.icmp_signed("<", following, run), loop, done)

        builder.position_at_end(done)
        start = ir.Constant(number, -0.0)
        for i in range(height):
            for j in range(count):
                total = builder.call(add_up, [start, results[i][j]], fastmath=("reassoc",))
                builder.store(total, builder.gep(out, [builder.add(builder.mul(out_row, _INT(i)), _INT(j))]))
        builder.ret_void()
        return function
