"""The exact Gram of int8 and uint8 data, on processors that multiply bytes.

Products of bytes are summed in 32 bits, which a chunk cannot overflow, and chunks in float64, whose integers reach
2^53: every sum is exact, and the mean is taken off at the end.
"""

from __future__ import annotations

import numpy as np

from ..jit import JIT_DISABLED, kernel, lean_kernel
from ..registers import HAS_BYTE_PRODUCTS, WORD_ROWS, aligned_zeros, panel_width

# Of a chunk, so that 255 * 255 * lines < 2^31.
MOST_LINES = 32_768
# Lines in a word, and words of a line that are packed while the lines they come from stay in the first cache.
_LINES = 4
_STEPS = 16
_VECTOR = 16
_WIDTH = panel_width(np.dtype(np.uint32))

if HAS_BYTE_PRODUCTS:
    from ..registers import pack_words, sum_block
else:

    @lean_kernel
    def sum_block(
        left, left_at, left_row, left_step, right, right_at, right_step, run, add, out, out_at, out_row, rows, columns
    ):
        """`registers.sum_block` of words in plain loops: for tests, it is slower than float32 by BLAS."""
        left, right, out = left.reshape(-1), right.reshape(-1), out.reshape(-1)
        for i in range(rows):
            for j in range(columns):
                place = out_at + i * out_row + j
                total = np.int64(out[place]) if add else np.int64(0)
                for k in range(run):
                    signed = np.int64(left[left_at + i * left_row + k * left_step])
                    unsigned = np.int64(right[right_at + k * right_step + j])
                    for t in range(_LINES):
                        byte = signed >> (8 * t) & 255
                        total += (byte - 256 if byte > 127 else byte) * (unsigned >> (8 * t) & 255)
                out[place] = total


