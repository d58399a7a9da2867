"""A trained model knows its distance from the optimum, and says "converged" only there: reached or told."""

import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast import losses, theory
from lae_fast.backends import formulas
from lae_fast.errors import DivergenceError
from tests.oracle import naive_autoencoder as naive
from tests.oracle.converged_cases import D, M, P, fit, rows_with

pytestmark = pytest.mark.needs_jit

TOL = 1e-6


def true_covariance(x):
    x = np.asarray(x, dtype=np.float64)
    return np.cov(x, rowvar=False, ddof=0)


def true_residuals(s, decoder):
    found = []
    for a in np.asarray(decoder, dtype=np.float64).T:
        u = a / np.linalg.norm(a)
        r = u @ s @ u
        found.append(np.linalg.norm(s @ u - r * u) / r)
    return np.array(found)


# ---------------------------------------------------------------------------------------------------------------------
# reached or told


def all_losses(largest):
    return [
        losses.mse(), losses.ordered(), losses.nested_dropout("uniform"), losses.sum_l2(0.01 * largest),
        losses.nonuniform_l2([0.001 * largest, 0.01 * largest, 0.03 * largest]), losses.product_l2(0.01 * largest),
        losses.mixed_l2(0.02 * largest, 0.5, 0.5),
    ]  # fmt: skip


ALIGNED = ("ordered", "nested_dropout", "nonuniform_l2")
OPTIMIZERS = ("auto", "sgd", "momentum", "nesterov", "adam")


def check_reached_or_told(x, case, optimizer, coupling):
    """Fit, and hold the word of the model against eigenvalues of NumPy and losses of naive loops."""
    s = true_covariance(x)
    values, vectors = np.linalg.eigh(s)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    rule, loss = case if isinstance(case, tuple) else ("gradient", all_losses(values[0])[case])
    optimizer = "auto" if rule == "alternating" else optimizer  # which takes no steps
    options = {"rule": rule, "optimizer": optimizer, "coupling": coupling if rule == "gradient" else "untied"}
    try:
        model, told = fit(x, max_iter=3000, loss="auto" if loss is None else loss, **options)
    except DivergenceError:
        return
    if not model.converged_:
        assert told
        return
    eps = np.finfo(x.dtype).eps
    decoder, encoder = (np.asarray(w, dtype=np.float64) for w in (model.decoder_, model.encoder_))
    solved = loss or (losses.mse() if rule == "oja" else losses.ordered())
    minimum, start = theory.minimum(s, P, solved), float(solved.prefix(P)[0]) * np.trace(s)
    excess = (_loss(solved, decoder, encoder, s) - minimum) / (start - minimum)
    gains = _gains(solved, values[:P])
    # what rounding leaves of a component, relative to it: nothing is asked of one that is under rounding
    rounding = np.minimum(8 * eps * values[0] / np.maximum(values[:P], 1e-300), 1.0)
    seen = gains[(gains > 1e-12 * gains.max()) & (rounding < 0.1)]
    allowed = TOL * seen.min() + np.sum(solved.prefix(P) * (rounding**2 + eps) * values[:P])
    assert excess * (start - minimum) <= 2 * allowed + 1e-13 * start
    slack = 4 * max(eps, 1e-13) * start / (start - minimum)  # of S, which is summed from rows of this dtype
    assert excess == pytest.approx(model.excess_loss_, rel=1e-3, abs=slack)
    if rule in ("rag", "gha", "alpha_eigengame", "mu_eigengame") or (solved.name in ALIGNED and rule != "oja"):
        alive = (gains > 0) & (rounding < 0.1)
        residuals = true_residuals(s, decoder[:, alive])
        assert (residuals <= np.maximum(4 * np.sqrt(TOL), 2 * rounding[alive])).all()
        np.testing.assert_allclose(
            model.alignment_residuals_[alive], residuals, rtol=1e-2, atol=2 * eps * values[0] / values[:P][alive].min()
        )
        quotients = np.array([u @ s @ u for u in (decoder[:, alive] / np.linalg.norm(decoder[:, alive], axis=0)).T])
        np.testing.assert_allclose(quotients, values[:P][alive], rtol=8e-3, atol=16 * eps * values[0])


