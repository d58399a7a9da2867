"""Rows that Dask holds or makes: arrays, dataframes and lists of delayed blocks, whose chunks stay where they are.

A chunk of rows is one task.  Functions come to the chunks, and what they return is reduced by a tree; the rows never
come to the client.  Functions and what they return travel between processes, so they must be picklable.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from .. import validation
from ..backends.threads import one_thread
from ..errors import LaeFastError
from . import dask_schedulers
from .dask_schedulers import futures, is_delayed, is_future
from .source_base import Source

# Partial results that one task of the tree brings together.
FAN_IN = 4
# Chunks that are looked at for a sample of rows.
CHUNKS_SAMPLED = 4


def is_dask(X: Any) -> bool:
    """Whether X is a Dask collection, or a list of delayed blocks."""
    if "dask" not in sys.modules:
        return False
    from dask.base import is_dask_collection

    if isinstance(X, (list, tuple)):
        return bool(X) and all(map(is_delayed, X))
    # xarray's objects are Dask collections too, and are unwrapped where their labels are read
    return is_delayed(X) or (is_dask_collection(X) and type(X).__module__.partition(".")[0] != "xarray")


@dataclasses.dataclass(frozen=True)
class _Shared:
    """What every chunk is given: one thing in a graph, whatever is in it."""

    values: tuple[Any, ...]


class _Done(NamedTuple):
    """What chunks have given: a result, None for no rows; and (number, rows) of each chunk."""

    result: Any
    rows: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class _ChunkTask:
    """What is done with one chunk of rows, where it is.

    function : (source, own, *shared) -> result;  own : what this chunk alone is given
    convert : (block, name) -> Source;  first : number of its first row, None where that is not known
    n_features, dtype, compute_dtype, names : of all chunks;  n_rows : as announced, or None
    counted : hand the result on with the number of rows
    """

    function: Callable[..., Any]
    own: Any
    convert: Callable[[Any, str], Source]
    name: str
    number: int
    first: int | None
    n_rows: int | None
    n_features: int
    dtype: np.dtype
    compute_dtype: np.dtype
    names: tuple[str, ...] | None
    counted: bool

    def __call__(self, block: Any, shared: _Shared) -> Any:
        shape: tuple[Any, ...] = getattr(block, "shape", ())
        try:
            if len(shape) == 2 and shape[0] == 0 and self.n_rows in (0, None):
                return _Done(None, ((self.number, 0),)) if self.counted else self._nothing(*shared.values)
            with one_thread():
                source = self._opened(block)
                result = self.function(source, self.own, *shared.values)
        except (ValueError, TypeError, LaeFastError) as error:
            kinds = (type(error) if isinstance(error, LaeFastError) else TypeError, TypeError, ValueError)
            kind = next(kind for kind in kinds if isinstance(error, kind))
            raise kind(f"{self._place()}: {error}") from error
        return _Done(result, ((self.number, source.shape[0]),)) if self.counted else result

    def _opened(self, block: Any) -> Source:
        source = self.convert(block, "the chunk")
        m, d = source.shape
        if d != self.n_features:
            raise ValueError(
                f"it has {d} features, but {self.name} has {self.n_features}: chunks may differ in the number of rows "
                "only."
            )
        if self.n_rows is not None and m != self.n_rows:
            raise ValueError(
                f"it has {m} rows, but {self.n_rows} were announced: call {self.name}.compute_chunk_sizes() for an "
                "array that was made of others, and give the same rows each time."
            )
        if not np.can_cast(source.dtype, self.dtype, "safe"):
            raise ValueError(
                f"it has dtype {source.dtype}, which does not fit into {self.dtype}, that of {self.name}: convert the "
                "chunks to one dtype."
            )
        if self.names is not None and source.names is not None:
            source.takes_by_name = True
            source = source.with_names(self.names)
        source.compute_dtype, source.suggests_em = self.compute_dtype, False
        source.first_row = 0 if self.first is None else self.first
        return source

    def _nothing(self, *shared: Any) -> Any:
        """What a chunk without rows gives, of a function whose results are rows."""
        empty = self.convert(np.zeros((1, self.n_features), self.dtype), "the chunk")
        empty.compute_dtype = self.compute_dtype
        return self.function(empty, self.own, *shared)[:0]

    def _place(self) -> str:
        if self.first is None:
            return f"Chunk {self.number} of {self.name}, whose own rows are counted here"
        return f"Chunk {self.number} of {self.name}, which begins with row {self.first}"


def _merged(combine: Callable[[Any, Any], Any], parts: Sequence[_Done]) -> _Done:
    results = [part.result for part in parts if part.result is not None]
    with one_thread():
        result = functools.reduce(combine, results) if results else None
    return _Done(result, sum((part.rows for part in parts), ()))


class DaskSource(Source):
    """Rows in chunks that belong to Dask.

    Parameters
    ----------
    X : a Dask array with any chunks, sparse ones and ones on devices too; a Dask dataframe; delayed blocks, a list of
        them or one
    convert : (block, name) -> Source;  name : of X, for messages

    Attributes
    ----------
    shape : (m, d); where m is not known yet the rows are counted, in a pass of its own
    """

    by_row_only = on_dask = True

    def __init__(self, X: Any, convert: Callable[[Any, str], Source], name: str) -> None:
        self._convert, self._name = convert, name
        self._lengths: list[int | None]
        if is_delayed(X) or isinstance(X, (list, tuple)):
            self._given = None
            self._blocks = [_delayed(block) for block in (X if isinstance(X, (list, tuple)) else [X])]
            self._lengths = [None] * len(self._blocks)
            width, dtype, names = self._described()
        else:
            self._given = _one_column_of_chunks(X, name)
            width, dtype, names = _announced(self._given, convert, name)
            # the optimizer forgets which futures a graph needs (dask 2026.8)
            fused = next(futures([self._given]), None) is None
            self._blocks = np.ravel(self._given.to_delayed(optimize_graph=fused)).tolist()
            chunks = getattr(self._given, "chunks", ((math.nan,) * len(self._blocks),))[0]
            self._lengths = [None if math.isnan(size) else int(size) for size in chunks]
            meta = getattr(self._given, "_meta", None)
            self.on_device = hasattr(meta, "__cuda_array_interface__")
        super().__init__((0, width), dtype)
        self.names = names
        self.takes_by_name = True
        if all(size is not None for size in self._lengths):
            validation.check_shape(self.shape, name)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d); counts the rows when asked."""
        if None in self._lengths:
            self.counting_passes += 1
            self.reduced(_nothing, _first_of_two)
        return sum(size or 0 for size in self._lengths), self._width

    @shape.setter
    def shape(self, shape: tuple[int, int]) -> None:
        self._width = shape[1]

    @property
    def n_features(self) -> int:
        return self._width

    @property
    def n_chunks(self) -> int:
        """Chunks of rows."""
        return len(self._blocks)

    @property
    def chunk_rows(self) -> list[int]:
        """Rows of each chunk, which are counted where they are not known."""
        _ = self.shape
        return [size or 0 for size in self._lengths]

    def n_lines(self, by_feature: bool) -> int:
        """Number of lines; inf as long as the rows have not been counted."""
        if by_feature:
            return self._width
        return math.inf if None in self._lengths else self.shape[0]  # type: ignore[return-value]  # no int

    def block(self, first: int, last: int, by_feature: bool) -> np.ndarray:
        raise TypeError(
            f"This needs rows in the memory of one machine, and {self._name} is a Dask collection, whose rows are with "
            f"its workers. So does missing='em'. Compute it first, if it fits ({self._name}.compute()), or do it "
            "chunk by chunk."
        )

    def first_nonfinite(self) -> None:
        """Nothing: a chunk names its own NaN and inf."""

    def split(self, weights: np.ndarray | None) -> list[Any]:
        """Numbers of the rows (m,), cut as the chunks are; None for each chunk where there are none."""
        if weights is None:
            return [None] * len(self._blocks)
        ends = np.cumsum(self.chunk_rows)
        if ends[-1] != weights.size:
            raise ValueError(
                f"sample_weight has shape {weights.shape}, but {self._name} has {ends[-1]} samples: "
                "pass one weight per row."
            )
        return np.split(weights, ends[:-1])

    def reduced(
        self,
        function: Callable[..., Any],
        combine: Callable[[Any, Any], Any],
        shared: Sequence[Any] = (),
        own: Sequence[Any] | None = None,
    ) -> Any:
        """function(source, own, *shared) of every chunk, brought together by `combine`, always in the same order.

        source : of the chunk's rows;  own : one for each chunk, or None;  shared : sent to every worker once
        The tree brings FAN_IN results together at a time.  None where no chunk has rows.

        Raises
        ------
        ValueError, TypeError
            What a chunk raises, naming the chunk; no rows at all.
        """
        graph, keys, name = self._tasks(function, shared, own, counted=True)
        merge, count = functools.partial(_merged, combine), 0
        while len(keys) > 1 or count == 0:
            groups = [keys[first : first + FAN_IN] for first in range(0, len(keys), FAN_IN)]
            keys = [(f"merge-{name}", count + i) for i in range(len(groups))]
            graph |= {key: (merge, group) for key, group in zip(keys, groups)}
            count += len(keys)
        done = self._computed(graph, keys[0], name)
        self._learn(done.rows)
        if done.result is None:
            _refuse_empty(self._name, len(self._blocks))
        return done.result

    def sampled(self, function: Callable[..., np.ndarray], own: Sequence[Any] | None, *shared: Any) -> np.ndarray:
        """function(source, own, *shared) of a few chunks spread over all, which gives rows, stacked."""
        numbers = [
            number
            for number, size in enumerate(self._lengths)
            if size != 0 and (own is None or own[number] is None or own[number].any())
        ]
        few = [numbers[i] for i in np.unique(np.linspace(0, len(numbers) - 1, CHUNKS_SAMPLED).astype(int)).tolist()]
        graph, keys, name = self._tasks(function, shared, own, counted=True)
        graph[f"sample-{name}"] = (list, [keys[number] for number in few])
        parts = [done.result for done in self._computed(graph, f"sample-{name}", name) if done.result is not None]
        if not parts:
            _refuse_empty(self._name, len(self._blocks))
        return np.concatenate(parts)

    def lazily(
        self, function: Callable[..., np.ndarray], width: int, shared: Sequence[Any], dtype: np.dtype | None = None
    ) -> Any:
        """A Dask array (m, width) of function(source, None, *shared), chunk by chunk; nothing is computed.

        dtype : that it announces; None: the compute dtype
        """
        import dask.array
        from dask.highlevelgraph import HighLevelGraph

        graph, keys, name = self._tasks(function, shared, None, counted=False)
        layer = {(f"rows-{name}", number, 0): graph.pop(key) for number, key in enumerate(keys)} | graph
        whole = HighLevelGraph.from_collections(f"rows-{name}", layer, dependencies=self._dependencies())
        dtype = self.compute_dtype if dtype is None else dtype
        rows = tuple(math.nan if size is None else size for size in self._lengths)
        return dask.array.Array(
            whole, f"rows-{name}", chunks=(rows, (width,)), dtype=dtype, meta=np.empty((0, 0), dtype),
        )  # fmt: skip

    def _tasks(
        self, function: Callable[..., Any], shared: Sequence[Any], own: Sequence[Any] | None, counted: bool
    ) -> tuple[dict[Any, Any], list[Any], str]:
        """A graph with one task for each chunk, their keys, and a name that no other graph has."""
        name = f"{function.__name__.strip('_')}-{uuid.uuid4().hex[:16]}"
        firsts = _starts(self._lengths)
        common = _ChunkTask(
            function, None, self._convert, self._name, 0, None, None, self._width, self.dtype, self.compute_dtype,
            self.names, counted,
        )  # fmt: skip
        graph: dict[Any, Any] = {}
        everywhere = f"shared-{name}"
        graph[everywhere] = self._placed(_Shared(tuple(shared))) if counted else _Shared(tuple(shared))
        keys = []
        for number, block in enumerate(self._blocks):
            key = (name, number)
            task = dataclasses.replace(
                common, own=None if own is None else own[number], number=number, first=firsts[number],
                n_rows=self._lengths[number],
            )  # fmt: skip
            graph[key] = (task, block.key, everywhere)
            keys.append(key)
        return graph, keys, name

    def _placed(self, shared: _Shared) -> Any:
        """What every chunk is given: with a cluster sent to all workers at once, before the graph."""
        client = dask_schedulers.client_of(self._blocks)
        if client is None or not shared.values:
            return shared
        return client.scatter(shared, broadcast=True, hash=False)

    def _dependencies(self) -> list[Any]:
        return self._blocks if self._given is None else self._blocks[:1]

    def _computed(self, graph: dict[Any, Any], key: Any, name: str) -> Any:
        from dask.delayed import Delayed
        from dask.highlevelgraph import HighLevelGraph

        dependencies = self._dependencies()
        dask_schedulers.check_alive(dependencies, self._name)
        whole = HighLevelGraph.from_collections(name, graph, dependencies=dependencies)
        client = dask_schedulers.client_of(dependencies)
        return dask_schedulers.computed(Delayed(key, whole, layer=name), client, functools.partial(self._said, name))

    def _said(self, name: str, keys: Sequence[Any]) -> str:
        """Which chunks' tasks are among these keys."""
        numbers = sorted(key[1] for key in keys if isinstance(key, tuple) and key[0] == name)
        if not numbers:
            return ""
        if len(numbers) > 1:
            few = ", ".join(map(str, numbers[:5])) + ", ..." * (len(numbers) > 5)
            return f"Raised by what chunks {few} of {self._name} are made of."
        first = _starts(self._lengths)[numbers[0]]
        row = "" if first is None else f", which begins with row {first}"
        return f"Raised by chunk {numbers[0]} of {self._name}{row}."

    def _described(self) -> tuple[int, np.dtype, tuple[str, ...] | None]:
        """Width, dtype and names of delayed blocks: of the first one, which is computed for it."""
        from dask.delayed import delayed

        convert, name = self._convert, f"block 0 of {self._name}"
        try:
            return delayed(_description, pure=False)(self._blocks[0], convert, name).compute()
        except Exception as error:
            error.add_note(f"Raised by {name}.")
            raise

    def _learn(self, rows: Sequence[tuple[int, int]]) -> None:
        for number, count in rows:
            self._lengths[number] = count

    def _reordered(self, places: np.ndarray) -> Source:
        self.names = self._names_at(places)
        return self


