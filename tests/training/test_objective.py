"""Public losses and gradients against the oracle, finite differences and what they say about bad input."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses, plan
from lae_fast.training import problem as training_problem
from tests.oracle import naive_autoencoder as naive

M, D, Q, P = 25, 7, 5, 3
PRIOR = np.array([0.5, 0.3, 0.2])
LOSSES = {
    "mse": (losses.mse(), {}),
    "ordered": (losses.ordered(), {}),
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "sum_l2": (losses.sum_l2(0.3), {"lam": 0.3}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.2, 0.3]), {"lams": [0.1, 0.2, 0.3]}),
    "product_l2": (losses.product_l2(0.3), {"lam": 0.3}),
    "mixed_l2": (losses.mixed_l2(0.3, 0.4, 0.6), {"lam": 0.3, "w_sum": 0.4, "w_product": 0.6}),
}


def problem(with_targets, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((M, D)) + 4.0
    y = rng.standard_normal((M, Q)) - 2.0 if with_targets else None
    return x, y, rng.standard_normal((Q if with_targets else D, P)), rng.standard_normal((P, D))


def centred(array):
    return None if array is None else array - array.mean(axis=0)


@pytest.mark.parametrize("form", ["arrays", "moments"])
@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("with_targets", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_loss_and_gradients(kind, with_targets, scale, form):
    x, y, a, b = problem(with_targets)
    loss, numbers = LOSSES[kind]
    data = (x if y is None else (x, y)) if form == "arrays" else lf.Moments.from_data(x, y)
    value = lf.loss(a, b, data, loss, scale)
    assert value == pytest.approx(naive.loss(kind, a, b, centred(x), centred(y), scale=scale, **numbers), rel=1e-10)
    sxx, sxy, _ = naive.second_moments(centred(x), centred(y), scale=scale)
    expected = naive.gradients(kind, a, b, sxx, sxy if with_targets else None, **numbers)
    for ours, theirs in zip(lf.gradients(a, b, data, loss, scale), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_those_of_the_loss_by_finite_differences(kind):
    x, _, a, b = problem(False)
    moments = lf.Moments.from_data(x)
    loss = LOSSES[kind][0]
    da, db = lf.gradients(a, b, moments, loss)
    h = 1e-6
    for matrix, gradient in ((a, da), (b, db)):
        for index in [(0, 0), (1, 2), (2, 1)]:
            old = matrix[index]
            matrix[index] = old + h
            above = lf.loss(a, b, moments, loss)
            matrix[index] = old - h
            below = lf.loss(a, b, moments, loss)
            matrix[index] = old
            assert gradient[index] == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("with_targets", [False, True])
def test_stochastic_loss_and_gradients_use_one_draw(with_targets):
    x, y, a, b = problem(with_targets)
    loss = losses.stochastic_nested_dropout(PRIOR)
    kept = loss.sample(M, P, np.random.default_rng(3))
    data = x if y is None else (x, y)
    value = lf.loss(a, b, data, loss, random_state=3)
    expected = naive.loss("stochastic_nested_dropout", a, b, centred(x), centred(y), scale="mean", kept=kept)
    assert value == pytest.approx(expected, rel=1e-10)
    expected = naive.stochastic_gradients(a, b, centred(x), centred(y), kept, scale="mean")
    for ours, theirs in zip(lf.gradients(a, b, data, loss, random_state=3), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


def test_vae_loss_and_gradients():
    x, _, w, v = problem(False)
    e, log_noise = np.array([0.2, -0.3, 0.1]), 0.4
    value = lf.vae_loss(w, v, np.exp(e), np.exp(log_noise), x)
    assert value == pytest.approx(naive.vae_loss(w, v, e, log_noise, centred(x)), rel=1e-10)
    expected = naive.vae_gradients(w, v, e, log_noise, naive.second_moments(centred(x), scale="mean")[0])
    for ours, theirs in zip(lf.vae_gradients(w, v, np.exp(e), np.exp(log_noise), lf.Moments.from_data(x)), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_out_is_written_to():
    x, _, a, b = problem(False)
    out = np.zeros((D, P), np.float32), np.zeros((P, D))
    assert lf.gradients(a, b, x, out=out) is out
    np.testing.assert_allclose(out[0], lf.gradients(a, b, x)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"A": np.zeros((D, P + 1))}, ValueError, "the same p"),
        ({"A": np.zeros((D + 1, P))}, ValueError, "but the data ask for"),
        ({"A": np.full((D, P), np.nan)}, ValueError, "A holds NaN"),
        ({"loss": "nonsense"}, ValueError, "is unknown; choose one of"),
        ({"loss": "vae"}, TypeError, "vae_loss"),
        ({"loss": "stochastic_nested_dropout"}, ValueError, "give random_state"),
        ({"scale": "median"}, ValueError, "scale='median'"),
        ({"data": (1, 2, 3)}, ValueError, r"a pair \(X, Y\)"),
    ],
)
@pytest.mark.parametrize("function", [lf.loss, lf.gradients])
def test_bad_input(function, change, error, message):
    x, _, a, b = problem(False)
    with pytest.raises(error, match=message):
        function(**{"A": a, "B": b, "data": x, **change})


def test_a_drawn_loss_on_moments_names_its_expectation():
    x, _, a, b = problem(False)
    with pytest.raises(ValueError, match="moments have none; pass X, or use its expectation"):
        lf.loss(a, b, lf.Moments.from_data(x), "stochastic_nested_dropout", random_state=0)


@pytest.mark.parametrize(("latent", "noise"), [(-1.0, 1.0), (1.0, 0.0)])
def test_vae_variances_must_be_positive(latent, noise):
    x, _, w, v = problem(False)
    with pytest.raises(ValueError, match=r"must be positive|must be a finite number > 0"):
        lf.vae_loss(w, v, latent, noise, x)


@pytest.mark.parametrize("limit", [None, 4])
def test_no_eigenvalue_is_looked_for(limit, monkeypatch):
    """A loss is two products and a few p x p matrices; on moments and, beyond the largest Gram matrix, on rows."""
    x, y, a, b = problem(True)
    expected = lf.loss(a, b, (x, y)), lf.gradients(a, b, (x, y))
    if limit is not None:
        monkeypatch.setattr(plan, "LARGEST_GRAM", limit)

    def fail(*arguments, **options):
        raise AssertionError("nobody needs it")

    monkeypatch.setattr(training_problem, "leading_values", fail)
    assert lf.loss(a, b, (x, y)) == pytest.approx(expected[0], rel=1e-9)
    for ours, theirs in zip(lf.gradients(a, b, (x, y)), expected[1]):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9)
    assert np.isfinite(lf.vae_loss(a[:, :P], b[:, :Q], 1.0, 1.0, y))


def test_moments_about_zero_are_taken_as_they_are():
    x, _, a, b = problem(False)
    moments = lf.Moments.from_data(x, center=False)
    assert lf.loss(a, b, moments, "mse") == pytest.approx(naive.loss("mse", a, b, x, scale="mean"), rel=1e-10)