def _gains(loss, values):
    lam, ridge = loss.row_penalty(P), loss.product_penalty
    return loss.prefix(P) * np.maximum(values - lam, 0.0) ** 2 / np.maximum(values + ridge, 1e-300)


def _loss(loss, a, b, s):
    """From the definition: the squared error of every prefix, with its weight, and the penalties."""
    c = np.append(loss.prefix(P), 0.0)
    value = 0.0
    for n in range(1, P + 1):
        gap = np.eye(len(s)) - a[:, :n] @ b[:n]
        value += (c[n - 1] - c[n]) * np.trace(gap @ s @ gap.T)
    value += sum(lam * (a[:, i] @ a[:, i] + b[i] @ b[i]) for i, lam in enumerate(loss.row_penalty(P)))
    return value + loss.product_penalty * np.sum((a @ b) ** 2)


spectra = st.one_of(
    st.lists(st.floats(1e-3, 1.0), min_size=D, max_size=D).map(lambda v: np.sort(v)[::-1]),
    st.floats(0.5, 5.0).map(lambda power: np.logspace(0.0, -power, D)),  # graded
    st.tuples(st.floats(1e-5, 1e-1), st.integers(1, D - 1)).map(lambda t: np.where(np.arange(D) < t[1], 1.0, t[0])),
    st.integers(1, D).map(lambda rank: np.where(np.arange(D) < rank, np.linspace(1.0, 0.5, D), 0.0)),
)
cases = st.one_of(
    st.integers(0, 6),
    st.sampled_from([("rag", losses.mse()), *((r, None) for r in ("oja", "gha", "alpha_eigengame", "mu_eigengame"))]),
    st.sampled_from([("alternating", losses.mse()), ("alternating", losses.ordered())]),
)


@settings(max_examples=120)
@given(
    spectra, cases, st.sampled_from(OPTIMIZERS), st.sampled_from(["untied", "untied", "tied", "synchronised"]),
    st.sampled_from([np.float32, np.float64]), st.integers(0, 5), st.sampled_from([1.0, 1e-4, 1e5]),
)  # fmt: skip
def test_every_run_has_reached_the_optimum_or_says_that_it_has_not(
    spectrum, case, optimizer, coupling, dtype, seed, scale
):
    if case == ("alternating", losses.mse()) or case == ("alternating", losses.ordered()):
        spectrum = np.maximum(spectrum, 1e-3)  # slow in Python where it does not end
    check_reached_or_told(rows_with(spectrum * scale, seed, dtype), case, optimizer, coupling)


# ---------------------------------------------------------------------------------------------------------------------
# what the model knows


@pytest.mark.parametrize("case", range(7))
def test_excess_and_residuals_on_the_way(case):
    """After a few steps, where nothing has converged, against the definitions."""
    x = rows_with(np.linspace(2.0, 0.2, D))
    s = true_covariance(x)
    loss = all_losses(2.0)[case]
    for n in (1, 200):
        model, told = fit(x, loss=loss, optimizer="nesterov", max_iter=n, init_scale=0.3)
        decoder, encoder = model.decoder_, model.encoder_
        minimum, start = theory.minimum(s, P, loss), float(loss.prefix(P)[0]) * np.trace(s)
        expected = (_loss(loss, decoder, encoder, s) - minimum) / (start - minimum)
        assert model.excess_loss_ == pytest.approx(expected, rel=1e-9, abs=1e-12)
        np.testing.assert_allclose(model.alignment_residuals_, true_residuals(s, decoder), rtol=1e-8)
        assert told and not model.converged_


