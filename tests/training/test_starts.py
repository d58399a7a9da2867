"""Where training starts: deviations of each matrix, and balanced starts."""

import numpy as np
import pytest

import lae_fast as lf
from tests.oracle.training_cases import TRUTH, D, P, X, quiet_fit

pytestmark = pytest.mark.needs_jit


def first(p=P, targets=None, x=X, **options):
    seen = []

    def look(state):
        seen.append((state.decoder, state.encoder))
        return True

    lf.LinearAutoencoder(p, callback=look, **options).fit(x, targets=targets)
    return seen[0]


def test_each_matrix_has_its_deviation():
    x = np.random.default_rng(0).standard_normal((300, 200))
    decoder, encoder = first(40, x=x, init_scale=(0.1, 1e-3))
    assert decoder.std() == pytest.approx(0.1, rel=0.05) and encoder.std() == pytest.approx(1e-3, rel=0.05)
    same = first(40, x=x, init_scale=(0.02, 0.02))
    for one, other in zip(same, first(40, x=x, init_scale=0.02)):
        np.testing.assert_array_equal(one, other)
    decoder, encoder = first(40, x=x, init_scale=(0.0, 0.1))  # one of them may be zero
    assert not decoder.any() and encoder.std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("targets", [None, X @ np.random.default_rng(1).standard_normal((D, 6))], ids=["X", "Y"])
def test_a_balanced_start_is_balanced(targets):
    decoder, encoder = first(targets=targets, init="balanced", init_scale=0.1)
    np.testing.assert_allclose(decoder.T @ decoder, encoder @ encoder.T, rtol=1e-10, atol=1e-14)
    assert encoder.std() == pytest.approx(0.1, rel=0.3)
    if targets is None:
        np.testing.assert_array_equal(decoder, encoder.T)
    else:
        assert np.linalg.matrix_rank(decoder) == P


def test_rag_from_a_large_balanced_start_finds_the_directions():
    """By small steps; from one that is not balanced the difference of A'A and BB' stays, and spoils directions."""
    options = {"rule": "rag", "init_scale": 0.1, "learning_rate": 1e-3, "max_iter": 40_000, "random_state": 1}
    balanced = quiet_fit(lf.LinearAutoencoder(P, init="balanced", **options), X)
    other = quiet_fit(lf.LinearAutoencoder(P, **options), X)
    assert balanced.excess_loss_ < 1e-7 and other.excess_loss_ < 1e-7 and not other.converged_
    assert 10 * balanced.alignment_residuals_.max() < other.alignment_residuals_.max()
    assert lf.metrics.ratio_tp(TRUTH, balanced.decoder_) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "equal"}, "init='equal' is unknown; choose one of 'balanced'"),
        ({"init": "balanced", "init_scale": (0.1, 0.2)}, "draws one matrix"),
        ({"init": "balanced", "init_scale": 0.0}, "critical point"),
        ({"init": "balanced", "hidden": (6,)}, "is for one encoder and one decoder"),
        ({"init_scale": (0.1, 0.2), "hidden": (6,)}, "init_scale must be one number"),
        ({"init_scale": (0.1, 0.2, 0.3)}, r"must be a number, or a pair \(decoder, encoder\)"),
        ({"init_scale": (0.1, -0.2)}, "init_scale=-0.2"),
        ({"init_scale": (0.0, 0.0)}, "critical point"),
    ],
    ids=str,
)
def test_bad_starts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lf.LinearAutoencoder(P, **options).fit(X)
