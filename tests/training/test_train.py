"""Training to the end: the theorems, the regimes, stopping, divergence, interruption, and what the estimator says."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import losses, metrics, theory
from lae_fast.errors import ConvergenceWarning, DivergenceError
from lae_fast.training import train
from lae_fast.training.chain import chain_gradients
from tests.oracle import naive_autoencoder as naive
from tests.oracle.training_cases import DETERMINISTIC, MOMENTS, TRUTH, VALUES, D, M, P, X, quiet_fit, samples

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs_jit


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_every_loss_reaches_its_minimum_from_random_starts(name, seed):
    loss = DETERMINISTIC[name]
    model = lf.LinearAutoencoder(
        P, loss=loss, optimizer="nesterov", max_iter=60_000, tol=1e-8, random_state=seed, init_scale=0.1
    ).fit(X)
    assert model.converged_
    value = lf.loss(model.decoder_, model.encoder_, MOMENTS, loss)
    assert value == pytest.approx(theory.minimum(MOMENTS, P, loss), rel=1e-8)
    optimum = theory.optimum(MOMENTS, P, loss)
    product = optimum[0] @ optimum[1]
    np.testing.assert_allclose(model.decoder_ @ model.encoder_, product, atol=2e-4)
    found = metrics.ratio_tp(TRUTH, model.decoder_)
    assert (found == 1.0) if loss.breaks_rotation(P) else (found < 1.0)


@pytest.mark.parametrize("name", ["sum_l2", "nonuniform_l2"])
def test_transpose_theorem(name):
    model = lf.LinearAutoencoder(P, loss=DETERMINISTIC[name], optimizer="nesterov", max_iter=60_000, tol=1e-9).fit(X)
    assert metrics.transpose_gap(model.decoder_, model.encoder_) < 1e-8


def test_shrinkage_of_the_sum_loss():
    lam = 0.3
    model = lf.LinearAutoencoder(P, loss=losses.sum_l2(lam), optimizer="nesterov", max_iter=60_000, tol=1e-9).fit(X)
    squares = np.linalg.svd(model.decoder_, compute_uv=False) ** 2
    np.testing.assert_allclose(squares, 1.0 - lam / VALUES, atol=1e-5)


def test_mixed_loss_keeps_rank_where_sum_collapses():
    lam = 1.2 * VALUES[-1]
    ranks = []
    for loss in (losses.sum_l2(lam), losses.mixed_l2(lam, 0.5, 0.5)):
        model = quiet_fit(lf.LinearAutoencoder(P, loss=loss, optimizer="nesterov", max_iter=60_000, tol=1e-9), X)
        ranks.append(int((np.linalg.svd(model.decoder_, compute_uv=False) > 1e-3).sum()))
    assert ranks == [P - 1, P]


def test_a_penalty_over_an_eigenvalue_is_explained():
    expected = (
        rf"removes 1 of {P} components: that of component {P - 1} \(counting from 0\), .* is not under the eigenv"
    )
    with pytest.warns(ConvergenceWarning, match=expected):
        lf.LinearAutoencoder(P, loss=losses.sum_l2(1.2 * VALUES[-1]), optimizer="nesterov", max_iter=60_000).fit(X)


@pytest.mark.parametrize("rule", ["rag", "gha", "mu_eigengame", "alpha_eigengame"])
def test_rules_that_order_find_the_directions(rule):
    # rag keeps A'A - BB' of its start: from 0.1 its directions stay 0.14 off, which counts as not converged
    scale = 1e-4 if rule == "rag" else 0.1
    model = lf.LinearAutoencoder(P, rule=rule, optimizer="sgd", max_iter=60_000, init_scale=scale, tol=1e-7).fit(X)
    assert metrics.ratio_tp(TRUTH, model.decoder_) == 1.0
    assert model.converged_
    assert (model.alignment_residuals_ < 1e-3).all()


def test_oja_finds_the_subspace():
    model = quiet_fit(lf.LinearAutoencoder(P, rule="oja", optimizer="sgd", max_iter=20_000), X)
    assert metrics.subspace_distance(TRUTH, model.decoder_) < 1e-6


@pytest.mark.parametrize("loss", ["mse", "ordered", "nested_dropout", "sum_l2"])
@pytest.mark.parametrize("with_targets", [False, True])
def test_alternating_is_exact_and_follows_the_oracle(loss, with_targets):
    y = X @ np.random.default_rng(1).standard_normal((D, 6)) * 0.3 if with_targets else None
    q = 6 if with_targets else D
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((q, P)), rng.standard_normal((P, D))
    xc, yc = X - X.mean(axis=0), None if y is None else y - y.mean(axis=0)
    sxx, sxy, _ = naive.second_moments(xc, yc, scale="mean")
    numbers = {"lam": 0.3} if loss == "sum_l2" else {"prior": np.full(P, 1 / P)} if loss == "nested_dropout" else {}
    path = naive.train("alternating", "sgd", a, b, sxx, None if y is None else sxy, iterations=5, kind=loss, **numbers)
    model = lf.LinearAutoencoder(P, rule="alternating", loss=DETERMINISTIC[loss], init=(a, b), max_iter=5, tol=0.0)
    quiet_fit(model, X, targets=y)
    np.testing.assert_allclose(model.decoder_ @ model.encoder_, path[-1][0] @ path[-1][1], atol=1e-7)
    long = quiet_fit(lf.LinearAutoencoder(P, rule="alternating", loss=DETERMINISTIC[loss], max_iter=5000, tol=1e-9), X)
    assert lf.loss(long.decoder_, long.encoder_, MOMENTS, DETERMINISTIC[loss]) == pytest.approx(
        theory.minimum(MOMENTS, P, DETERMINISTIC[loss]), rel=1e-7
    )


def test_reduced_rank_regression_reaches_the_minimum():
    rng = np.random.default_rng(3)
    y = X @ rng.standard_normal((D, 6)) + rng.standard_normal((M, 6))
    moments = lf.Moments.from_data(X, y)
    model = lf.LinearAutoencoder(3, optimizer="nesterov", max_iter=200_000, tol=1e-8).fit(X, targets=y)
    assert model.decoder_.shape == (6, 3) and model.components_.shape == (3, 6)
    value = lf.loss(model.decoder_, model.encoder_, moments)
    assert value == pytest.approx(theory.minimum(moments, 3, "ordered"), rel=1e-6)
    assert lf.loss(model.decoder_, model.encoder_, (X, y), "mse") == pytest.approx(-model.score(X, targets=y), rel=1e-9)


def test_vae_reaches_the_likelihood_of_probabilistic_pca():
    x = samples(d=6)
    moments = lf.Moments.from_data(x)
    model = quiet_fit(lf.LinearAutoencoder(3, loss="vae", max_iter=30_000, init_scale=0.1, learning_rate=0.01,
                                           schedule="cosine"), x)  # fmt: skip
    best = theory.vae_optimum(moments, 3)
    value = lf.vae_loss(model.decoder_, model.encoder_, model.latent_variances_, model.noise_variance_, moments)
    minimum = lf.vae_loss(
        best.decoder, best.encoder, np.exp(best.log_latent_variances), np.exp(best.log_noise_variance), moments
    )
    assert value == pytest.approx(minimum, rel=1e-5)
    gradients = lf.vae_gradients(
        model.decoder_, model.encoder_, model.latent_variances_, model.noise_variance_, moments
    )
    assert np.abs(gradients.decoder).max() < 1e-2 and abs(gradients.log_noise) < 1e-2


@pytest.mark.parametrize("hidden", [(6,), (8, 5)])
def test_deep_chains_follow_the_oracle_and_reach_the_minimum(hidden):
    widths = [D, *hidden, P]
    shapes = [(b, a) for a, b in zip(widths, widths[1:])]  # noqa: RUF007
    shapes += [shape[::-1] for shape in reversed(shapes)]
    rng = np.random.default_rng(4)
    layers = [0.4 * rng.standard_normal(shape) for shape in shapes]
    model = lf.LinearAutoencoder(
        P, hidden=hidden, init=layers, optimizer="sgd", learning_rate=1e-3, max_iter=20, tol=0.0
    )
    quiet_fit(model, X)
    sxx = naive.second_moments(X - X.mean(axis=0), scale="mean")[0]
    for _ in range(20):
        gradients = naive.deep_gradients("ordered", layers, len(hidden) + 1, sxx)
        layers = [w - 1e-3 * g for w, g in zip(layers, gradients)]
    for ours, theirs in zip(model.layers_, layers):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)
    trained = lf.LinearAutoencoder(P, hidden=hidden, max_iter=6000, init_scale=0.1)
    quiet_fit(trained, X)
    assert metrics.ratio_tp(TRUTH, trained.decoder_) == 1.0


def test_chain_gradients_against_the_oracle():
    rng = np.random.default_rng(5)
    layers = [rng.standard_normal(s) for s in ((6, D), (P, 6), (6, P), (D, 6))]
    sxx = naive.second_moments(X - X.mean(axis=0))[0]
    a, b = naive.chain(layers[2:]), naive.chain(layers[:2])
    da, db = naive.gradients("ordered", a, b, sxx)
    for ours, theirs in zip(chain_gradients(layers, 2, da, db), naive.deep_gradients("ordered", layers, 2, sxx)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_two_regimes_agree(targets, weighted):
    y = X @ np.random.default_rng(1).standard_normal((D, 3)) if targets else None
    weights = np.random.default_rng(6).uniform(0.5, 2.0, M) if weighted else None
    fitted = [
        quiet_fit(
            lf.LinearAutoencoder(3, optimizer="momentum", learning_rate=0.01, max_iter=60, regime=regime,
                                 init_scale=0.1),
            X, targets=y, sample_weight=weights,
        )
        for regime in ("moments", "rows")
    ]  # fmt: skip
    assert [model.regime_ for model in fitted] == ["moments", "rows"]
    np.testing.assert_allclose(fitted[0].encoder_, fitted[1].encoder_, atol=1e-8)
    np.testing.assert_allclose(fitted[0].history_["loss"], fitted[1].history_["loss"], rtol=1e-9)
    np.testing.assert_allclose(fitted[0].explained_variance_, fitted[1].explained_variance_, rtol=1e-7)


def test_wide_data_choose_rows_and_tall_data_moments():
    wide = quiet_fit(lf.LinearAutoencoder(2, max_iter=5), samples(d=300, m=20))
    tall = quiet_fit(lf.LinearAutoencoder(2, max_iter=5), samples())
    assert (wide.regime_, tall.regime_) == ("rows", "moments")


def test_stochastic_nested_dropout_orders_in_the_mean():
    model = quiet_fit(
        lf.LinearAutoencoder(P, loss=losses.stochastic_nested_dropout("uniform"), max_iter=8000, init_scale=0.1), X
    )
    assert metrics.axis_alignment_distance(TRUTH, model.decoder_) < 0.02


def test_sparse_and_integer_data_and_dtypes():
    dense = np.random.default_rng(0).poisson(1.0, (60, 12)).astype(np.uint8)
    models = [
        quiet_fit(lf.LinearAutoencoder(2, max_iter=50, init_scale=0.1), data)
        for data in (dense, scipy.sparse.csr_array(dense.astype(np.float32)))
    ]
    assert models[0].encoder_.dtype == np.float32
    np.testing.assert_allclose(models[0].encoder_, models[1].encoder_, atol=1e-4)
    assert quiet_fit(lf.LinearAutoencoder(2, max_iter=5), X).encoder_.dtype == np.float64


def test_history_reference_and_stop_on_alignment():
    model = lf.LinearAutoencoder(P, optimizer="nesterov", stop="alignment", record_every=20).fit(X, reference=TRUTH)
    assert model.converged_ and model.history_["ratio_tp"][-1] == 1.0 and model.n_iter_ < 10_000
    assert (np.diff(model.history_["iteration"]) == 20).all()
    assert model.history_["alignment"][-1] < 0.02 < model.history_["alignment"][0]
    value = lf.loss(*_weights_at(model), MOMENTS)
    assert model.history_["loss"][0] == pytest.approx(value, rel=1e-9)


def _weights_at(model):
    rng = np.random.default_rng(0)
    b, at = 1e-4 * rng.standard_normal((P, D)), 1e-4 * rng.standard_normal((P, D))
    return at.T, b


def test_callback_sees_the_state_and_stops():
    seen = []

    def callback(state):
        seen.append((state.iteration, state.loss, state.encoder.shape, state.decoder.shape))
        return len(seen) == 3

    model = lf.LinearAutoencoder(P, callback=callback, record_every=10).fit(X)
    assert len(seen) == 3 and model.n_iter_ < 40 and seen[0][2:] == ((P, D), (D, P))


def test_progress_is_reported_to_the_end():
    calls = []
    quiet_fit(lf.LinearAutoencoder(2, max_iter=30, tol=0.0, progress=lambda *a: calls.append(a)), X)
    assert calls[-1] == ("training", 30, 30) and any(call[0] == "second moments" for call in calls)


def test_divergence_names_the_iteration_and_keeps_a_usable_state():
    model = lf.LinearAutoencoder(P, optimizer="sgd", learning_rate=100.0, record_every=5, init_scale=0.1)
    with pytest.raises(lf.DivergenceError, match=r"diverged at iteration \d+: .*lower it \(try 10\)"):
        model.fit(X)
    assert np.isfinite(model.encoder_).all() and np.isfinite(model.transform(X)).all()


def test_not_converged_warns_and_keeps_the_result():
    model = lf.LinearAutoencoder(P, max_iter=3)
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        model.fit(X)
    assert model.n_iter_ == 3 and not model.converged_


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_is_answered_and_leaves_a_usable_state():
    code = """
