"""Products of a tile of lines that are summed in registers, against NumPy in float64."""

import numpy as np
import pytest

from lae_fast.backends.cpu import few_columns, products
from lae_fast.backends.cpu.jit import kernel
from lae_fast.backends.cpu.registers import VECTOR_BYTES

# As kernels call them: on slices whose rows lie further apart than they are long.
SHAPES = [(1, 1, 1), (12, 32, 32), (13, 700, 61), (5, 3, 33), (40, 1300, 17), (96, 25, 100), (25, 12, 8)]
FILL = 7.0


@kernel
def multiply_lines(tile, block, out, ahead):
    products.multiply_lines(tile[:, :], block, out, tile.reshape(-1), 0, tile.shape[1], ahead)


@kernel
def lines_of_a_slice(wide, n, block, out):
    products.multiply_lines(wide[:, :n], block, out, wide.reshape(-1), 0, wide.shape[1], 0)


@kernel
def back_of_a_slice(wide, n, codes, add, image, ahead):
    products.multiply_back(wide[:, :n], codes, add, image, wide.reshape(-1), 0, wide.shape[1], ahead)


@kernel
def gram_of_a_slice(wide, n, add, gram):
    products.multiply_itself(wide[:, :n], add, gram, wide.reshape(-1), 0, wide.shape[1], wide.shape[0] - 1)


@kernel
def few_of_a_slice(wide, n, columns, out):
    few_columns.multiply_few(wide[:, :n], columns, out[:, 2:])


def padded(rng, rows, columns, dtype):
    """Random numbers with NaN to their right, which no product may read as if they were theirs."""
    wide = np.full((rows, columns + 5), np.nan, dtype)
    wide[:, :columns] = rng.standard_normal((rows, columns))
    return wide


def guarded(rows, columns, dtype):
    """Room for a result, and the memory around it, which must stay as it is."""
    memory = np.full((rows + 2, columns), FILL, dtype)
    return memory[1:-1], memory


def check(found, left, right, dtype, before=0.0):
    exact = left.astype(np.float64) @ right.astype(np.float64) + before
    size = abs(left).astype(np.float64) @ abs(right).astype(np.float64) + abs(before)
    # a sum of k numbers errs by less than k roundoffs, in runs or not
    assert (abs(found - exact) <= (left.shape[1] + 2) * np.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("lines", "n", "columns"), SHAPES)
def test_a_tile_times_a_block(lines, n, columns, dtype):
    rng = np.random.default_rng(lines + n)
    wide, block = padded(rng, lines, n, dtype), rng.standard_normal((n, columns)).astype(dtype)
    out, memory = guarded(lines, columns, dtype)
    out[:] = np.nan  # it overwrites
    lines_of_a_slice(wide, n, block, out)
    check(out, wide[:, :n], block, dtype)
    assert (memory[[0, -1]] == FILL).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("lines", "n", "columns"), SHAPES)
@pytest.mark.parametrize("add", [False, True])
def test_a_tile_turned_times_codes(lines, n, columns, dtype, add):
    rng = np.random.default_rng(lines + n)
    wide, codes = padded(rng, lines, n, dtype), rng.standard_normal((lines, columns)).astype(dtype)
    image, memory = guarded(n, columns, dtype)
    image[:] = 1.0 if add else np.nan
    back_of_a_slice(wide, n, codes, add, image, lines)
    check(image, wide[:, :n].T, codes, dtype, float(add))
    assert (memory[[0, -1]] == FILL).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("lines", "n"), [(1, 1), (13, 12), (128, 61), (5, 33), (24, 800), (9, 1600)])
@pytest.mark.parametrize("add", [False, True])
def test_a_tile_turned_times_itself(lines, n, dtype, add):
    rng = np.random.default_rng(lines + n)
    wide = padded(rng, lines, n, dtype)
    gram, memory = guarded(n, n, dtype)
    gram[:] = 1.0 if add else np.nan
    gram_of_a_slice(wide, n, add, gram)
    lower = np.tril_indices(n)
    x = wide[:, :n].astype(np.float64)
    exact, size = x.T @ x + float(add), abs(x).T @ abs(x) + float(add)
    assert (abs(gram - exact)[lower] <= (lines + 2) * np.finfo(dtype).eps * size[lower]).all()
    assert (memory[[0, -1]] == FILL).all()


def test_nan_and_inf_of_a_tile_pass_through():
    tile = np.zeros((13, 40), np.float32)
    tile[0, 3], tile[12, 39] = np.nan, np.inf
    block, out = np.ones((40, 5), np.float32), np.zeros((13, 5), np.float32)
    multiply_lines(tile, block, out, 13)
    assert np.isnan(out[0]).all() and (out[12] == np.inf).all() and not out[1:12].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("lines", "n"), [(1, 1), (6, 32), (13, 700), (40, 1301), (5, 15)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_tile_times_a_few_columns(lines, n, count, dtype):
    if few_columns.n_left_over(count, dtype) != count:
        pytest.skip("whole vectors are as good for so many")
    rng = np.random.default_rng(lines + n)
    wide, columns = padded(rng, lines, n, dtype), rng.standard_normal((count, n)).astype(dtype)
    out, memory = guarded(lines, 2 + count, dtype)
    few_of_a_slice(wide, n, columns, out)
    check(out[:, 2:], wide[:, :n], columns.T, dtype)
    assert (memory[[0, -1]] == FILL).all() and (out[:, :2] == FILL).all()


def test_what_whole_vectors_leave_over():
    for dtype in (np.float32, np.float64):
        lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
        for width in range(1, 40):
            left = few_columns.n_left_over(width, dtype)
            assert left <= lanes // 4 and (left == 0 or (width - left) % lanes == 0)
    if VECTOR_BYTES == 64:
        assert [few_columns.n_left_over(width, np.float32) for width in (16, 20, 21, 50)] == [0, 4, 0, 2]
