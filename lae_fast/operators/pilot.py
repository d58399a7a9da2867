"""How a pass is to read the data: a shift and a scale that a few lines, the pilot, suggest, and a tiling.

docs/pca.md, "Shifted moments".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import plan, validation
from ..backends import Backend
from ..backends.lines import Tick, View
from ..backends.threads import READ_AHEAD, get_num_threads
from ..data import sampling, sources

# The sample of lines, its deviations, and what is computed of them: as many arrays of its size exist at once.
_COPIES = 4
# Mean squares in this range, up to its inverse, have neither over- nor underflown.
_LEAST_SQUARES = 2.0**-800
# Of a number in float64: without its other bits it is the power of two below it.
_EXPONENT_BITS = np.int64(0x7FF0000000000000)
# Powers of two that deviations of features may lie apart: their squares then keep all digits at one scale.
_APART_FLOAT32, _APART_FLOAT64 = 40.0, 480.0
# Powers of two that they may lie from one: their inverses are then numbers of float32.
_FAR_FLOAT32 = 100.0
# Lines of bytes that are packed at a time: no rounding grows with them, and the Gram is read and written once for each.
_BYTE_TILE = 512
# Flops of a Gram in float32 that takes some hundredths of a second: data of other dtypes are looked at from here on.
_BYTE_FLOPS = 4e9
# Stored entries of a sparse matrix that are looked at for that, in so many blocks of lines.
_STORED_ENTRIES, _STORED_BLOCKS = 1 << 20, 16


def byte_view(source: sources.Source, tick: Tick | None, used: Backend) -> View | None:
    """A view for sums in whole numbers, unshifted and unscaled; None where data are no bytes, or it does not pay.

    Of data of other dtypes than int8 and uint8 a few lines are looked at.  Where these mislead,
    `GramPasses.exact_byte_gram` raises NotBytesError.
    """
    n, lowest = source.n_features, -128 if source.dtype == np.int8 else 0
    if not used.gram.has_exact_byte_gram(source):
        if not (used.gram.can_try_byte_gram(source) and plan.gram_flops(source.n_lines(False), n) >= _BYTE_FLOPS):
            return None
        sample = sampling.sample_lines(source, False)
        lowest = -128 if sample.min() < 0 else 0
        if not ((sample >= lowest) & (sample <= lowest + 255)).all() or (sample != np.floor(sample)).any():
            return None
    chunk = plan.tiling(source.n_lines(False), n, source.dtype.itemsize, 2.0 * n * n, used.name).chunk
    chunk = min(chunk, used.gram.MOST_BYTE_LINES)
    tiling = plan.Tiling(chunk, min(chunk, _BYTE_TILE))
    shift = np.zeros(n, source.compute_dtype)
    return View(source, False, shift, 1.0, np.empty(0), tiling, tick, lowest=lowest)


def pilot_view(
    source: sources.Source,
    weights: np.ndarray | None,
    *,
    block: int | None = None,
    by_feature: bool = False,
    center: bool = True,
    feature_denominator: float = 0.0,
    tick: Any = None,
    backend: str = "cpu",
    max_memory: int | None = None,
    held: int = 0,
    precision: str = "float32",
) -> tuple[View, np.ndarray]:
    """A view of the source with a pilot shift and scale from a few lines, and the pilot's variance per entry.

    block : columns of the block that a row pass multiplies; None for a Gram.
    center, feature_denominator : by feature only; whether each line is centred, and > 0 standardizes it with this
        denominator of its variance.  By sample lines are always shifted.
    max_memory, held : bytes that are allowed, and how many of them something else takes
    precision : of products of float32 (`View`)
    """
    few = {} if max_memory is None else {"most_bytes": max(0, max_memory - held) // _COPIES}
    sample = sampling.sample_lines(source, by_feature, None if by_feature else weights, **few)
    if by_feature and weights is not None:
        sample = sample[:, weights > 0]
    dtype, n = source.compute_dtype, source.n_lines(not by_feature)
    shift, scale, pilot_variance = _shift_and_scale(source, sample, by_feature, center or not by_feature)
    flops_per_line = 2.0 * n * n if block is None else 4.0 * n * block
    tiling = plan.tiling(source.n_lines(by_feature), n, dtype.itemsize, flops_per_line, backend, block is not None)
    if source.on_device and backend == "cuda":  # nothing is copied: one chunk, where a buffer holds it
        tiling = plan.device_tiling(source.n_lines(by_feature), n, dtype.itemsize, fewest=1)
    if max_memory is not None and backend == "cpu":
        tiling = _fitted(tiling, source, by_feature, block or 0, max_memory, held)
    view = View(
        source,
        by_feature,
        np.empty(0, dtype) if by_feature else shift,
        scale,
        np.empty(0) if weights is None else weights,
        tiling,
        tick,
        center=by_feature and center,
        denominator=float(dtype.type(feature_denominator)) if by_feature else 0.0,
        precision=precision,
    )
    return view, np.zeros(n) if by_feature else pilot_variance


def _shift_and_scale(
    source: sources.Source, sample: np.ndarray, by_feature: bool, shifted: bool
) -> tuple[np.ndarray, float, np.ndarray]:
    """Shift in the compute dtype, scale, and scaled variance about the shift, of a sample of lines (`pilot_view`).

    The sample is moved to its first line: then the deviations of a constant are zero, and its shift is exact.  What
    rounding leaves of a constant would look like variance to standardize.

    Raises
    ------
    ValueError
        The sample has NaN or inf, or deviations so large or so small that float64 does not hold their squares.
    """
    axis, dtype = int(by_feature), source.compute_dtype
    origin = sample[:, :1] if by_feature else sample[:1]
    origin = origin if shifted else np.zeros_like(origin)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that are refused below
        moved = sample - origin
        mean, variance = _mean_and_variance(moved, axis, shifted)
        exponent, unit = 0, 1.0  # `mean` and `variance` are of deviations divided by this power of two
        if not _LEAST_SQUARES < np.add.reduce(variance) < 1.0 / _LEAST_SQUARES:
            if not np.isfinite(sample).all():
                sources.raise_nonfinite(source)
            largest = float(np.abs(moved).max(initial=0.0))
            if not np.isfinite(largest):
                raise ValueError(validation.range_message(np.inf))
            exponent = min(int(np.frexp(largest)[1]), 1023)
            unit = 2.0**exponent
            mean, variance = _mean_and_variance(moved / unit, axis, shifted)
        origin = origin.reshape(-1)
        shift = coarse(origin + mean * unit, np.sqrt(variance) * unit).astype(dtype)
        squares = variance + (mean + (origin - shift) / unit) ** 2
    rms = math.sqrt(np.add.reduce(squares) / squares.size)
    power = -round(exponent + math.log2(rms)) if rms > 0.0 else 0
    if abs(power) > validation.MOST_EXPONENT:
        raise ValueError(validation.range_message(float(np.ldexp(rms, exponent))))
    if dtype.itemsize == 4:
        power = min(max(power, -validation.MOST_FLOAT32_SCALE), validation.MOST_FLOAT32_SCALE)
    return shift, 2.0**power, squares * 4.0 ** (power + exponent)


def _mean_and_variance(moved: np.ndarray, axis: int, shifted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean (zero where nothing is shifted) and mean square about it, along an axis of moved lines."""
    count = moved.shape[axis]
    mean = np.add.reduce(moved, axis) / count if shifted else np.zeros(moved.shape[1 - axis])
    deviation = moved - (mean[:, None] if axis else mean)
    return mean, np.einsum("ij,ij->i" if axis else "ij,ij->j", deviation, deviation) / count


