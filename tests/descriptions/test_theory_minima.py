"""The theorems on minima, checked numerically: optima, random starts, shrinkage, balance, invariances."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize

from lae_fast import losses, metrics, theory
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import PRIOR, P
from tests.oracle.theory_cases import CASES, VALUES, WITH_TARGETS, covariance, pack, unpack


@pytest.mark.parametrize("scale", ["sum", "mean"])
@pytest.mark.parametrize(("kind", "targets"), [(k, False) for k in CASES] + [(k, True) for k in WITH_TARGETS])
def test_optimum_is_stationary_and_has_the_minimal_value(samples, kind, targets, scale):
    """The definition of the loss, evaluated sample by sample at the optimum, is `minimum`."""
    loss, parameters = CASES[kind]
    data = samples.target if targets else samples.own
    a, b = theory.optimum(data, P, loss, scale=scale)
    assert a.shape == (4 if targets else 5, P)
    assert b.shape == (P, 5)
    y = samples.y if targets else None
    value = naive.loss(kind, a, b, samples.x, y, samples.weights, scale, **parameters)
    assert theory.minimum(data, P, loss, scale=scale) == pytest.approx(value, rel=1e-10)
    factor = 1.0 if scale == "sum" else 1.0 / data.weight_sum
    sxy = data.xy * factor if targets else None
    for slope in naive.gradients(kind, a, b, data.xx * factor, sxy, **parameters):
        assert np.abs(slope).max() < 1e-10 * value


def descend(kind, parameters, sxx, sxy, yy_trace, q, seed):
    """L-BFGS on the oracle's gradients from a random start; returns (value, A, B)."""
    d = len(sxx)
    rng = np.random.default_rng(seed)
    syx = sxx if sxy is None else sxy.T
    c = naive.prefix_weights(kind, P, **parameters)

    def function(w):
        a, b = unpack(w, q, d)
        gram = naive.masked_gram(a.T @ a, c)
        value = c[0] * yy_trace - 2 * c @ np.diagonal(b @ syx.T @ a) + np.sum(gram * (b @ sxx @ b.T))
        value += naive.penalty(kind, a, b, **parameters)
        return value, pack(*naive.gradients(kind, a, b, sxx, sxy, **parameters))

    start = rng.normal(size=(q + d) * P) * 0.3
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 0.0, "gtol": 1e-10, "maxcor": 30}
    result = minimize(function, start, jac=True, method="L-BFGS-B", options=options)
    return (result.fun, *unpack(result.x, q, d))


@pytest.mark.parametrize(("kind", "targets"), [(k, False) for k in CASES] + [(k, True) for k in WITH_TARGETS])
def test_random_starts_reach_the_minimum_and_never_pass_it(samples, kind, targets):
    """All local minima are global (Baldi and Hornik; Oftadeh Thm. 1; Kunin Cor. 4.4; Bao Thm. 3)."""
    loss, parameters = CASES[kind]
    if targets:
        data, q = samples.target, 4
        factor = 1 / data.weight_sum
        sxx, sxy, yy = data.xx * factor, data.xy * factor, data.yy_trace * factor
    else:
        sxx, _ = covariance()
        data, q, sxy, yy = sxx, 5, None, float(np.trace(sxx))
    best = theory.minimum(data, P, loss)
    a_star, b_star = theory.optimum(data, P, loss)
    for seed in range(4):
        value, a, b = descend(kind, parameters, sxx, sxy, yy, q, seed)
        assert value == pytest.approx(best, rel=1e-9)
        assert value >= best - 1e-9 * yy
        np.testing.assert_allclose(a @ b, a_star @ b_star, atol=2e-4)
        aligned = metrics.ratio_tp(a_star, a, eps=1e-4)
        if loss.breaks_rotation(P):
            assert aligned == 1.0
        else:
            assert aligned < 1.0


