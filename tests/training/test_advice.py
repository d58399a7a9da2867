"""The warning of a run that has not converged says what is left and what to change."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses
from lae_fast.errors import ConvergenceWarning
from lae_fast.training import start, train
from lae_fast.training.run import Settings
from tests.oracle.converged_cases import D, P, fit, rows_with

pytestmark = pytest.mark.needs_jit


def test_the_warning_says_what_is_left_and_what_to_change():
    x = rows_with(np.linspace(2.0, 0.2, D))
    with pytest.warns(
        ConvergenceWarning, match=r"max_iter=5 .*excess_loss_ is 0\.\d+, where tol allows .*raise max_it"
    ):
        lf.LinearAutoencoder(P, max_iter=5, init_scale=0.1).fit(x)
    with pytest.warns(ConvergenceWarning, match="excess_loss_ is .*let the learning rate fall"):
        lf.LinearAutoencoder(P, max_iter=5, batch_size=10).fit(x)


def word(x, p=2, fit_arguments=None, **options):
    with pytest.warns(ConvergenceWarning) as seen:
        lf.LinearAutoencoder(p, **options).fit(x, **(fit_arguments or {}))
    return next(str(one.message) for one in seen if "has not converged" in str(one.message))


def test_advice_is_what_has_not_been_done_yet():
    x = rows_with(np.linspace(2.0, 0.2, D))
    told = word(x, max_iter=20)
    assert "schedule" not in told and "learning_rate" in told and "rule='alternating'" in told
    assert "standardize" not in told and "relative gradient" not in told
    assert "schedule='cosine'" in word(x, max_iter=20, schedule="constant")
    assert "alternating" not in word(x, max_iter=20, loss=losses.product_l2(0.1))
    assert "alternating" not in word(x, max_iter=20, coupling="tied")
    assert "optimizer='adam'" in word(x, max_iter=20, optimizer="sgd")
    for regime in ("moments", "rows"):
        assert "standardize the columns" in word(x * np.logspace(0, 4, D), max_iter=20, regime=regime)


@pytest.mark.parametrize("rule", ["alpha_eigengame", "mu_eigengame"])
def test_eigengames_of_more_components_than_the_rank_are_told_the_rank(rule):
    x = rows_with(np.array([2.0, 1.0, 0.0, 0.0, 0.0, 0.0]))
    told = word(x, 4, rule=rule, max_iter=50)
    assert "only 2 components" in told and "n_components=2" in told
    model, told = fit(x, 2, rule=rule)
    assert model.converged_ and not told


def test_a_rate_that_auto_chose_is_not_answered_by_auto():
    x = rows_with(np.linspace(2.0, 0.2, D))
    run = start.start(x, None, None, Settings(2, optimizer="sgd"))
    rate = 0.1 * run.optimizer.learning_rate
    assert f"set learning_rate={rate:.2g}, or use rule='alternating'" in train.divergence_message(run, 1)
    assert "leave learning_rate='auto'" not in train.divergence_message(run, 1)
    for options in ({"optimizer": "sgd", "learning_rate": 0.1}, {"optimizer": lf.optimizers.sgd(0.1)}):
        run = start.start(x, None, None, Settings(2, **options))
        assert "or leave learning_rate='auto'" in train.divergence_message(run, 1)