def _fitted(
    tiling: plan.Tiling, source: sources.Source, by_feature: bool, width: int, max_memory: int, held: int
) -> plan.Tiling:
    """The tiling, or one of fewer lines, so that the CPU's tiles and copies of chunks fit beside `held` bytes.

    width : products of a line that a tile holds
    """
    copied = source.compute_dtype.itemsize if source.copies_chunks(by_feature) else 0
    threads = get_num_threads() + READ_AHEAD * source.in_order
    # a pass may have to be repeated in float64
    return plan.within(tiling, source.n_lines(not by_feature), width, 8, threads, copied, max_memory, held)


def widen(source: sources.Source) -> None:
    """Let the data be multiplied in float64 where float32 cannot hold the squares of all features at one scale.

    For `standardize`, to which a feature counts whatever its size.

    Raises
    ------
    ValueError
        Features are so far apart that float64 cannot hold them either; names two.
    """
    if source.dtype.kind in "biu" and source.dtype.itemsize <= 2:
        return
    low, high = _stored_range(source) if isinstance(source, sources.SparseSource) else _sampled_range(source)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and inf are for the pass to report
        deviations = high - low
    sizes = np.where(np.isfinite(deviations), deviations, 0.0)
    smallest, largest = int(np.argmin(np.where(sizes > 0, sizes, np.inf))), int(np.argmax(sizes))
    if not sizes[smallest] > 0:
        return
    low, high = np.log2(sizes[smallest]), np.log2(sizes[largest])
    apart = high - low
    if apart > _APART_FLOAT32 or max(-low, high) > _FAR_FLOAT32:
        source.compute_dtype = np.dtype(np.float64)
    if apart > _APART_FLOAT64:
        raise ValueError(
            f"Columns {smallest} and {largest} of X vary by about {sizes[smallest]:.0e} and {sizes[largest]:.0e}: "
            "their squares do not fit into the range of float64 together; scale these features first, to numbers "
            "nearer to one."
        )