def mean(numbers: Any) -> float:
    """Mean of a Dask array (m,), a number for each row of X; ValueError where X turns out to have no rows."""
    from dask.base import compute

    total, m = compute(numbers.sum(), numbers.map_blocks(np.ones_like).sum())
    return float(total / m) if m else _refuse_empty("X", numbers.numblocks[0])


def _refuse_empty(name: str, n_chunks: int) -> NoReturn:
    raise ValueError(
        f"{name} has no rows: Found array with 0 sample(s) while a minimum of 1 is required; all of its {n_chunks} "
        "chunks are empty."
    )


def _delayed(block: Any) -> Any:
    from dask.delayed import delayed

    return delayed(block) if is_future(block) else block


def _nothing(source: Source, own: Any) -> bool:
    """What counts rows computes nothing else."""
    return True


def _first_of_two(one: Any, other: Any) -> Any:
    return one


def _starts(lengths: Sequence[int | None]) -> list[int | None]:
    """The number of each chunk's first row, None behind a chunk whose length is not known."""
    starts: list[int | None] = [0]
    for size in lengths[:-1]:
        before = starts[-1]
        starts.append(None if before is None or size is None else before + size)
    return starts


def _description(block: Any, convert: Callable[[Any, str], Source], name: str) -> Any:
    source = convert(block, name)
    return source.n_features, source.dtype, source.names


