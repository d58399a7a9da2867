"""A training run in memory: weights, states and workspace of iteration.py, and the team of threads that runs it."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ... import training_interface
from ...formulas import CONVERGED, DIVERGED
from ...threads import Team, get_num_threads
from ...training_interface import Data, Outcome, Spec
from ..jit import JIT_DISABLED
from ..structs import by_reference
from . import barrier, iteration
from .state import Member, Rows, blocks, compiled_for, new_state, no_rows, packed_moments, workspace


class Loop(training_interface.Loop):
    """See `training_interface.Loop`; `encoder`, `decoder` and `extra` are the arrays that are trained.

    n_threads : of the team; results do not depend on it
    calm : iterations in a row that were within the tolerance
    """

    def __init__(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> None:
        self.spec, self.data = spec, data
        self.state = new_state(encoder, decoder, spec.same)
        self._data, self._state = by_reference(data), by_reference(self.state)
        # Without compiled code the barrier is empty, so there is one thread.
        self.team = Team(1 if JIT_DISABLED else min(get_num_threads(), len(blocks(encoder.shape[1])) - 1))
        self.n_threads = self.team.size
        self.calm = 0
        self._stops = True
        self._packed_s = packed_moments(spec, data.sxx, len(self.state.stack))
        self.bind(no_rows(encoder.dtype))
        self.resize(0)

    def resize(self, batch: int) -> None:
        """Allocate the workspace for batches of this many rows."""
        self.work = workspace(self.state, self.spec, self.data, self._packed_s, self.n_threads, batch)
        self._work = by_reference(self.work)

    def __enter__(self) -> Self:
        self.team.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.team.__exit__(*error)

    @property
    def encoder(self) -> np.ndarray:
        """See `training_interface.Loop.encoder`."""
        return self.state.encoder

    @property
    def decoder(self) -> np.ndarray:
        """See `training_interface.Loop.decoder`."""
        return self.state.decoder if self.spec.has_decoder else self.state.encoder

    @property
    def extra(self) -> np.ndarray:
        """See `training_interface.Loop.extra`."""
        return self.state.extra

    def trained(self) -> list[np.ndarray]:
        """See `training_interface.Loop.trained`: all of `state`."""
        return list(self.state)

    def saved(self) -> list[np.ndarray]:
        """Copies of `trained`."""
        return [np.array(part) for part in self.state]

    def restore(self, saved: list[Any]) -> None:
        """Take back copies of `trained`."""
        for part, old in zip(self.state, saved):
            part[...] = old

    def watch(self, on: bool) -> None:
        """See `training_interface.Loop.watch`."""
        self.calm, self._stops = 0, on

    def bind(self, batch: Rows) -> None:
        """See `training_interface.Loop.bind`."""
        self._rows = by_reference(batch)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        """(B, A'), A' (0, q) for rules without one."""
        return self.state.encoder, self.state.decoder

    def take_products(self, zb: Any, za: Any, zxy: Any) -> None:
        """See `training_interface.Loop.take_products`."""
        self.work.encoder_product[:] = zb
        if self.spec.has_decoder:
            self.work.decoder_product[:] = za
        if not self.spec.same:
            self.work.target_product[:] = zxy

    def run(self, first_iteration: int, rates: np.ndarray, with_loss: bool) -> Outcome:
        """See `training_interface.Loop.run`: the team runs `iterate` once."""
        spec = by_reference(self.spec if self._stops else self.spec._replace(tolerance=-1.0), compiled_for(self.spec))
        shared, outcome = barrier.shared_state(), np.zeros(5)
        outcome[4] = self.calm

        def work(rank: int) -> None:
            iteration.iterate(
                by_reference(Member(rank, self.n_threads, shared)), spec, self._data, self._rows, self._state,
                self._work, first_iteration, rates, with_loss, outcome,
            )  # fmt: skip

        self.team.run(work, lambda: barrier.abort(shared))
        done, status, ratio, loss, calm = outcome
        self.calm = int(calm)
        return Outcome(int(done), bool(status == CONVERGED), bool(status == DIVERGED), float(ratio), float(loss))
