"""AdaOja follows its naive twin, finds the directions without a rate, on moments, rows and mini-batches."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import metrics, rules
from tests.oracle import naive_autoencoder as naive
from tests.oracle.training_cases import quiet_fit

P, D, M = 3, 8, 200


def rows(scale=1.0):
    rng = np.random.default_rng(4)
    return scale * rng.standard_normal((M, D)) * np.sqrt([5.0, 3.0, 1.8, 0.8, 0.5, 0.3, 0.2, 0.1]) + 1.0


X = rows()
TRUTH = lf.top_eigenpairs(X, P).vectors


@pytest.mark.parametrize("regime", ["moments", "rows"])
def test_steps_are_those_of_the_oracle(regime):
    b = np.random.default_rng(1).standard_normal((P, D))
    centred = X - X.mean(axis=0)
    s = centred.T @ centred / M
    path = naive.ada_oja(b, s, 12, start=0.1 * np.linalg.eigvalsh(s)[-1])
    rule = rules.adaoja(start=0.1)
    for count in (1, 12):
        model = quiet_fit(lf.LinearAutoencoder(P, rule=rule, init=(b.T, b), max_iter=count, tol=0.0, regime=regime), X)
        np.testing.assert_allclose(model.encoder_, path[count - 1], atol=1e-9)
    np.testing.assert_array_equal(model.decoder_, model.encoder_.T)
    np.testing.assert_allclose(model.encoder_ @ model.encoder_.T, np.eye(P), atol=1e-12)


def test_it_finds_the_directions_in_any_units_and_says_so():
    counts = []
    for scale in (1e-3, 1.0, 1e3):
        model = lf.LinearAutoencoder(P, rule="adaoja", random_state=3).fit(rows() * scale)
        assert model.converged_ and model.learning_rate_ is None
        assert metrics.ratio_tp(TRUTH, model.decoder_) == 1.0 and (model.alignment_residuals_ < 1e-3).all()
        counts.append(model.n_iter_)
    assert max(counts) - min(counts) <= 1


def test_mini_batches_come_near():
    model = quiet_fit(lf.LinearAutoencoder(P, rule="adaoja", batch_size=20, max_iter=3000), X.astype(np.float32))
    assert model.encoder_.dtype == np.float32
    assert metrics.axis_alignment_distance(TRUTH, model.decoder_) < 0.01


def test_going_on_gives_the_same_bits():
    whole = quiet_fit(lf.LinearAutoencoder(P, rule="adaoja", max_iter=20, tol=0.0), X)
    parts = lf.LinearAutoencoder(P, rule="adaoja", max_iter=10, tol=0.0, warm_start=True)
    quiet_fit(quiet_fit(parts, X), X)
    np.testing.assert_array_equal(parts.encoder_, whole.encoder_)
    stream = lf.LinearAutoencoder(P, rule="adaoja")
    for _ in range(200):
        for first in range(0, M, 50):
            stream.partial_fit(X[first : first + 50])
    assert metrics.axis_alignment_distance(TRUTH, stream.decoder_) < 0.02


def test_what_it_does_not_take():
    with pytest.raises(ValueError, match="start=0 must be a finite number > 0"):
        rules.adaoja(start=0)
    with pytest.raises(ValueError, match="not the gradient of a loss"):
        lf.LinearAutoencoder(P, rule="adaoja", loss="mse").fit(X)
