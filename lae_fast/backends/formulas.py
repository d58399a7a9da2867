"""Codes and scalar formulas of the training loop, written once: every backend compiles them for itself.

A leaf: imports the standard library only.  The functions are plain Python over scalars, in the dtype of what they are
given, and call nothing but math, so that backends/cpu/jit.py and backends/cuda/target.py both can wrap them.
"""

from __future__ import annotations

import math

# Rules; what a loop branches on.
GRADIENT, RAG, OJA, GHA, ALPHA, MU, VAE, DROPOUT = 0, 1, 2, 3, 4, 5, 6, 7
# Optimizers, as lae_fast.optimizers numbers them.
SGD, MOMENTUM, NESTEROV, ADAM = 0, 1, 2, 3
# Where the products with S come from.
MOMENTS, ROWS, GIVEN = 0, 1, 2
UNTIED, SYNCHRONISED, TIED = 0, 1, 2
# How a call of the loop ended.
RUNNING, CONVERGED, DIVERGED = 0, 1, 2

# What a fused step adds up, in float64: |direction|^2, |W|^2, sum_i lam_i |w_i|^2, sum_i c_i z_i . w_i.
N_SUMS = 4
# What it adds up for each row, in float64: |g|^2, g . w, |w|^2; see `is_still`.
N_ROW_SUMS = 3
# What the p x p coefficients add up: tr((M o A'A) G), tr(A'A BB'), tr G, sum_i exp(e_i) |a_i|^2.
N_TRACES = 4


# ---------------------------------------------------------------------------------------------------------------------
# optimizers, entry by entry  (docs/math.md Eq. 33 to 36)


def one_minus_power(base, exponent):
    """1 - base^exponent without cancellation, for the bias correction of Adam  (docs/math.md Eq. 36)."""
    if base == 0.0:
        return 1.0
    return -math.expm1(exponent * math.log(base))


def velocity(old, gradient, mu):
    """The new state of momentum and nesterov."""
    return mu * old + gradient


def look_ahead(gradient, new_velocity, mu):
    """Where nesterov moves, over the rate."""
    return gradient + mu * new_velocity


def average(old, new, keep, rest):
    """The new state of adam: rest = 1 - keep, rounded once from float64."""
    return keep * old + rest * new


def adam_move(rate, mean, square, inverse, eps):
    """What adam subtracts.  rate : over the bias of the mean;  inverse : one over the bias of the square."""
    return rate * mean / (math.sqrt(square * inverse) + eps)


# ---------------------------------------------------------------------------------------------------------------------
# decisions and losses, from float64 sums


def relative(direction, weights):
    """|dW| / |W| from squares; |dW| where W is zero."""
    return math.sqrt(direction / weights) if weights > 0.0 else math.sqrt(direction)


def worst_of(first, second):
    """The larger of two, NaN where one of them is not finite: the run has diverged."""
    if not (math.isfinite(first) and math.isfinite(second)):
        return math.nan
    return max(first, second)


def component_size(c, product_penalty, decoder, encoder, latent):
    """What a component contributes: c_i |a_i|^2 G_ii + lam_pi |a_i|^2 |b_i|^2  (docs/math.md Eq. 46).

    decoder, encoder : |a_i|^2, |b_i|^2;  latent : G_ii.  No scaling of a_i against b_i changes it.
    """
    return (c * latent + product_penalty * encoder) * decoder


def rounding_size(c, decoder, encoder, cross, square):
    """What rounding leaves of |g_i| |w_i| where the gradient is zero  (docs/math.md Eq. 46).

    cross, square : that of products with Sxy and with Sxx, absolute
    """
    both = decoder * encoder
    return c * (cross * math.sqrt(both) + square * both)


def is_still(gradient, along, weight, size, penalty, tolerance, rounding, negligible):
    """Whether the gradient g of a row w of weights is zero on the scale of its own component  (docs/math.md Eq. 46).

    gradient, along, weight : |g|^2, g . w, |w|^2;  size : `component_size`;  penalty : lam_i
    tolerance : relative;  rounding : `rounding_size`;  negligible : the size that counts as nothing

    A component that has not been learned has a gradient of first order in its weights and a size of fourth order, so
    it is never still, however small it is.  Two kinds of components end at zero and are never still in relation to
    themselves: those that the penalty removes, whose weights shrink along themselves; and those without variance of
    their own, whose gradient is of the order of their size.  Both are done once they are negligible.  A saddle
    that passes this test is found by training/optimality.py.
    """
    if gradient == 0.0:
        return True
    if weight == 0.0:
        return False
    steepness = math.sqrt(gradient * weight)
    if steepness <= tolerance * (size + penalty * weight) + rounding:
        return True
    if penalty > 0.0:
        return along >= 0.0 and penalty * weight <= tolerance * negligible
    return steepness <= 4.0 * size and size <= negligible


def fit_error(yy_trace, cross, fit):
    """tr Syy - 2 cross + fit: the squared error of every loss, or its sum over prefixes  (docs/math.md Eq. 5, 11)."""
    return fit - 2.0 * cross + yy_trace


def likelihood(error, log_noise, d):
    """The first two terms of the VAE's loss  (docs/math.md Eq. 11)."""
    return error / (2.0 * math.exp(log_noise)) + 0.5 * d * (math.log(2.0 * math.pi) + log_noise)


def divergence(log_latent):
    """One unit's part of the VAE's divergence, without its share of tr G  (docs/math.md Eq. 11)."""
    return 0.5 * (math.exp(log_latent) - log_latent - 1.0)


def latent_gradient(spread, outer, noise):
    """d loss / d e_i of the VAE: spread exp(e_i), outer |a_i|^2, noise s^2  (docs/math.md Eq. 12)."""
    return 0.5 * (spread * outer / noise - 1.0 + spread)


def noise_gradient(error, noise, d):
    """d loss / d log s^2 of the VAE  (docs/math.md Eq. 12)."""
    return 0.5 * d - error / (2.0 * noise)