import time, numpy as np, lae_fast as lf
x = np.random.default_rng(0).standard_normal((2000, 500)).astype(np.float32)
model = lf.LinearAutoencoder(50, tol=0.0, max_iter=10**8, record_every=10**6)
lf.LinearAutoencoder(50, tol=0.0, max_iter=1, regime="moments").fit(x)
print("go", flush=True)
try:
    model.fit(x)
except KeyboardInterrupt:
    print("stopped", time.time(), model.n_iter_ > 0, bool(np.isfinite(model.transform(x)).all()), flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline().strip() == "go"
    time.sleep(1.0)
    sent = time.time()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    word, when, moved, finite = out.split()
    assert (word, moved, finite) == ("stopped", "True", "True")
    # half a second by the code; the machine of the tests may be busy
    assert float(when) - sent < 3.0


def test_partial_fit_learns_from_a_stream():
    rng = np.random.default_rng(0)
    model = lf.LinearAutoencoder(P, init_scale=0.1, learning_rate=0.01)
    for _ in range(1500):
        model.partial_fit(X[rng.integers(0, M, 64)])
    assert model.n_iter_ == 1500
    assert metrics.axis_alignment_distance(TRUTH, model.decoder_) < 0.05
    np.testing.assert_allclose(model.mean_, X.mean(axis=0), atol=0.1)
    with pytest.raises(ValueError, match="features"):
        model.partial_fit(X[:, :-1])
    same = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(same.transform(X), model.transform(X))
    # over all rows seen, by the last batch: within the noise of 64 rows
    np.testing.assert_allclose(model.explained_variance_, VALUES, rtol=0.7)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rule": "gha", "optimizer": "nesterov"},
        {"loss": "vae"},
        {"loss": "stochastic_nested_dropout", "random_state": 3},
        {"hidden": (6,)},
    ],
    ids=str,
)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_partial_fit_goes_on_after_pickle(options, duplicate):
    """Weights, optimizer states, means, the iteration and the random numbers: as if nothing had happened."""
    whole = lf.LinearAutoencoder(P, init_scale=0.1, learning_rate=0.01, **options)
    batches = [X[i : i + 24 + i % 7] for i in range(0, 160, 8)]
    for i, batch in enumerate(batches):
        if i == 9:
            moved = duplicate(whole)
        whole.partial_fit(batch)
    for batch in batches[9:]:
        moved.partial_fit(batch)
    assert moved.n_iter_ == whole.n_iter_ == len(batches)
    for name in ("encoder_", "decoder_", "mean_", "explained_variance_"):
        np.testing.assert_array_equal(getattr(moved, name), getattr(whole, name))
    np.testing.assert_array_equal(moved.history_["loss"], whole.history_["loss"])


