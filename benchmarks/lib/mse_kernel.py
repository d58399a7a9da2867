"""A training step for the plain squared error and nothing else: what the ordered loss is compared with.

Written separately from lae_fast's loop, with the same care and the same means (team of threads, column blocks, BLAS on
one thread or packed panels of S, triangles of Gram matrices), but without prefix weights, masks, penalties or rules:
the factors of the gradient 2 (A'A B S - A'S), 2 (G A' - B S) are constants here. It has the duties that any loss has:
the sums by which a run stops, for each component. Imports of lae_fast only what multiplies, the barrier, rows as
contiguous arrays and the decorator.
"""

from __future__ import annotations

import math

import numpy as np

from lae_fast.backends.cpu.blas import gemm
from lae_fast.backends.cpu.contiguous import contiguous_row
from lae_fast.backends.cpu.jit import kernel
from lae_fast.backends.cpu.products import multiply_back, multiply_lines
from lae_fast.backends.cpu.training.barrier import meet
from lae_fast.backends.cpu.training.packed_gemm import multiply, pack_rows

_SIDE = 32


@kernel
def _twice(gram, first, last, out):
    """out <- 2 G, both triangles from the lower one."""
    two = out.dtype.type(2.0)
    for i in range(first, last):
        for j in range(i + 1):
            out[i, j] = two * gram[i, j]
    for top in range(first, last, _SIDE):
        bottom = min(last, top + _SIDE)
        for left in range(0, bottom, _SIDE):
            for j in range(left, min(bottom, left + _SIDE)):
                for i in range(max(top, j + 1), bottom):
                    out[j, i] = out[i, j]


@kernel
def _move(adam, rate, rate_adam, inverse, dense, product, weights, first, second, row_sums):
    """W <- W - rate g, g = dense - 2 product, or Adam with it; returns |g|^2 and |W|^2.

    row_sums : (p, 3) float64 <- g.g, g.w and w.w of each row, by which training stops  (docs/math.md Eq. 46).
    """
    real = weights.dtype.type
    two, b1, b2, eps = real(2.0), real(0.9), real(0.999), real(1e-8)
    r1, r2 = real(0.1), real(0.001)
    a, step, scale = real(rate), real(rate_adam), real(inverse)
    g_total, w_total = 0.0, 0.0
    for i in range(weights.shape[0]):
        t, z = contiguous_row(dense, i), contiguous_row(product, i)
        w, v, u = contiguous_row(weights, i), contiguous_row(first, i), contiguous_row(second, i)
        g_row, along, w_row = real(0.0), real(0.0), real(0.0)
        if adam:
            for j in range(weights.shape[1]):
                g = t[j] - two * z[j]
                g_row += g * g
                along += g * w[j]
                w_row += w[j] * w[j]
                v[j] = b1 * v[j] + r1 * g
                u[j] = b2 * u[j] + r2 * (g * g)
                w[j] -= step * v[j] / (np.sqrt(u[j] * scale) + eps)
        else:
            for j in range(weights.shape[1]):
                g = t[j] - two * z[j]
                g_row += g * g
                along += g * w[j]
                w_row += w[j] * w[j]
                w[j] -= a * g
        row_sums[i, 0], row_sums[i, 1], row_sums[i, 2] = g_row, along, w_row
        g_total += g_row
        w_total += w_row
    return g_total, w_total


