"""The two inner loops over the stored entries of a line, in vector registers.

LLVM does not vectorise them by itself: it cannot know that a row of the block and the line's product do not overlap, so
it keeps the product in memory between entries, or falls back to scalars.  Here a panel of 16, 32 or 64 columns of the
product is loaded once, stays in registers for a run of entries, and is stored.

Both functions take the entries from number `k` on, up to `stop` or the first index that is not below `limit`, and
return where they stopped: who calls them walks all lines through one range of indices before the next, so that the
range's rows of the block stay in cache.  Indices are trusted; arrays are C-contiguous.  With `NUMBA_DISABLE_JIT=1` the
same functions run on NumPy.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..jit import FASTMATH, JIT_DISABLED

# Panels of columns, widest first; a block is padded to a multiple of the narrowest.
WIDTHS = (64, 32, 16)

if JIT_DISABLED:

    def gather(width, k, stop, limit, indices, data, factor, block, column, product, row):
        """product[row, panel] += factor data[k] block[indices[k], panel] over a run of entries; see the one below."""
        panel = slice(column, column + width)
        while k < stop and indices[k] < limit:
            product[row, panel] += product.dtype.type(data[k]) * factor * block[indices[k], panel]
            k += 1
        return k

    def scatter(width, k, stop, limit, indices, data, factor, image, column, product, row):
        """image[indices[k], panel] += factor data[k] product[row, panel] over a run of entries; see the one below."""
        panel = slice(column, column + width)
        while k < stop and indices[k] < limit:
            image[indices[k], panel] += product.dtype.type(data[k]) * factor * product[row, panel]
            k += 1
        return k

else:

    @intrinsic(prefer_literal=True)
    def gather(typingctx, width, k, stop, limit, indices, data, factor, block, column, product, row):
        """product[row, panel] += factor data[k] block[indices[k], panel] over a run of entries; returns the next k.

        width : literal, of WIDTHS;  panel : `width` columns from `column`;  k, stop, limit, column, row : int64
        indices, data : stored entries;  factor, block (n, b), product (tile, b) : one dtype float32|float64.
        2 width flops per entry; its row of the block is read.  Naive twin: oracle/naive.py::sparse_pass.
        """
        return _signature(width, indices, data, factor, block, product), _codegen(width, False)

    @intrinsic(prefer_literal=True)
    def scatter(typingctx, width, k, stop, limit, indices, data, factor, image, column, product, row):
        """image[indices[k], panel] += factor data[k] product[row, panel] over a run of entries; returns the next k.

        As `gather`.  2 width flops per entry; its row of the image is read and written.
        """
        return _signature(width, indices, data, factor, image, product), _codegen(width, True)


def _signature(width, indices, data, factor, block, product):
    number = types.int64
    return number(width, number, number, number, indices, data, factor, block, number, product, number)


def _codegen(width, into_block):
    """Code of a loop over entries whose rows of the block are added to the product, or the other way round.

    Long because it writes one loop of LLVM instructions.
    """

    def codegen(context, builder, signature, args):
        columns = width.literal_value
        real = signature.args[6]
        size = context.get_value_type(real)
        lanes = min(16, 512 // real.bitwidth)
        vector, long = ir.VectorType(size, lanes), ir.IntType(64)
        flags = tuple(sorted(FASTMATH))
        _, first, stop, limit, _, _, factor, _, column, _, row = args

        def array(position):
            kind = signature.args[position]
            return kind, context.make_array(kind)(context, builder, args[position])

        def entry(position, index):
            kind, found = array(position)
            pointer = cgutils.get_item_pointer(context, builder, kind, found, [index], wraparound=False)
            return context.unpack_value(builder, kind.dtype, pointer), kind.dtype

        def panel(position, index):
            """Pointers to the vectors of a row's panel."""
            kind, found = array(position)
            start = cgutils.get_item_pointer(context, builder, kind, found, [index, column], wraparound=False)
            start = builder.bitcast(start, vector.as_pointer())
            return [
                builder.gep(start, [ir.Constant(long, number)], source_etype=vector)
                for number in range(columns // lanes)
            ]

        def load(pointer):
            return builder.load(pointer, typ=vector, align=real.bitwidth // 8)

        def store(value, pointer):
            builder.store(value, pointer, align=real.bitwidth // 8)

        def add_product(total, left, right):
            return builder.fadd(total, builder.fmul(left, right, flags=flags), flags=flags)

        own_places = panel(9, row)
        own = [load(place) for place in own_places]
        before = builder.block
        head, test, body, done = (builder.append_basic_block(name) for name in ("head", "test", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(long)
        k.add_incoming(first, before)
        sums = [] if into_block else [builder.phi(vector) for _ in own]
        for total, value in zip(sums, own):
            total.add_incoming(value, before)
        builder.cbranch(builder.icmp_signed("<", k, stop), test, done)

        builder.position_at_end(test)
        index, kind = entry(4, k)
        index = context.cast(builder, index, kind, types.int64)
        builder.cbranch(builder.icmp_signed("<", index, limit), body, done)

        builder.position_at_end(body)
        value, kind = entry(5, k)
        value = builder.fmul(context.cast(builder, value, kind, real), factor, flags=flags)
        zero, nothing = ir.Constant(ir.IntType(32), 0), ir.Constant(vector, ir.Undefined)
        same = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        value = builder.shuffle_vector(builder.insert_element(nothing, value, zero), nothing, same)
        places = panel(7, index)
        for number, place in enumerate(places):
            if into_block:
                store(add_product(load(place), value, own[number]), place)
            else:
                sums[number].add_incoming(add_product(sums[number], value, load(place)), builder.block)
        k.add_incoming(builder.add(k, ir.Constant(long, 1)), builder.block)
        builder.branch(head)

        builder.position_at_end(done)
        for place, total in zip(own_places, sums):
            store(total, place)
        return k

    return codegen
