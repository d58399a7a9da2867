"""A product of few rows with a matrix that stays the same: the training loop's B S.

May import jit.py, views.py, NumPy, Numba and llvmlite only.

BLAS copies both factors into its own order at every call.  With S the same in thousands of calls and few rows to
multiply, that copying is most of the time: here S is put in order once, as panels of two vector registers' columns, and
`multiply` sums blocks of a few rows of one panel in registers.  The block is written as LLVM vectors, because loops
over arrays leave the sums in memory.  Without such registers, and for many rows, BLAS is as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .jit import JIT_DISABLED, lean_kernel
from .views import contiguous_row


def _vector_bytes() -> int:
    """Width of a vector register, or 0 where BLAS is to multiply."""
    if JIT_DISABLED:
        return 0
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return 64 if features.get("avx512f") else 32 if features.get("avx2") and features.get("fma") else 0


VECTOR_BYTES = _vector_bytes()
# Rows of a block: with two vectors of columns, 24 sums in 32 registers, or 12 in 16.
BLOCK_ROWS = 12 if VECTOR_BYTES == 64 else 6
# Above this number of rows BLAS has earned its copies back.  Measured on AVX-512; see docs/benchmarks.md.
_MOST_ROWS = 128
# Steps of the inner dimension that are summed in one run: a panel's part stays in the second-level cache.
_RUN = 512


def pays(rows: int) -> bool:
    """Whether `multiply` beats BLAS for this many rows."""
    return VECTOR_BYTES > 0 and rows <= _MOST_ROWS


def panel_width(dtype: np.dtype) -> int:
    """Columns of a panel."""
    return 2 * (VECTOR_BYTES or 32) // np.dtype(dtype).itemsize


def pack_panels(matrix: np.ndarray) -> np.ndarray:
    """The columns of a matrix (k, n) as panels (ceil(n / width), k, width), the last one filled up with zeros."""
    k, n = matrix.shape
    width = panel_width(matrix.dtype)
    panels = np.zeros((-(-n // width), k, width), matrix.dtype)
    for panel, left in zip(panels, range(0, n, width)):
        part = matrix[:, left : left + width]
        panel[:, : part.shape[1]] = part
    return panels


def new_packed_rows(rows: int, k: int, dtype: np.dtype) -> np.ndarray:
    """Room for `pack_rows`, (ceil(rows / BLOCK_ROWS), k, BLOCK_ROWS), zero where there is no row."""
    return np.zeros((-(-rows // BLOCK_ROWS), k, BLOCK_ROWS), dtype)


@lean_kernel
def pack_rows(rows, first, last, packed):  # type: ignore[no-untyped-def]
    """packed[g, k, i] <- rows[g BLOCK_ROWS + i, k] for the groups g = first..last.

    rows : (r, k);  packed : `new_packed_rows`.  Serial.
    """
    for group in range(first, last):
        top = group * BLOCK_ROWS
        for i in range(min(BLOCK_ROWS, rows.shape[0] - top)):
            row = contiguous_row(rows, top + i)
            for k in range(row.shape[0]):
                packed[group, k, i] = row[k]


@lean_kernel
def multiply(packed, panels, first, last, out):  # type: ignore[no-untyped-def]
    """out[:, panel] <- rows panel for the panels first..last: `rows S` with both factors packed.

    packed : `pack_rows` of rows (r, k);  panels : `pack_panels` of S (k, n)
    out : (groups of BLOCK_ROWS, n), rows beyond r become zero;  all float32|float64, one dtype, C-ordered.
    2 r k (columns) flops.  Sums run over _RUN steps, then over runs.  Naive twin: numpy.matmul.  Serial.
    """
    depth, width = panels.shape[1], panels.shape[2]
    for panel in range(first, last):
        columns = min(width, out.shape[1] - panel * width)
        for start in range(0, depth, _RUN):
            run = min(_RUN, depth - start)
            for group in range(packed.shape[0]):
                _block(packed, group, panels, panel, start, run, start > 0, out, columns)


if VECTOR_BYTES == 0:

    @lean_kernel
    def _block(packed, group, panels, panel, start, run, add, out, columns):  # type: ignore[no-untyped-def]
        """A block of out, BLOCK_ROWS x `columns` of one panel: `run` steps from `start`, added to it if `add`."""
        left = panel * panels.shape[2]
        for i in range(BLOCK_ROWS):
            for j in range(columns):
                total = out[group * BLOCK_ROWS + i, left + j] if add else out.dtype.type(0.0)
                for k in range(start, start + run):
                    total += packed[group, k, i] * panels[panel, k, j]
                out[group * BLOCK_ROWS + i, left + j] = total

else:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _INT, _INT32 = ir.IntType(64), ir.IntType(32)

    @intrinsic
    def _block(typingctx: Any, packed: Any, group: Any, panels: Any, panel: Any, start: Any, run: Any, add: Any,
               out: Any, columns: Any) -> Any:  # fmt: skip
        """A block of out, BLOCK_ROWS x `columns` of one panel: `run` steps from `start`, added to it if `add`."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kinds = dict(enumerate(signature.args))
            left, middle, right = (context.make_array(kinds[i])(context, builder, args[i]) for i in (0, 2, 7))
            k, n = cgutils.unpack_tuple(builder, left.shape)[1], cgutils.unpack_tuple(builder, right.shape)[1]
            width = cgutils.unpack_tuple(builder, middle.shape)[2]

            def at(array, *terms):  # type: ignore[no-untyped-def]
                offset = _INT(0)
                for a, b in terms:
                    offset = builder.add(offset, builder.mul(a, b))
                return builder.gep(array.data, [offset])

            rows = builder.add(builder.mul(args[1], k), args[4])
            steps = builder.add(builder.mul(args[3], k), args[4])
            corner = builder.mul(builder.mul(args[1], _INT(BLOCK_ROWS)), n)
            arguments = [
                at(left, (rows, _INT(BLOCK_ROWS))), at(middle, (steps, width)), args[5],
                at(right, (corner, _INT(1)), (args[3], width)), n, builder.trunc(args[6], ir.IntType(1)), args[8],
            ]  # fmt: skip
            builder.call(_block_function(builder.module, context.get_data_type(kinds[7].dtype)), arguments)
            return context.get_dummy_value()

        whole = types.intp
        signature = types.void(packed, whole, panels, whole, whole, whole, types.boolean, out, whole)
        return signature, codegen

    def _block_function(module: ir.Module, real: ir.Type) -> ir.Function:
        """LLVM function (rows, panel, run, out, row stride of out, add, columns): see `_block`."""
        bits = 32 if isinstance(real, ir.FloatType) else 64
        name, pointer = f"lae_fast_block_f{bits}", real.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, pointer, _INT, pointer, _INT, ir.IntType(1), _INT])
        function = cgutils.get_or_insert_function(module, kind, name)
        if not function.is_declaration:
            return function
        function.linkage = "linkonce_odr"
        rows, panel, run, out, stride, add, columns = function.args
        lanes, size = 8 * VECTOR_BYTES // bits, bits // 8
        vector = ir.VectorType(real, lanes)
        zero = ir.Constant(vector, [0.0] * lanes)
        fma = cgutils.get_or_insert_function(module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{lanes}f{bits}")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        entry, loop, done = builder.block, function.append_basic_block("loop"), function.append_basic_block("done")

        def place(base, offset, half):  # type: ignore[no-untyped-def]
            start = builder.gep(base, [builder.add(offset, _INT(half * lanes))])
            return builder.bitcast(start, vector.as_pointer())

        def spread(scalar):  # type: ignore[no-untyped-def]
            kind = ir.VectorType(scalar.type, lanes)
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _INT32(0))
            lane_zero = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), lane_zero)

        builder.branch(loop)  # run >= 1
        builder.position_at_end(loop)
        step = builder.phi(_INT)
        sums = [[builder.phi(vector) for _ in range(2)] for _ in range(BLOCK_ROWS)]
        right = [builder.load(place(panel, builder.mul(step, _INT(2 * lanes)), half), align=size) for half in range(2)]
        first = builder.mul(step, _INT(BLOCK_ROWS))
        results = []
        for i in range(BLOCK_ROWS):
            left = spread(builder.load(builder.gep(rows, [builder.add(first, _INT(i))])))
            results.append([builder.call(fma, [left, right[half], sums[i][half]]) for half in range(2)])
        following = builder.add(step, _INT(1))
        for phi, start, next_value in [
            (step, _INT(0), following),
            *((sums[i][half], zero, results[i][half]) for i in range(BLOCK_ROWS) for half in range(2)),
        ]:
            phi.add_incoming(start, entry)
            phi.add_incoming(next_value, loop)
        builder.cbranch(builder.icmp_signed("<", following, run), loop, done)
        builder.position_at_end(done)

        inside = ir.Constant(ir.VectorType(_INT, lanes), list(range(lanes)))
        masks = [
            builder.icmp_signed("<", inside, spread(builder.sub(columns, _INT(half * lanes)))) for half in range(2)
        ]
        kinds = [vector.as_pointer(), _INT32, masks[0].type, vector]
        suffix = f"v{lanes}f{bits}.p0"
        load = cgutils.get_or_insert_function(module, ir.FunctionType(vector, kinds), f"llvm.masked.load.{suffix}")
        kinds = [vector, vector.as_pointer(), _INT32, masks[0].type]
        store = cgutils.get_or_insert_function(
            module, ir.FunctionType(ir.VoidType(), kinds), f"llvm.masked.store.{suffix}"
        )
        align = _INT32(size)
        before = [builder.select(add, masks[half], ir.Constant(masks[half].type, [0] * lanes)) for half in range(2)]
        for i in range(BLOCK_ROWS):
            for half in range(2):
                target = place(out, builder.mul(stride, _INT(i)), half)
                old = builder.call(load, [target, align, before[half], zero])
                builder.call(store, [builder.fadd(old, results[i][half]), target, align, masks[half]])
        builder.ret_void()
        return function
