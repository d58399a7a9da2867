"""Products of a tile of lines, summed in registers: with a skinny matrix, T V, T'C for the image, and T'T for the Gram.

BLAS copies both factors into its own order before it multiplies, which for a few columns takes as long as the product.
Here a tile is read as it lies, row by row, in both products, and each block of results stays in registers.  Meanwhile
the lines of the next tile are asked for, so that memory is read while the processor multiplies.  Where its vectors are
not known, BLAS does the work.
"""

from __future__ import annotations

from .blas import gemm, syrk
from .jit import lean_kernel
from .registers import BLOCK_BYTES, BLOCK_ROWS, VECTOR_BYTES, prefetch, sum_block

# Entries of a line that are summed in one run: the part of V that is read meanwhile stays in the second cache.
RUN = 384
# Bytes of a line of the caches.
_LINE = 64
# Of a Gram with rows of more bytes BLAS is as fast: copying a tile costs little beside it.
MOST_ROW_BYTES = 6144

if VECTOR_BYTES == 0:

    @lean_kernel
    def multiply_lines(tile, block, out, ahead, ahead_at, ahead_stride, ahead_lines):
        """As below, by BLAS."""
        gemm(1.0, tile, False, block, False, 0.0, out)

    @lean_kernel
    def multiply_back(tile, codes, add, image, ahead, ahead_at, ahead_stride, ahead_lines):
        """As below, by BLAS."""
        gemm(1.0, tile, True, codes, False, 1.0 if add else 0.0, image)

    @lean_kernel
    def multiply_itself(tile, add, gram, ahead, ahead_at, ahead_stride, ahead_lines):
        """As below, by BLAS."""
        syrk(tile, 1.0 if add else 0.0, gram)

else:

    @lean_kernel
    def multiply_lines(tile, block, out, ahead, ahead_at, ahead_stride, ahead_lines):
        """out <- tile block.

        tile : (t, n);  block : (n, b);  out : (t, b);  float32|float64, one dtype, rows contiguous
        ahead : 1-D, the lines that come next: so many, of n entries each, from element ahead_at on
        2 t n b flops.  Sums run over RUN entries, then over runs.  Naive twin: oracle/naive.py::gemm.  Serial.
        """
        n_lines, n, size = tile.shape[0], tile.shape[1], tile.itemsize
        tile_row, block_row, out_row = tile.strides[0] // size, block.strides[0] // size, out.strides[0] // size
        width = BLOCK_BYTES // size
        for start in range(0, n, RUN):
            run = min(RUN, n - start)
            for top in range(0, n_lines, BLOCK_ROWS):
                rows = min(BLOCK_ROWS, n_lines - top)
                for r in range(top, min(top + rows, ahead_lines)):
                    for j in range(start, start + run, _LINE // ahead.itemsize):
                        prefetch(ahead, ahead_at + r * ahead_stride + j)
                for left in range(0, block.shape[1], width):
                    sum_block(
                        tile, top * tile_row + start, tile_row, 1, block, start * block_row + left, block_row, run,
                        start > 0, out, top * out_row + left, out_row, rows, min(width, block.shape[1] - left),
                    )  # fmt: skip

    @lean_kernel
    def multiply_back(tile, codes, add, image, ahead, ahead_at, ahead_stride, ahead_lines):
        """image <- tile' codes, added to it if `add`.

        tile : (t, n);  codes : (t, b);  image : (n, b);  float32|float64, one dtype, rows contiguous
        ahead... : see `multiply_lines`
        2 t n b flops.  Sums run over all lines of the tile.  Naive twin: oracle/naive.py::gemm.  Serial.
        """
        n_lines, n, size = tile.shape[0], tile.shape[1], tile.itemsize
        tile_row, codes_row, out_row = tile.strides[0] // size, codes.strides[0] // size, image.strides[0] // size
        width = BLOCK_BYTES // size
        for first in range(0, n, BLOCK_ROWS):
            for r in range(ahead_lines):
                prefetch(ahead, ahead_at + r * ahead_stride + first)
            for left in range(0, codes.shape[1], width):
                sum_block(
                    tile, first, 1, tile_row, codes, left, codes_row, n_lines, add, image, first * out_row + left,
                    out_row, min(BLOCK_ROWS, n - first), min(width, codes.shape[1] - left),
                )  # fmt: skip

    @lean_kernel
    def multiply_itself(tile, add, gram, ahead, ahead_at, ahead_stride, ahead_lines):
        """Lower triangle of gram <- tile' tile, added to it if `add`; what is above the diagonal has no meaning.

        tile : (t, n);  gram : (n, n);  float32|float64, one dtype, rows contiguous
        ahead... : see `multiply_lines`
        t n (n + 1) flops, above MOST_ROW_BYTES by SYRK.  Sums run over all lines.  Naive twin: oracle/naive.py::gram.
        Serial.
        """
        n_lines, n, size = tile.shape[0], tile.shape[1], tile.itemsize
        if n * size > MOST_ROW_BYTES:
            syrk(tile, 1.0 if add else 0.0, gram)
            return
        tile_row, out_row, width = tile.strides[0] // size, gram.strides[0] // size, BLOCK_BYTES // size
        for first in range(0, n, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, n - first)
            for r in range(ahead_lines):
                for j in range(first, first + rows, _LINE // ahead.itemsize):
                    prefetch(ahead, ahead_at + r * ahead_stride + j)
            for left in range(0, first + rows, width):
                sum_block(
                    tile, first, 1, tile_row, tile, left, tile_row, n_lines, add, gram, first * out_row + left,
                    out_row, rows, min(width, first + rows - left),
                )  # fmt: skip
