"""A block of sums held in vector registers, written as LLVM vectors: the inner loop of packed_gemm.py and byte_gram.py.

Loops over arrays leave their sums in memory.  Here every step multiplies some numbers of one factor, one at a time,
with vectors of the other, and the sums leave the registers once, at the end.  Both factors are packed: `rows` as groups
of as many rows as a block has, `panels` as as many columns, so that every step reads what lies side by side.

Bytes are packed four steps to a word, and the processor adds the four products of a word at once (AVX-512 VNNI).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .jit import JIT_DISABLED, lean_kernel


def _features() -> frozenset[str]:
    """What Numba compiles for: the processor's features, or those that NUMBA_CPU_FEATURES names."""
    if JIT_DISABLED:
        return frozenset()
    from numba.core import codegen, config

    named = config.CPU_FEATURES if config.CPU_FEATURES is not None else codegen.get_host_cpu_features()
    return frozenset(feature[1:] for feature in named.split(",") if feature.startswith("+"))


def _vector_bytes(features: frozenset[str]) -> int:
    """Width of a vector register, or 0 where loops are as good."""
    return 64 if "avx512f" in features else 32 if {"avx2", "fma"} <= features else 0


VECTOR_BYTES = _vector_bytes(_features())
# Whether words of four bytes can be multiplied.
HAS_BYTE_PRODUCTS = VECTOR_BYTES == 64 and "avx512vnni" in _features()
# Rows of a block, and vectors of columns: 24 sums in 32 registers, or 12 in 16.  Blocks of words have another shape.
BLOCK_ROWS, _VECTORS = (12 if VECTOR_BYTES == 64 else 6), 2
WORD_ROWS, _WORD_VECTORS = 8, 3
_ALIGNMENT = 64


def panel_width(dtype: np.dtype) -> int:
    """Columns of a panel of numbers, or of words."""
    dtype = np.dtype(dtype)
    return (_WORD_VECTORS if dtype.kind == "u" else _VECTORS) * (VECTOR_BYTES or 32) // dtype.itemsize


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`numpy.zeros` from the beginning of a cache line on: a vector that lies across two is loaded twice."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


if VECTOR_BYTES == 0:

    @lean_kernel
    def sum_block(rows, group, panels, panel, start, run, add, out, columns):
        """A block of out, BLOCK_ROWS x `columns` of one panel: `run` steps from `start`, added to it if `add`."""
        left = panel * panels.shape[2]
        for i in range(BLOCK_ROWS):
            for j in range(columns):
                total = out[group * BLOCK_ROWS + i, left + j] if add else out.dtype.type(0.0)
                for k in range(start, start + run):
                    total += rows[group, k, i] * panels[panel, k, j]
                out[group * BLOCK_ROWS + i, left + j] = total

else:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _INT, _INT32, _BIT = ir.IntType(64), ir.IntType(32), ir.IntType(1)

    @intrinsic
    def sum_block(typingctx: Any, rows: Any, group: Any, panels: Any, panel: Any, start: Any, run: Any, add: Any,
                  out: Any, columns: Any) -> Any:  # fmt: skip
        """A block of out, all rows of a group x `columns` >= 1 of one panel: `run` >= 1 steps from `start`.

        rows : (groups, k, rows of a block);  panels : (panels, k, `panel_width`), both C-ordered float32|float64, or
            uint32: words of four signed bytes in `rows`, of four unsigned ones in `panels`
        out : (at least all groups' rows, n), C-ordered, of the same dtype, int32 for words;  add : whether to add to it
        """

        def codegen(context, builder, signature, args):
            kinds = dict(enumerate(signature.args))
            left, middle, right = (context.make_array(kinds[i])(context, builder, args[i]) for i in (0, 2, 7))
            k, n = cgutils.unpack_tuple(builder, left.shape)[1], cgutils.unpack_tuple(builder, right.shape)[1]
            of_words = isinstance(kinds[2].dtype, types.Integer)
            height, most = (WORD_ROWS, _WORD_VECTORS) if of_words else (BLOCK_ROWS, _VECTORS)
            number = context.get_data_type(kinds[7].dtype)
            lanes = 8 * VECTOR_BYTES // kinds[7].dtype.bitwidth

            def at(array, *terms):
                offset = _INT(0)
                for a, b in terms:
                    offset = builder.add(offset, builder.mul(a, b))
                return builder.gep(array.data, [offset])

            steps = builder.add(builder.mul(args[1], k), args[4])
            panel_steps = builder.add(builder.mul(args[3], k), args[4])
            corner = builder.mul(builder.mul(args[1], _INT(height)), n)
            arguments = [
                at(left, (steps, _INT(height))), at(middle, (panel_steps, _INT(most * lanes))), args[5],
                at(right, (corner, _INT(1)), (args[3], _INT(most * lanes))), n, builder.trunc(args[6], _BIT), args[8],
            ]  # fmt: skip
            end = builder.append_basic_block("summed")
            fewest = builder.sdiv(builder.add(args[8], _INT(lanes - 1)), _INT(lanes))
            choice = builder.switch(fewest, end)
            for vectors in range(1, most + 1):
                case = builder.append_basic_block(f"vectors{vectors}")
                choice.add_case(_INT(vectors), case)
                builder.position_at_end(case)
                builder.call(_block(builder.module, number, height, vectors, most), arguments)
                builder.branch(end)
            builder.position_at_end(end)
            return context.get_dummy_value()

        whole = types.intp
        signature = types.void(rows, whole, panels, whole, whole, whole, types.boolean, out, whole)
        return signature, codegen

    def _block(module: ir.Module, number: ir.Type, height: int, vectors: int, most: int) -> ir.Function:
        """LLVM function (rows, panel, run, out, row stride of out, add, columns) that sums `vectors` of `most`.

        Long because it writes one LLVM function from its first block to its last.
        """
        of_words = isinstance(number, ir.IntType)
        bits = 64 if isinstance(number, ir.DoubleType) else 32
        lanes, size = 8 * VECTOR_BYTES // bits, bits // 8
        kind = f"v{lanes}{'i' if of_words else 'f'}{bits}"
        pointer, vector = number.as_pointer(), ir.VectorType(number, lanes)
        zero = ir.Constant(vector, [0 if of_words else 0.0] * lanes)

        def declared(name, result, arguments):
            return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)

        arguments = [pointer, pointer, _INT, pointer, _INT, _BIT, _INT]
        function = declared(f"lae_fast_block_{kind}_{height}x{vectors}", ir.VoidType(), arguments)
        if not function.is_declaration:
            return function
        function.linkage = "linkonce_odr"
        rows, panel, run, out, stride, add, columns = function.args
        product = declared("llvm.x86.avx512.vpdpbusd.512" if of_words else f"llvm.fma.{kind}", vector, [vector] * 3)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        entry, loop, done = builder.block, function.append_basic_block("loop"), function.append_basic_block("done")

        def place(base, offset, index):
            start = builder.gep(base, [builder.add(offset, _INT(index * lanes))])
            return builder.bitcast(start, vector.as_pointer())

        def spread(scalar):
            of = ir.VectorType(scalar.type, lanes)
            one = builder.insert_element(ir.Constant(of, ir.Undefined), scalar, _INT32(0))
            lane_zero = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
            return builder.shuffle_vector(one, ir.Constant(of, ir.Undefined), lane_zero)

        def plus_product(total, left, right):
            return builder.call(product, [total, right, left] if of_words else [left, right, total])

        # the sums go there at the end: asked for now, it is in the first cache by then
        byte_pointer = ir.IntType(8).as_pointer()
        prefetch = declared("llvm.prefetch.p0", ir.VoidType(), [byte_pointer, _INT32, _INT32, _INT32])
        for i in range(height):
            for v in range(vectors):
                ahead = builder.bitcast(place(out, builder.mul(stride, _INT(i)), v), byte_pointer)
                builder.call(prefetch, [ahead, _INT32(1), _INT32(3), _INT32(1)])
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_INT)
        sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(height)]
        top = builder.mul(step, _INT(most * lanes))
        right = [builder.load(place(panel, top, v), align=size) for v in range(vectors)]
        first = builder.mul(step, _INT(height))
        results = []
        for i in range(height):
            left = spread(builder.load(builder.gep(rows, [builder.add(first, _INT(i))])))
            results.append([plus_product(sums[i][v], left, right[v]) for v in range(vectors)])
        following = builder.add(step, _INT(1))
        for phi, start, next_value in [
            (step, _INT(0), following),
            *((sums[i][v], zero, results[i][v]) for i in range(height) for v in range(vectors)),
        ]:
            phi.add_incoming(start, entry)
            phi.add_incoming(next_value, loop)
        builder.cbranch(builder.icmp_signed("<", following, run), loop, done)
        builder.position_at_end(done)

        inside = ir.Constant(ir.VectorType(_INT, lanes), list(range(lanes)))
        masks = [
            builder.icmp_signed("<", inside, spread(builder.sub(columns, _INT(v * lanes)))) for v in range(vectors)
        ]
        mask = masks[0].type
        load = declared(f"llvm.masked.load.{kind}.p0", vector, [vector.as_pointer(), _INT32, mask, vector])
        store = declared(
            f"llvm.masked.store.{kind}.p0", ir.VoidType(), [vector, vector.as_pointer(), _INT32, mask]
        )  # fmt: skip
        align = _INT32(size)
        before = [builder.select(add, masks[v], ir.Constant(mask, [0] * lanes)) for v in range(vectors)]
        for i in range(height):
            for v in range(vectors):
                target = place(out, builder.mul(stride, _INT(i)), v)
                old = builder.call(load, [target, align, before[v], zero])
                total = builder.add(old, results[i][v]) if of_words else builder.fadd(old, results[i][v])
                builder.call(store, [total, target, align, masks[v]])
        builder.ret_void()
        return function

    @intrinsic
    def pack_words(typingctx: Any, source: Any, offset: Any, stride: Any, picks: Any, block: Any, flip: Any,
                   unsigned: Any, signed: Any, step: Any, left: Any, sums: Any) -> Any:  # fmt: skip
        """Sixteen columns of four lines of bytes, as words: one step of `sum_block`, and the bytes' sums.

        source : 1-D bytes, the lines at offset, offset + stride, ...
        picks : (blocks, 2, 16) uint8, which of the 32 bytes from there on, as two shuffles whose results are joined: a
            byte of each 16, or 128 for none;  or (0, 2, 16), where the columns are the 16 bytes there
        flip : uint32, bits to turn in a word;  left : first column of the result, a multiple of 16
        unsigned : (panels, k, width) uint32 <- the bytes, at `step`;  signed : (groups, k, WORD_ROWS), less 128
        sums : (at least all panels' columns,) int32, += the sums of four bytes.
        Long because it writes one run of LLVM instructions.
        """

        def codegen(context, builder, signature, args):
            kinds = dict(enumerate(signature.args))
            lines, chosen, panels, groups, sums = (
                context.make_array(kinds[i])(context, builder, args[i]) for i in (0, 3, 6, 7, 10)
            )
            k, width = cgutils.unpack_tuple(builder, panels.shape)[1:]
            byte, words = ir.VectorType(ir.IntType(8), 16), ir.VectorType(_INT32, 16)
            step, left = args[8], args[9]

            def constant(value):
                return ir.Constant(words, [value] * 16)

            def vector(array, offset, kind=words):
                return builder.bitcast(builder.gep(array.data, [offset]), kind.as_pointer())

            def bytes_at(place, part):
                return builder.load(vector(lines, builder.add(place, _INT(16 * part)), byte), align=1)

            picking = builder.icmp_signed(">", cgutils.unpack_tuple(builder, chosen.shape)[0], _INT(0))
            places = [builder.add(args[1], builder.mul(args[2], _INT(t))) for t in range(4)]
            slots = [cgutils.alloca_once(builder, byte) for _ in places]
            with builder.if_else(picking) as (some, all_):
                with some:
                    at = builder.mul(args[4], _INT(32))
                    shuffles = [
                        builder.load(vector(chosen, builder.add(at, _INT(16 * part)), byte), align=1)
                        for part in range(2)
                    ]
                    shuffle = cgutils.get_or_insert_function(
                        builder.module, ir.FunctionType(byte, [byte] * 2), "llvm.x86.ssse3.pshuf.b.128"
                    )
                    for place, slot in zip(places, slots):
                        low, high = (builder.call(shuffle, [bytes_at(place, i), shuffles[i]]) for i in range(2))
                        builder.store(builder.or_(low, high), slot)
                with all_:
                    for place, slot in zip(places, slots):
                        builder.store(bytes_at(place, 0), slot)
            word = constant(0)
            for t, slot in enumerate(slots):
                word = builder.or_(word, builder.shl(builder.zext(builder.load(slot), words), constant(8 * t)))
            one = builder.insert_element(ir.Constant(words, ir.Undefined), args[5], _INT32(0))
            word = builder.xor(word, builder.shuffle_vector(one, ir.Constant(words, ir.Undefined), constant(0)))
            panel = builder.sdiv(left, width)
            row = builder.add(builder.mul(panel, k), step)
            column = builder.add(builder.mul(row, width), builder.sub(left, builder.mul(panel, width)))
            builder.store(word, vector(panels, column), align=4)
            turned = builder.xor(word, constant(0x80808080))
            half = ir.VectorType(_INT32, WORD_ROWS)
            for part in range(2):
                picked = ir.Constant(half, list(range(part * WORD_ROWS, (part + 1) * WORD_ROWS)))
                group = builder.add(builder.sdiv(left, _INT(WORD_ROWS)), _INT(part))
                row = builder.mul(builder.add(builder.mul(group, k), step), _INT(WORD_ROWS))
                builder.store(builder.shuffle_vector(turned, turned, picked), vector(groups, row, half), align=4)
            product = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(words, [words] * 3), "llvm.x86.avx512.vpdpbusd.512"
            )
            target = vector(sums, left)
            ones = constant(0x01010101)
            builder.store(builder.call(product, [builder.load(target, align=4), word, ones]), target, align=4)
            return context.get_dummy_value()

        whole = types.intp
        signature = types.void(
            source, whole, whole, picks, whole, types.uint32, unsigned, signed, whole, whole, sums
        )  # fmt: skip
        return signature, codegen
