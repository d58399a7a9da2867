"""The training loop on the device: what is launched in an iteration, and a call of some iterations.

One loop serves every rule, loss and optimizer through the p x p coefficients of docs/math.md Eq. 21, as
cpu/training/loop.py does: cuBLAS multiplies, and kernels do what lies between.  The launches of an iteration are listed
once, with their arguments, and repeated; which iteration it is, its rate, its batch and whether the run has ended stand
on the device.  So the host only launches, and reads two small arrays when a call is over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ... import formulas
from ...formulas import ADAM, ALPHA, DROPOUT, MOMENTS, MU, RAG, ROWS, SGD, SYNCHRONISED, TIED, VAE
from .. import arrays, launch
from ..target import Kernel
from . import coefficients, graphs, minibatch, state
from . import step as steps
from .state import Batch, Side, State


class Launch(NamedTuple):
    """One launch of a kernel or of cuBLAS.

    run : takes the address of a stream;  n_bytes : that it must move at least
    """

    name: str
    run: Callable[[int], None]
    n_bytes: int


class Loop:
    """A training run on the device.

    Parameters
    ----------
    spec, data : of cpu/training/state.py, data with arrays of the host
    encoder : (p, d);  decoder : (p, q), A', or (0, q) for rules without one
    """

    def __init__(self, spec: Any, data: Any, encoder: np.ndarray, decoder: np.ndarray) -> None:
        self.spec, self._dtype = spec, encoder.dtype
        self._given_trace = float(data.yy_trace)
        pushes = {SGD: 0, ADAM: 2}.get(spec.optimizer, 1)
        with arrays.device_errors():
            self.state: State = state.new_state(spec, data.prefix, encoder, decoder, pushes)
            self._sxx, self._sxy = arrays.upload(data.sxx), arrays.upload(data.sxy)
            self._prefix, self._penalty = arrays.upload(data.prefix), arrays.upload(data.penalty)
            self._scalars, self._stop = arrays.upload(spec.scalars), arrays.xp.zeros(4)
            self.watch(True)
        self._nothing = arrays.xp.zeros(0)
        self.batch: Batch | None = None
        self._lists: dict[bool, list[Launch]] = {}
        self._graph: Any = None
        self._may_capture = True

    def watch(self, on: bool) -> None:
        """Whether to stop within the tolerance, from now on."""
        tolerance = float(self.spec.tolerance) if on else -1.0
        self._stop[...] = arrays.upload(np.array([tolerance, *self.spec.rounding, self.spec.negligible]))
        self.state.calm[...] = 0

    def bind(self, batch: Batch | None) -> None:
        """Take another place for the batches to come from."""
        self.batch, self._lists, self._graph = batch, {}, None

    @property
    def n_bytes(self) -> int:
        """Device memory that is held."""
        this = self.state
        held = [self._sxx, self._sxy, this.tall, this.grams, this.coefficients, this.traces, this.schedule]
        for side in (this.both,) if this.both is not None else (this.x, this.y):
            if side is not None:
                held += [side.dense, side.first, side.second, side.sums, side.row_sums]
        if not self.spec.same:
            held += [this.y.weights, this.y.product]
        if self.batch is not None:
            held += [part for part in self.batch if hasattr(part, "nbytes")]
        return sum(part.nbytes for part in held)

    def launches(self, with_loss: bool) -> list[Launch]:
        """What an iteration launches, in order."""
        if with_loss not in self._lists:
            self._lists[with_loss] = _Listing(self, with_loss).launches
        return self._lists[with_loss]

    def run(self, first_iteration: int, rates: np.ndarray, with_loss: bool) -> tuple[int, int, float, float]:
        """Iterations done, status, last ratio, loss on entry; as `iterate` of cpu/training/loop.py.

        rates : (n,) float64, at most MOST_STEPS.  Waits for the device once, at the end.
        """
        this = self.state
        this.schedule[: len(rates)] = arrays.upload(self._schedule(first_iteration, rates))
        this.progress[...] = 0
        this.outcome[...] = np.nan
        if self.spec.sequential:
            _Listing.encoder_product(self).run(0)
        for step in range(len(rates)):
            if with_loss and step == 0:
                for one in self.launches(True):
                    one.run(0)
            else:
                self._repeat(step)
        done, status = (int(number) for number in arrays.download(this.progress))
        ratio, loss = (float(number) for number in arrays.download(this.outcome))
        return done, status, ratio, loss

    def _repeat(self, step: int) -> None:
        """An iteration without loss: launch by launch at first, then as a graph where there are such."""
        if self._graph is None and self._may_capture and step > 1 and graphs.wanted():  # by then kernels are loaded
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
        """(n, 3): `steps.RATE`, `MEAN_RATE` and `INVERSE` of each iteration  (docs/math.md Eq. 36)."""
        found = np.empty((len(rates), 3))
        found[:, steps.RATE] = found[:, steps.MEAN_RATE] = rates
        found[:, steps.INVERSE] = 1.0
        if self.spec.optimizer == ADAM:
            for k in range(len(rates)):
                power = first_iteration + k + 1
                found[k, steps.MEAN_RATE] = rates[k] / formulas.one_minus_power(float(self.spec.scalars[0]), power)
                found[k, steps.INVERSE] = 1.0 / formulas.one_minus_power(float(self.spec.scalars[1]), power)
        return found


class _Listing:
    """The launches of one iteration of a loop, listed."""

    def __init__(self, loop: Loop, with_loss: bool) -> None:
        self.loop, self.state, self.spec = loop, loop.state, loop.spec
        self.with_loss = with_loss
        self.launches: list[Launch] = []
        spec, this = self.spec, self.state
        moves_both = spec.has_decoder and spec.coupling != TIED
        self._paired = spec.same and moves_both and not spec.sequential and spec.rule != DROPOUT
        if spec.product == ROWS:
            self._batch(loop.batch)
        elif spec.product == MOMENTS:
            self._products(0 if not spec.sequential else 2)
        self._grams()
        if spec.sequential:
            self._coefficients(coefficients.ENCODER, with_loss)
            self._dense_encoder()
            self._step("step B", this.x, with_loss)
            self._products(1)
            self._grams(with_decoder=False)
            self._coefficients(coefficients.DECODER, False)
            self._dense_decoder()
            self._step("step A", this.y, with_loss)
        else:
            self._coefficients(
                coefficients.DECODER if spec.coupling == TIED else coefficients.BOTH, with_loss or spec.rule == VAE
            )
            self._directions_and_steps()
        self._after()

    # -- products

    def _products(self, part: int) -> None:
        """Z_B = B Sxx, Z_A = A'Syx, B Sxy  (docs/math.md Eq. 21).  part : 0 all, 1 those of B, 2 Z_A alone."""
        loop, this, spec = self.loop, self.state, self.spec
        sxx = loop._sxx[None]
        if part == 0 and spec.same and spec.has_decoder and spec.coupling != TIED:
            shape = (1, 2 * this.tall.shape[1], this.tall.shape[2])
            self._gemm("(A', B) S", this.tall[:2].reshape(shape), sxx, this.tall[2:].reshape(shape))
            return
        if part != 2:
            self.launches.append(_Listing.encoder_product(loop))
        if part != 1 and spec.has_decoder and spec.coupling != TIED:
            if spec.same:
                self._gemm("A' S", this.decoder[None], sxx, this.decoder_product[None])
            else:
                self._gemm("A' Syx", this.decoder[None], loop._sxy[None], this.decoder_product[None], transposed=True)
        if part != 2 and not spec.same:
            self._gemm("B Sxy", this.encoder[None], loop._sxy[None], this.target_product[None])

    @staticmethod
    def encoder_product(loop: Loop) -> Launch:
        """Z_B = B Sxx alone: what a sequential iteration starts from."""
        this = loop.state
        return _gemm("B S", this.encoder[None], loop._sxx[None], this.encoder_product[None])

    def _batch(self, batch: Batch) -> None:
        """The products from the rows of a batch; its factor is in the rows.  8 b p d flops by GEMM for Y = X."""
        this, spec = self.state, self.spec
        b = batch.x_rows.shape[0]
        has = spec.has_decoder
        grid = launch.over_lines(b)
        for chunk, shift, rows, squares in (
            (batch.x, batch.x_shift, batch.x_rows, batch.squares if spec.same else self.loop._nothing),
            (batch.y, batch.y_shift, batch.y_rows, batch.squares),
        ):
            if chunk is not None:
                self._kernel(
                    "gather", minibatch.gather, grid, chunk.flat, chunk.line_stride, chunk.entry_stride, batch.index,
                    shift, batch.roots, this.progress, rows, squares, n_bytes=2 * rows.nbytes,
                )  # fmt: skip
        x, y = batch.x_rows[None], batch.y_rows[None]
        latent, target = batch.codes[-1:], batch.codes[:1]
        p, d = this.encoder.shape
        if spec.same:
            flat = (1, (2 if has else 1) * p)
            codes, weights = batch.codes.reshape(*flat, b), this.tall[: 2 if has else 1].reshape(*flat, d)
            self._gemm("(A', B) X'", weights, x, codes, transposed=True)
        else:
            self._gemm("B X'", this.encoder[None], x, latent, transposed=True)
            self._gemm("A' Y'", this.decoder[None], y, target, transposed=True)
        if spec.rule == DROPOUT:
            self._gemm("A'A", this.decoder[None], this.decoder[None], this.grams[:1], transposed=True)
            grid = launch.over_entries(p, b)
            nothing = batch.taken[0][:0]
            for codes, taken in ((latent[0], nothing), (target[0], batch.taken[0])):
                if taken.size:
                    self._gemm("A'A h", this.grams[:1], latent, batch.taken)
                self._kernel("drop", minibatch.drop_units, grid, batch.kept, taken, this.progress, codes)
        if spec.same:
            self._gemm("codes X", batch.codes.reshape(*flat, b), x, this.tall[2 if has else 1 :].reshape(*flat, d))
        else:
            self._gemm("B X' X", latent, x, this.encoder_product[None])
            self._gemm("A' Y' X", target, x, this.decoder_product[None])
            self._gemm("B X' Y", latent, y, this.target_product[None])

    # -- p x p

    def _grams(self, with_decoder: bool = True) -> None:
        """A'A, G and BB' where wanted.  2 p^2 d flops each by GEMM; only lower triangles are read."""
        this, spec = self.state, self.spec
        decoder = with_decoder and spec.has_decoder and spec.rule != DROPOUT
        if decoder and spec.same:
            self._gemm("A'A, G", this.tall[0::3], this.tall[:2], this.grams[:2], transposed=True)
        else:
            if decoder:
                self._gemm("A'A", this.decoder[None], this.decoder[None], this.grams[:1], transposed=True)
            self._gemm("G", this.encoder_product[None], this.encoder[None], this.grams[1:2], transposed=True)
        if spec.product_penalty > 0.0 or (self.with_loss and not spec.has_decoder):
            self._gemm("B B'", this.encoder[None], this.encoder[None], this.grams[2:], transposed=True)

    def _coefficients(self, side: int, with_sums: bool) -> None:
        this, spec, p = self.state, self.spec, self.state.encoder.shape[0]
        self._kernel(
            "coefficients", coefficients.coefficients, launch.over_entries(p, p), spec.rule, side, spec.has_decoder,
            with_sums, self.loop._prefix, this.grams.dtype.type(spec.product_penalty), this.spread, this.grams[0],
            this.grams[2], this.grams[1], this.coefficients[1], this.coefficients[2], this.coefficients[0],
            this.on_product, this.traces, n_bytes=4 * this.grams[0].nbytes,
        )  # fmt: skip

    # -- directions and steps

    def _uses(self) -> tuple[bool, bool]:
        """Whether the encoder's direction has dense P1 and P3."""
        spec = self.spec
        p1 = spec.rule <= RAG or spec.rule in (ALPHA, VAE)
        return p1, spec.rule != DROPOUT and (not p1 or spec.rule == RAG or spec.product_penalty > 0.0)

    def _dense_encoder(self, first: bool = True) -> None:
        """P1 Z_B + P3 B, or without its first part.  2 p^2 d flops each by GEMM."""
        this = self.state
        uses_p1, uses_p3 = self._uses()
        if first and uses_p1:
            self._gemm("P1 Z", this.coefficients[1:2], this.encoder_product[None], this.x.dense)
        if uses_p3:
            self._gemm("P3 B", this.coefficients[2:], this.encoder[None], this.x.dense, add=uses_p1)

    def _dense_decoder(self) -> None:
        self._gemm("Q3 A'", self.state.coefficients[:1], self.state.decoder[None], self.state.y.dense)

    def _directions_and_steps(self) -> None:
        this, spec, with_loss = self.state, self.spec, self.with_loss
        with_cross = with_loss or spec.rule == VAE
        if self._paired:
            self._gemm("Q3 A', P1 Z", this.coefficients[:2], this.tall[0::3], this.both.dense)
            self._dense_encoder(first=False)
        else:
            if spec.coupling != TIED and spec.rule != DROPOUT:
                self._dense_encoder()
            if spec.has_decoder:
                self._dense_decoder()
        if spec.coupling == SYNCHRONISED:
            grid, n_bytes = launch.over_entries(*this.encoder.shape), 3 * this.encoder.nbytes
            self._kernel("couple", steps.couple, grid, this.progress, this.x.dense[0], this.y.dense[0], n_bytes=n_bytes)
            self._step("step B", this.x, with_cross, this.decoder)
            return
        if this.both is not None and spec.coupling != TIED:
            self._step("step A, B", this.both, with_cross)
            return
        if spec.coupling != TIED:
            self._step("step B", this.x, False)
        if spec.has_decoder:
            self._step("step A", this.y, with_cross, this.encoder if spec.coupling == TIED else None)

    def _step(self, name: str, side: Side, with_cross: bool, twin: Any = None) -> None:
        this, spec, loop = self.state, self.spec, self.loop
        real, (first, second, eps) = self.loop._dtype.type, spec.scalars
        empty = this.encoder[:0]
        self._kernel(
            name, steps.fused_step, launch.over_sides(*side.weights.shape), spec.optimizer, real(first), real(second),
            real(1.0 - first), real(1.0 - second), real(eps), this.schedule, this.progress, with_cross, side.dense,
            side.product, this.on_product, this.grams[1] if spec.rule in (ALPHA, MU) else this.grams[1, :0],
            loop._penalty, loop._prefix, side.weights, side.first, side.second, empty if twin is None else twin,
            side.sums, side.row_sums,
            n_bytes=steps.step_bytes(spec.optimizer, side.weights.size, side.weights.itemsize),
        )  # fmt: skip

    def _after(self) -> None:
        this, spec, loop = self.state, self.spec, self.loop
        if spec.rule in (ALPHA, MU):
            grid, n_bytes = launch.over_lines(len(this.encoder)), 3 * this.encoder.nbytes
            self._kernel("normalise", steps.normalise, grid, this.progress, this.encoder, n_bytes=n_bytes)
        # Of two that are one, or of one, the other has no sums.
        x, y = this.x, this.x if this.y is None else this.y
        of_x, of_y = spec.coupling != TIED, spec.has_decoder and spec.coupling != SYNCHRONISED
        self._kernel(
            "decide", steps.decide, launch.over_lines(1), spec.rule, spec.coupling, spec.has_decoder, spec.sequential,
            spec.optimizer, loop._scalars, this.schedule, float(spec.product_penalty), loop._stop, spec.patience,
            loop._given_trace, float(this.encoder.shape[1]), self.with_loss, x.sums[0] if of_x else x.sums[0, :0],
            y.sums[0] if of_y else y.sums[0, :0], x.row_sums[0] if of_x else x.row_sums[0, :0],
            y.row_sums[0] if of_y else y.row_sums[0, :0], this.traces,
            loop._nothing if loop.batch is None else loop.batch.squares, loop._prefix, loop._penalty, this.grams[0],
            this.grams[1], this.extra, this.spread, this.progress, this.calm, this.outcome, n_bytes=x.sums.nbytes,
        )  # fmt: skip

    # -- listing

    def _kernel(self, name: str, kernel: Kernel, shape: Any, *arguments: Any, n_bytes: int = 0) -> None:
        self.launches.append(Launch(name, kernel.prepared(*shape, *arguments), n_bytes))

    def _gemm(self, name: str, a: Any, b: Any, out: Any, transposed: bool = False, add: bool = False) -> None:
        self.launches.append(_gemm(name, a, b, out, transposed, add))


def _gemm(name: str, a: Any, b: Any, out: Any, transposed: bool = False, add: bool = False) -> Launch:
    n_bytes = a.nbytes + b.nbytes + (2 if add else 1) * out.nbytes
    return Launch(name, graphs.Product(a, b, out, transposed, add), n_bytes)
