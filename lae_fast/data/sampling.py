"""A few lines spread over the data, from which shifts and scales are chosen before the first pass."""

from __future__ import annotations

import numpy as np

from .. import validation
from .dask_rows import CHUNKS_SAMPLED
from .source_base import Source
from .sources import BlockSource, DaskSource

# Entries of a sample: 8 MB in float64.
_SAMPLE_ENTRIES = 1 << 20


def sample_lines(
    source: Source,
    by_feature: bool,
    weights: np.ndarray | None = None,
    n_blocks: int = 16,
    block_lines: int = 16,
    most_bytes: int = 8 * _SAMPLE_ENTRIES,
) -> np.ndarray:
    """Up to n_blocks x block_lines lines spread evenly over the matrix, float64.

    Where lines are long there are fewer, so that the sample takes at most 8 MB or `most_bytes`; but at least n_blocks
    lines, or two where `most_bytes` is smaller than that.

    weights : one per line, or None; lines of weight zero are left out, because nothing in them may change the result
    """
    if isinstance(source, DaskSource):
        own = None if weights is None else source.split(weights)
        return source.sampled(_usable_lines, own, n_blocks, block_lines, most_bytes)
    n_lines, n_entries = source.n_lines(by_feature), source.n_lines(not by_feature)
    if isinstance(source, BlockSource):
        return _first_lines(source, n_blocks * block_lines, weights)
    n_blocks = min(max(most_bytes // (8 * n_entries), min(2, n_blocks)), n_blocks)
    most_entries = min(_SAMPLE_ENTRIES, most_bytes // 8)
    block_lines = min(max(most_entries // (n_blocks * n_entries), 1), block_lines)
    counted = None if weights is None else weights > 0
    if n_lines <= n_blocks * block_lines:
        every = np.asarray(source.block(0, n_lines, by_feature), dtype=np.float64)
        return every if counted is None else every[counted]
    last = n_lines - block_lines
    starts = _spread(last, n_blocks)
    if counted is not None:
        places = np.flatnonzero(counted)
        starts = sorted({min(int(places[place]), last) for place in _spread(places.size - 1, n_blocks)})
    parts = [source.block(start, start + block_lines, by_feature) for start in starts]
    if counted is not None:
        parts = [part[counted[start : start + block_lines]] for start, part in zip(starts, parts)]
    return np.concatenate(parts, dtype=np.float64)


def _spread(last: int, count: int) -> list[int]:
    """So many whole numbers from 0 to `last`, evenly spread."""
    return [last * i // max(count - 1, 1) for i in range(count)]


def _first_lines(source: BlockSource, count: int, weights: np.ndarray | None) -> np.ndarray:
    """`sample_lines` of rows that can only be read in order: `count` rows spread over the first 8 MB or so."""
    rows = source.blocks
    rows.start()
    head = rows.peek(int(np.clip(_SAMPLE_ENTRIES // source.n_features, count, 16 * count)))
    usable = np.isfinite(head).all(axis=1)  # the pass that meets a NaN raises the error
    if weights is not None:
        if weights.size < len(head):
            raise ValueError(validation.few_weights_message(weights.size))
        usable &= weights[: len(head)] > 0
    head = head[usable] if usable.any() else np.zeros((1, source.n_features))
    return np.asarray(head[:: max(1, -(-len(head) // count))], dtype=np.float64)


def _usable_lines(
    source: Source, weights: np.ndarray | None, n_blocks: int, block_lines: int, most_bytes: int
) -> np.ndarray:
    """`sample_lines` of a chunk on Dask, without NaN and inf: the pass that meets them raises the error."""
    few = max(1, n_blocks // CHUNKS_SAMPLED)
    lines = sample_lines(source, False, weights, few, block_lines, most_bytes // CHUNKS_SAMPLED)
    usable = np.isfinite(lines).all(axis=1)
    return lines[usable] if usable.any() else np.zeros((1, source.n_features))
