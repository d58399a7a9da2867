"""Losses: the family against the definitions, the oracle's gradients against finite differences, priors, validation."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast
from lae_fast import losses
from lae_fast.losses import _family
from tests.oracle import naive as oracle
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import CASES, PRIOR, P


@pytest.fixture
def problem():
    """Centred samples with targets of another width, weights, and random A, B for both kinds of targets."""
    rng = np.random.default_rng(7)
    m, d, q = 11, 5, 4
    weights = rng.uniform(0.5, 2.0, m)
    x, y = rng.normal(size=(m, d)) * np.arange(1, d + 1), rng.normal(size=(m, q))
    x, y = x - np.average(x, axis=0, weights=weights), y - np.average(y, axis=0, weights=weights)
    return {
        "x": x,
        "y": y,
        "weights": weights,
        "b": rng.normal(size=(P, d)),
        "a_self": rng.normal(size=(d, P)),
        "a_target": rng.normal(size=(q, P)),
    }


def numerical_gradient(function, w, h=1e-4):
    """Fourth-order central differences: exact to rounding for polynomials of degree 4, as all these losses are."""
    out = np.zeros(w.shape)
    for index in np.ndindex(*w.shape):
        values = []
        for k in (-2, -1, 1, 2):
            moved = w.copy()
            moved[index] += k * h
            values.append(function(moved))
        out[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return out


@pytest.mark.parametrize("scale", ["sum", "mean"])
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_family_value_is_the_definition(problem, kind, targets, scale):
    loss, parameters = CASES[kind]
    x, y = problem["x"], problem["y"] if targets else problem["x"]
    a, b, weights = problem["a_target" if targets else "a_self"], problem["b"], problem["weights"]
    expected = naive.loss(kind, a, b, x, y, weights, scale, **parameters)
    sxx, sxy, yy_trace = naive.second_moments(x, y, weights, scale)
    got = _family.family_value(
        loss,
        yy_trace=yy_trace,
        cross=np.diagonal(b @ sxy @ a),
        gram_decoder=a.T @ a,
        gram_latent=b @ sxx @ b.T,
        gram_encoder=b @ b.T,
    )
    assert got == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("kind", CASES)
def test_oracle_gradients_are_finite_differences(problem, kind, targets):
    parameters = CASES[kind][1]
    x, y = problem["x"], problem["y"] if targets else None
    a, b, weights = problem["a_target" if targets else "a_self"], problem["b"], problem["weights"]
    sxx, sxy, _ = naive.second_moments(x, y, weights, "mean")
    da, db = naive.gradients(kind, a, b, sxx, sxy, **parameters)
    for got, expected in (
        (da, numerical_gradient(lambda w: naive.loss(kind, w, b, x, y, weights, "mean", **parameters), a)),
        (db, numerical_gradient(lambda w: naive.loss(kind, a, w, x, y, weights, "mean", **parameters), b)),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-7 * np.abs(expected).max())


def test_oracle_stochastic_gradients_are_finite_differences(problem):
    x, y, weights, a, b = (problem[k] for k in ("x", "y", "weights", "a_target", "b"))
    kept = np.resize([2, 1, 3], len(x))
    da, db = naive.stochastic_gradients(a, b, x, y, kept, weights, "mean")

    def value(a, b):
        return naive.loss("stochastic_nested_dropout", a, b, x, y, weights, "mean", kept=kept)

    np.testing.assert_allclose(da, numerical_gradient(lambda w: value(w, b), a), rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(db, numerical_gradient(lambda w: value(a, w), b), rtol=1e-7, atol=1e-6)


def test_oracle_vae_gradients_are_finite_differences(problem):
    rng = np.random.default_rng(3)
    x, weights, v, w = problem["x"], problem["weights"], problem["b"] * 0.3, problem["a_self"]
    e, log_noise = rng.normal(size=P), np.array([0.3])
    s = naive.second_moments(x, None, weights, "mean")[0]
    dw, dv, de, dn = naive.vae_gradients(w, v, e, log_noise[0], s)
    for got, expected in (
        (dw, numerical_gradient(lambda z: naive.vae_loss(z, v, e, log_noise[0], x, weights), w)),
        (dv, numerical_gradient(lambda z: naive.vae_loss(w, z, e, log_noise[0], x, weights), v)),
        (de, numerical_gradient(lambda z: naive.vae_loss(w, v, z, log_noise[0], x, weights), e)),
        (
            np.array([dn]),
            numerical_gradient(lambda z: naive.vae_loss(w, v, e, z[0], x, weights), log_noise),
        ),
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


def test_oracle_vae_loss_is_the_trace_formula(problem):
    """The sample-by-sample ELBO against its closed form in moments (docs/math.md Eq. 11)."""
    rng = np.random.default_rng(4)
    x, v, w, e, log_noise = problem["x"], problem["b"] * 0.3, problem["a_self"], rng.normal(size=P), -0.4
    s, noise, d = naive.second_moments(x, None, None, "mean")[0], np.exp(-0.4), x.shape[1]
    error = (
        np.trace(w @ np.diag(np.exp(e)) @ w.T) + np.trace(w.T @ w @ v @ s @ v.T) - 2 * np.trace(w @ v @ s) + np.trace(s)
    )
    divergence = 0.5 * np.sum(-1 - e + np.diagonal(v @ s @ v.T) + np.exp(e))
    expected = error / (2 * noise) + 0.5 * d * np.log(2 * np.pi * noise) + divergence
    assert naive.vae_loss(w, v, e, log_noise, x) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["mse", "ordered", "mixed_l2"])
def test_oracle_deep_gradients_are_finite_differences(problem, kind):
    rng = np.random.default_rng(5)
    x, y, parameters = problem["x"], problem["y"], CASES[kind][1]
    shapes = [(4, 5), (P, 4), (5, P), (4, 5)]  # encoder of two layers, decoder of two layers
    layers = [rng.normal(size=shape) * 0.5 for shape in shapes]
    sxx, sxy, _ = naive.second_moments(x, y, None, "mean")
    grads = naive.deep_gradients(kind, layers, 2, sxx, sxy, **parameters)
    for i in range(4):

        def value(w, i=i):
            moved = [w if j == i else layer for j, layer in enumerate(layers)]
            return naive.loss(
                kind,
                naive.chain(moved[2:]),
                naive.chain(moved[:2]),
                x,
                y,
                None,
                "mean",
                **parameters,
            )

        expected = numerical_gradient(value, layers[i])
        np.testing.assert_allclose(grads[i], expected, rtol=1e-6, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("kind", CASES)
def test_prefix_and_penalties_match_the_oracle(kind):
    loss, parameters = CASES[kind]
    np.testing.assert_allclose(loss.prefix(P), naive.prefix_weights(kind, P, **parameters), rtol=1e-15)
    lam, lam_pi = naive.penalties(kind, P, **parameters)
    np.testing.assert_allclose(loss.row_penalty(P), lam, rtol=1e-15)
    assert loss.product_penalty == pytest.approx(lam_pi, rel=1e-15)
    for dtype in (np.float32, np.float64):
        assert loss.prefix(P, dtype).dtype == dtype
        assert loss.row_penalty(P, dtype).dtype == dtype


def test_ordered_is_the_sum_of_the_mse_of_all_prefixes(problem):
    x, y, a, b = problem["x"], problem["y"], problem["a_target"], problem["b"]
    expected = sum(naive.loss("mse", a[:, :i], b[:i], x, y) for i in range(1, P + 1))
    sxx, sxy, yy_trace = naive.second_moments(x, y)
    got = _family.family_value(
        "ordered",
        yy_trace=yy_trace,
        cross=np.diagonal(b @ sxy @ a),
        gram_decoder=a.T @ a,
        gram_latent=b @ sxx @ b.T,
    )
    assert got == pytest.approx(expected, rel=1e-12)
    # It is not the re-weighted sum that some public code minimises.
    reweighted = sum((P - i + 1) * naive.loss("mse", a[:, :i], b[:i], x, y) for i in range(1, P + 1))
    assert abs(got - reweighted) > 0.1 * got


@given(p=st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_uniform_nested_dropout_is_ordered_over_p(p):
    nested = losses.nested_dropout("uniform")
    np.testing.assert_allclose(nested.prefix(p), losses.ordered().prefix(p) / p, rtol=1e-15)
    mask = _family.prefix_mask(losses.ordered().prefix(p))
    for i, j in [(0, p - 1), (p // 2, p // 3), (p - 1, p - 1)]:
        assert mask[i, j] == p - max(i, j)


def test_nested_dropout_is_the_mean_of_the_stochastic_loss(problem):
    """One sample, all p outcomes enumerated: E over b of the masked error is the prefix-weighted loss."""
    a, b, x = problem["a_self"], problem["b"], problem["x"][:1]
    mean = sum(
        PRIOR[k - 1] * naive.loss("stochastic_nested_dropout", a, b, x, kept=[k], prior=PRIOR) for k in range(1, P + 1)
    )
    assert naive.loss("nested_dropout", a, b, x, prior=PRIOR) == pytest.approx(mean, rel=1e-13)
    assert losses.stochastic_nested_dropout(PRIOR).expectation == losses.nested_dropout(PRIOR)


class TestPriors:
    @pytest.mark.parametrize("p", [500, 1000])
    def test_geometric_tail_is_exact_powers(self, p):
        """Trap: 1 - cumsum(probabilities) has no correct digit at p = 500; the powers have all of them."""
        rho = Fraction(0.9)
        tail = losses.geometric_prior(0.9).tail(p)
        for i in (0, 1, 7, p // 2, p - 1):
            assert tail[i] == pytest.approx(float(rho**i), rel=1e-13)
        probabilities = losses.geometric_prior(0.9).probabilities(p)
        assert probabilities.sum() == pytest.approx(1.0, rel=1e-14)
        assert probabilities[-2] == pytest.approx(float(rho ** (p - 2) * (1 - rho)), rel=1e-13)
        published = 1.0 - np.append(0.0, np.cumsum(probabilities)[:-1])
        assert abs(published[-1] - tail[-1]) > 0.99 * tail[-1], "the trap is gone; is the test still needed?"

    @pytest.mark.parametrize("p", [500, 829])
    def test_geometric_prefix_in_float32_is_normal_and_exact(self, p):
        c = losses.nested_dropout(losses.geometric_prior(0.9)).prefix(p, np.float32)
        assert c.dtype == np.float32
        assert c[-1] >= np.finfo(np.float32).tiny
        assert float(c[-1]) == pytest.approx(0.9 ** (p - 1), rel=1e-6)
        assert np.all(np.diff(c) < 0)

    def test_geometric_prefix_refuses_float32_underflow(self):
        loss = losses.nested_dropout()
        with pytest.raises(ValueError, match=r"float32.*rho >= 0\.9\d.*float64") as error:
            loss.prefix(1000, np.float32)
        # The advice works: the proposed rho passes, and so does float64.
        rho = float(str(error.value).split("rho >= ")[1].split(",")[0])
        losses.nested_dropout(losses.geometric_prior(rho)).prefix(1000, np.float32)
        assert loss.prefix(1000, np.float64)[-1] == pytest.approx(0.9**999, rel=1e-12)
        with pytest.raises(ValueError, match="float64"):
            losses.nested_dropout(losses.geometric_prior(0.1)).prefix(400, np.float64)

    def test_array_prior_keeps_small_tails(self):
        prior = np.array([1 - 1e-30, 1e-30])
        np.testing.assert_array_equal(losses.nested_dropout(prior).prefix(2), [1.0, 1e-30])

    @given(weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=20))
    @settings(max_examples=50, deadline=None)
    def test_array_prior_tail(self, weights):
        prior = np.array(weights) / np.sum(weights)
        c = losses.nested_dropout(prior).prefix(len(prior))
        assert c[0] == 1.0
        assert np.all(np.diff(c) < 0)
        for i in range(len(prior)):
            assert c[i] == pytest.approx(sum(prior[i:]), rel=1e-12)
        np.testing.assert_allclose(losses.array_prior(prior).probabilities(len(prior)), prior, rtol=1e-12)

    @pytest.mark.parametrize(
        ("prior", "match"),
        [
            ([0.5, 0.6], "sum to 1"),
            ([1.5, -0.5], r"prior\[1\] is negative"),
            ([1.0, 0.0], "last entry"),
            ([], "not empty"),
            ([[1.0]], "one-dimensional"),
            ([np.nan, 1.0], "must be finite"),
            ("poisson", "unknown; choose one of"),
        ],
    )
    def test_bad_priors(self, prior, match):
        with pytest.raises(ValueError, match=match):
            losses.nested_dropout(prior)

    def test_prior_of_another_length(self):
        with pytest.raises(ValueError, match="3 entries but the latent width is p = 4"):
            losses.nested_dropout(PRIOR).prefix(4)

    @pytest.mark.parametrize("rho", [0.0, 1.0, -0.1, np.nan])
    def test_bad_rho(self, rho):
        with pytest.raises(ValueError, match="rho"):
            losses.geometric_prior(rho)

    def test_sample_distribution(self):
        """Frequencies within five standard deviations of the prior, every value in 1..p."""
        n = 100_000
        for prior in (losses.array_prior(PRIOR), losses.geometric_prior(0.6), losses.uniform_prior()):
            drawn = losses.stochastic_nested_dropout(prior).sample(n, P, np.random.default_rng(1))
            assert drawn.min() >= 1
            assert drawn.max() <= P
            frequency = np.bincount(drawn, minlength=P + 1)[1:] / n
            expected = prior.probabilities(P)
            assert np.all(np.abs(frequency - expected) <= 5 * np.sqrt(expected * (1 - expected) / n))

    def test_sample_at_the_edges(self):
        """u = 0 keeps all units, u just under 1 keeps one: P(b >= i) = P(u < c_i)."""

        class Fixed:
            def random(self, n):
                return np.array([0.0, np.nextafter(1.0, 0.0), 0.5, 0.49, 0.3, 0.29])

        drawn = losses.stochastic_nested_dropout(PRIOR).sample(6, P, Fixed())
        np.testing.assert_array_equal(drawn, [3, 1, 1, 2, 2, 3])


class TestValidation:
    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: losses.sum_l2(-1.0), "lam=-1.0 must be a finite number >= 0"),
            (lambda: losses.sum_l2(np.inf), "lam=inf must be a finite number"),
            (lambda: losses.product_l2(-1e-9), "lam"),
            (lambda: losses.nonuniform_l2([0.1, 0.1]), r"strictly increasing.*sum_l2"),
            (lambda: losses.nonuniform_l2([0.2, 0.1]), "strictly increasing"),
            (lambda: losses.nonuniform_l2([-0.1, 0.1]), "non-negative"),
            (lambda: losses.mixed_l2(1.0, 0.5, 0.6), r"w_sum \+ w_product must be 1"),
            (lambda: losses.mixed_l2(1.0, -0.5, 1.5), "w_sum"),
            (lambda: losses.mixed_l2(1.0, 1.5, -0.5), "w_product"),
            (lambda: losses.nonuniform_l2([0.1, 0.2]).row_penalty(3), "2 entries but the latent width is p = 3"),
            (lambda: losses.mse().prefix(0), "p=0 must be an integer >= 1"),
        ],
    )
    def test_values(self, make, match):
        with pytest.raises(ValueError, match=match):
            make()

    @pytest.mark.parametrize(
        ("make", "match"),
        [
            (lambda: losses.sum_l2("1"), "lam='1' must be a finite number"),
            (lambda: losses.sum_l2(True), "lam"),
            (lambda: losses.nonuniform_l2("ab"), "lams"),
            (lambda: losses.nonuniform_l2([1 + 1j]), "lams must hold real numbers"),
            (lambda: losses.mse().prefix(2.0), "p=2.0 must be an integer"),
            (lambda: losses.mse().prefix(2, np.int64), "float32 or float64"),
            (lambda: losses.vae().prefix(2), "not a prefix-weighted loss"),
            (lambda: losses.vae().row_penalty(2), "not a prefix-weighted loss"),
            (lambda: losses.vae().product_penalty, "not a prefix-weighted loss"),
            (lambda: losses.stochastic_nested_dropout().prefix(2), "expectation"),
            (lambda: losses.resolve(losses.mse), r"write losses.mse\(...\)"),
            (lambda: losses.resolve(3), "loss=3 must be"),
            (lambda: losses.resolve(losses.Loss()), "base class"),
            (lambda: losses.from_name(3), "must be a string"),
        ],
    )
    def test_types(self, make, match):
        with pytest.raises(TypeError, match=match):
            make()

    def test_family_value_asks_for_the_encoder(self):
        eye = np.eye(2)
        with pytest.raises(ValueError, match="gram_encoder is needed"):
            _family.family_value(losses.sum_l2(1.0), yy_trace=1.0, cross=np.ones(2), gram_decoder=eye, gram_latent=eye)


class TestNames:
    @pytest.mark.parametrize("name", ["mse", "ordered", "nested_dropout", "stochastic_nested_dropout", "vae"])
    def test_without_parameters(self, name):
        loss = losses.from_name(name)
        assert loss.name == name
        assert losses.resolve(name) == loss
        assert losses.resolve(loss) is loss

    @pytest.mark.parametrize("name", ["sum_l2", "nonuniform_l2", "product_l2", "mixed_l2"])
    def test_with_parameters_shows_the_call(self, name):
        with pytest.raises(ValueError, match=rf"needs a parameter: pass lae_fast\.losses\.{name}\(lam"):
            losses.from_name(name)

    def test_unknown_lists_every_name(self):
        with pytest.raises(ValueError, match=r"loss=.* is unknown; choose one of") as error:
            losses.from_name("mean_squared")
        for name in losses.names():
            assert name in str(error.value)

    def test_auto_points_to_the_rule(self):
        with pytest.raises(ValueError, match="default_loss"):
            losses.from_name("auto")


def test_frozen_hashable_and_printable():
    for loss, _ in CASES.values():
        hash(loss)
        assert loss == dataclasses.replace(loss)
        assert loss.describe() == repr(loss)
    with pytest.raises(dataclasses.FrozenInstanceError):
        losses.sum_l2(1.0).lam = 2.0
    # A list given by the caller is copied.
    lams = [0.1, 0.2]
    loss = losses.nonuniform_l2(lams)
    lams[0] = 5.0
    assert loss.lams == (0.1, 0.2)


def test_breaks_rotation():
    expected = {"ordered", "nested_dropout", "nonuniform_l2"}
    assert {kind for kind, (loss, _) in CASES.items() if loss.breaks_rotation(P)} == expected
    assert losses.stochastic_nested_dropout(PRIOR).breaks_rotation(P)
    # A zero in the prior ties two prefix weights and leaves a rotation.
    assert not losses.nested_dropout([0.5, 0.0, 0.5]).breaks_rotation(3)
    assert not losses.vae().breaks_rotation(P)


def test_the_full_prefix_matryoshka_objective_is_the_ordered_loss():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((30, 6)) * np.arange(1.0, 7.0)
    x -= x.mean(axis=0)
    decoder, encoder = rng.standard_normal((6, 4)), rng.standard_normal((4, 6))
    expected = oracle.matryoshka(x, decoder, encoder, range(1, 5))
    assert lae_fast.loss(decoder, encoder, x, "ordered") == pytest.approx(expected, rel=1e-12)
    some = oracle.matryoshka(x, decoder, encoder, [1, 3, 4])
    prior = losses.nested_dropout([1 / 3, 0.0, 1 / 3, 1 / 3])
    assert 3.0 * lae_fast.loss(decoder, encoder, x, prior) == pytest.approx(some, rel=1e-12)
