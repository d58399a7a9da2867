"""The plan: tiles that cover every line once, routes by cost and memory, workspace that is the stated one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lae_fast import plan
from lae_fast.errors import MemoryLimitError

SIZES = st.integers(1, 10**7)


@given(n_lines=SIZES, n_entries=st.integers(1, 10**6), itemsize=st.sampled_from([4, 8]), flops=st.floats(1, 1e13))
def test_tiling_covers_every_line_once(n_lines, n_entries, itemsize, flops):
    tiling = plan.tiling(n_lines, n_entries, itemsize, flops)
    assert 1 <= tiling.tile <= tiling.chunk
    count = tiling.n_chunks(n_lines)
    middle = count // 2
    edges = [tiling.bounds(i, n_lines) for i in (0, middle, count - 1)]
    assert edges[0][0] == 0 and edges[-1][1] == n_lines
    sizes = [last - first for first, last in edges]
    assert 0 < min(sizes) and max(sizes) <= tiling.chunk and max(sizes) - min(sizes) <= 1
    assert middle == 0 or tiling.bounds(middle - 1, n_lines)[1] == edges[1][0]


@given(n_lines=st.integers(1, 20_000), chunk=st.integers(1, 3000), tile=st.integers(1, 600))
def test_fewest_lines_is_the_smallest_tile(n_lines, chunk, tile):
    """As the kernels cut a chunk: tiles of equal size up to one line."""
    tiling = plan.Tiling(chunk, min(tile, chunk))
    sizes = set()
    for index in range(tiling.n_chunks(n_lines)):
        first, last = tiling.bounds(index, n_lines)
        count = last - first
        n_tiles = -(-count // tiling.tile)
        sizes |= {(k + 1) * count // n_tiles - k * count // n_tiles for k in range(n_tiles)}
    assert max(sizes) <= tiling.tile
    assert tiling.fewest_lines(n_lines) == min(sizes)


@given(n_lines=SIZES, n_entries=st.integers(1, 10**6), itemsize=st.sampled_from([4, 8]))
def test_tiles_are_short_enough_for_their_rounding(n_lines, n_entries, itemsize):
    longest = 128 if n_entries <= plan._LONG_LINE else 512  # long lines are worth longer tiles
    assert plan.tiling(n_lines, n_entries, itemsize, 1.0).tile <= longest


def test_tiles_stay_in_cache():
    for n_entries in (64, 784, 5000):
        assert plan.tiling(10**6, n_entries, 4, 1.0).tile * n_entries * 4 <= 2 * plan._BUFFER_BYTES


def route(m, d, p, itemsize=4, n_threads=2, **options):
    block = plan.krylov_block(p, 10, min(m, d))
    return plan.choose_route(m, d, p, itemsize, block=block, n_threads=n_threads, **options)


@pytest.mark.parametrize(("m", "d"), [(1000, 50), (50, 1000), (10**7, 300), (300, 10**7)])
def test_a_short_side_that_is_small_takes_the_gram(m, d):
    found = route(m, d, 5)
    assert found.solver == "gram"
    assert found.by_feature == (m < d)


@pytest.mark.parametrize(("m", "d"), [(10**6, 15_000), (15_000, 10**6)])
def test_few_of_many_take_krylov(m, d):
    assert route(m, d, 2).solver == "krylov"


def test_many_of_many_take_the_gram():
    assert route(100_000, 5000, 2000).solver == "gram"


def test_no_gram_wider_than_the_largest():
    assert route(10**6, plan.LARGEST_GRAM + 1, 15_000).solver == "krylov"
    assert not plan.gram_fits(plan.LARGEST_GRAM + 1, 4, 1, None)
    assert plan.gram_fits(plan.LARGEST_GRAM, 4, 1, None)


@pytest.mark.parametrize("solver", ["gram", "krylov"])
def test_what_is_asked_for_is_done_and_said(solver):
    found = route(10**6, 15_000, 2, solver=solver)
    assert found.solver == solver and "as asked" in found.reason


def test_the_reason_has_both_costs():
    assert re.search(r"flops, \d+ expected Krylov passes", route(1000, 50, 5).reason)


def test_memory_turns_the_route():
    need = plan.gram_bytes(3000, 4, 2)
    assert route(10**5, 3000, 900, max_memory=need).solver == "gram"
    assert route(10**5, 3000, 300, max_memory=need).solver == "gram"
    assert route(10**5, 3000, 300, max_memory=need - 1).solver == "krylov"
    with pytest.raises(MemoryLimitError, match="gram route needs") as caught:
        route(10**5, 3000, 20, max_memory=need - 1, solver="gram")
    figure = float(re.search(r"needs (\d+) MB", str(caught.value))[1])
    assert figure == round(need / 1e6)
    assert isinstance(caught.value, MemoryError)


@given(
    m=st.integers(1, 10**6), d=st.integers(1, 10**6), p=st.integers(1, 50), itemsize=st.sampled_from([4, 8]),
    memory=st.integers(10**3, 10**10),
)  # fmt: skip
def test_a_route_that_is_given_fits(m, d, p, itemsize, memory):
    p = min(p, m, d)
    try:
        found = route(m, d, p, itemsize, max_memory=memory)
    except MemoryLimitError as error:
        assert "raise max_memory" in str(error)
        return
    if found.solver == "gram":
        assert plan.gram_bytes(min(m, d), itemsize, 2) <= memory
    else:
        block = plan.krylov_block(p, 10, min(m, d))
        entries = m if found.by_feature else d
        assert plan.krylov_bytes(entries, itemsize, block, min(entries, 4 * block), 2) <= memory or m < d


def test_bytes_count_what_is_allocated():
    """Against the arrays themselves: total and copy in float64, a partial Gram per thread; two bases and panels."""
    n, threads = 100, 3
    arrays = 2 * np.empty((n, n)).nbytes + threads * np.empty((n, n), np.float32).nbytes
    assert arrays <= plan.gram_bytes(n, 4, threads) <= 1.5 * arrays
    assert (
        plan.krylov_bytes(n, 4, 10, 40, threads) >= 2 * np.empty((n, 40), np.float32).nbytes + np.empty((n, 10)).nbytes
    )
    tiling = plan.Tiling(chunk=512, tile=128)
    statistics = plan.statistics_bytes(n, threads)
    assert statistics >= threads * np.empty((6, n)).nbytes
    assert plan.tile_bytes(tiling, n, 4, threads, 0) == statistics + threads * np.empty((128, n), np.float32).nbytes
    assert plan.tile_bytes(tiling, n, 4, threads, 4) == statistics + threads * np.empty((640, n), np.float32).nbytes


def test_block_is_p_and_oversamples_within_the_space():
    assert plan.krylov_block(5, 10, 100) == 15
    assert plan.krylov_block(95, 10, 100) == 100
    assert plan.krylov_block(1, 1, 1) == 1


@pytest.mark.parametrize(("n_lines", "n_entries"), [(5040, 20000), (60_000, 784), (700, 3), (10**7, 500), (1, 10**6)])
@pytest.mark.parametrize("itemsize", [4, 8])
def test_tiling_for_a_skinny_block(n_lines, n_entries, itemsize):
    tiling = plan.tiling(n_lines, n_entries, itemsize, 4.0 * n_entries * 32, skinny=True)
    count = tiling.n_chunks(n_lines)
    assert count & (count - 1) == 0  # a power of two, which threads share evenly
    assert 1 <= tiling.tile <= tiling.chunk
    # what an image sums in one dtype, line by line and then tile by tile
    assert tiling.tile + -(-tiling.chunk // tiling.tile) <= plan._LONGEST_SUMS + 1


def test_tiling_for_rows_without_end():
    tiling = plan.tiling(float("inf"), 30, 4, 4.0 * 30 * 8, skinny=True)
    assert 1 <= tiling.tile <= tiling.chunk <= 4096


def test_narrow_blocks():
    assert [plan.narrow_block(block, True) for block in (5, 16, 60, 64, 65, 110, 210)] == [5, 16, 16, 16, 32, 32, 64]
    assert [plan.narrow_block(block, False) for block in (5, 16, 20, 60, 110, 210)] == [5, 16, 16, 32, 48, 112]
    assert plan.expected_passes(4, 60, 60) == plan.EXPECTED_PASSES[4]
    assert plan.expected_passes(4, 64, 16) == 2 * plan.EXPECTED_PASSES[4]


def test_largest_basis_within_memory_and_space():
    assert plan.largest_basis(10**6, 20, 4, 1, None) == 256
    assert plan.largest_basis(100, 20, 4, 1, None) == 100
    memory = plan.krylov_bytes(10**6, 4, 20, 100, 1)
    assert plan.largest_basis(10**6, 20, 4, 1, memory) == 80  # a quarter is for the tiles
    assert plan.largest_basis(10**6, 20, 4, 1, 10**3) == 80  # four blocks at the least


def test_flops():
    assert plan.gram_flops(10, 3) == 10 * 3 * 4
    assert plan.pass_flops(10, 3, 2) == 4 * 10 * 3 * 2


@pytest.mark.parametrize("shape", [(1, 1), (40, 6), (2049, 3), (60_000, 784), (10**6, 20_000), (300, 10**8)])
@pytest.mark.parametrize("itemsize", [1, 4, 8])
def test_device_chunks_are_whole_tiles_that_fit(shape, itemsize):
    found = plan.tiling(*shape, itemsize, 1.0, "cuda")
    assert 1 <= found.tile <= plan.DEVICE_TILE and found.chunk % found.tile == 0
    # a chunk is rounded up to whole tiles, by less than a line per tile
    most = max(1, min(plan.DEVICE_LINES, 2**28 // (shape[1] * itemsize)))
    assert found.chunk < most + most // found.tile + 2 and found.chunk <= plan.DEVICE_LINES
    assert found.n_chunks(shape[0]) >= min(8, shape[0] // plan.DEVICE_TILE)


def test_auto_moves_large_dense_data_only():
    assert not plan.device_pays(60_000, 784, 20)
    assert plan.device_pays(50_000, 5_000, 50)
    assert not plan.device_pays(50_000, 5_000, 50, nnz=10**6)
    assert not plan.device_pays(50_000, 5_000, 50, passes=1) and plan.device_pays(10**6, 5_000, 50, passes=1)


def test_a_coarse_gram_pays_where_few_of_many_components_are_refined():
    assert plan.coarse_gram_pays(784, 30) and plan.coarse_gram_pays(5000, 60)
    assert not plan.coarse_gram_pays(200, 20) and not plan.coarse_gram_pays(784, 784)


def test_a_device_makes_dense_tiles_of_a_sparse_matrix_where_lines_are_full():
    m, d = 10_000, 1000
    pairs = {density: m * (density * d) ** 2 for density in (0.01, 0.5)}
    assert plan.sparse_gram_pays(m, d, pairs[0.01], "cuda") and not plan.sparse_gram_pays(m, d, pairs[0.5], "cuda")


def test_data_on_the_device_are_one_chunk_where_a_buffer_holds_them():
    assert plan.device_tiling(60_000, 784, 4, fewest=1).n_chunks(60_000) == 1
    assert plan.device_tiling(60_000, 784, 4).n_chunks(60_000) == 8
    assert plan.device_tiling(10**6, 784, 4, fewest=1).n_chunks(10**6) > 8
