"""Minka's choice of the dimension against the evidence as the paper writes it, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast.selection._minka import minka_dimension
from tests.oracle import naive


def spectra():
    rng = np.random.default_rng(31)
    yield "steps", np.array([10.0, 8.0, 6.0, 1.3, 1.2, 1.1, 1.0, 0.9]), 100
    yield "isotropic", np.sort(1 + 0.01 * rng.random(12))[::-1], 400
    yield "power", 1.0 / np.arange(1, 20.0) ** 2, 60
    yield "two", np.array([3.0, 1.0]), 50
    yield "one large", np.concatenate([[100.0], np.linspace(1.1, 1, 9)]), 30
    for seed in range(12):
        rng = np.random.default_rng(seed)
        d, k = int(rng.integers(3, 25)), int(rng.integers(1, 6))
        m = d + int(rng.integers(5, 300))
        X = rng.standard_normal((m, k)) @ rng.standard_normal((k, d)) * 2 + rng.standard_normal((m, d))
        yield f"random {seed}", np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / (m - 1), m


CASES = list(spectra())


@pytest.mark.parametrize(("name", "spectrum", "m"), CASES, ids=[name for name, _, _ in CASES])
def test_against_the_paper_and_scikit_learn(name, spectrum, m):
    evidence = [naive.minka_evidence(spectrum, k, m) for k in range(1, len(spectrum))]
    found = minka_dimension(spectrum, m)
    assert found == 1 + int(np.argmax(evidence))
    from sklearn.decomposition._pca import _infer_dimension

    assert found == _infer_dimension(spectrum, m)


def test_finds_the_planted_dimension():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 4)) @ rng.standard_normal((4, 15)) * 3 + rng.standard_normal((2000, 15))
    spectrum = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / 1999
    assert minka_dimension(spectrum, 2000) == 4


def test_zero_and_tied_variances_are_no_signal():
    assert minka_dimension(np.array([5.0, 3.0, 0.0, 0.0]), 50) in (1, 2)
    assert 1 <= minka_dimension(np.array([5.0, 5.0, 1.0, 0.9, 0.8]), 50) <= 4
    assert minka_dimension(np.array([2.0]), 50) == 0


def test_naive_evidence_of_two_features_by_hand():
    """d = 2, k = 1, N = 10, l = (4, 1): every term of the formula written out."""
    log_prior = -np.log(2) + 0.0 - np.log(np.pi)  # Gamma(1) = 1
    log_likelihood = -5 * np.log(4.0) - 5 * np.log(1.0)
    hessian = np.log(1 / 1.0 - 1 / 4.0) + np.log(3.0) + np.log(10.0)
    by_hand = log_prior + log_likelihood + (1 + 1) / 2 * np.log(2 * np.pi) - hessian / 2 - np.log(10.0) / 2
    assert naive.minka_evidence([4.0, 1.0], 1, 10) == pytest.approx(by_hand)
