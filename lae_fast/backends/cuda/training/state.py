"""What the training loop of iteration.py works on: weights, states, workspace, and the numbers the host reads.

For Y = X all tall matrices lie in one (4, p, d) array, A', B, A'S, B S: one GEMM makes both products with S, a batch of
two GEMMs both Gram matrices, another both dense directions, and one kernel takes both steps.  With targets, and
where A and B move one after the other, the same calls are made side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import formulas
from ...training_interface import Data, Spec
from .. import arrays, launch, stream

# Iterations that one call may take: the rows of `State.schedule`.
MOST_STEPS = 4096


class Side(NamedTuple):
    """What one fused step works on: encoder, decoder or both; see `step.fused_steps`.

    sums : (s, blocks, N_SUMS);  row_sums : (s, blocks of columns, p, N_ROW_SUMS)
    """

    weights: Any  # (s, p, w)
    product: Any
    dense: Any
    first: Any
    second: Any
    sums: Any
    row_sums: Any

    def part(self, index: int) -> Side:
        """One of two sides, with the product that is its own."""
        own, other = slice(index, index + 1), slice(1 - index, 2 - index)
        first, second = (a[own] if a.size else a for a in (self.first, self.second))
        sums = self.sums[own], self.row_sums[own]
        return Side(self.weights[own], self.product[other], self.dense[own], first, second, *sums)


class Constants(NamedTuple):
    """What iterations read and do not change."""

    sxx: Any  # (d, d), or empty for rows
    sxy: Any  # (d, q), or empty
    yy_trace: float
    prefix: Any  # (p,) c
    penalty: Any  # (p,) lam
    scalars: Any  # (3,) float64 of the optimizer
    stop: Any  # (4,) float64: tolerance, rounding with Sxy and with Sxx, negligible, of `formulas.is_still`
    nothing: Any  # (0,) float64


class State(NamedTuple):
    """All that iterations change."""

    # (4, p, d) A', B, A'S, B S for Y = X;  (2, p, d) B, B S without a decoder;  else (3, p, d) B, A'Syx, B Sxx
    tall: Any
    x: Side  # the encoder's step
    y: Side  # the decoder's; the encoder's again without one
    both: Side | None  # both at once, for Y = X
    encoder: Any  # (p, d), and its product B Sxx
    encoder_product: Any
    decoder: Any  # (p, q), or the encoder without one
    decoder_product: Any  # (p, d) A'Syx
    target_product: Any  # (p, q) B Sxy
    grams: Any  # (3, p, p) A'A, G, BB'
    coefficients: Any  # (3, p, p) Q3, P1, P3
    on_product: Any  # (p,)
    traces: Any  # (blocks, N_TRACES) float64
    extra: Any  # (3, p + 1) float64: e and log s^2, and their states
    spread: Any  # (p + 2,) float64: exp e, s^2, 1 / s^2
    schedule: Any  # (MOST_STEPS, 3) float64
    progress: Any  # (2,) int64
    calm: Any  # (1,) int64: iterations in a row that were still
    outcome: Any  # (2,) float64

    def trained(self) -> list[Any]:
        """What training changes, as device arrays: weights, their optimizer states, the VAE's parameters."""
        alone = self.y is self.x
        parts = [self.encoder] if alone else [self.encoder, self.decoder]
        for side in (self.x,) if alone else (self.x, self.y):
            parts += [part for part in (side.first, side.second) if part.size]
        return [*parts, self.extra, self.spread]


class Batch(NamedTuple):
    """Where mini-batches are gathered from, and to."""

    x: stream.DeviceChunk  # all rows that the indices of this call name
    y: stream.DeviceChunk | None
    x_shift: Any
    y_shift: Any
    places: Any  # (n, b) int64: the rows of each batch
    roots: Any  # (n, b) compute dtype: root of kappa times the row's weight
    kept: Any  # (n, b) int64 for dropout, else (0, 0)
    x_rows: Any  # (b, d), (b, q) or (0, q)
    y_rows: Any
    codes: Any  # (2, p, b) A'y and B x;  (1, p, b) without a decoder
    taken: Any  # (1, p, b) for dropout, else (1, 0, b)
    squares: Any  # (b,) float64


