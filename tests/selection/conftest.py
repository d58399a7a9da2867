"""Rows with components that are planted among noise."""

import numpy as np
import pytest


def planted(m, d, signal, strength, seed=0, noise=1.0, deviations=1.0):
    """`signal` directions of singular value `strength` sqrt(max(m, d)) noise, in white noise; (m, d) float64."""
    random = np.random.default_rng(seed)
    left, _ = np.linalg.qr(random.standard_normal((m, signal)))
    right, _ = np.linalg.qr(random.standard_normal((d, signal)))
    steps = strength * np.linspace(1.5, 1.0, signal) * np.sqrt(max(m, d))
    return noise * ((left * steps) @ right.T + random.standard_normal((m, d))) * deviations + 5.0


@pytest.fixture(name="planted")
def planted_fixture():
    return planted
