"""Fits of moments that were made before, and of data whose means stay in."""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import losses
from tests.oracle import naive_autoencoder as naive
from tests.oracle.training_cases import DETERMINISTIC, TRUTH, D, M, P, X, quiet_fit

pytestmark = pytest.mark.needs_jit
SETTINGS = {"max_iter": 40, "record_every": 10, "tol": 0.0, "init_scale": 0.1, "optimizer": "nesterov"}
Y = X @ np.random.default_rng(1).standard_normal((D, 6)) - 3.0


def same_fits(one, other):
    for name in ("encoder_", "decoder_", "mean_", "target_mean_", "explained_variance_", "components_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("loss", "gradient_norm", "iteration"):
        np.testing.assert_array_equal(one.history_[name], other.history_[name], err_msg=name)
    assert (one.excess_loss_, one.n_features_in_) == (other.excess_loss_, other.n_features_in_)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("targets", [None, Y], ids=["X", "Y"])
def test_moments_are_what_the_rows_give(center, weighted, targets):
    weights = np.random.default_rng(6).uniform(0.5, 2.0, M) if weighted else None
    moments = lf.Moments.from_data(X, targets, weights, center)
    model = lf.LinearAutoencoder(P, center=center, regime="moments", **SETTINGS)
    same_fits(
        lf.LinearAutoencoder(P, center=center, **SETTINGS).fit(moments),
        model.fit(X, targets=targets, sample_weight=weights),
    )


def test_moments_keep_names_dtype_and_reference():
    import pandas as pd

    frame = pd.DataFrame(X.astype(np.float32), columns=[f"c{i}" for i in range(D)])
    model = lf.LinearAutoencoder(P, **SETTINGS).fit(lf.Moments.from_data(frame), reference=TRUTH)
    assert list(model.feature_names_in_) == list(frame.columns) and model.encoder_.dtype == np.float32
    assert model.transform(frame).shape == (M, P) and len(model.history_["ratio_tp"]) == 5
    assert not hasattr(model.fit(lf.Moments.from_data(X)), "feature_names_in_")


def test_what_does_not_go_with_moments_is_refused():
    moments, model = lf.Moments.from_data(X), lf.LinearAutoencoder(P)
    for arguments, message in (
        ({"sample_weight": np.ones(M)}, "pass sample_weight to Moments"),
        ({"targets": Y}, "pass targets to Moments"),
        ({"reference": TRUTH[:, :2]}, "reference has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(moments, **arguments)
    with pytest.raises(ValueError, match=r"made with center=True, and this model has center=False"):
        lf.LinearAutoencoder(P, center=False).fit(moments)
    with pytest.raises(ValueError, match=r"mini-batches need the rows of X, which data that are moments excludes"):
        lf.LinearAutoencoder(P, batch_size=10).fit(moments)
    with pytest.raises(ValueError, match="at least 2"):
        model.fit(lf.Moments(D))
    with pytest.raises(ValueError, match="at least 2"):
        model.fit(lf.Moments.from_data(X[:1]))
    assert not hasattr(model, "n_features_in_")
    model = lf.LinearAutoencoder(P, **SETTINGS).fit(moments)
    with pytest.raises(ValueError, match="there are no more directions"):
        model.set_params(n_components=4).fit(lf.Moments.from_data(X[:, :3]))
    assert model.n_features_in_ == D


@pytest.mark.parametrize("name", ["mse", "ordered", "sum_l2"])
@pytest.mark.parametrize("regime", ["moments", "rows"])
def test_without_centring_the_path_is_that_of_the_raw_rows(name, regime):
    rng = np.random.default_rng(2)
    a, b = 0.1 * rng.standard_normal((D, P)), 0.1 * rng.standard_normal((P, D))
    numbers = {"lam": 0.3} if name == "sum_l2" else {}
    sxx = naive.second_moments(X, scale="mean")[0]
    path = naive.train("gradient", "sgd", a, b, sxx, iterations=20, rate=1e-4, kind=name, **numbers)
    model = lf.LinearAutoencoder(
        P, loss=DETERMINISTIC[name], optimizer="sgd", learning_rate=1e-4, init=(a, b), max_iter=20, tol=0.0,
        center=False, regime=regime,
    ).fit(X)  # fmt: skip
    np.testing.assert_allclose(model.decoder_, path[-1][0], atol=1e-9)
    np.testing.assert_allclose(model.encoder_, path[-1][1], atol=1e-9)
    assert not model.mean_.any() and not model.target_mean_.any()
    np.testing.assert_allclose(model.transform(X), X @ model.encoder_.T, atol=1e-9)
    assert model.score(X) == pytest.approx(-naive.loss("mse", model.decoder_, model.encoder_, X, scale="mean"))
    value = lf.loss(model.decoder_, model.encoder_, lf.Moments.from_data(X, center=False), DETERMINISTIC[name])
    assert model.history_["loss"][-1] == pytest.approx(value, rel=1e-8)


@pytest.mark.parametrize("options", [{}, {"regime": "rows"}, {"rule": "gha"}, {"rule": "alternating"}], ids=str)
@pytest.mark.parametrize("store", [np.asarray, scipy.sparse.csr_array])
def test_without_centring_the_optimum_is_that_of_the_second_moments(options, store):
    if store is scipy.sparse.csr_array and options.get("rule"):
        pytest.skip("the rules have been tried on the array")
    values, vectors = np.linalg.eigh(X.T @ X / M)
    model = lf.LinearAutoencoder(P, center=False, **{"max_iter": 60_000, "optimizer": "auto", **options})
    quiet_fit(model, store(X))
    assert model.converged_, model.converged_reason_
    assert lf.metrics.ratio_tp(vectors[:, ::-1][:, :P], model.decoder_) == 1.0
    np.testing.assert_allclose(model.explained_variance_, values[::-1][:P] * M / (M - 1), rtol=1e-3)


@pytest.mark.parametrize("options", [{}, {"hidden": (6,)}, {"loss": losses.stochastic_nested_dropout("uniform")}])
def test_without_centring_batches_are_raw_rows(options):
    """A batch of all rows is a full batch, and one of partial_fit too."""
    given = {**SETTINGS, "center": False, "max_iter": 1, **options}
    full = quiet_fit(lf.LinearAutoencoder(P, batch_size=M, **given), X)
    if "loss" not in options:
        np.testing.assert_allclose(full.encoder_, quiet_fit(lf.LinearAutoencoder(P, **given), X).encoder_, atol=1e-9)
    stepped = lf.LinearAutoencoder(P, **given).partial_fit(X)
    np.testing.assert_allclose(stepped.encoder_, full.encoder_, atol=1e-12)
    stepped.partial_fit(X[:50])
    assert not stepped.mean_.any()


def test_means_left_in_change_the_values_as_published():
    """Singular values of the matrix of Kunin et al. are 20, 19, ... with the means in, and smaller without them."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((20, 20)))[0] for _ in range(2))
    x = (left * np.arange(20.0, 0.0, -1.0)) @ right.T
    raw = quiet_fit(lf.LinearAutoencoder(4, center=False, scale="sum", rule="alternating", max_iter=5000), x)
    np.testing.assert_allclose(np.sqrt(raw.explained_variance_ * 19), [20, 19, 18, 17], rtol=1e-3)
    centred = quiet_fit(lf.LinearAutoencoder(4, scale="sum", rule="alternating", max_iter=5000), x)
    assert (np.sqrt(centred.explained_variance_ * 19) < [20, 19, 18, 17]).all()
