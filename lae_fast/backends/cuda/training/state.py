"""What the training loop of loop.py works on: weights, states, workspace, and the numbers the host reads.

For Y = X all tall matrices lie in one (4, p, d) array, A', B, A'S, B S: one GEMM makes both products with S, one of two
batches both Gram matrices, one both dense directions, and one kernel takes both steps.  With targets, and where A and B
move one after the other, the same calls are made side by side.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ... import formulas
from .. import arrays, launch, stream

# Iterations that one call may take: the rows of the schedule.
MOST_STEPS = 4096


class Side(NamedTuple):
    """What one fused step works on: encoder, decoder or both; see `steps.fused_step`.

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


class State(NamedTuple):
    """All device memory of a run."""

    tall: (
        Any  # (4, p, d) A', B, A'S, B S for Y = X;  (2, p, d) B, B S without a decoder;  else (3, p, d) B, A'Syx, B Sxx
    )
    x: Side  # the encoder's step
    y: Side | None  # the decoder's
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
        parts = [self.encoder] if self.y is None else [self.encoder, self.decoder]
        for side in (self.x,) if self.y is None else (self.x, self.y):
            parts += [part for part in (side.first, side.second) if part.size]
        return [*parts, self.extra, self.spread]


class Batch(NamedTuple):
    """Where mini-batches are gathered from, and to."""

    x: stream.DeviceChunk  # all rows that the indices of this call name
    y: stream.DeviceChunk | None
    x_shift: Any
    y_shift: Any
    index: Any  # (n, b) int64
    roots: Any  # (n, b) compute dtype: root of kappa times the row's weight
    kept: Any  # (n, b) int64 for dropout, else (0, 0)
    x_rows: Any  # (b, d), (b, q) or (0, q)
    y_rows: Any
    codes: Any  # (2, p, b) A'y and B x;  (1, p, b) without a decoder
    taken: Any  # (1, p, b) for dropout, else (1, 0, b)
    squares: Any  # (b,) float64


def new_state(spec: Any, prefix: np.ndarray, encoder: np.ndarray, decoder: np.ndarray, pushes: int) -> State:
    """State with these weights, (p, d) and (p, q) or (0, q), and optimizer states of zero.

    spec : codes, as cpu/training/state.py has them;  pushes : arrays of states that the optimizer keeps, 0 to 2
    """
    xp, dtype = arrays.xp, encoder.dtype
    (p, d), q = encoder.shape, decoder.shape[1]
    has = spec.has_decoder
    sides = 2 if spec.same and has else 1
    tall = xp.zeros((2 * sides if spec.same else 3, p, d), dtype)

    def side(weights: Any, product: Any) -> Side:
        grid, _ = launch.over_sides(*weights.shape)
        sums = xp.zeros((weights.shape[0], grid[0] * grid[1], formulas.N_SUMS))
        row_sums = xp.zeros((weights.shape[0], grid[0], weights.shape[1], formulas.N_ROW_SUMS))
        nothing = xp.zeros((0, 0, 0), dtype)
        first, second = (xp.zeros_like(weights) if pushes > k else nothing for k in range(2))
        return Side(weights, product, xp.zeros_like(weights), first, second, sums, row_sums)

    both = y = None
    if spec.same and has:
        both = side(tall[:2], tall[2:])
        y, x = both.part(0), both.part(1)
        products = tall[3], tall[2], tall[3]
    elif spec.same:
        x = side(tall[:1], tall[1:])
        products = tall[1], tall[1], tall[1]
    else:
        x, y = side(tall[:1], tall[1:2]), side(xp.zeros((1, p, q), dtype), xp.zeros((1, p, q), dtype))
        products = tall[2], tall[1], y.product[0]
    x.weights[0] = arrays.upload(encoder)
    if y is not None:
        y.weights[0] = arrays.upload(decoder)
    on_product = (-2.0 * prefix if has else np.full(p, -1.0)).astype(dtype)
    grid, _ = launch.over_entries(p, p)
    spread = xp.ones(p + 2)
    return State(
        tall, x, y, both, x.weights[0], products[0], (x if y is None else y).weights[0], products[1], products[2],
        xp.zeros((3, p, p), dtype), xp.zeros((3, p, p), dtype), arrays.upload(on_product),
        xp.zeros((grid[0] * grid[1], formulas.N_TRACES)), xp.zeros((3, p + 1)), spread, xp.zeros((MOST_STEPS, 3)),
        xp.zeros(2, np.int64), xp.zeros(1, np.int64), xp.zeros(2),
    )  # fmt: skip


def new_batch(
    spec: Any, chunks: list[stream.DeviceChunk], shifts: list[np.ndarray], size: int, most: int, p: int, dtype: Any
) -> Batch:
    """Workspace for batches of `size` rows, at most `most` of them in a call."""
    xp = arrays.xp
    d, q = shifts[0].size, shifts[1].size
    drops = spec.rule == formulas.DROPOUT
    return Batch(
        chunks[0], None if spec.same else chunks[1], *(arrays.upload(shift.astype(dtype)) for shift in shifts),
        xp.zeros((most, size), np.int64), xp.zeros((most, size), dtype),
        xp.zeros((most, size) if drops else (0, 0), np.int64), xp.zeros((size, d), dtype),
        xp.zeros((0 if spec.same else size, q), dtype), xp.zeros((2 if spec.has_decoder else 1, p, size), dtype),
        xp.zeros((1, p if drops else 0, size), dtype), xp.zeros(size),
    )  # fmt: skip
