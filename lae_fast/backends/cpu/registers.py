"""A block of sums held in vector registers, written as LLVM vectors: the inner loop of all products of our own.

Loops over arrays leave their sums in memory.  Here every step multiplies some numbers of one factor, one at a time,
with vectors of the other, and the sums leave the registers once, at the end.  Neither factor is copied: the numbers are
read at any two strides, the vectors from rows of any length.

Bytes are packed four steps to a word, and the processor adds the four products of a word at once (AVX-512 VNNI).
"""

from __future__ import annotations

import math
import platform
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
    """Width of a vector register, or 0 where it is not known, or there is no fused multiply-add: BLAS is as good."""
    if "avx512f" in features:
        return 64
    if {"avx2", "fma"} <= features:
        return 32
    return 16 if "neon" in features and platform.machine().lower() in ("aarch64", "arm64") else 0


VECTOR_BYTES = _vector_bytes(_features())
# Whether words of four bytes can be multiplied.
HAS_BYTE_PRODUCTS = VECTOR_BYTES == 64 and "avx512vnni" in _features()
# Rows of a block, and vectors of columns: 24 sums in 32 registers, or 12 in the 16 of AVX2.  What is left of the rows
# is done in blocks of a third, and one by one.  Blocks of words have another shape.
BLOCK_ROWS, _VECTORS = (6 if VECTOR_BYTES == 32 else 12), 2
BLOCK_BYTES = _VECTORS * VECTOR_BYTES  # of its columns
WORD_ROWS, _WORD_VECTORS = 8, 3
_ALIGNMENT = 64


def panel_width(dtype: np.dtype) -> int:
    """Columns of a block of numbers, or of words."""
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
    def sum_block(
        left, left_at, left_row, left_step, right, right_at, right_step, run, add, out, out_at, out_row, rows, columns
    ):
        """The same in plain loops, of contiguous arrays of numbers: for tests, it is slower than BLAS."""
        left, right, out = left.reshape(-1), right.reshape(-1), out.reshape(-1)
        for i in range(rows):
            for j in range(columns):
                place = out_at + i * out_row + j
                total = out[place] if add else out.dtype.type(0.0)
                for k in range(run):
                    total += left[left_at + i * left_row + k * left_step] * right[right_at + k * right_step + j]
                out[place] = total

    @lean_kernel
    def prefetch(array, index):
        """Nothing: loops are no quicker for it."""

else:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic

    _INT, _INT32, _BIT = ir.IntType(64), ir.IntType(32), ir.IntType(1)

    @intrinsic
    def sum_block(typingctx: Any, left: Any, left_at: Any, left_row: Any, left_step: Any, right: Any, right_at: Any,
                  right_step: Any, run: Any, add: Any, out: Any, out_at: Any, out_row: Any, rows: Any,
                  columns: Any) -> Any:  # fmt: skip
        """out[i, j] <- sum over k < `run` of left[i, k] right[k, j], added to it if `add`, for a block of out.

        left, right, out : arrays, of which the data begin at element 0;  *_at : element where the block's part begins
        left_row, left_step : elements from one row of left to the next, and from one k to the next
        right_step, out_row : elements from one k, or row, to the next;  columns lie side by side
        rows, columns : 1 <= rows <= BLOCK_ROWS, 1 <= columns <= `panel_width`, of words rows = WORD_ROWS;  run >= 1
        All float32|float64;  or left and right uint32, words of four signed bytes and of four unsigned ones, out int32.
        Long because it writes one run of LLVM instructions.
        """

        def codegen(context, builder, signature, args):
            kinds = dict(enumerate(signature.args))
            data = {i: context.make_array(kinds[i])(context, builder, args[i]).data for i in (0, 4, 9)}
            of_words = isinstance(kinds[4].dtype, types.Integer)
            number = context.get_data_type(kinds[9].dtype)
            lanes = 8 * VECTOR_BYTES // kinds[9].dtype.bitwidth
            most = _WORD_VECTORS if of_words else _VECTORS
            heights = (WORD_ROWS,) if of_words else (BLOCK_ROWS, BLOCK_ROWS // 3, 1)
            left_row, left_step, right_step, run, out_row, columns = (args[i] for i in (2, 3, 6, 7, 11, 13))
            right, add = builder.gep(data[4], [args[5]]), builder.trunc(args[8], _BIT)
            first = cgutils.alloca_once_value(builder, _INT(0))

            def places():
                row = builder.load(first)
                left_at = builder.add(args[1], builder.mul(row, left_row))
                out_at = builder.add(args[10], builder.mul(row, out_row))
                return builder.gep(data[0], [left_at]), builder.gep(data[9], [out_at])

            def call(height, vectors, ragged):
                left, out = places()
                block = _block(builder.module, number, height, vectors, ragged)
                builder.call(block, [left, left_row, left_step, right, right_step, run, out, out_row, add, columns])

            def all_columns(height):
                end = builder.append_basic_block("summed")
                whole, part = builder.append_basic_block("whole"), builder.append_basic_block("part")
                builder.cbranch(builder.icmp_signed("==", columns, _INT(most * lanes)), whole, part)
                builder.position_at_end(whole)
                call(height, most, False)
                builder.branch(end)
                builder.position_at_end(part)
                fewest = builder.sdiv(builder.add(columns, _INT(lanes - 1)), _INT(lanes))
                choice = builder.switch(fewest, end)
                for vectors in range(1, most + 1):
                    case = builder.append_basic_block(f"vectors{vectors}")
                    choice.add_case(_INT(vectors), case)
                    builder.position_at_end(case)
                    call(height, vectors, True)
                    builder.branch(end)
                builder.position_at_end(end)

            if of_words:
                all_columns(WORD_ROWS)
                return context.get_dummy_value()
            for height in heights:
                head, body, after = (
                    builder.append_basic_block(f"{name}{height}") for name in ("head", "rows", "after")
                )
                builder.branch(head)
                builder.position_at_end(head)
                following = builder.add(builder.load(first), _INT(height))
                builder.cbranch(builder.icmp_signed("<=", following, args[12]), body, after)
                builder.position_at_end(body)
                all_columns(height)
                builder.store(builder.add(builder.load(first), _INT(height)), first)
                builder.branch(head)
                builder.position_at_end(after)
            return context.get_dummy_value()

        whole = types.intp
        signature = types.void(
            left, whole, whole, whole, right, whole, whole, whole, types.boolean, out, whole, whole, whole, whole
        )
        return signature, codegen

    @intrinsic
    def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
        """Asks for the number at an index of an array's data: it is in the second cache when it is read."""

        def codegen(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            _ask_for(builder, builder.gep(data, [args[1]]), False, 2)
            return context.get_dummy_value()

        return types.void(array, types.intp), codegen

    def _ask_for(builder: ir.IRBuilder, place: ir.Value, to_write: bool, locality: int) -> None:
        """A prefetch instruction; locality 3: into the first cache, 2: into the second."""
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        place = builder.bitcast(place, pointer)
        builder.call(function, [place, _INT32(int(to_write)), _INT32(locality), _INT32(1)])

    def _block(module: ir.Module, number: ir.Type, height: int, vectors: int, ragged: bool) -> ir.Function:
        """LLVM function that sums a block of so many rows and vectors; the last one is not full if `ragged`.

        Its arguments: left, from a row to the next, from a step to the next, right, from a step to the next, run, out,
        from a row to the next, add, columns.
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

        arguments = [pointer, _INT, _INT, pointer, _INT, _INT, pointer, _INT, _BIT, _INT]
        name = f"lae_fast_block_{kind}_{height}x{vectors}{'r' if ragged else ''}"
        function = declared(name, ir.VoidType(), arguments)
        if not function.is_declaration:
            return function
        function.linkage = "linkonce_odr"
        # inlined or unrolled, it would hold more numbers than there are registers
        function.attributes.add("noinline")
        function.attributes.add("optsize")
        left, left_row, left_step, right, right_step, run, out, out_row, add, columns = function.args
        for argument in (left, right, out):
            argument.add_attribute("noalias")
        product = declared("llvm.x86.avx512.vpdpbusd.512" if of_words else f"llvm.fma.{kind}", vector, [vector] * 3)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        entry, loop, done = builder.block, function.append_basic_block("loop"), function.append_basic_block("done")

        def place(base, offset, index=0):
            start = builder.gep(base, [builder.add(offset, _INT(index * lanes)) if index else offset])
            return builder.bitcast(start, vector.as_pointer())

        def spread(scalar):
            of = ir.VectorType(scalar.type, lanes)
            one = builder.insert_element(ir.Constant(of, ir.Undefined), scalar, _INT32(0))
            lane_zero = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
            return builder.shuffle_vector(one, ir.Constant(of, ir.Undefined), lane_zero)

        def plus_product(total, scalar, row):
            return builder.call(product, [total, row, scalar] if of_words else [scalar, row, total])

        masks = []
        if ragged:
            inside = ir.Constant(ir.VectorType(_INT, lanes), list(range(lanes)))
            masks = [
                builder.icmp_signed("<", inside, spread(builder.sub(columns, _INT(v * lanes)))) for v in range(vectors)
            ]

        def load(target, v):
            if not masks:
                return builder.load(target, align=size)
            arguments = [vector.as_pointer(), _INT32, masks[v].type, vector]
            masked = declared(f"llvm.masked.load.{kind}.p0", vector, arguments)
            return builder.call(masked, [target, _INT32(size), masks[v], zero])

        def store(total, target, v):
            if not masks:
                builder.store(total, target, align=size)
                return
            arguments = [vector, vector.as_pointer(), _INT32, masks[v].type]
            masked = declared(f"llvm.masked.store.{kind}.p0", ir.VoidType(), arguments)
            builder.call(masked, [total, target, _INT32(size), masks[v]])

        offsets = [builder.mul(left_row, _INT(i)) for i in range(height)]
        targets = [[place(out, builder.mul(out_row, _INT(i)), v) for v in range(vectors)] for i in range(height)]
        # the sums go there at the end: asked for now, it is in the first cache by then
        for row in targets:
            for target in row:
                _ask_for(builder, target, True, 3)
        builder.branch(loop)
        builder.position_at_end(loop)
        step, left_at, right_at = builder.phi(_INT), builder.phi(_INT), builder.phi(_INT)
        sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(height)]
        row = [load(place(right, right_at, v), v) for v in range(vectors)]
        results = []
        for i in range(height):
            scalar = spread(builder.load(builder.gep(builder.gep(left, [left_at]), [offsets[i]])))
            results.append([plus_product(sums[i][v], scalar, row[v]) for v in range(vectors)])
        following = builder.add(step, _INT(1))
        for phi, start, next_value in [
            (step, _INT(0), following),
            (left_at, _INT(0), builder.add(left_at, left_step)),
            (right_at, _INT(0), builder.add(right_at, right_step)),
            *((sums[i][v], zero, results[i][v]) for i in range(height) for v in range(vectors)),
        ]:
            phi.add_incoming(start, entry)
            phi.add_incoming(next_value, loop)
        builder.cbranch(builder.icmp_signed("<", following, run), loop, done)

        builder.position_at_end(done)
        adding, writing = function.append_basic_block("adding"), function.append_basic_block("writing")
        builder.cbranch(add, adding, writing)
        for block in (adding, writing):
            builder.position_at_end(block)
            for i in range(height):
                for v in range(vectors):
                    total = results[i][v]
                    if block is adding:
                        old = load(targets[i][v], v)
                        total = builder.add(old, total) if of_words else builder.fadd(old, total)
                    store(total, targets[i][v], v)
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
