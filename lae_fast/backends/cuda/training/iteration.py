"""What an iteration of the training loop launches on the device.

One list serves every rule, loss and optimizer through the p x p coefficients of docs/math.md Eq. 21, as
cpu/training/iteration.py does: cuBLAS multiplies, and kernels do what lies between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ...formulas import ALPHA, DROPOUT, MOMENTS, MU, RAG, SYNCHRONISED, TIED, VAE
from ...training_interface import Spec
from .. import launch
from ..target import Kernel
from . import coefficients, decisions, graphs, minibatch, step
from .state import Batch, Constants, Side, State


class Launch(NamedTuple):
    """One launch of a kernel or of cuBLAS.

    run : takes the address of a stream;  n_bytes : that it must move at least
    """

    name: str
    run: Callable[[int], None]
    n_bytes: int


class Iteration:
    """The launches of one iteration, listed.

    batch : where the rows of mini-batches come from and go to, for products of rows
    with_loss : whether the loss at the weights on entry is made too
    """

    def __init__(self, spec: Spec, constants: Constants, this: State, batch: Batch | None, with_loss: bool) -> None:
        self.spec, self.constants, self.state, self.with_loss = spec, constants, this, with_loss
        self.squares = constants.nothing if batch is None else batch.squares
        self.launches: list[Launch] = []
        pairs = spec.coupling != TIED and not spec.sequential and spec.rule != DROPOUT
        self._paired = this.both if pairs else None  # both dense directions by one call
        if batch is not None:
            self._batch(batch)
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
        this, spec = self.state, self.spec
        sxx, sxy = self.constants.sxx[None], self.constants.sxy[None]
        if part == 0 and spec.same and spec.has_decoder and spec.coupling != TIED:
            shape = (1, 2 * this.tall.shape[1], this.tall.shape[2])
            self._gemm("(A', B) S", this.tall[:2].reshape(shape), sxx, this.tall[2:].reshape(shape))
            return
        if part != 2:
            self.launches.append(encoder_product(self.constants, this))
        if part != 1 and spec.has_decoder and spec.coupling != TIED:
            if spec.same:
                self._gemm("A' S", this.decoder[None], sxx, this.decoder_product[None])
            else:
                self._gemm("A' Syx", this.decoder[None], sxy, this.decoder_product[None], transposed=True)
        if part != 2 and not spec.same:
            self._gemm("B Sxy", this.encoder[None], sxy, this.target_product[None])

    def _batch(self, batch: Batch) -> None:
        """The products from the rows of a batch; its factor is in the rows.  8 b p d flops by GEMM for Y = X."""
        this, spec = self.state, self.spec
        b = batch.x_rows.shape[0]
        has = spec.has_decoder
        grid = launch.over_lines(b)
        for chunk, shift, rows, squares in (
            (batch.x, batch.x_shift, batch.x_rows, batch.squares if spec.same else self.constants.nothing),
            (batch.y, batch.y_shift, batch.y_rows, batch.squares),
        ):
            if chunk is not None:
                self._kernel(
                    "gather", minibatch.gather, grid, chunk.flat, chunk.line_stride, chunk.entry_stride, batch.places,
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
            with_sums, self.constants.prefix, this.grams.dtype.type(spec.product_penalty), this.spread, this.grams[0],
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
        if self._paired is not None:
            self._gemm("Q3 A', P1 Z", this.coefficients[:2], this.tall[0::3], self._paired.dense)
            self._dense_encoder(first=False)
        else:
            if spec.coupling != TIED and spec.rule != DROPOUT:
                self._dense_encoder()
            if spec.has_decoder:
                self._dense_decoder()
        if spec.coupling == SYNCHRONISED:
            grid, n_bytes = launch.over_entries(*this.encoder.shape), 3 * this.encoder.nbytes
            self._kernel("couple", step.couple, grid, this.progress, this.x.dense[0], this.y.dense[0], n_bytes=n_bytes)
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
        this, spec, constants = self.state, self.spec, self.constants
        real, (first, second, eps) = this.grams.dtype.type, spec.scalars
        twin = this.encoder[:0] if twin is None else twin
        width = int(side.weights.shape[2])
        dense, product, weights, *states, twin = (
            part.reshape(-1) for part in (side.dense, side.product, side.weights, side.first, side.second, twin)
        )
        self._kernel(
            name, step.fused_steps[spec.optimizer], launch.over_sides(*side.weights.shape), real(first), real(second),
            real(1.0 - first), real(1.0 - second), real(eps), this.schedule, this.progress, with_cross, width, dense,
            product, this.on_product, this.grams[1] if spec.rule in (ALPHA, MU) else this.grams[1, :0],
            constants.penalty, constants.prefix, weights, *states, twin, side.sums, side.row_sums,
            n_bytes=step.step_bytes(spec.optimizer, side.weights.size, side.weights.itemsize),
        )  # fmt: skip

    def _after(self) -> None:
        this, spec, constants = self.state, self.spec, self.constants
        if spec.rule in (ALPHA, MU):
            grid, n_bytes = launch.over_lines(len(this.encoder)), 3 * this.encoder.nbytes
            self._kernel("normalise", step.normalise_rows, grid, this.progress, this.encoder, n_bytes=n_bytes)
        # Of two that are one, or of one, the other has no sums.
        x, y = this.x, this.y
        of_x, of_y = spec.coupling != TIED, spec.has_decoder and spec.coupling != SYNCHRONISED
        no_sums, no_rows = x.sums[0, :0], x.row_sums[0, :0]
        self._kernel(
            "decide", decisions.decide, launch.over_lines(1), spec.rule, spec.coupling, spec.has_decoder,
            spec.sequential, spec.optimizer, constants.scalars, this.schedule, float(spec.product_penalty),
            constants.stop, spec.patience, constants.yy_trace, float(this.encoder.shape[1]), self.with_loss,
            x.sums[0] if of_x else no_sums, y.sums[0] if of_y else no_sums, x.row_sums[0] if of_x else no_rows,
            y.row_sums[0] if of_y else no_rows, this.traces, self.squares, constants.prefix, constants.penalty,
            this.grams[0], this.grams[1], this.extra, this.spread, this.progress, this.calm, this.outcome,
            n_bytes=x.sums.nbytes,
        )  # fmt: skip

    # -- listing

    def _kernel(self, name: str, kernel: Kernel, shape: Any, *arguments: Any, n_bytes: int = 0) -> None:
        self.launches.append(Launch(name, kernel.prepared(*shape, *arguments), n_bytes))

    def _gemm(self, name: str, a: Any, b: Any, out: Any, transposed: bool = False, add: bool = False) -> None:
        self.launches.append(gemm(name, a, b, out, transposed, add))


def gemm(name: str, a: Any, b: Any, out: Any, transposed: bool = False, add: bool = False) -> Launch:
    n_bytes = a.nbytes + b.nbytes + (2 if add else 1) * out.nbytes
    return Launch(name, graphs.Product(a, b, out, transposed, add), n_bytes)


def encoder_product(constants: Constants, this: State) -> Launch:
    """Z_B = B Sxx alone: what a sequential iteration starts from."""
    return gemm("B S", this.encoder[None], constants.sxx[None], this.encoder_product[None])