def _sampled_range(source: sources.Source) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest entry of every feature, of some lines."""
    sample = sampling.sample_lines(source, False)
    return sample.min(axis=0), sample.max(axis=0)


def _stored_range(source: sources.SparseSource) -> tuple[np.ndarray, np.ndarray]:
    """`_sampled_range` through stored entries, of more lines: an entry that some line does not store is zero there."""
    m, d = source.shape
    step = max(1, int(_STORED_ENTRIES * m / max(source.nnz or 0, 1) / _STORED_BLOCKS))
    starts = range(0, m, step) if step * _STORED_BLOCKS >= m else np.linspace(0, m - step, _STORED_BLOCKS).astype(int)
    low, high, stored, lines = np.full(d, np.inf), np.full(d, -np.inf), np.zeros(d, np.int64), 0
    for first in starts:
        last = min(int(first) + step, m)
        _, indices, data = source.lines(int(first), last, False)
        if indices.size and not 0 <= indices.min() <= indices.max() < d:
            return np.zeros(d), np.zeros(d)  # for the pass to report
        np.minimum.at(low, indices, data)
        np.maximum.at(high, indices, data)
        stored += np.bincount(indices, minlength=d)
        lines += last - int(first)
    gaps = stored < lines
    return np.where(gaps, np.minimum(low, 0.0), low), np.where(gaps, np.maximum(high, 0.0), high)


def coarse(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """The mean rounded to a power of two near a quarter of the standard deviation.

    A shift needs to be right to a fraction of the deviation only, and with few bits it keeps the data's: integers stay
    integers, so their products are exact, and a discrete set of values does not pick up rounding errors of one sign.
    """
    power = (np.asarray(deviation, np.float64).view(np.int64) & _EXPONENT_BITS).view(np.float64)
    anchor = power * (0.25 * 1.5 * 2.0**52)  # sums with it have no digits below a quarter of that power of two
    rounded = (mean + anchor) - anchor
    return np.where(np.isfinite(rounded), rounded, mean)