@pytest.mark.parametrize("kind", ["sum_l2", "nonuniform_l2", "mixed_l2"])
def test_transpose_theorem(kind):
    """Kunin Thm. 2.1 and Bao Thm. 1: A = B' where descent stops.  Petrevski saw it for the mixed loss."""
    parameters = CASES[kind][1]
    sxx, _ = covariance()
    for seed in range(3):
        _, a, b = descend(kind, parameters, sxx, None, float(np.trace(sxx)), 5, seed)
        assert metrics.transpose_gap(a, b) < 1e-9
    # Without a sum penalty it fails.
    _, a, b = descend("product_l2", {"lam": 0.6}, sxx, None, float(np.trace(sxx)), 5, 0)
    assert metrics.transpose_gap(a, b) > 1e-3


@pytest.mark.parametrize("kind", ["sum_l2", "mixed_l2"])
def test_balance_at_every_critical_point(kind):
    """A' dL/dA - dL/dB B' = 2 lam (A'A - BB') identically, so A'A = BB' wherever the gradient vanishes."""
    parameters = CASES[kind][1]
    sxx, _ = covariance()
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, P)), rng.normal(size=(P, 5))
    da, db = naive.gradients(kind, a, b, sxx, **parameters)
    lam = naive.penalties(kind, P, **parameters)[0][0]
    np.testing.assert_allclose(a.T @ da - db @ b.T, 2 * lam * (a.T @ a - b @ b.T), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0, 3.0, 5.0, 7.0])
@pytest.mark.parametrize("kind", ["sum_l2", "product_l2", "mixed_l2"])
def test_shrinkage_curves(kind, lam):
    """Eigenvalues of the learned map against t(l), also where components collapse (Kunin, Fig. 5)."""
    parameters = {"lam": lam}
    if kind == "mixed_l2":
        parameters |= {"w_sum": 0.5, "w_product": 0.5}
    loss = getattr(losses, kind)(**parameters)
    sxx, u = covariance()
    _, a, b = descend(kind, parameters, sxx, None, float(np.trace(sxx)), 5, 1)
    expected = theory.shrinkage(VALUES[:P], loss)
    learned = np.diagonal(u.T @ a @ b @ u)
    np.testing.assert_allclose(learned, [*expected, 0.0, 0.0], atol=2e-4)
    formula = {
        "sum_l2": lambda v: max(0.0, 1 - lam / v),
        "product_l2": lambda v: v / (v + lam),
        "mixed_l2": lambda v: max(0.0, v - lam / 2) / (v + lam / 2),
    }[kind]
    np.testing.assert_allclose(expected, [formula(v) for v in VALUES[:P]], rtol=1e-14)


def test_shrinkage_of_the_others():
    np.testing.assert_array_equal(theory.shrinkage(VALUES, "ordered"), 1.0)
    np.testing.assert_allclose(
        theory.shrinkage([2.0, 1.0, 0.5], losses.nonuniform_l2([0.5, 0.6, 0.7])), [0.75, 0.4, 0.0]
    )
    np.testing.assert_array_equal(theory.shrinkage([1.0, 0.0], "mse"), [1.0, 0.0])


def test_sum_collapses_where_mixed_keeps_the_rank():
    """Petrevski, Sec. 4.2: s_i = (21 - i)/5, lam = 10, p = 8, scale sum."""
    values = ((21 - np.arange(1, 21)) / 5) ** 2
    s = np.diag(values)
    rank = {}
    for name, loss in (("sum", losses.sum_l2(10.0)), ("mixed", losses.mixed_l2(10.0, 0.5, 0.5))):
        a, _ = theory.optimum(s, 8, loss)
        rank[name] = np.linalg.matrix_rank(a)
    assert rank == {"sum": 5, "mixed": 8}
    assert values[7] > 0.5 * 10
    assert np.linalg.matrix_rank(theory.optimum(s, 8, losses.mixed_l2(10.0, 0.7, 0.3))[0]) == 7


