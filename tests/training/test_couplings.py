"""Exact solves with B = A': Kunin's "synchronised" and "tied" follow the oracle and end at the minimum."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses, theory
from tests.oracle import naive_autoencoder as naive
from tests.oracle.training_cases import quiet_fit

P, D, M, LAM = 3, 7, 60, 0.3


def rows():
    rng = np.random.default_rng(4)
    return rng.standard_normal((M, D)) * np.sqrt([4.0, 2.5, 1.5, 0.8, 0.5, 0.3, 0.2])


@pytest.mark.parametrize("coupling", ["tied", "synchronised"])
def test_exact_couplings_follow_the_oracle_and_end_at_the_minimum(coupling):
    x, rng = rows(), np.random.default_rng(2)
    a, b = rng.standard_normal((D, P)), rng.standard_normal((P, D))
    start = a if coupling == "tied" else (a + b.T) / 2.0
    sxx = naive.second_moments(x - x.mean(axis=0), None, scale="mean")[0]
    path = naive.train("alternating", "sgd", start, start.T, sxx, iterations=5, kind="sum_l2", lam=LAM,
                       coupling=coupling)  # fmt: skip
    options = {"rule": "alternating", "loss": losses.sum_l2(LAM), "coupling": coupling}
    model = quiet_fit(lf.LinearAutoencoder(P, **options, init=(a, b), max_iter=5, tol=0.0), x)
    np.testing.assert_allclose(model.decoder_, path[-1][0], atol=1e-9)
    np.testing.assert_array_equal(model.encoder_, model.decoder_.T)
    model = lf.LinearAutoencoder(P, **options, max_iter=5000, tol=1e-9).fit(x)
    assert model.converged_
    moments = lf.Moments.from_data(x)
    least = theory.minimum(moments, P, losses.sum_l2(LAM))
    assert lf.loss(model.decoder_, model.encoder_, moments, losses.sum_l2(LAM)) == pytest.approx(least, rel=1e-9)


def test_exact_couplings_need_the_penalty_and_no_targets():
    x = rows()
    with pytest.raises(ValueError, match=r"back and forth.*Valid: 'untied'"):
        lf.LinearAutoencoder(P, rule="alternating", coupling="tied").fit(x)
    with pytest.raises(ValueError, match="same shape"):
        lf.LinearAutoencoder(P, rule="alternating", loss=losses.sum_l2(LAM), coupling="tied").fit(x, targets=x[:, :4])
