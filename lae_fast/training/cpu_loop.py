"""The engine of every iterative rule on the CPU."""

from __future__ import annotations

import numpy as np

from ..backends.cpu.training.loop import Loop
from ..backends.cpu.training.state import Rows
from ..backends.training_interface import Data, Spec
from .batches import BatchReader
from .engine import LoopEngine


class CpuLoopEngine(LoopEngine):
    """See `LoopEngine`; `encoder`, `decoder` and `extra` are the arrays that are trained."""

    loop: Loop

    def _new_loop(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> Loop:
        return Loop(spec, data, encoder, decoder)

    def read_from(self, reader: BatchReader | None) -> None:
        """See `Engine.read_from`; allocates the workspace of its batches."""
        self.reader = reader
        self.loop.resize(0 if reader is None else reader.size)

    def _take(self, reader: BatchReader, rows: np.ndarray) -> None:
        self.loop.bind(self.prepared(reader, rows))

    def prepared(self, reader: BatchReader, rows: np.ndarray) -> Rows:
        """What the loop reads in these batches (n, b)."""
        dtype = self.problem.dtype
        nothing = np.zeros(0, dtype)
        nothing.flags.writeable = False
        memory, places, weights = reader.arrays(rows)
        (x, x_strides), (y, y_strides) = memory[0], memory[-1] if len(memory) > 1 else (nothing, (0, 1))
        kept = self._kept_units(rows)
        return Rows(
            x, x_strides, self.problem.mean.astype(dtype), y, y_strides, self.problem.mean_y.astype(dtype), 1.0,
            weights, places, np.zeros((0, 0), np.int64) if kept is None else kept,
            reader.factors(rows, self.recipe.scale),
        )  # fmt: skip
