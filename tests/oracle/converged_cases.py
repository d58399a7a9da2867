"""Rows of a known spectrum, and fits that say whether they warned."""

import warnings

import numpy as np

import lae_fast as lf
from lae_fast.errors import ConvergenceWarning

D, P, M = 6, 3, 120


def rows_with(spectrum, seed=0, dtype=np.float64):
    """Samples whose covariance (divided by m) has exactly these eigenvalues, in a random basis."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((M, len(spectrum)))
    z = np.linalg.qr(z - z.mean(axis=0))[0] * np.sqrt(M)
    basis = np.linalg.qr(rng.standard_normal((len(spectrum), len(spectrum))))[0]
    return (z * np.sqrt(spectrum) @ basis).astype(dtype)


def fit(x, p=P, fit_arguments=None, **options):
    """(model, whether a ConvergenceWarning was given)."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = lf.LinearAutoencoder(p, **options).fit(x, **(fit_arguments or {}))
    return model, any(issubclass(one.category, ConvergenceWarning) for one in seen)
