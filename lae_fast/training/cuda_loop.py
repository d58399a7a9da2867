"""The engine of every iterative rule on a CUDA device.

Weights and states live on the device; what leaves it are copies on the host: for callbacks, recordings, the fitted
attributes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.cuda import arrays, stream, target
from ..backends.cuda.training import state
from ..backends.cuda.training.loop import Loop
from ..backends.training_interface import Data, Outcome, Spec
from ..data.sources import ArraySource, DeviceSource
from .batches import BatchReader
from .engine import LoopEngine


class CudaLoopEngine(LoopEngine):
    """See `LoopEngine`; the weights given are of the host, and `encoder`, `decoder` and `extra` are copies there."""

    loop: Loop
    # What was loaded where there is no CUDA, to be saved again as it is.
    _kept: dict[str, Any] | None = None

    def _new_loop(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> Loop:
        target.require("This model is in training on CUDA", "Go on where CUDA runs; here it transforms.")
        return Loop(spec, data, encoder, decoder)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() if self._kept is None else self._kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """A fitted model loads, and transforms, where there is no CUDA; `read_from` says that it cannot go on there."""
        if target.probe().available:
            super().__setstate__(kept)
        else:
            self.problem, self.recipe, self.masks = kept["problem"], kept["recipe"], kept["rng"]
            self._kept = kept

    def read_from(self, reader: BatchReader | None) -> None:
        """See `Engine.read_from`; takes the rows to the device where they fit."""
        target.require("This model is in training on CUDA", "Go on where CUDA runs; here it transforms.")
        self.reader = reader
        self._held: list[stream.DeviceChunk] | None = None  # all rows
        self._stage: list[stream.DeviceChunk] = []  # those of a call
        self._bound: state.Batch | None = None
        if reader is not None:
            self._hold(reader)

    def _hold(self, reader: BatchReader) -> None:
        """All rows on the device: where they lie, or a copy in at most half of what is free.

        What PCA's passes left there is given up first, so that no row lies there twice.
        """
        operator = reader.problem.operator
        for source in reader.sources if operator is None else [*reader.sources, operator.source]:
            stream.forget(source)
        room = arrays.free_bytes() // 2
        found = []
        for source in reader.sources:
            if isinstance(source, DeviceSource):
                block = source.device_block(0, source.shape[0], False)
            elif isinstance(source, ArraySource) and source.array.nbytes <= room:
                room -= source.array.nbytes
                block = arrays.upload_rows(source.array, source.dtype.newbyteorder("="))
            else:
                reader.in_place = False
                return
            found.append(stream.flat_lines(block, source.compute_dtype))
        reader.take_all()
        self._held = found

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """See `Engine.advance`.  Ctrl-C may come between two launches of an iteration: then nothing has moved."""
        with arrays.device_errors():
            before = self.snapshot()
            try:
                return super().advance(first_iteration, count, with_loss)
            except KeyboardInterrupt:
                self.restore(before)
                raise

    def _take(self, reader: BatchReader, rows: np.ndarray) -> None:
        """See `LoopEngine._take`: places, roots of weights and what each sample keeps go to the device."""
        dtype = self.problem.dtype
        weights = reader.row_weights
        mass = weights[rows] if weights.size else np.ones(rows.shape)
        roots = np.sqrt(mass * reader.factors(rows, self.recipe.scale)[:, None])
        n, places, bound = len(rows), rows, self._bound
        more = bound is None or n > bound.places.shape[0]
        chunks = self._held
        if chunks is None:
            memory, places, _ = reader.arrays(rows)
            if more:
                self._stage = [
                    stream.DeviceChunk(arrays.xp.empty(flat.size, dtype), line, entry, rows.size)
                    for flat, (line, entry) in memory
                ]
            chunks = self._stage
            for chunk, (flat, _) in zip(chunks, memory):
                chunk.flat[: flat.size] = arrays.upload(flat)
        if bound is None or more:
            shifts = [mean.astype(dtype) for mean in (self.problem.mean, self.problem.mean_y)]
            p = len(self.loop.state.encoder)
            bound = self._bound = state.new_batch(self.loop.spec, chunks, shifts, reader.size, n, p)
            self.loop.bind(bound)
        bound.places[:n] = arrays.upload(places)
        bound.roots[:n] = arrays.upload(roots.astype(dtype))
        kept = self._kept_units(rows)
        if kept is not None:
            bound.kept[:n] = arrays.upload(kept.astype(np.int64))