def new_constants(spec: Spec, data: Data) -> Constants:
    """Copies on the device; `stop` is all zeros."""
    return Constants(
        arrays.upload(data.sxx), arrays.upload(data.sxy), float(data.yy_trace), arrays.upload(data.prefix),
        arrays.upload(data.penalty), arrays.upload(spec.scalars), arrays.xp.zeros(4), arrays.xp.zeros(0),
    )  # fmt: skip


def new_state(spec: Spec, prefix: np.ndarray, encoder: np.ndarray, decoder: np.ndarray) -> State:
    """State with these weights, (p, d) and (p, q) or (0, q), and optimizer states of zero."""
    xp, dtype = arrays.xp, encoder.dtype
    (p, d), q = encoder.shape, decoder.shape[1]
    sides = 2 if spec.same and spec.has_decoder else 1
    tall = xp.zeros((2 * sides if spec.same else 3, p, d), dtype)
    both = None
    if spec.same:
        x = y = _new_side(spec.optimizer, tall[:sides], tall[sides:])
        if spec.has_decoder:
            both, y, x = x, x.part(0), x.part(1)
        products = tall[-1], tall[sides], tall[-1]
    else:
        x = _new_side(spec.optimizer, tall[:1], tall[1:2])
        y = _new_side(spec.optimizer, xp.zeros((1, p, q), dtype), xp.zeros((1, p, q), dtype))
        products = tall[2], tall[1], y.product[0]
    x.weights[0] = arrays.upload(encoder)
    if spec.has_decoder:
        y.weights[0] = arrays.upload(decoder)
    grid, _ = launch.over_entries(p, p)
    return State(
        tall=tall, x=x, y=y, both=both, encoder=x.weights[0], encoder_product=products[0], decoder=y.weights[0],
        decoder_product=products[1], target_product=products[2], grams=xp.zeros((3, p, p), dtype),
        coefficients=xp.zeros((3, p, p), dtype),
        on_product=arrays.upload((-2.0 * prefix if spec.has_decoder else np.full(p, -1.0)).astype(dtype)),
        traces=xp.zeros((grid[0] * grid[1], formulas.N_TRACES)), extra=xp.zeros((3, p + 1)), spread=xp.ones(p + 2),
        schedule=xp.zeros((MOST_STEPS, 3)), progress=xp.zeros(2, np.int64), calm=xp.zeros(1, np.int64),
        outcome=xp.zeros(2),
    )  # fmt: skip


def _new_side(optimizer: int, weights: Any, product: Any) -> Side:
    """The workspace of a step of these weights (s, p, w), with the states that the optimizer keeps."""
    xp, dtype = arrays.xp, weights.dtype
    grid, _ = launch.over_sides(*weights.shape)
    kept = {formulas.SGD: 0, formulas.ADAM: 2}.get(optimizer, 1)
    first, second = (xp.zeros_like(weights) if kept > k else xp.zeros((0, 0, 0), dtype) for k in range(2))
    return Side(
        weights, product, xp.zeros_like(weights), first, second,
        xp.zeros((weights.shape[0], grid[0] * grid[1], formulas.N_SUMS)),
        xp.zeros((weights.shape[0], grid[0], weights.shape[1], formulas.N_ROW_SUMS)),
    )  # fmt: skip


def new_batch(
    spec: Spec, chunks: list[stream.DeviceChunk], shifts: list[np.ndarray], size: int, most: int, p: int
) -> Batch:
    """Workspace for batches of `size` rows, at most `most` of them in a call.

    chunks : X, or X and Y;  shifts : the means of X and of Y, in the compute dtype
    """
    xp, dtype = arrays.xp, shifts[0].dtype
    d, q = shifts[0].size, shifts[1].size
    drops = spec.rule == formulas.DROPOUT
    return Batch(
        x=chunks[0], y=None if spec.same else chunks[1], x_shift=arrays.upload(shifts[0]),
        y_shift=arrays.upload(shifts[1]), places=xp.zeros((most, size), np.int64), roots=xp.zeros((most, size), dtype),
        kept=xp.zeros((most, size) if drops else (0, 0), np.int64), x_rows=xp.zeros((size, d), dtype),
        y_rows=xp.zeros((0 if spec.same else size, q), dtype),
        codes=xp.zeros((2 if spec.has_decoder else 1, p, size), dtype),
        taken=xp.zeros((1, p if drops else 0, size), dtype), squares=xp.zeros(size),
    )  # fmt: skip