def test_infeasible_nonuniform_penalties():
    """Trap: with r = linspace(0.1, 0.9) squared, components whose eigenvalue is under their penalty collapse."""
    lams = np.linspace(0.1, 0.9, 4) ** 2
    values = np.array([3.0, 1.0, 0.5, 0.6, 0.2])
    values = np.sort(values)[::-1]
    a, b = theory.optimum(np.diag(values), 4, losses.nonuniform_l2(lams))
    assert np.linalg.matrix_rank(a) == 3
    assert metrics.subspace_distance(np.eye(5)[:, :4], a) == pytest.approx(0.25)
    value = theory.minimum(np.diag(values), 4, losses.nonuniform_l2(lams))
    kept = sum(2 * lams[i] - lams[i] ** 2 / values[i] for i in range(3))
    assert value == pytest.approx(kept + values[3] + values[4], rel=1e-12)
    np.testing.assert_array_equal(b[3], 0.0)


@pytest.mark.parametrize(
    ("kind", "mixing"),
    [
        ("mse", np.random.default_rng(0).normal(size=(P, P))),
        ("product_l2", np.random.default_rng(0).normal(size=(P, P))),
        ("sum_l2", np.linalg.qr(np.random.default_rng(0).normal(size=(P, P)))[0]),
        ("mixed_l2", np.linalg.qr(np.random.default_rng(0).normal(size=(P, P)))[0]),
        ("ordered", [2.0, -0.5, 3.0]),
        ("nested_dropout", [2.0, -0.5, 3.0]),
        ("nonuniform_l2", [1.0, -1.0, -1.0]),
    ],
)
def test_invariance_group(kind, mixing):
    """Every allowed mixing gives another minimiser; a general one does not where the loss breaks the symmetry."""
    loss, parameters = CASES[kind]
    sxx, _ = covariance()
    a, b = theory.optimum(sxx, P, loss, mixing=mixing)
    assert np.abs(a - theory.optimum(sxx, P, loss)[0]).max() > 0.1
    x = np.linalg.cholesky(sxx).T  # five samples with x'x = sxx
    assert naive.loss(kind, a, b, x, **parameters) == pytest.approx(theory.minimum(sxx, P, loss), rel=1e-9)
    if kind not in ("mse", "product_l2"):
        general = np.random.default_rng(1).normal(size=(P, P))
        a, b = theory.optimum(sxx, P, loss)
        moved = naive.loss(kind, a @ np.linalg.inv(general), general @ b, x, **parameters)
        assert moved > 1.001 * theory.minimum(sxx, P, loss)


def test_signs_are_fixed():
    for data in (covariance()[0], covariance(seed=1)[0]):
        a, _ = theory.optimum(data, 4)
        assert np.all(a[np.argmax(np.abs(a), axis=0), np.arange(4)] > 0)


def test_targets_with_singular_inputs(samples):
    """Two equal input columns: Sxx has no inverse, the optimum is the one of least norm and still minimal."""
    x = np.column_stack([samples.x, samples.x[:, 0]])
    sxx, sxy, yy = naive.second_moments(x, samples.y)
    data = SimpleNamespace(xx=sxx, xy=sxy, yy_trace=yy, n_samples=25, weight_sum=25.0)
    a, b = theory.optimum(data, P, "ordered", scale="sum")
    value = naive.loss("ordered", a, b, x, samples.y)
    assert value == pytest.approx(theory.minimum(data, P, "ordered", scale="sum"), rel=1e-9)
    np.testing.assert_allclose(b[:, 0], b[:, 5], rtol=1e-6)
    single = SimpleNamespace(xx=sxx[:5, :5], xy=sxy[:5], yy_trace=yy, n_samples=25, weight_sum=25.0)
    assert value == pytest.approx(theory.minimum(single, P, "ordered", scale="sum"), rel=1e-9)


def test_stochastic_loss_is_treated_as_its_expectation():
    sxx, _ = covariance()
    loss = losses.stochastic_nested_dropout(PRIOR)
    assert theory.minimum(sxx, P, loss) == theory.minimum(sxx, P, loss.expectation)
