"""What is no end of a run: small variances, batches without weight, steps that are rounded away, wrong directions."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses
from lae_fast.errors import ConvergenceWarning
from lae_fast.training import compatibility, conclusion, start
from lae_fast.training.run import Settings
from tests.oracle.converged_cases import D, M, P, fit, rows_with

pytestmark = pytest.mark.needs_jit


@pytest.mark.parametrize("loss", ["ordered", "mse"])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_a_component_of_small_variance_is_not_done_before_it_is_learned(loss, optimizer):
    """A gradient that is small against l_1 says nothing of a component with l_2 = l_1 / 1000."""
    x = rows_with(np.r_[1.0, 1e-3, np.full(8, 1e-4)])
    short, told = fit(x, 2, loss=loss, optimizer=optimizer, max_iter=1000)
    assert not short.converged_ and told and short.excess_loss_ > 1e-6
    if loss == "mse":
        model, told = fit(x, 2, loss=loss, optimizer=optimizer, max_iter=100_000)
        assert model.converged_ and not told and model.n_iter_ > 1000
        assert lf.metrics.subspace_distance(lf.top_eigenpairs(x, 2).vectors, model.decoder_) < 1e-6


def test_the_end_of_a_run_is_watched_after_a_false_stop(monkeypatch):
    """A run that was asked at a saddle is asked again before it ends, however long the pause would be."""
    monkeypatch.setattr(conclusion, "pause", lambda run: 10**9)
    x = rows_with(np.r_[1.0, 1e-3, np.full(8, 1e-4)])
    model, told = fit(x, 2, loss="mse", optimizer="nesterov", max_iter=9000)
    assert model.converged_ and not told and model.n_iter_ == 9000


@pytest.mark.parametrize(("batch", "kept"), [(1, 0.5), (4, 0.3), (8, 0.3)])
def test_a_batch_of_no_weight_is_no_end(batch, kept):
    x = rows_with(np.linspace(2.0, 0.2, D))
    weights = (np.random.default_rng(0).random(M) < kept).astype(float)
    model, told = fit(x, 2, batch_size=batch, optimizer="sgd", learning_rate=1e-3, max_iter=500,
                      fit_arguments={"sample_weight": weights})  # fmt: skip
    assert model.n_iter_ == 500 and told and not model.converged_


def test_rows_that_equal_the_mean_are_no_end():
    x = np.zeros((M, D))
    x[:30] = rows_with(np.linspace(2.0, 0.2, D))[:30]
    x[30:60] = -x[:30]
    model, told = fit(x, 2, batch_size=1, optimizer="sgd", learning_rate=1e-3, max_iter=500)
    assert model.n_iter_ == 500 and told and not model.converged_


def test_mini_batches_end_where_every_batch_of_an_epoch_is_still():
    """Of rank p the squared error is zero at the optimum, and so is the gradient of every batch."""
    x = rows_with(np.array([1.0, 0.7, 0.5, 0.0, 0.0, 0.0]))
    model, told = fit(x, loss="mse", batch_size=30, optimizer="sgd", max_iter=20_000)
    assert model.converged_ and not told and model.excess_loss_ < 1e-6
    assert 8 < model.n_iter_ < 20_000
    settings = Settings(P, loss="mse", optimizer="sgd", batch_size=50)
    assert start.start(x, None, None, settings).engine.recipe.patience == 2 * (M // 50)


@pytest.mark.parametrize("rule", ["mu_eigengame", "alpha_eigengame"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{"learning_rate": 1e-9}, {"learning_rate": 1e-4, "schedule": "cosine"}], ids=str)
def test_steps_that_are_rounded_away_are_no_end(rule, dtype, options):
    x = rows_with(np.array([9.0, 4.0, 2.25, 0.25, 0.16, 0.09]), dtype=dtype)
    model, told = fit(x, rule=rule, optimizer="sgd", max_iter=500, **options)
    assert not model.converged_ and told and model.n_iter_ == 500


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_start_near_zero_is_no_end(dtype):
    x = rows_with(np.linspace(2.0, 0.2, D), dtype=dtype)
    zero = (np.zeros((D, P)), np.zeros((P, D)))
    for options in ({"init": zero}, {"init_scale": 1e-25}, {"init_scale": 1e-12}):
        model, told = fit(x, optimizer="sgd", max_iter=20, **options)
        assert not model.converged_ and told and model.n_iter_ == 20
        assert model.excess_loss_ == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "nesterov", "adam"])
def test_rag_with_wrong_directions_is_told(optimizer):
    x = rows_with(np.array([3.0, 2.0, 1.0, 0.5, 0.3, 0.2]))
    model, told = fit(x, rule="rag", optimizer=optimizer, max_iter=1500)
    assert model.excess_loss_ < 1e-6 < 1e-3 < np.nanmax(model.alignment_residuals_)
    assert not model.converged_ and told
    with pytest.warns(ConvergenceWarning, match=r"alignment_residuals_\[\d\] = .*optimizer='sgd'"):
        lf.LinearAutoencoder(P, rule="rag", optimizer=optimizer, max_iter=1500).fit(x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_auto_takes_the_optimizer_that_reaches_the_directions(dtype):
    x = rows_with(np.array([3.0, 2.0, 1.0, 0.5, 0.3, 0.2]), dtype=dtype)
    for rule in ("gradient", "rag", "gha", "alpha_eigengame", "mu_eigengame"):
        assert compatibility.check(rule)[2].name == ("adam" if rule == "gradient" else "sgd")
        model, told = fit(x, rule=rule)
        assert model.converged_ and not told, rule
        assert (model.alignment_residuals_ < 4e-3).all()
    assert compatibility.check("alternating")[2] is None
    assert compatibility.check("rag", optimizer="adam")[2].name == "adam"


@pytest.mark.parametrize("loss", ["mse", "ordered", losses.sum_l2(0.1), losses.product_l2(0.1)], ids=str)
def test_adam_with_synchronised_weights_reaches_the_minimum(loss):
    """One optimizer moves both: two of their own end where their steps cancel, which is no minimum."""
    model, told = fit(rows_with(np.linspace(2.0, 0.2, D)), loss=loss, coupling="synchronised", optimizer="adam")
    assert model.converged_ and not told and model.excess_loss_ < 1e-6
    np.testing.assert_array_equal(model.encoder_, model.decoder_.T)
