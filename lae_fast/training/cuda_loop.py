"""The engine of every iterative rule on a CUDA device: `LoopEngine` with the loop of backends/cuda/training/loop.py.

Weights and states live on the device; what leaves it are copies on the host: for callbacks, recordings, the fitted
attributes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends import formulas
from ..backends.cuda import arrays, stream, target
from ..backends.cuda.training import loop, state
from ..data.sources import ArraySource
from .cpu_loop import LoopEngine, Outcome
from .problem import BatchReader, MomentProblem


class DeviceLoopEngine(LoopEngine):
    """See `LoopEngine`; parameters are the same, and the weights given are of the host."""

    def _set_up(self, encoder: np.ndarray, decoder: np.ndarray) -> None:
        self._spec = self._make_spec(decoder.shape[0] > 0)
        self._data = self._make_data(encoder.shape[0])
        self._loop: Any = loop.Loop(self._spec, self._data, encoder, decoder)
        self.resize(0 if self.reader is None else self.reader.size)

    def _panels(self, dtype: np.dtype) -> np.ndarray:
        return np.zeros((0, 0, 0), dtype)

    def __getstate__(self) -> dict[str, Any]:
        if self._loop is None:
            return self._kept
        kept = {"problem": self.problem, "plan": self.plan, "rng": self._rng}
        return kept | {"weights": (self.encoder, self._decoder_rows()), "trained": self.snapshot(on_host=True)}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """A fitted model loads, and transforms, where there is no CUDA; `resize` says that it cannot go on there."""
        self.problem, self.plan, self._rng, self.reader = kept["problem"], kept["plan"], kept["rng"], None
        self._kept, self._loop = kept, None
        if target.probe().available:
            self._set_up(*kept["weights"])
            self.restore(kept["trained"])

    def _decoder_rows(self) -> np.ndarray:
        """A' (p, q), or (0, q) for a rule without one."""
        return self.decoder if self._spec.has_decoder else self.decoder[:0]

    @property
    def encoder(self) -> np.ndarray:
        """B (p, d), a copy on the host."""
        return np.array(arrays.download(self._loop.state.encoder))

    @property
    def decoder(self) -> np.ndarray:
        """A' (p, q), a copy on the host; the encoder itself for rules with one matrix."""
        return np.array(arrays.download(self._loop.state.decoder))

    @property
    def extra(self) -> np.ndarray:
        """(3, p + 1): e and log s^2 of the VAE, and their states."""
        return np.array(arrays.download(self._loop.state.extra))

    def snapshot(self, on_host: bool = False) -> list[Any]:
        """Copies of all that training changes, on the device."""
        return [arrays.download(part).copy() if on_host else part.copy() for part in self._loop.state.trained()]

    def restore(self, saved: list[Any]) -> None:
        """Take back a snapshot."""
        for part, old in zip(self._loop.state.trained(), saved):
            part[...] = arrays.upload(old)

    def resize(self, batch: int) -> None:
        """Allocate the workspace for batches of this size, and take the rows to the device where they fit."""
        target.require("This model is in training on CUDA", "Go on where CUDA runs; here it transforms.")
        self._held: list[stream.DeviceChunk] | None = None  # all rows
        self._stage: list[stream.DeviceChunk] = []  # those of a call
        if batch and self.reader is not None:
            self._hold(self.reader)
        self._bound: state.Batch | None = None

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
            if source.on_device:
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

    def watch(self, on: bool) -> None:
        """See `LoopEngine.watch`."""
        self._loop.watch(on)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of device memory: weights, optimizer states, workspace and S."""
        return self._loop.n_bytes

    @property
    def most(self) -> int:
        """Iterations that one call may take."""
        if self.reader is not None:
            return min(self.reader.most, state.MOST_STEPS)
        return state.MOST_STEPS if isinstance(self.problem, MomentProblem) else 1

    @property
    def n_threads(self) -> int:
        """Of the host."""
        return 1

    def __enter__(self) -> DeviceLoopEngine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def launches(self, with_loss: bool = False) -> list[loop.Launch]:
        """What an iteration launches."""
        return self._loop.launches(with_loss)

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """See `LoopEngine.advance`.  Ctrl-C may come between two launches of an iteration: then nothing has moved."""
        with arrays.device_errors():
            before = self.snapshot()
            try:
                return self._advance(first_iteration, count, with_loss)
            except KeyboardInterrupt:
                self.restore(before)
                raise

    def _advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        if self.reader is not None:
            self._take(self.reader, self.reader.next_rows(count))
        elif self._spec.product == formulas.GIVEN:
            self._give_products()
        rates = np.atleast_1d(self.plan.optimizer.rate(np.arange(first_iteration, first_iteration + count)))
        done, status, ratio, loss = self._loop.run(first_iteration, rates, with_loss)
        return Outcome(done, status == formulas.CONVERGED, status == formulas.DIVERGED, ratio, loss)

    def _give_products(self) -> None:
        this = self._loop.state
        zb, za, zxy = self.problem.products(this.encoder, this.decoder)
        this.encoder_product[...] = zb
        if self._spec.has_decoder:
            this.decoder_product[...] = za
        if not self.problem.same:
            this.target_product[...] = zxy

    def _take(self, reader: BatchReader, rows: np.ndarray) -> None:
        """The batches of the next call: indices, weights and what each sample keeps, on the device."""
        dtype, p = self.problem.dtype, self._loop.state.encoder.shape[0]
        weights = reader.row_weights
        mass = weights[rows] if weights.size else np.ones(rows.shape)
        roots = np.sqrt(mass * reader.factors(rows, self.plan.scale)[:, None])
        n, index = len(rows), rows
        more = self._bound is None or n > self._bound.index.shape[0]
        chunks = self._held
        if chunks is None:
            memory, index, _ = reader.arrays(rows)
            if more:
                self._stage = [
                    stream.DeviceChunk(arrays.xp.empty(flat.size, dtype), *strides, rows.size)
                    for flat, strides in memory
                ]
            chunks = self._stage
            for chunk, (flat, _) in zip(chunks, memory):
                chunk.flat[: flat.size] = arrays.upload(flat)
        if more:
            shifts = [self.problem.mean, self.problem.mean_y]
            self._bound = state.new_batch(self._spec, chunks, shifts, reader.size, n, p, dtype)
            self._loop.bind(self._bound)
        self._bound.index[:n] = arrays.upload(index)
        self._bound.roots[:n] = arrays.upload(roots.astype(dtype))
        if self._spec.rule == formulas.DROPOUT:
            kept = self.plan.loss.sample(rows.size, p, self._rng).reshape(rows.shape)
            self._bound.kept[:n] = arrays.upload(kept.astype(np.int64))