def _fitted_numbers(model):
    return {name: value for name, value in vars(model).items() if isinstance(value, (np.ndarray, int, float))}


@pytest.mark.parametrize("options", [{}, {"loss": "vae"}, {"hidden": (6,)}, {"optimizer": "momentum"}], ids=str)
def test_partial_fit_changes_everything_or_nothing(options):
    """After a step that diverges, and after steps of a shallow copy, it goes on as if they had not been."""
    options = {"init_scale": 0.1, "learning_rate": 0.01, **options}
    model, undisturbed = lf.LinearAutoencoder(P, **options), lf.LinearAutoencoder(P, **options)
    for i in range(3):
        model.partial_fit(X[30 * i : 30 * i + 30])
        undisturbed.partial_fit(X[30 * i : 30 * i + 30])
    before = copy.deepcopy(_fitted_numbers(model))
    with np.errstate(all="ignore"), pytest.raises(DivergenceError):
        model.partial_fit(X[:30] * 1e155)
    twin = copy.copy(model)
    for _ in range(4):
        twin.partial_fit(X[:50])
    for name, value in _fitted_numbers(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for batch in (X[90:130], X[40:70]):
        model.partial_fit(batch)
        undisturbed.partial_fit(batch)
    for name, value in _fitted_numbers(undisturbed).items():
        np.testing.assert_array_equal(getattr(model, name), value, err_msg=name)
    np.testing.assert_array_equal(model.history_["loss"], undisturbed.history_["loss"])


def test_variances_beyond_float32_stay_finite():
    large = lf.LinearAutoencoder(P, optimizer="nesterov").fit((X * 1e20).astype(np.float32))
    assert np.isfinite(large.explained_variance_).all()
    ordinary = lf.LinearAutoencoder(P, optimizer="nesterov").fit(X.astype(np.float32))
    np.testing.assert_allclose(large.explained_variance_ / 1e40, ordinary.explained_variance_, rtol=1e-3)


def test_transform_round_trip_and_score():
    model = quiet_fit(lf.LinearAutoencoder(P, optimizer="nesterov"), X)
    codes = model.transform(X)
    np.testing.assert_allclose(codes, (X - X.mean(axis=0)) @ model.encoder_.T, atol=1e-9)
    rebuilt = model.inverse_transform(codes)
    error = float(np.mean(np.sum((X - rebuilt) ** 2, axis=1)))
    assert model.score(X) == pytest.approx(-error, rel=1e-9)
    np.testing.assert_allclose(np.linalg.norm(model.components_, axis=1), 1.0)
    np.testing.assert_allclose(model.explained_variance_, VALUES * M / (M - 1), rtol=1e-4)
    np.testing.assert_allclose(model.fit_transform(X), codes)


@pytest.mark.parametrize(
    ("parameters", "arguments", "message"),
    [
        ({"n_components": 0}, {}, "n_components"),
        ({"n_components": D + 1}, {}, "there are no more directions"),
        ({"loss": "nonsense"}, {}, "is unknown; choose one of 'auto', 'mse'"),
        ({"loss": "sum_l2"}, {}, r"losses.sum_l2\(lam\)"),
        ({"rule": "nonsense"}, {}, "choose one of 'gradient'"),
        ({"rule": "rag", "loss": "ordered"}, {}, "does not go with loss"),
        ({"rule": "alternating", "batch_size": 10}, {}, "does not take a batch size"),
        ({"optimizer": "nonsense"}, {}, "choose one of 'auto', 'sgd'"),
        ({"learning_rate": -1.0}, {}, "learning_rate"),
        ({"learning_rate": "fast"}, {}, "learning_rate='fast'"),
        ({"schedule": "nonsense"}, {}, "schedule='nonsense' is unknown"),
        ({"backend": "nonsense"}, {}, "backend"),
        ({"stop": "alignment"}, {}, "needs reference"),
        ({"stop": "never"}, {}, "stop='never'"),
        ({"scale": "median"}, {}, "scale='median'"),
        ({"regime": "moments", "batch_size": 10}, {}, "mini-batches need the rows"),
        ({"init": (np.zeros((2, 2)), np.zeros((2, 2)))}, {}, "the decoder has shape"),
        ({"init_scale": 0.0}, {}, "critical point"),
        ({"hidden": (2,)}, {}, "narrower layer"),
        ({"max_iter": 0}, {}, "max_iter"),
        ({}, {"reference": np.zeros((3, P))}, "reference has shape"),
        ({}, {"targets": np.zeros((3, 2))}, "targets has 3 rows"),
        ({}, {"sample_weight": -np.ones(M)}, "must not be negative"),
        ({}, {"sample_weight": np.zeros(M)}, "zero for every sample"),
        ({"coupling": "tied"}, {"targets": np.ones((M, 2))}, "coupling"),
    ],
)
def test_bad_input_says_what_is_wrong(parameters, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        lf.LinearAutoencoder(**{"n_components": P, **parameters}).fit(X, **arguments)


@pytest.mark.parametrize("options", [{}, {"regime": "rows"}, {"batch_size": 16}])
def test_nan_is_named(options):
    x = X.copy()
    x[7, 3] = np.nan
    with pytest.raises(ValueError, match=r"first at row 7, column 3 .*impute those entries first \(NaN"):
        lf.LinearAutoencoder(P, **options).fit(x)


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e12])
def test_constant_tiny_and_huge_data(value):
    x = (samples(np.float32) - 5.0) * np.float32(value)
    model = quiet_fit(lf.LinearAutoencoder(2, optimizer="nesterov", max_iter=3000, init_scale=0.1), x)
    assert np.isfinite(model.encoder_).all()
    if value:
        assert metrics.ratio_tp(TRUTH[:, :2], model.decoder_) == 1.0


def test_history_does_not_depend_on_how_a_run_is_cut_into_calls(monkeypatch):
    found = []
    for seconds in (0.0, 0.25):
        monkeypatch.setattr(train, "_SLICE_SECONDS", seconds)
        model = lf.LinearAutoencoder(P, max_iter=60, record_every=20, random_state=0)
        found.append(quiet_fit(model, X).history_)
    for name in ("iteration", "loss", "gradient_norm"):
        np.testing.assert_array_equal(found[0][name], found[1][name])


@pytest.mark.parametrize("rule", ["oja", "gha", "alpha_eigengame", "mu_eigengame"])
def test_a_rule_with_one_matrix_is_tied_to_itself(rule):
    fits = [quiet_fit(lf.LinearAutoencoder(2, rule=rule, coupling=each, max_iter=5), X) for each in ("tied", "untied")]
    np.testing.assert_array_equal(fits[0].encoder_, fits[1].encoder_)
