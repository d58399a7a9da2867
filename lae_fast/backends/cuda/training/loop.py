"""A training run on the device: its memory, and calls of some iterations.

The launches of an iteration are listed once (iteration.py), with their arguments, and repeated; which iteration it is,
its rate, its batch and whether the run has ended stand on the device.  So the host only launches, and reads two small
arrays when a call is over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ... import formulas, training_interface
from ...formulas import ADAM, CONVERGED, DIVERGED
from ...training_interface import Data, Outcome, Spec
from .. import arrays
from . import graphs, state, step
from .iteration import Iteration, Launch, encoder_product


class Loop(training_interface.Loop):
    """See `training_interface.Loop`; `encoder`, `decoder` and `extra` are copies on the host."""

    most = state.MOST_STEPS

    def __init__(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> None:
        self.spec = spec
        with arrays.device_errors():
            self.state: state.State = state.new_state(spec, data.prefix, encoder, decoder)
            self.constants = state.new_constants(spec, data)
            self.watch(True)
        self.batch: state.Batch | None = None
        self._lists: dict[bool, list[Launch]] = {}
        self._graph: Callable[[], Any] | None = None
        self._may_capture = True

    @property
    def encoder(self) -> np.ndarray:
        """See `training_interface.Loop.encoder`."""
        return np.array(arrays.download(self.state.encoder))

    @property
    def decoder(self) -> np.ndarray:
        """See `training_interface.Loop.decoder`."""
        return np.array(arrays.download(self.state.decoder))

    @property
    def extra(self) -> np.ndarray:
        """See `training_interface.Loop.extra`."""
        return np.array(arrays.download(self.state.extra))

    @property
    def calm(self) -> int:
        """See `training_interface.Loop`."""
        return int(arrays.download(self.state.calm)[0])

    @calm.setter
    def calm(self, count: int) -> None:
        self.state.calm[...] = count

    def trained(self) -> list[Any]:
        """See `training_interface.Loop.trained`."""
        return self.state.trained()

    def saved(self) -> list[np.ndarray]:
        """Copies of `trained` on the host."""
        return [arrays.download(part).copy() for part in self.trained()]

    def restore(self, saved: list[Any]) -> None:
        """Take back copies of `trained`."""
        for part, old in zip(self.trained(), saved):
            part[...] = arrays.upload(old)

    def watch(self, on: bool) -> None:
        """See `training_interface.Loop.watch`."""
        tolerance = float(self.spec.tolerance) if on else -1.0
        self.constants.stop[...] = arrays.upload(np.array([tolerance, *self.spec.rounding, self.spec.negligible]))
        self.state.calm[...] = 0

    def bind(self, batch: state.Batch) -> None:
        """See `training_interface.Loop.bind`."""
        self.batch, self._lists, self._graph = batch, {}, None

    def weights(self) -> tuple[Any, Any]:
        """(B, A') on the device; A' is the encoder for rules without one."""
        return self.state.encoder, self.state.decoder

    def take_products(self, zb: Any, za: Any, zxy: Any) -> None:
        """See `training_interface.Loop.take_products`."""
        self.state.encoder_product[...] = zb
        if self.spec.has_decoder:
            self.state.decoder_product[...] = za
        if not self.spec.same:
            self.state.target_product[...] = zxy

    def launches(self, with_loss: bool) -> list[Launch]:
        """What an iteration launches, in order."""
        if with_loss not in self._lists:
            listed = Iteration(self.spec, self.constants, self.state, self.batch, with_loss)
            self._lists[with_loss] = listed.launches
        return self._lists[with_loss]

    def run(self, first_iteration: int, rates: np.ndarray, with_loss: bool) -> Outcome:
        """See `training_interface.Loop.run`.  Waits for the device once, at the end."""
        this = self.state
        this.schedule[: len(rates)] = arrays.upload(self._schedule(first_iteration, rates))
        this.progress[...] = 0
        this.outcome[...] = np.nan
        if self.spec.sequential:
            encoder_product(self.constants, this).run(0)
        for k in range(len(rates)):
            if with_loss and k == 0:
                for one in self.launches(True):
                    one.run(0)
            else:
                self._repeat(k)
        done, status = (int(number) for number in arrays.download(this.progress))
        ratio, loss = (float(number) for number in arrays.download(this.outcome))
        return Outcome(done, status == CONVERGED, status == DIVERGED, ratio, loss)

    def _repeat(self, k: int) -> None:
        """Iteration k of a call, without loss: launch by launch at first, then as a graph where there are such."""
        if self._graph is None and self._may_capture and k > 1 and graphs.wanted():  # by then kernels are loaded
            self._capture()
        if self._graph is not None:
            self._graph()
            return
        for one in self.launches(False):
            one.run(0)

    def _capture(self) -> None:
        """Take an iteration as a graph; where that fails, warn and launch one by one for the rest of the run."""
        try:
            self._graph = graphs.capture([one.run for one in self.launches(False)])
        except graphs.failures() as error:
            self._may_capture = False
            warnings.warn(
                f"An iteration could not be captured as a CUDA graph ({type(error).__name__}: {error}), so its kernels "
                "are launched one by one, with the same results; unset LAE_FAST_CUDA_GRAPHS to silence this.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _schedule(self, first_iteration: int, rates: np.ndarray) -> np.ndarray:
        """(n, 3): `step.RATE`, `MEAN_RATE` and `INVERSE` of each iteration  (docs/math.md Eq. 36)."""
        found = np.empty((len(rates), 3))
        found[:, step.RATE] = found[:, step.MEAN_RATE] = rates
        found[:, step.INVERSE] = 1.0
        if self.spec.optimizer == ADAM:
            for k in range(len(rates)):
                power = first_iteration + k + 1
                found[k, step.MEAN_RATE] = rates[k] / formulas.one_minus_power(float(self.spec.scalars[0]), power)
                found[k, step.INVERSE] = 1.0 / formulas.one_minus_power(float(self.spec.scalars[1]), power)
        return found
