"""The plan of a fit: which route, tiles of which size, how much workspace.  Pure functions of shapes; no data.

Constants are ratios measured by `python -m benchmarks.ceilings`, not absolute speeds; see docs/architecture.md.  What a
fit of small data asks several times is remembered; tests that change constants begin with nothing remembered.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from .backends.drift import FEWEST_SUMS
from .errors import MemoryLimitError
from .sizes import format_bytes

# Block Krylov passes to the default tolerance on slowly decaying spectra, by bytes per entry, with a block of p and
# oversamples; see `expected_passes`.
EXPECTED_PASSES = {4: 8, 8: 14}
# A flop of a row pass costs this many times a flop of the Gram.
PASS_FLOP_COST = 1.0
# A flop over stored entries of a sparse matrix costs this many times a flop of SYRK: it waits for the cache.
SPARSE_FLOP_COST = 8.0
# In flops of SYRK too: a pair of stored entries in a sparse Gram, and an entry that is made dense and loaded.
SPARSE_PAIR_COST, DENSE_ENTRY_COST = 60.0, 150.0
# No Gram matrix wider than this unless the caller asks for one: 3.2 GB in float64.
LARGEST_GRAM = 20_000
# Up to this order LAPACK's eigensolver is called at once; above it block Krylov on the dense matrix comes first.
SMALL_DENSE = 1024

# What CUDA sums in the compute dtype, lines of a chunk at most (bytes then sum in 32 bits), and its buffer.
DEVICE_TILE, DEVICE_LINES = 2048, 65_536
_DEVICE_BUFFER_BYTES = 1 << 28
# Chunks that the host holds on their way to the device.
DEVICE_READERS = 4
# A float32 iteration that starts from the components of a coarser Gram takes about so many passes.
REFINING_PASSES = 3
# SPARSE_PAIR_COST and DENSE_ENTRY_COST of a device, whose dense chunks the host makes and the bus carries.  Guesses.
DEVICE_PAIR_COST, DEVICE_ENTRY_COST = 500.0, 5000.0
# "auto" moves data of the host to the device from this many flops on: some seconds of a small CPU.  A guess, measured
# on no card (docs/cuda.md).
DEVICE_FLOPS = 2e11

# Numbers for each entry that a pass has gathered, and what follows from them.
_STATISTICS = 8

_BUFFER_BYTES = 1 << 20
# Tiles of long lines do not fit the cache anyway: they have as many lines as make SYRK and GEMM quick, within this
# much memory per thread.
_LONG_BUFFER_BYTES = 1 << 26
# A tile that is multiplied in registers is read twice, by rows: it stays in the second cache where it can.
_SKINNY_BYTES = 1 << 20
# Lines of a tile and tiles of a chunk: an image sums over one and then over the other in the compute dtype.
_LONGEST_SUMS = 160
_CHUNK_FLOPS = 2e10
# A chunk is at most this much memory, or a tile: one that a source must copy is held by every thread.
_CHUNK_BYTES = 1 << 25
# A chunk of fewer flops is done before a thread has started, or, of a Gram, joined to the others.
_LEAST_FLOPS, _LEAST_GRAM_FLOPS = 2e7, 1e8
# BLAS sums a tile's lines in one run: longer tiles are no faster, and their rounding grows with the root of the run.
_LONGEST_TILE = 128
# Lines longer than this fit no cache at any tile height; what counts then is that BLAS repacks the block less often.
_LONG_LINE = 8192


@dataclass(frozen=True)
class Tiling:
    """How lines are cut: a chunk is one nogil call and one float64 commit, a tile stays in cache.

    chunk, tile : the most lines of each.  Chunks are of equal size up to one line, and so are a chunk's tiles: threads
    share them evenly, and no product is so small that BLAS sums it in one long run.
    """

    chunk: int
    tile: int

    def n_chunks(self, n_lines: int) -> int:
        return max(1, -(-n_lines // self.chunk))

    def bounds(self, index: int, n_lines: int) -> tuple[int, int]:
        count = self.n_chunks(n_lines)
        return index * n_lines // count, (index + 1) * n_lines // count

    def fewest_lines(self, n_lines: int) -> int:
        """Lines of the smallest tile."""
        smallest, left = divmod(n_lines, self.n_chunks(n_lines))
        sizes = {smallest, smallest + (left > 0)}
        return min(size // -(-size // self.tile) for size in sizes)


@dataclass(frozen=True)
class Route:
    """What `top_eigenpairs` will do and why."""

    solver: str  # "gram" | "krylov"
    by_feature: bool  # lines are features: the m x m side
    reason: str


@functools.lru_cache(maxsize=256)
def tiling(
    n_lines: int, n_entries: int, itemsize: int, flops_per_line: float, backend: str = "cpu", skinny: bool = False
) -> Tiling:
    """Tile and chunk sizes; they depend on shapes only, never on the number of threads, so that results do not.

    skinny : lines are multiplied by a few columns, in registers, which needs no long tile; else by each other, by BLAS
    """
    if backend == "cuda":
        return device_tiling(n_lines, n_entries, itemsize)
    most = 4096
    if skinny:
        tile = _round(_SKINNY_BYTES / (n_entries * itemsize), 12, 12, 96)
        most = min(most, tile * (_LONGEST_SUMS - tile))
    elif n_entries > _LONG_LINE:
        tile = _round(_LONG_BUFFER_BYTES / (n_entries * itemsize), 32, 64, 4 * _LONGEST_TILE)
    else:
        tile = _round(_BUFFER_BYTES / (n_entries * itemsize), 32, 64, _LONGEST_TILE)
    most = min(most, max(tile, _CHUNK_BYTES // (n_entries * itemsize)))
    flops = max(flops_per_line, 1.0)
    shortest = min(most, max(tile, 512, round((_LEAST_FLOPS if skinny else _LEAST_GRAM_FLOPS) / flops)))
    if skinny:
        chunk = even_chunk(n_lines, min(shortest, n_lines), most)
    else:
        chunk = _round(min(n_lines / 32, max(tile, _CHUNK_FLOPS / flops)), tile, shortest, most)
        if chunk < n_lines < math.inf:  # two threads share an even number of chunks evenly
            chunk = -(-n_lines // (2 * -(-n_lines // (2 * chunk))))
    return Tiling(chunk=chunk, tile=min(tile, chunk))


def even_chunk(n_lines: int, shortest: int, most: float) -> int:
    """Lines of a chunk, so that their number is a power of two, which threads share evenly, and at least 32.

    shortest, most : lines of a chunk; the latter is kept to first
    """
    if n_lines == float("inf"):
        return int(most)
    count = 1
    while count * most < n_lines or (count < 32 and 2 * count * shortest <= n_lines):
        count *= 2
    return -(-n_lines // count)


def device_tiling(n_lines: int, n_entries: int, itemsize: int, fewest: int = 8) -> Tiling:
    """Long chunks, so that launches cost little beside their work; some, so that copies to the device overlap it."""
    most = max(1, min(DEVICE_LINES, _DEVICE_BUFFER_BYTES // (n_entries * itemsize)))
    chunk = min(most, n_lines, max(-(-n_lines // fewest), DEVICE_TILE))
    n_tiles = -(-chunk // DEVICE_TILE)
    tile = -(-chunk // n_tiles)
    return Tiling(chunk=n_tiles * tile, tile=tile)


def _round(value: float, multiple: int, low: int, high: int) -> int:
    return int(min(max(round(value / multiple) * multiple, low), max(high, low)))


def gram_flops(n_lines: int, n_entries: int) -> float:
    """Flops of SYRK for the Gram of the short side."""
    return float(n_lines) * n_entries * (n_entries + 1)


def gram_cost(n_lines: int, n_entries: int, n_components: int, pairs: float | None = None) -> float:
    """Gram of the short side and its eigenpairs, in flops of SYRK; pairs : of stored entries of a sparse matrix.

    Beside SYRK of dense rows, an eigenproblem counts only where nearly all components are wanted.  Beside the few
    products of stored entries it always does.
    """
    if pairs is None:
        return gram_flops(n_lines, n_entries) + 10.0 * n_entries**3 * (n_components > n_entries // 5)
    products = min(SPARSE_PAIR_COST * pairs, n_lines * n_entries * (n_entries + DENSE_ENTRY_COST))
    return products + n_entries**3 * (10.0 if n_components > n_entries // 5 else 1.0)


def pass_flops(n_lines: int, n_entries: int, block: int) -> float:
    """Flops of one product S V by rows."""
    return 4.0 * n_lines * n_entries * block


@functools.lru_cache(maxsize=256)
def device_pays(n_samples: int, n_features: int, block: int, nnz: int | None = None, passes: int | None = None) -> bool:
    """Whether "auto" moves data from the host to a device: never a sparse matrix.

    passes : over the data with this block; None: as many as exact components take, or their Gram.
    Nor rows whose number (inf) is not known yet.
    """
    if nnz is not None or n_samples == float("inf"):
        return False
    lines, entries = max(n_samples, n_features), min(n_samples, n_features)
    products = pass_flops(lines, entries, block)
    if passes is not None:
        return passes * products >= DEVICE_FLOPS
    return min(gram_flops(lines, entries), EXPECTED_PASSES[4] * products) >= DEVICE_FLOPS


def coarse_gram_pays(n_entries: int, block: int) -> bool:
    """Whether passes in float32 that refine a Gram of coarser products cost less than a Gram in float32."""
    return REFINING_PASSES * pass_flops(1, n_entries, block) < gram_flops(1, n_entries)


def gram_bytes(n_entries: int, itemsize: int, n_threads: int) -> int:
    """Workspace of the Gram route: the float64 total, and a partial Gram per thread or what the eigensolver needs."""
    return n_entries * n_entries * (8 + max(itemsize * n_threads, 3 * 8))


def krylov_bytes(n_entries: int, itemsize: int, block: int, basis: int, n_threads: int) -> int:
    """Workspace of the Krylov route: basis and its images, the current block in float64, a partial image per thread.

    A pass multiplies a few columns at least, and in float64 where rounding errors add up.
    """
    width = max(block, FEWEST_SUMS)
    return n_entries * (2 * basis * itemsize + 3 * width * 8 + width * 8 * (1 + n_threads))


def sparse_pays(n_lines: int, n_entries: int, nnz: int) -> bool:
    """Whether passes over stored entries beat passes over tiles that are made dense."""
    return SPARSE_FLOP_COST * nnz < PASS_FLOP_COST * float(n_lines) * n_entries


def sparse_gram_pays(n_lines: int, n_entries: int, pairs: float, backend: str = "cpu") -> bool:
    """Whether a Gram over pairs of stored entries, `pairs` = sum of squared line lengths, beats SYRK on dense tiles."""
    pair, entry = (DEVICE_PAIR_COST, DEVICE_ENTRY_COST) if backend == "cuda" else (SPARSE_PAIR_COST, DENSE_ENTRY_COST)
    return pair * pairs < n_lines * n_entries * (n_entries + entry)


def sparse_gram_chunk(n_lines: int, n_entries: int, pairs: float) -> int:
    """Lines of a chunk: its commit adds n_entries^2 numbers, and should cost a fifth of its work."""
    return int(min(max(n_lines / 8, 5.0 * n_entries**2 * n_lines / max(pairs, 1.0), 256), 65536))


def sparse_chunk(n_lines: int, n_entries: int, nnz: int) -> int:
    """Lines of a sparse chunk: its commit reads n_entries rows of the image, and should cost a tenth of its work.

    The number of chunks is a power of two, so that threads share them evenly.
    """
    each = max(1.0, nnz / n_lines)
    most = min(max(min(n_lines / 8, 128.0 * n_entries / each), 256), 16384)
    return even_chunk(n_lines, n_lines, most)


def tile_bytes(tiling_: Tiling, n_entries: int, itemsize: int, n_threads: int, copied_itemsize: int) -> int:
    """Buffers of all threads: one tile each, one chunk each where the source must copy, and statistics."""
    per_thread = tiling_.tile * n_entries * itemsize + tiling_.chunk * n_entries * copied_itemsize
    return n_threads * per_thread + statistics_bytes(n_entries, n_threads)


def least_tile_bytes(n_entries: int, block: int, itemsize: int, n_threads: int) -> int:
    """The smallest tiles: a line of each thread, copied and converted, its products, and statistics."""
    return n_threads * (n_entries * (8 + itemsize) + 8 * block) + statistics_bytes(n_entries, n_threads)


def statistics_bytes(n_entries: int, n_threads: int) -> int:
    """Sums and squares of each thread, and what a pass makes of them: means, variances, shifts, deviations."""
    return 8 * n_entries * (_STATISTICS + (2 + 4) * n_threads)


def within(
    tiling_: Tiling,
    n_entries: int,
    width: int,
    itemsize: int,
    n_threads: int,
    copied_itemsize: int,
    limit: int,
    held: int = 0,
) -> Tiling:
    """The tiling, or one of fewer lines, so that all buffers, with `width` results a line, take at most `limit` bytes.

    held : bytes of them that something else takes

    Raises
    ------
    MemoryLimitError
        One line for each thread does not fit; says what is needed.
    """
    tile_line, chunk_line = n_entries * itemsize, n_entries * copied_itemsize + width * itemsize
    held += statistics_bytes(n_entries, n_threads)
    room = (limit - held) // n_threads
    if room < tile_line + chunk_line:
        raise MemoryLimitError(
            f"max_memory={format_bytes(limit)} is too small: a row for each of {n_threads} threads needs "
            f"{format_bytes(n_threads * (tile_line + chunk_line) + held, at_least=True)}; raise max_memory or use "
            "fewer threads."
        )
    tile = min(tiling_.tile, room // (tile_line + chunk_line))
    chunk = tiling_.chunk if not chunk_line else min(tiling_.chunk, (room - tile * tile_line) // chunk_line)
    return Tiling(chunk=chunk, tile=tile)


def read_ahead_bytes(n_samples: int, n_features: int, itemsize: int, n_chunks: int, backend: str = "cpu") -> int:
    """Chunks of rows that are held at once on the Gram route where they are read ahead of the work."""
    chunk = tiling(n_samples, n_features, itemsize, 2.0 * n_features * n_features, backend).chunk
    return n_chunks * chunk * n_features * itemsize


def krylov_block(n_components: int, n_oversamples: int, n_entries: int) -> int:
    """Columns of the Krylov block on the data: p + oversamples, at most the space."""
    return max(1, min(n_entries, n_components + n_oversamples))


def narrow_block(block: int, is_sparse: bool) -> int:
    """Columns where a pass costs arithmetic alone: fewer do as well, in more passes (docs/pca.md, "Block Krylov").

    A quarter of the block over stored entries, and half of it over dense rows: in whole vectors of 16, for a part of
    one costs as much.
    """
    vectors = -(-block // 64) if is_sparse else max(1, round(block / 32))
    return min(block, 16 * vectors)


def expected_passes(itemsize: int, block: int, narrow: int) -> int:
    """`EXPECTED_PASSES` of a block of p + oversamples columns, where it has `narrow` ones."""
    return round(EXPECTED_PASSES[itemsize] * (block / narrow) ** 0.5)


@functools.lru_cache(maxsize=256)
def choose_route(
    n_samples: int,
    n_features: int,
    n_components: int,
    itemsize: int,
    *,
    block: int,
    n_threads: int,
    narrow: int = 0,
    solver: str = "auto",
    max_memory: int | None = None,
    nnz: int | None = None,
    pairs: float | None = None,
    by_row_only: bool = False,
) -> Route:
    """Gram of the short side, or block Krylov on passes over the data.

    block : p and oversamples, which memory is planned for;  narrow : columns of a pass, 0: the block's
    nnz, pairs : stored entries of a sparse matrix, and pairs of them in the lines of the short side's Gram; or None
    by_row_only : the data cannot be read by features, so the d x d side is taken

    Raises MemoryLimitError where not even the leaner route fits `max_memory`; it says what is needed.
    """
    by_feature = n_samples < n_features and not by_row_only
    lines, entries, side = n_samples, n_features, "d x d"
    if by_feature:
        lines, entries, side = n_features, n_samples, "m x m (fewer samples than features)"
    passes = EXPECTED_PASSES[itemsize]
    gram = gram_cost(lines, entries, n_components, pairs)
    narrow = narrow or block
    expected = expected_passes(itemsize, block, narrow)
    krylov = _krylov_cost(lines, entries, narrow, expected, nnz)
    gram_need = gram_bytes(entries, itemsize, n_threads)
    krylov_need = krylov_bytes(entries, itemsize, block, min(entries, 4 * block), n_threads)  # restarts keep it there
    if solver == "auto":
        fits = gram_fits(entries, itemsize, n_threads, max_memory)
        solver = "gram" if fits and (gram <= krylov or entries <= SMALL_DENSE) else "krylov"
        if fits:
            reason = _comparison(side, entries, gram, expected, krylov, solver)
        else:
            reason = f"one Gram matrix, {side}, would take {format_bytes(gram_need)}"
    else:
        reason = "as asked"
    if solver == "krylov" and by_feature:
        wide_need = krylov_bytes(n_features, itemsize, block, min(entries, passes * block), n_threads)
        fits = max_memory is None or wide_need <= max_memory
        light = fits and _long_vectors_pay(n_samples, n_features, passes * block, nnz)
        if light:
            by_feature, krylov_need = False, wide_need
        reason += "; vectors of length " + ("n_features" if light else "n_samples")
    need = gram_need if solver == "gram" else krylov_need
    if solver == "krylov" or by_feature:
        need += least_tile_bytes(entries if by_feature else n_features, block, itemsize, n_threads)
    if by_feature:  # vectors that were found on the samples are carried over to the features, and certified there
        carried = n_components if solver == "gram" else block
        tiles = least_tile_bytes(n_features, carried, itemsize, n_threads)
        need = max(need, krylov_bytes(n_features, itemsize, carried, carried, n_threads) + tiles)
    if max_memory is not None and need > max_memory:
        what = f"{n_samples} x {n_features} with {n_components} components"
        raise MemoryLimitError(_too_little_message(solver, need, what, max_memory, n_threads))
    return Route(solver, by_feature, reason)


def _long_vectors_pay(n_samples: int, n_features: int, columns: int, nnz: int | None) -> bool:
    """Whether a wide matrix is better iterated on with so many vectors of length n_features.

    These need no carrying over from the samples and no further pass that certifies them: worth their memory while the
    basis stays well under the data.
    """
    held = float(n_samples) * n_features if nnz is None else nnz
    return 4.0 * columns * n_features <= held


def _krylov_cost(n_lines: int, n_entries: int, block: int, passes: int, nnz: int | None) -> float:
    """So many passes with a block, in flops of SYRK.

    Beside dense rows the basis costs nothing; beside a few stored entries it is what costs.
    """
    cost = passes * pass_cost(n_lines, n_entries, block, nnz)
    return cost if nnz is None else cost + 3.0 * n_entries * float(min(n_entries, passes * block)) ** 2


def _too_little_message(solver: str, need: int, what: str, max_memory: int, n_threads: int) -> str:
    return (
        f"max_memory={format_bytes(max_memory)} is too small: the {solver} route needs "
        f"{format_bytes(need, at_least=True)} for {what}; raise max_memory, lower n_components or the number of "
        f"threads ({n_threads})."
    )


def _comparison(side: str, entries: int, gram: float, passes: int, krylov: float, solver: str) -> str:
    """Why this route, of the two that fit; costs in flops of SYRK."""
    if solver == "gram" and gram > krylov:
        return (
            f"one Gram matrix, {side}, is small ({entries} <= {SMALL_DENSE}) and misses no component: formed although "
            f"{passes} expected Krylov passes cost less ({krylov:.2g} flops against {gram:.2g})"
        )
    return f"one Gram matrix, {side}, takes {gram:.2g} flops, {passes} expected Krylov passes {krylov:.2g}"


def gram_fits(n_entries: int, itemsize: int, n_threads: int, max_memory: int | None) -> bool:
    """Whether "auto" may form the Gram of the short side."""
    need = gram_bytes(n_entries, itemsize, n_threads)
    return n_entries <= LARGEST_GRAM and (max_memory is None or need <= max_memory)


def pass_cost(n_lines: int, n_entries: int, block: int, nnz: int | None = None) -> float:
    """A product S V in flops of SYRK; nnz : stored entries of a sparse matrix, or None."""
    if nnz is not None and sparse_pays(n_lines, n_entries, nnz):
        return SPARSE_FLOP_COST * 4.0 * nnz * block
    return PASS_FLOP_COST * pass_flops(n_lines, n_entries, block)


def pass_budget(
    shape: tuple[int, int],
    block: int,
    itemsize: int,
    nnz: int | None = None,
    expected: int = 0,
    pairs: float | None = None,
) -> int:
    """Products after which block Krylov has cost as much as the Gram route would; at least the expected number."""
    lines, entries = max(shape), min(shape)
    one = pass_cost(lines, entries, block, nnz)
    return int((expected or EXPECTED_PASSES[itemsize]) + gram_cost(lines, entries, 1, pairs) / one)


def largest_basis(n_entries: int, block: int, itemsize: int, n_threads: int, max_memory: int | None) -> int:
    """Columns the Krylov basis may grow to before it is restarted."""
    basis = max(12 * block, 256)
    if max_memory is not None:
        room: float = max_memory - krylov_bytes(n_entries, itemsize, block, 0, n_threads)
        # a quarter of what is left is for the tiles, and never less than they need
        room = min(0.75 * room, room - least_tile_bytes(n_entries, block, itemsize, n_threads))
        basis = min(basis, int(room // (2 * itemsize * n_entries)))
    return int(min(n_entries, max(basis, 4 * block)))