def _one_column_of_chunks(X: Any, name: str) -> Any:
    """X, an array or a dataframe, whose chunks have all columns."""
    if hasattr(X, "npartitions") and hasattr(X, "columns"):
        return X
    if not hasattr(X, "to_delayed") or not hasattr(X, "chunks"):
        raise TypeError(
            f"{name} is a Dask collection of the type {type(X).__name__!r}, which is no matrix: pass a Dask array, a "
            "dataframe, or a list of delayed blocks."
        )
    if X.ndim != 2:
        validation.check_shape(X.shape, name)
    validation.check_dtype(X.dtype, name)
    if math.isnan(X.shape[1]):
        raise ValueError(
            f"{name} does not know its number of features (shape {X.shape}): call {name}.compute_chunk_sizes() first."
        )
    validation.check_shape((1, X.shape[1]), name)
    return X if X.numblocks[1] == 1 else X.rechunk({1: -1})


def _announced(
    X: Any, convert: Callable[[Any, str], Source], name: str
) -> tuple[int, np.dtype, tuple[str, ...] | None]:
    """Width, dtype and names, as the collection announces them."""
    if hasattr(X, "columns"):
        source = convert(X._meta_nonempty, name)
        return source.n_features, source.dtype, source.names
    return int(X.shape[1]), np.dtype(X.dtype), None
