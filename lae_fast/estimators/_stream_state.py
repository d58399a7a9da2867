"""What is kept of the rows of a stream: exact moments, or, by IncrementalPCA, a sketch where d x d numbers do not fit.

A state is never written to: adding rows makes a new one, so that copies of an estimator may share it.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from .. import backends, plan, validation
from ..data import sources
from ..data.checkpoint import Checkpoint, require_file
from ..eigen.eigenpairs import Eigenpairs
from ..errors import MemoryLimitError
from ..operators.frequent_directions import Sketch, sketch_size
from ..operators.moments import Moments
from ..sizes import format_bytes

State = Moments | Sketch

# How far the singular values of a sketch are off by rounding, in eps of the largest.
_SVD_EPS = 32.0
# Batches of at most _FEW rows wait until there are _MANY, or this many bytes: an update of the state costs nearly the
# same for one row as for a thousand.  Rows whose squares might leave some range do not wait: errors come at once.
_FEW, _MANY, _WAITING_BYTES = 1024, 2048, 1 << 24
_ORDINARY = (1e-30, 1e30)
# Rows that come in blocks are taken so many entries at a time where they cannot be taken all at once.
_ENTRIES_AT_ONCE = 1 << 20


def empty(source: sources.Source, n_components: int | None, max_memory: Any, backend: str) -> State:
    """The state before the first row of a stream like `source`.

    Raises
    ------
    ValueError, MemoryLimitError
        A sketch is needed, and n_components is None or does not fit either.
    """
    d = source.n_features
    limit = validation.memory_bytes(max_memory)
    if plan.gram_fits(d, source.compute_dtype.itemsize, backends.get_num_threads(), limit):
        return Moments(d)
    if n_components is None:
        raise ValueError(
            f"n_components=None needs the moments of all {d} features, which do not fit (max_memory={max_memory!r}, at "
            f"most {plan.LARGEST_GRAM} features): set n_components, or raise max_memory."
        )
    backends.resolve_cpu(backend, "The sketch that keeps a stream whose moments do not fit")
    return Sketch(d, sketch_size(d, int(n_components), limit))


def require_room_for_moments(source: sources.Source, max_memory: Any, missing: str) -> None:
    """Refuse d x d moments that `max_memory` or plan.LARGEST_GRAM does not allow.  missing : that of PCA

    Raises
    ------
    MemoryLimitError
    """
    d, threads, itemsize = source.n_features, backends.get_num_threads(), source.compute_dtype.itemsize
    if plan.gram_fits(d, itemsize, threads, validation.memory_bytes(max_memory)):
        return
    need = format_bytes(plan.gram_bytes(d, itemsize, threads), at_least=True)
    ways = "raise max_memory, use fit, or IncrementalPCA, which keeps a sketch."
    raise MemoryLimitError(
        f"The moments of {d} features need {need} (max_memory={max_memory!r}, at most {plan.LARGEST_GRAM} features): "
        + ("raise max_memory; missing='em' has no leaner way." if missing == "em" else ways)
    )


def added(
    state: State,
    source: sources.Source,
    sample_weight: Any = None,
    *,
    forget: float,
    backend: str,
    checkpoint: Checkpoint | None = None,
) -> State:
    """The state with the rows added, the older ones counting `forget` times as much for each."""
    if isinstance(state, Moments) and forget == 1.0:
        return copy.copy(state).update(source, sample_weight=sample_weight, checkpoint=checkpoint, backend=backend)
    if checkpoint is not None:
        require_file(source)
    if isinstance(source, sources.BlockSource):
        return _added_in_steps(state, source, sample_weight, forget, backend)
    m = source.shape[0]
    weights = validation.sample_weights(sample_weight, m)
    n_positive = state.n_positive + (m if weights is None else int(np.count_nonzero(weights)))
    if forget < 1.0:
        ages = forget ** np.arange(m - 1, -1, -1.0)
        weights = ages if weights is None else weights * ages
        state = state.decayed(forget**m)
    if isinstance(state, Sketch):
        state = state.updated(source, weights, checkpoint)
    else:
        state = copy.copy(state).update(source, sample_weight=weights, checkpoint=checkpoint, backend=backend)
    state.n_positive = n_positive  # an old row counts, though its weight may be too small for float64
    return state


def _added_in_steps(
    state: State, source: sources.BlockSource, sample_weight: Any, forget: float, backend: str
) -> State:
    """`added` for rows that come in blocks, some at a time: where a step ends changes nothing."""
    weights = validation.sample_weights(sample_weight, None)
    step = max(1, _ENTRIES_AT_ONCE // source.n_features)
    source.blocks.start()
    while True:
        first, rows = source.position, source.blocks.take(step)
        if not len(rows):
            break
        here = None if weights is None else weights[first : source.position]
        if weights is not None and here is not None and here.size < len(rows):
            raise ValueError(validation.few_weights_message(weights.size))
        if here is None or here.any():
            part = sources.as_source(rows)
            part.first_row = first
            state = added(state, part, here, forget=forget, backend=backend)
        else:  # rows of weight zero, which still count as steps of `forget`
            state = copy.copy(state if forget == 1.0 else state.decayed(forget ** len(rows)))
            state.n_samples += len(rows)
    validation.sample_weights(weights, source.position)
    return state


def merged(one: State, other: State) -> State:
    """The state of both streams together.

    Raises
    ------
    ValueError
        They are not of one kind.
    """
    if isinstance(one, Moments) and isinstance(other, Moments):
        return one.merged(other)
    if isinstance(one, Sketch) and isinstance(other, Sketch):
        return one.merged(other)
    raise ValueError("other keeps exact moments and self a sketch, or the reverse: give both the same max_memory.")


def few_rows(source: sources.Source) -> np.ndarray | None:
    """A copy of the rows where they are few enough to wait and nothing can be wrong with them later; else None."""
    if isinstance(source, (sources.BlockSource, sources.SparseSource, sources.DeviceSource, sources.DaskSource)):
        return None
    if source.shape[0] > _FEW:
        return None
    rows = np.array(source.block(0, source.shape[0], False), order="C")
    if rows.dtype.kind == "f":
        sizes = np.abs(rows)
        if not ((sizes <= _ORDINARY[1]) & ((sizes >= _ORDINARY[0]) | (sizes == 0.0))).all():
            return None
    return rows


def may_wait(n_rows: int, n_bytes: int, max_memory: Any) -> bool:
    """Whether so many rows may stay as they are until others come."""
    limit = validation.memory_bytes(max_memory)
    return n_rows < _MANY and n_bytes <= (_WAITING_BYTES if limit is None else min(_WAITING_BYTES, limit // 8))


def eigenpairs_of_sketch(sketch: Sketch, p: int) -> Eigenpairs:
    """The leading p, of which the sketch knows the values up to what it has discarded."""
    values, vectors = sketch.eigenpairs(p)
    dtype = sketch.dtype
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(values.size)])
    eps = float(np.finfo(dtype).eps)
    largest = float(values.max(initial=0.0))
    floor = np.maximum(values, eps * largest) if largest > 0 else np.ones_like(values)
    return Eigenpairs(
        values=values,
        vectors=np.ascontiguousarray(vectors * signs, dtype=dtype),
        residuals=(sketch.discarded + _SVD_EPS * eps * largest) / floor,
        converged=np.full(values.size, sketch.discarded == 0.0),
        solver="sketch",
        reason=f"the moments of {sketch.n_features} features do not fit; a sketch of {sketch.size} rows does",
        n_passes=1,
        workspace_bytes=sketch.nbytes,
        trace=float(sketch.squares.sum()),
        mean=sketch.mean,
        variances=sketch.squares,
        weight_sum=sketch.weight_sum,
    )