def workspace(tile: int, n: int) -> tuple[np.ndarray, ...]:
    """Room for `byte_gram_chunk` with so many lines at a time: unsigned, signed, partial, picks, bases, memory."""
    panels, groups, steps = -(-n // _WIDTH), -(-n // WORD_ROWS), -(-tile // _LINES)
    blocks = -(-n // _VECTOR)
    unsigned = aligned_zeros((panels, steps, _WIDTH), np.dtype(np.uint32))
    signed = aligned_zeros((groups, steps, WORD_ROWS), np.dtype(np.uint32))
    picks, bases = np.zeros((blocks, 2, _VECTOR), np.uint8), np.zeros(blocks, np.int64)
    return (
        unsigned,
        signed,
        np.zeros(panels * _WIDTH, np.int32),
        picks,
        bases,
        np.zeros(groups * WORD_ROWS * n, np.int32),
    )


def gram_in(memory: np.ndarray, n: int) -> np.ndarray:
    """The (n rounded up to WORD_ROWS, n) Gram in a workspace's last array."""
    height = -(-n // WORD_ROWS) * WORD_ROWS
    return memory[: height * n].reshape(height, n)


def _as_bytes(source, line_stride, entry_stride, first, count, length, bounds, converted):
    """Whether lines first..first + count are bytes; and memory that holds them as such, its strides and first line."""
    if source.dtype.itemsize == 1:
        return True, source, line_stride, entry_stride, first
    fits = _convert(source, line_stride, entry_stride, first, count, length, bounds, converted)
    return fits, converted, length, 1, 0


if not JIT_DISABLED:
    from numba.extending import overload

    @overload(_as_bytes)
    def _as_bytes_overload(source, line_stride, entry_stride, first, count, length, bounds, converted):
        def as_they_are(source, line_stride, entry_stride, first, count, length, bounds, converted):
            return True, source, line_stride, entry_stride, first

        def turned_into_bytes(source, line_stride, entry_stride, first, count, length, bounds, converted):
            fits = _convert(source, line_stride, entry_stride, first, count, length, bounds, converted)
            return fits, converted, length, 1, 0

        return as_they_are if source.dtype.bitwidth == 8 else turned_into_bytes


@lean_kernel
def _convert(source, line_stride, entry_stride, first, count, length, bounds, converted):
    """converted[r, j] <- source[first + r, j] as a byte; whether all are whole numbers within the bounds.

    NaN is not one.  By blocks, so that either stride stays in cache.
    """
    real = bounds.dtype.type
    low, high, zero, one = bounds[0], bounds[1], real(0.0), real(1.0)
    wrong = zero  # a number: LLVM vectorises no loop that sums truth
    step = 16 if entry_stride != 1 else length
    for left in range(0, length, step):
        right = min(length, left + step)
        for r in range(count):
            base = (first + r) * line_stride
            line = converted[r * length : (r + 1) * length]
            if entry_stride == 1:
                part = source[base : base + length]
                for j in range(length):
                    value = real(part[j])
                    whole = np.floor(min(max(value, low), high))
                    line[j] = np.uint8(np.int32(whole))
                    wrong += zero if whole == value else one
            else:
                for j in range(left, right):
                    value = real(source[base + j * entry_stride])
                    whole = np.floor(min(max(value, low), high))
                    line[j] = np.uint8(np.int32(whole))
                    wrong += zero if whole == value else one
    return wrong == 0


@kernel
def byte_gram_chunk(
    source, bounds, line_stride, entry_stride, length, first, count, entries, tile, converted, unsigned, signed,
    partial, picks, bases, gram, sums, shift,
):  # fmt: skip
    """Lower triangle of gram[:n] <- sum over the chunk's lines of line' line, sums <- sum of lines; both exact.

    Returns False where a number is no byte.

    Lines are taken less `shift`, which becomes their mean rounded to whole numbers: so equal lines leave zero, and no
    digits are lost when the mean is taken off.  sum (a - s)(b - t) = sum a b - s sum b - t sum a + count s t.

    The product takes one signed and one unsigned factor, so each byte is stored as s and as u = s + 128, and what that
    adds is taken off again: sum u_a u_b = sum s_a u_b + 128 sum u_b, sum s_a s_b = sum s_a u_b - 128 sum s_a.

    source : 1-D, any real dtype;  length : entries of a line
    bounds : (2,) float32|float64, of the numbers: 0 and 255, or -128 and 127
    converted : (tile length,) uint8, or empty where the source has bytes
    entries : (n,) int64 ascending, which entries of a line to read, or empty for all of them
    tile : lines at a time;  unsigned, signed, partial, picks, bases : `workspace` of as many, and at least n entries
    gram : `gram_in` the workspace;  sums, shift : (n,) int64.
    count n (n + 1) operations.  Naive twin: oracle/naive.py::gram.  Serial; one call per thread and chunk.
    """
    n, is_signed = sums.shape[0], bounds[0] < 0
    n_panels, n_groups = (n + _WIDTH - 1) // _WIDTH, (n + WORD_ROWS - 1) // WORD_ROWS
    partial[:] = 0
    _find_picks(entries, length, bases, picks)
    words = (count + _LINES - 1) // _LINES
    n_tiles = (_LINES * words + tile - 1) // tile
    for k in range(n_tiles):
        steps = (k + 1) * words // n_tiles - k * words // n_tiles
        start = k * words // n_tiles * _LINES
        size = min(count - start, steps * _LINES)
        fits, lines, stride, step, top = _as_bytes(
            source, line_stride, entry_stride, first + start, size, length, bounds, converted
        )
        if not fits:
            return False
        _load_bytes(lines, is_signed, stride, step, top, size, n, entries, picks, bases, unsigned, signed, partial)
        for panel in range(n_panels):
            left = panel * _WIDTH
            for group in range(left // WORD_ROWS, n_groups):
                columns = min(_WIDTH, n - left, (group + 1) * WORD_ROWS - left)
                sum_block(
                    signed, group * signed.shape[1] * WORD_ROWS, 1, WORD_ROWS, unsigned,
                    panel * unsigned.shape[1] * _WIDTH, _WIDTH, steps, k > 0, gram,
                    group * WORD_ROWS * gram.shape[1] + left, gram.shape[1], WORD_ROWS, columns,
                )  # fmt: skip
    for j in range(n):
        sums[j] = partial[j] - (128 * count if is_signed else 0)
        shift[j] = np.int64(np.round(sums[j] / count))
    for a in range(n):
        row = count * shift[a] - sums[a]
        for b in range(a + 1):
            turned = -128 * sums[a] if is_signed else 128 * sums[b]
            gram[a, b] = gram[a, b] + turned - shift[a] * sums[b] + shift[b] * row
    for j in range(n):
        sums[j] -= count * shift[j]
    return True


@lean_kernel
def _find_picks(entries, length, bases, picks):
    """Where `pack_words` finds each block of 16 entries: 32 bytes from bases on, or -1 where they do not hold them."""
    for block in range((entries.shape[0] + _VECTOR - 1) // _VECTOR):
        left = block * _VECTOR
        base = min(entries[left], length - 2 * _VECTOR)  # so that no line's end is passed
        last = min(left + _VECTOR, entries.shape[0]) - 1
        bases[block] = base if base >= 0 and entries[last] - base < 2 * _VECTOR else -1
        for lane in range(last - left + 1):
            at = entries[left + lane] - base
            picks[block, 0, lane] = at if at < _VECTOR else 128
            picks[block, 1, lane] = at - _VECTOR if at >= _VECTOR else 128


@lean_kernel
def _load_bytes(
    source, is_signed, line_stride, entry_stride, first, count, n, entries, picks, bases, unsigned, signed, partial
):  # fmt: skip
    """unsigned <- u = s + 128, signed <- s, four lines to a word, partial += sums of u: they differ in the highest bit.

    Lines that the last word lacks are u = 0 and add nothing.
    """
    flip = np.uint32(0x80808080 if is_signed else 0)
    some = entries.shape[0] > 0
    steps = (count + _LINES - 1) // _LINES
    for top in range(0, steps, _STEPS):
        bottom = min(steps, top + _STEPS)
        for left in range(0, n, _VECTOR):
            block = left // _VECTOR
            packed = top
            if HAS_BYTE_PRODUCTS and entry_stride == 1 and left + _VECTOR <= n and (not some or bases[block] >= 0):
                packed = max(top, min(bottom, count // _LINES))
                place = bases[block] if some else left
                for step in range(top, packed):
                    pack_words(
                        source, (first + _LINES * step) * line_stride + place, line_stride,
                        picks if some else picks[:0], block, flip, unsigned, signed, step, left, partial,
                    )  # fmt: skip
            for j in range(left, min(left + _VECTOR, n)):
                place = (entries[j] if some else j) * entry_stride
                for step in range(packed, bottom):
                    _pack_word(
                        source, (first + _LINES * step) * line_stride + place, line_stride,
                        min(_LINES, count - _LINES * step), np.uint8(flip), unsigned, signed, step, j, partial,
                    )  # fmt: skip


@lean_kernel
def _pack_word(source, offset, stride, lines, flip, unsigned, signed, step, j, partial):
    """One column of at most four lines, as a word."""
    word = np.uint32(0)
    for t in range(lines):
        byte = np.uint8(source[offset + t * stride]) ^ flip
        partial[j] += np.int32(byte)
        word |= np.uint32(np.uint32(byte) << np.uint32(8 * t))
    unsigned[j // _WIDTH, step, j % _WIDTH] = word
    signed[j // WORD_ROWS, step, j % WORD_ROWS] = word ^ np.uint32(0x80808080)


@kernel
def mark_used(source, line_stride, entry_stride, count, seen, used):
    """used[j] <- 1 where any of the chunk's lines has a bit at entry j, else 0: `tiles.mark_used` from a shift of zero.

    source : 1-D uint8;  seen : (n,) uint8, workspace;  used : (n,) int32.  Naive twin: oracle/naive.py::used_entries.
    Reads lines until all entries are used.  Serial.
    """
    n = used.shape[0]
    seen[:] = 0
    step = 32
    if entry_stride != 1:
        for j in range(n):
            for r in range(count):
                seen[j] = source[r * line_stride + j * entry_stride]
                if seen[j] != 0:
                    break
        count = 0
    for top in range(0, count, step):
        for r in range(top, min(count, top + step)):
            part = source[r * line_stride : r * line_stride + n]
            for j in range(n):
                seen[j] |= part[j]
        unseen = 0
        for j in range(n):
            unseen += np.int32(seen[j] == 0)
        if unseen == 0:
            break
    for j in range(n):
        used[j] = np.int32(seen[j] != 0)