@pytest.mark.parametrize("regime", ["moments", "rows"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_regimes_and_weights_know_the_same(regime, dtype):
    x = rows_with(np.linspace(2.0, 0.2, D), dtype=dtype)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, M)
    model, _ = fit(x, max_iter=150, optimizer="nesterov", init_scale=0.1, regime=regime,
                   fit_arguments={"sample_weight": weights})  # fmt: skip
    xc = x.astype(np.float64) - np.average(x.astype(np.float64), axis=0, weights=weights)
    s = (xc * weights[:, None]).T @ xc / weights.sum()
    loss = losses.ordered()
    minimum, start = theory.minimum(s, P, loss), P * np.trace(s)
    expected = (_loss(loss, *(w.astype(np.float64) for w in (model.decoder_, model.encoder_)), s) - minimum) / (
        start - minimum
    )
    rel, floor = (1e-6, 1e-9) if dtype == np.float64 else (1e-4, 1e-6)
    assert model.excess_loss_ == pytest.approx(expected, rel=rel, abs=floor)
    np.testing.assert_allclose(model.alignment_residuals_, true_residuals(s, model.decoder_), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("regime", ["moments", "rows"])
def test_fewer_rows_than_components_and_constant_columns(regime):
    x = rows_with(np.linspace(2.0, 0.2, D))[:3]
    model, told = fit(x, 5, regime=regime, optimizer="nesterov", max_iter=5000)
    assert (model.converged_ or told) and model.excess_loss_ < 1e-6  # what has no variance vanishes slowly
    assert np.isnan(model.alignment_residuals_).tolist() == [False, False, True, True, True]
    x = rows_with(np.linspace(2.0, 0.2, D))
    x[:, 2] = 7.0
    model, _ = fit(x, D, regime=regime, optimizer="nesterov", max_iter=20_000)
    assert model.converged_ and model.excess_loss_ < 1e-6
    model, _ = fit(np.full((9, D), 3.0), 2, regime=regime, max_iter=20)
    assert np.isnan(model.excess_loss_) and np.isnan(model.alignment_residuals_).all()


def targets_with(rng, x, coarse):
    """Targets that the directions of small variance explain as well as those of large variance, and noise."""
    y = (x / coarse) @ rng.standard_normal((x.shape[1], 4)) * np.logspace(0.0, -1.0, 4)
    return y + 0.3 * rng.standard_normal(y.shape)


@settings(max_examples=40)
@given(
    st.integers(0, 50), st.sampled_from([0.0, 1.0, 3.0]), st.sampled_from([1e-6, 1.0, 1e6]),
    st.sampled_from([1e-9, 1e-4, 1.0, 1e9]), st.sampled_from([np.float32, np.float64]),
    st.sampled_from([losses.mse(), losses.ordered(), losses.product_l2(0.01)]),
    st.sampled_from([("gradient", "auto"), ("gradient", "sgd"), ("gradient", "nesterov"), ("alternating", "auto")]),
)  # fmt: skip
@example(1, 0.0, 1.0, 1e-9, np.float64, losses.ordered(), ("gradient", "auto"))
@example(1, 1.0, 1.0, 1e-4, np.float32, losses.ordered(), ("alternating", "auto"))
@example(1, 3.0, 1e6, 1e-6, np.float64, losses.ordered(), ("alternating", "auto"))
def test_targets_in_any_units_have_reached_the_optimum_or_say_that_they_have_not(
    seed, power, x_unit, y_unit, dtype, loss, method
):
    rng = np.random.default_rng(seed)
    coarse = np.logspace(0.0, -power, D)
    x = rng.standard_normal((M, D)) * coarse
    y = targets_with(rng, x, coarse)
    x, y = (x * x_unit).astype(dtype), (y * y_unit).astype(dtype)
    rule, optimizer = method
    if loss.product_penalty:
        loss, rule = losses.product_l2(0.01 * x_unit**2), "gradient"
    try:
        model, told = fit(x, 2, {"targets": y}, rule=rule, loss=loss, optimizer=optimizer, max_iter=2000)
    except DivergenceError:
        return
    assert model.converged_ != told
    moments = lf.Moments.from_data(x.astype(np.float64), y.astype(np.float64))
    minimum, start = theory.minimum(moments, 2, loss), float(loss.prefix(2)[0]) * moments.yy_trace / M
    excess = (lf.loss(model.decoder_, model.encoder_, moments, loss) - minimum) / (start - minimum)
    if model.converged_:
        assert excess < (1e-5 if dtype == np.float32 else 1e-6)


def test_targets_are_measured_against_their_own_directions():
    x = rows_with(np.linspace(2.0, 0.2, D))
    rng = np.random.default_rng(1)
    y = x @ rng.standard_normal((D, 5)) + 0.1 * rng.standard_normal((M, 5))
    moments = lf.Moments.from_data(x, y)
    for loss in (losses.ordered(), losses.product_l2(0.1)):
        model, _ = fit(x, loss=loss, optimizer="nesterov", max_iter=500, fit_arguments={"targets": y})
        value = lf.loss(model.decoder_, model.encoder_, moments, loss)
        minimum = theory.minimum(moments, P, loss)
        start = float(loss.prefix(P)[0]) * moments.yy_trace / M
        assert model.excess_loss_ == pytest.approx((value - minimum) / (start - minimum), rel=1e-6, abs=1e-12)
        yc, xc = y - y.mean(axis=0), x - x.mean(axis=0)
        ridge = loss.product_penalty * np.eye(D)
        sigma = (yc.T @ xc / M) @ np.linalg.solve(xc.T @ xc / M + ridge, xc.T @ yc / M)
        np.testing.assert_allclose(model.alignment_residuals_, true_residuals(sigma, model.decoder_), rtol=1e-6)
    unknown, _ = fit(x, loss=losses.sum_l2(0.1), optimizer="nesterov", max_iter=50, fit_arguments={"targets": y})
    assert np.isnan(unknown.excess_loss_) and "no closed form" in unknown.converged_reason_


def test_the_vae_is_measured_by_its_likelihood():
    x = rows_with(np.linspace(2.0, 0.2, D))
    moments = lf.Moments.from_data(x)
    model, _ = fit(x, loss="vae", max_iter=300)
    value = lf.vae_loss(model.decoder_, model.encoder_, model.latent_variances_, model.noise_variance_, moments)
    start = lf.vae_loss(np.zeros((D, P)), np.zeros((P, D)), 1.0, 1.0, moments)
    minimum = theory.minimum(moments, P, "vae")
    assert model.excess_loss_ == pytest.approx((value - minimum) / (start - minimum), rel=1e-9)


def test_a_component_that_the_penalty_removes_has_no_direction():
    x = rows_with(np.array([2.0, 1.0, 0.1, 0.05, 0.02, 0.01]))
    model, told = fit(x, loss=losses.sum_l2(0.3), optimizer="nesterov", max_iter=20_000)
    assert model.converged_ and told  # told that a component is removed
    assert model.excess_loss_ < 1e-6
    nonuniform = losses.nonuniform_l2([0.1, 0.2, 0.5])
    model, _ = fit(x, loss=nonuniform, optimizer="nesterov", max_iter=60_000)
    assert model.converged_ and np.isnan(model.alignment_residuals_).tolist() == [False, False, True]


def test_a_penalty_that_an_eigenvalue_exceeds_by_rounding_alone_removes_it():
    x = np.full((2, 1), np.sqrt(2.0))
    model, _ = fit(x, 1, loss=losses.sum_l2(4.0), center=False, scale="sum", max_iter=100)
    assert "every component is zero" in model.converged_reason_ and np.isnan(model.excess_loss_)


def test_the_criterion_of_a_row():
    """Of first order in the weights and unlearned, however small; dying; without variance; learned."""
    still = formulas.is_still
    for w in (1.0, 1e-3, 1e-6):
        assert not still((2.0 * 0.5 * w) ** 2, -w * w, w * w, 0.5 * w**4, 0.0, 1e-6, 0.0, 1e-6)
        assert still((1e-7 * w**3) ** 2, 0.0, w * w, 0.5 * w**4, 0.0, 1e-6, 0.0, 0.0)
    assert still((2.0 * 1e-9) ** 2, 2e-9, 1.0, 1e-9, 0.0, 1e-6, 0.0, 1e-6)  # own size is nothing
    assert still((2.0 * 0.4 * 1e-7) ** 2, 1e-14, 1e-14, 1e-30, 0.5, 1e-6, 0.0, 1e-6)  # the penalty removes it
    assert not still((2.0 * 0.4 * 1e-7) ** 2, -1e-14, 1e-14, 1e-30, 0.5, 1e-6, 0.0, 1e-6)  # it grows
    assert not still(1e-6, 0.0, 0.0, 0.0, 0.0, 1e-6, 0.0, 1.0)
    assert still(1e-12, 0.0, 1.0, 0.5, 0.0, 0.0, 2e-6, 0.0) and not still(1e-12, 0.0, 1.0, 0.5, 0.0, 0.0, 5e-7, 0.0)


def test_naive_losses_agree_with_those_of_this_file():
    x = rows_with(np.linspace(2.0, 0.2, D))
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((D, P)), rng.standard_normal((P, D))
    assert _loss(losses.ordered(), a, b, true_covariance(x)) == pytest.approx(
        naive.loss("ordered", a, b, x - x.mean(axis=0), None, scale="mean"), rel=1e-10
    )


def test_the_benchmark_counts_runs_that_have_done_neither(tmp_path, monkeypatch, capsys):
    from benchmarks import convergence, training

    assert training.main(["--truth", "--smoke", "--out", str(tmp_path / "truth.json")]) == 0
    assert "| gradient, ordered | 4 |" in capsys.readouterr().out
    wrong = [convergence.Trial("rag", "adam", "ties", "float64", "neither", 1e-9, 0.5, 100)]
    monkeypatch.setattr(convergence, "run", lambda *_: wrong)
    assert training.main(["--truth", "--smoke", "--out", str(tmp_path / "truth.json")]) == 1
    assert "| rag | 1 | 0 | 0 | 1 |" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------------------------
# sizes


KINDS = [
    {}, {"regime": "rows"}, {"batch_size": 32}, {"rule": "alternating"}, {"rule": "rag"}, {"rule": "oja"},
    {"rule": "mu_eigengame"}, {"loss": "mse", "optimizer": "nesterov"}, {"hidden": (4,), "optimizer": "nesterov"},
]  # fmt: skip


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_run_is_the_same_at_any_size_that_is_taken(options):
    """Powers of two, so that rows and moments are the same to the last bit."""
    x = rows_with(np.linspace(2.0, 0.2, D))
    plain, _ = fit(x, 2, max_iter=300, **options)
    for size in (2.0**-214, 2.0**214):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            model, _ = fit(x * size, 2, max_iter=300, **options)
        assert model.n_iter_ == plain.n_iter_ and model.converged_ == plain.converged_
        np.testing.assert_allclose(model.decoder_, plain.decoder_, rtol=1e-6, atol=1e-9)
        assert model.excess_loss_ == pytest.approx(plain.excess_loss_, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("options", [*KINDS, {"loss": "vae"}], ids=str)
@pytest.mark.parametrize("size", [1e-140, 1e-80, 1e80, 1e140])
def test_sizes_whose_gradients_leave_the_range_are_refused(options, size):
    x = rows_with(np.linspace(2.0, 0.2, D))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=f"Multiply X by 1e{-round(np.log10(size))}"):
            lf.LinearAutoencoder(2, max_iter=50, **options).fit(x * size)
    if not options:
        with pytest.raises(ValueError, match="second moments of targets"):
            lf.LinearAutoencoder(2, max_iter=50).fit(x, targets=x * size)
        with pytest.raises(ValueError, match="Multiply X by"):
            lf.LinearAutoencoder(2).partial_fit(x * size)
