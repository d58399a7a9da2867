"""Shapes of blocks and grids.  Pure functions of shapes; Kernels over a matrix run in blocks of WIDTH x HEIGHT threads,
WIDTH neighbours along a row so that a warp reads 32 numbers in a row, over strips of STRIP rows; kernels that reduce a
line run in THREADS threads, a power of two.
"""

from __future__ import annotations

import numpy as np

from .target import SIMULATED

# The simulator runs a Python thread for every CUDA thread.
WIDTH, HEIGHT, STRIP, THREADS = (4, 2, 8, 4) if SIMULATED else (32, 8, 256, 256)
# Threads of a block of WIDTH x HEIGHT, a power of two, the rows of a thread of a fused step, and a block's entries.
# Sizes of shared arrays must be names of numbers: the compiler takes no products.
AREA, ROWS_EACH = WIDTH * HEIGHT, 4
ENTRIES_EACH = AREA * ROWS_EACH
# Rows of a square tile in shared memory, so that a walk down a column meets every bank.
PADDED = WIDTH + 1

# Numbers that a thread reads from memory before it needs the first, since a read takes as long as hundreds of
# operations; of a tile of WIDTH x WIDTH they are a thread's all.
AHEAD = WIDTH // HEIGHT
# An index that is not negative.  Of any other Numba asks whether it counts from the end, at every read.
Index = np.uint64

# What the hardware allows along each axis of a grid, and in a block.
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = 1024

Shape = tuple[int, ...]


def strips(n_rows: int) -> int:
    """Strips that cover the rows."""
    return -(-n_rows // STRIP)


def over_strips(n_rows: int, n_columns: int) -> tuple[Shape, Shape]:
    """A block for every strip of rows and WIDTH columns."""
    return checked((-(-n_columns // WIDTH), strips(n_rows)), (WIDTH, HEIGHT))


def over_lines(n_lines: int) -> tuple[Shape, Shape]:
    """A block for every line."""
    return checked((n_lines,), (THREADS,))


def over_groups(n_groups: int) -> tuple[Shape, Shape]:
    """A block of WIDTH threads, which is a warp, for every group."""
    return checked((n_groups,), (WIDTH,))


def over_items(n_items: int) -> tuple[Shape, Shape]:
    """A thread for every item."""
    return checked((-(-n_items // THREADS),), (THREADS,))


def over_columns(n_columns: int) -> tuple[Shape, Shape]:
    """Blocks of WIDTH columns, HEIGHT threads for each."""
    return checked((-(-n_columns // WIDTH),), (WIDTH, HEIGHT))


def over_rows(n_rows: int, n_columns: int) -> tuple[Shape, Shape]:
    """HEIGHT rows per block, WIDTH threads for each that walk along its columns."""
    return checked((-(-n_rows // HEIGHT), -(-n_columns // WIDTH)), (WIDTH, HEIGHT))


def over_entries(n_rows: int, n_columns: int) -> tuple[Shape, Shape]:
    """A thread for every entry of a matrix."""
    return checked((-(-n_columns // WIDTH), -(-n_rows // HEIGHT)), (WIDTH, HEIGHT))


def over_sides(n_sides: int, n_rows: int, n_columns: int) -> tuple[Shape, Shape]:
    """Blocks of WIDTH columns and HEIGHT threads with ROWS_EACH rows each, for each of some matrices of one shape."""
    return checked((-(-n_columns // WIDTH), -(-n_rows // (HEIGHT * ROWS_EACH)), n_sides), (WIDTH, HEIGHT))


def checked(grid: Shape, block: Shape) -> tuple[Shape, Shape]:
    """The shapes, none of them empty and all within what the hardware allows.

    Raises
    ------
    ValueError
        They are not: the caller has cut its work into pieces that are too large.
    """
    grid = tuple(max(1, n) for n in grid)
    threads = 1
    for n in block:
        threads *= n
    if any(n > most for n, most in zip(grid, MOST_BLOCKS)) or threads > MOST_THREADS:
        raise ValueError(f"a launch of {grid} blocks of {block} threads is outside what CUDA allows")
    return grid, block
