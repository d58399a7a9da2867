"""The theorems on probabilistic PCA and the linear VAE, checked numerically."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from lae_fast import losses, theory
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import P


def log_likelihood(w, noise, values_or_s):
    """Mean log likelihood of probabilistic PCA for a mean covariance."""
    d = len(values_or_s)
    model = w @ w.T + noise * np.eye(d)
    sign, determinant = np.linalg.slogdet(model)
    assert sign > 0
    return -0.5 * (d * math.log(2 * math.pi) + determinant + np.trace(np.linalg.solve(model, values_or_s)))


def test_ppca_maximises_the_likelihood(samples):
    x = samples.x[:, :4] - samples.x[:, :4].mean(0)
    s = x.T @ x / len(x)
    w, noise = theory.ppca(s, 2)
    best = log_likelihood(w, noise, s)
    scipy_value = multivariate_normal(np.zeros(4), w @ w.T + noise * np.eye(4)).logpdf(x).mean()
    assert best == pytest.approx(scipy_value, rel=1e-10)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1):
        for _ in range(50):
            moved = log_likelihood(w + size * rng.normal(size=w.shape), noise * math.exp(size * rng.normal()), s)
            assert moved < best
    turned, _ = theory.ppca(s, 2, mixing=np.array([[0.6, 0.8], [-0.8, 0.6]]))
    assert np.abs(turned - w).max() > 0.1
    assert log_likelihood(turned, noise, s) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_ppca_theorem(samples, scale):
    """Kunin Thm. 3.1: Sxx^(1/2) A of the sum loss is the W of pPCA with noise lam; collapsed components included."""
    factor = 1.0 if scale == "sum" else 1.0 / samples.own.weight_sum
    values, vectors = np.linalg.eigh(samples.own.xx * factor)
    lam = float(values[2:4].mean())  # between the second and third largest
    w, noise = theory.ppca(samples.own, P, lam, scale=scale)
    a, _ = theory.optimum(samples.own, P, losses.sum_l2(lam), scale=scale)
    root = (vectors * np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(root @ a, w, atol=1e-10 * np.abs(w).max())
    assert noise == lam
    assert np.linalg.matrix_rank(w) == 2


def test_vae_optimum(samples):
    """Zero gradient, value `minimum`, and that value is the negative log likelihood of pPCA (Lucas et al. 2019)."""
    best = theory.vae_optimum(samples.own, 2)
    s = samples.own.xx / samples.own.weight_sum
    for slope in naive.vae_gradients(*best, s):
        assert np.abs(slope).max() < 1e-10
    value = naive.vae_loss(*best, samples.x, samples.weights)
    assert value == pytest.approx(theory.minimum(samples.own, 2, "vae"), rel=1e-12)
    w, noise = theory.ppca(samples.own, 2)
    np.testing.assert_allclose(best.decoder, w, rtol=1e-12, atol=1e-12)
    assert value == pytest.approx(-log_likelihood(w, noise, s), rel=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(30):
        moved = [part + 0.05 * rng.normal(size=np.shape(part)) for part in best]
        assert naive.vae_loss(*moved, samples.x, samples.weights) > value
