"""Losses, covariances and a Hessian by differences, for the tests of the theorems."""

import numpy as np

from lae_fast import losses
from tests.oracle import loss_cases
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import P

# A mixed penalty that is large enough to shrink some components to zero.
CASES = loss_cases.CASES | {
    "mixed_l2": (losses.mixed_l2(2.8, 0.25, 0.75), {"lam": 2.8, "w_sum": 0.25, "w_product": 0.75})
}
WITH_TARGETS = ("mse", "ordered", "nested_dropout", "product_l2")
VALUES = np.array([6.0, 4.0, 2.5, 1.2, 0.5])


def covariance(values=VALUES, seed=0):
    """A covariance with the given eigenvalues in a random basis, and the basis."""
    d = len(values)
    u = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    return (u * values) @ u.T, u


def pack(a, b):
    return np.concatenate([a.ravel(), b.ravel()])


def unpack(w, q, d, p=P):
    return w[: q * p].reshape(q, p), w[q * p :].reshape(p, d)


def hessian(kind, parameters, a, b, sxx):
    """Hessian from the oracle's gradients; five-point differences are exact for these cubic gradients."""
    q, p, d = a.shape[0], b.shape[0], b.shape[1]
    w, h = pack(a, b), 1e-2

    def slope(w):
        return pack(*naive.gradients(kind, *unpack(w, q, d, p), sxx, **parameters))

    out = np.zeros((w.size, w.size))
    for i in range(w.size):
        e = np.zeros(w.size)
        e[i] = h
        out[:, i] = (slope(w - 2 * e) - 8 * slope(w - e) + 8 * slope(w + e) - slope(w + 2 * e)) / (12 * h)
    np.testing.assert_allclose(out, out.T, atol=1e-9 * np.abs(out).max())
    return (out + out.T) / 2