@kernel
def run(
    team, n_team, shared, n, adam, rate, moments, sxx, x_rows, index, mean, factor, stack, states, panels, packed,
    product, codes, turned, grams, twice, scratch, buffer, x_blocks, p_blocks, b_blocks, norms, row_sums,
):  # fmt: skip
    """n iterations by each thread of the team, on moments or on batches of rows.

    Long because it is what the library's loop would be without anything but the squared error, in one piece.

    stack : (2p, d);  panels, packed : of packed_gemm.py, or empty;  product : (>= 2p, d);  states : (2, 2p, d)
    grams, twice : (2, p, p);  scratch : (n_team, p, width)
    index : (n, b) rows of x_rows;  buffer : (b, d);  codes : (b, 2p);  turned : (d, 2p);  norms : (2, blocks, 2)
    row_sums : (2, blocks, p, 3)
    """
    p = stack.shape[0] // 2
    n_blocks = x_blocks.shape[0] - 1
    scale = stack.dtype.type(factor)
    own_lo, own_hi = team * n_blocks // n_team, (team + 1) * n_blocks // n_team
    ratio = 0.0
    for t in range(n):
        if panels.shape[0] > 0:
            groups = packed.shape[0]
            pack_rows(stack, team * groups // n_team, (team + 1) * groups // n_team, packed)
        for k in range(p_blocks.shape[0] - 1):
            place = k % (2 * n_team)
            if (place if place < n_team else 2 * n_team - 1 - place) == team:
                lo, hi = p_blocks[k], p_blocks[k + 1]
                gemm(1.0, stack[p + lo : p + hi], False, stack[p : p + hi], True, 0.0, grams[0, lo:hi, :hi])
        if panels.shape[0] > 0:
            meet(shared, n_team)
            width = panels.shape[2]
            for k in range(own_lo, own_hi):
                multiply(packed, panels, x_blocks[k] // width, (x_blocks[k + 1] + width - 1) // width, product)
        elif moments:
            for k in range(own_lo, own_hi):
                lo, hi = x_blocks[k], x_blocks[k + 1]
                gemm(1.0, stack, False, sxx[lo:hi], True, 0.0, product[:, lo:hi])
        else:
            count = b_blocks.shape[0] - 1
            for k in range(team * count // n_team, (team + 1) * count // n_team):
                lo, hi = b_blocks[k], b_blocks[k + 1]
                for r in range(lo, hi):
                    source, line = x_rows[index[t, r]], buffer[r]
                    for j in range(mean.shape[0]):
                        line[j] = source[j] - mean[j]
            for k in range(own_lo, own_hi):
                for i in range(2 * p):
                    row = contiguous_row(stack, i)
                    for j in range(x_blocks[k], x_blocks[k + 1]):
                        turned[j, i] = row[j]
            meet(shared, n_team)
            for k in range(team * count // n_team, (team + 1) * count // n_team):
                lo, hi = b_blocks[k], b_blocks[k + 1]
                multiply_lines(buffer[lo:hi], turned, codes[lo:hi], norms.reshape(-1), 0, 0, 0)
                for r in range(lo, hi):
                    for j in range(2 * p):
                        codes[r, j] *= scale
            meet(shared, n_team)
            for k in range(own_lo, own_hi):
                lo, hi = x_blocks[k], x_blocks[k + 1]
                multiply_back(codes[:, :], buffer[:, lo:hi], False, product[:, lo:hi], norms.reshape(-1), 0, 0, 0)
        meet(shared, n_team)
        for k in range(p_blocks.shape[0] - 1):
            place = k % (2 * n_team)
            if (place if place < n_team else 2 * n_team - 1 - place) == team:
                lo, hi = p_blocks[k], p_blocks[k + 1]
                gemm(1.0, product[lo:hi], False, stack[:hi], True, 0.0, grams[1, lo:hi, :hi])
                _twice(grams[0], lo, hi, twice[0])
                _twice(grams[1], lo, hi, twice[1])
        meet(shared, n_team)
        rate_adam = rate / (1.0 - 0.9 ** (t + 1))
        inverse = 1.0 / (1.0 - 0.999 ** (t + 1))
        for k in range(own_lo, own_hi):
            lo, hi = x_blocks[k], x_blocks[k + 1]
            dense = scratch[team, :, : hi - lo]
            gemm(1.0, twice[0], False, product[:p, lo:hi], False, 0.0, dense)
            norms[0, k, 0], norms[0, k, 1] = _move(
                adam, rate, rate_adam, inverse, dense, product[p : 2 * p, lo:hi], stack[:p, lo:hi],
                states[0, :p, lo:hi], states[1, :p, lo:hi], row_sums[0, k],
            )  # fmt: skip
        for k in range(own_lo, own_hi):
            lo, hi = x_blocks[k], x_blocks[k + 1]
            dense = scratch[team, :, : hi - lo]
            gemm(1.0, twice[1], False, stack[p:, lo:hi], False, 0.0, dense)
            norms[1, k, 0], norms[1, k, 1] = _move(
                adam, rate, rate_adam, inverse, dense, product[:p, lo:hi], stack[p:, lo:hi], states[0, p:, lo:hi],
                states[1, p:, lo:hi], row_sums[1, k],
            )  # fmt: skip
        meet(shared, n_team)
        ratio = 0.0
        for side in range(2):
            g, w = 0.0, 0.0
            for k in range(n_blocks):
                g += norms[side, k, 0]
                w += norms[side, k, 1]
            ratio = max(ratio, math.sqrt(g / w))
    return ratio
