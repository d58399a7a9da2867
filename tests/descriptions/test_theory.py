"""The theorems, checked numerically: optima, minima, critical points, Hessian counts, shrinkage, likelihoods."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from lae_fast import losses, metrics, theory
from tests.oracle import naive_autoencoder as naive

P = 3
PRIOR = (0.5, 0.2, 0.3)
CASES = {
    "mse": (losses.mse(), {}),
    "ordered": (losses.ordered(), {}),
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "sum_l2": (losses.sum_l2(0.7), {"lam": 0.7}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.4, 0.9]), {"lams": (0.1, 0.4, 0.9)}),
    "product_l2": (losses.product_l2(0.6), {"lam": 0.6}),
    "mixed_l2": (losses.mixed_l2(2.8, 0.25, 0.75), {"lam": 2.8, "w_sum": 0.25, "w_product": 0.75}),
}
WITH_TARGETS = ("mse", "ordered", "nested_dropout", "product_l2")
VALUES = np.array([6.0, 4.0, 2.5, 1.2, 0.5])


def covariance(values=VALUES, seed=0):
    """A covariance with the given eigenvalues in a random basis, and the basis."""
    d = len(values)
    u = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    return (u * values) @ u.T, u


@pytest.fixture
def samples():
    """Weighted centred samples with targets of width 4, and their moments as a duck-typed object."""
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.5, 2.0, 25)
    x = rng.normal(size=(25, 5)) * np.sqrt([6.0, 4.0, 2.5, 1.2, 0.5])
    y = x @ rng.normal(size=(5, 4)) + rng.normal(size=(25, 4))
    x, y = x - np.average(x, axis=0, weights=weights), y - np.average(y, axis=0, weights=weights)
    sxx, sxy, yy = naive.second_moments(x, y, weights)
    shared = {"n_samples": 25, "weight_sum": float(weights.sum()), "xx": sxx}
    return SimpleNamespace(
        x=x,
        y=y,
        weights=weights,
        own=SimpleNamespace(**shared, xy=None, yy_trace=float(np.trace(sxx))),
        target=SimpleNamespace(**shared, xy=sxy, yy_trace=yy),
    )


def pack(a, b):
    return np.concatenate([a.ravel(), b.ravel()])


def unpack(w, q, d, p=P):
    return w[: q * p].reshape(q, p), w[q * p :].reshape(p, d)


def hessian(kind, parameters, a, b, sxx):
    """Hessian from the oracle's gradients; five-point differences are exact for these cubic gradients."""
    q, p, d = a.shape[0], b.shape[0], b.shape[1]
    w, h = pack(a, b), 1e-2

    def slope(w):
        return pack(*naive.gradients(kind, *unpack(w, q, d, p), sxx, **parameters))

    out = np.zeros((w.size, w.size))
    for i in range(w.size):
        e = np.zeros(w.size)
        e[i] = h
        out[:, i] = (slope(w - 2 * e) - 8 * slope(w - e) + 8 * slope(w + e) - slope(w + 2 * e)) / (12 * h)
    np.testing.assert_allclose(out, out.T, atol=1e-9 * np.abs(out).max())
    return (out + out.T) / 2


def signature(matrix):
    """(negative, zero) eigenvalues, demanding a clear gap around zero so that no count is a matter of tolerance."""
    values = np.linalg.eigvalsh(matrix)
    small = np.abs(values) <= 1e-9 * np.abs(values).max()
    assert np.all(np.abs(values[~small]) > 1e-5 * np.abs(values).max()), "no gap: choose another spectrum"
    return int(np.sum(values[~small] < 0)), int(np.sum(small))


# ---------------------------------------------------------------------------------------------------------------------
# optima and minima


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


# ---------------------------------------------------------------------------------------------------------------------
# critical points


def index_sets(d, largest):
    for r in range(largest + 1):
        yield from itertools.combinations(range(d), r)


@pytest.mark.parametrize("kind", CASES)
def test_critical_points_and_their_hessians(kind):
    """Every index set of every rank, p = 2 and 3, d = 4, generic mixing: zero gradient and the two counts."""
    values = np.array([5.0, 3.1, 1.7, 0.6])
    sxx, u = covariance(values)
    rng = np.random.default_rng(2)
    seen = set()
    for p in (2, 3):
        loss = losses.nonuniform_l2([0.2, 0.5, 0.9][:p]) if kind == "nonuniform_l2" else CASES[kind][0]
        parameters = {"lams": loss.lams} if kind == "nonuniform_l2" else dict(CASES[kind][1])
        if kind == "nested_dropout":
            parameters["prior"] = PRIOR if p == 3 else (0.4, 0.6)
            loss = losses.nested_dropout(parameters["prior"])
        for subset in index_sets(4, p):
            orders = itertools.permutations(subset) if loss.breaks_rotation(p) else [subset]
            for indices in orders:
                r = len(indices)
                lam = loss.row_penalty(p)
                if any(values[index] <= lam[slot] for slot, index in enumerate(indices)):
                    with pytest.raises(ValueError, match="no critical point with eigenvector"):
                        theory.critical_point(sxx, indices, p, loss)
                    continue
                if loss.breaks_rotation(p):
                    mixing = rng.choice([-1.0, 1.0], r) if kind == "nonuniform_l2" else rng.uniform(0.6, 1.6, r)
                else:
                    mixing = rng.normal(size=(p, r)) + 2 * np.eye(p, r)
                    mixing = np.linalg.qr(mixing)[0] if kind in ("sum_l2", "mixed_l2") else mixing
                a, b = theory.critical_point(sxx, indices, p, loss, mixing=mixing if r else None)
                for slope in naive.gradients(kind, a, b, sxx, **parameters):
                    assert np.abs(slope).max() < 1e-12 * values[0]
                assert np.linalg.matrix_rank(a) == r
                assert metrics.subspace_distance(u[:, list(indices)], a[:, :r]) < 1e-9 if r and r == p else True
                expected = signature(hessian(kind, parameters, a, b, sxx))
                got = (
                    theory.descending_directions(sxx, indices, p, loss),
                    theory.flat_directions(sxx, indices, p, loss),
                )
                assert got == expected, (p, indices)
                seen.add(got)
    assert len(seen) >= 8, "the cases must differ for the test to mean anything"


def test_printed_counts_fail_below_full_rank():
    """Kunin et al. 2019, Thm. 4.4 as printed, against the Hessian: right at r = p, wrong below."""
    sxx, _ = covariance(np.array([5.0, 3.1, 1.7, 0.6]))
    a, b = theory.critical_point(sxx, [1], 2, "mse", mixing=np.array([[1.0], [0.5]]))
    descending, flat = signature(hessian("mse", {}, a, b, sxx))
    assert (descending, flat) == (1 + 1 * 3, 2 * 2 * 1 - 1)
    assert flat != 2 * 1, "p r is what the theorem prints"
    # sum loss with one eigenvalue under lam: (p - r)(m0 - r), not (p - r)(d - r)
    a, b = theory.critical_point(sxx, [1], 2, losses.sum_l2(0.7))
    descending, _ = signature(hessian("sum_l2", {"lam": 0.7}, a, b, sxx))
    assert descending == 1 + 1 * (3 - 1)
    assert descending != 1 + 1 * (4 - 1)


@pytest.mark.parametrize("kind", ["mse", "product_l2"])
def test_any_left_inverse_is_critical(kind):
    """Below full rank the critical set is larger than the printed one: W2 = U L with any L G = I (2pr - r^2)."""
    loss, parameters = CASES[kind]
    sxx, u = covariance()
    rng = np.random.default_rng(4)
    indices, p = [0, 2], 3
    t = np.sqrt(theory.shrinkage(VALUES[indices], loss))
    g = rng.normal(size=(p, 2))
    left = np.linalg.pinv(g)
    left = left + np.outer([1.0, -2.0], np.linalg.svd(g)[0][:, 2])  # adds a part in the kernel of G'
    np.testing.assert_allclose(left @ g, np.eye(2), atol=1e-12)
    assert np.abs(left - np.linalg.pinv(g)).max() > 0.1
    a, b = (u[:, indices] * t) @ left, g @ (t[:, None] * u[:, indices].T)
    for slope in naive.gradients(kind, a, b, sxx, **parameters):
        assert np.abs(slope).max() < 1e-12


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("indices", [(0, 1, 2), (2, 0, 3), (1, 3), (3,)])
def test_ordered_critical_points_are_mse_critical_points(samples, indices, targets):
    """Oftadeh Thm. 2 and Cor. 1: B Sxx B' diagonal, AB = U_I U_I' Syx Sxx^-1, and the gradient of mse vanishes too."""
    data = samples.target if targets else samples.own
    a, b = theory.critical_point(data, indices, P, "ordered", scale="sum", mixing=np.arange(2.0, 2 + len(indices)))
    tolerance = 1e-10 * np.abs(data.xx).max()
    for kind in ("ordered", "mse"):
        for slope in naive.gradients(kind, a, b, data.xx, data.xy):
            assert np.abs(slope).max() < tolerance
    assert metrics.nondiagonality(b @ data.xx @ b.T) < tolerance
    syx = data.xx if data.xy is None else data.xy.T
    sigma = syx @ np.linalg.inv(data.xx) @ syx.T
    vectors = np.linalg.eigh(sigma)[1][:, ::-1][:, list(indices)]
    np.testing.assert_allclose(a @ b, vectors @ vectors.T @ syx @ np.linalg.inv(data.xx), atol=1e-9)
    # A rotated minimum of mse is no critical point of ordered: the symmetry is broken.
    if len(indices) == P:
        turned, back = theory.critical_point(data, indices, P, "mse", scale="sum", mixing=rotation3())
        assert np.abs(naive.gradients("mse", turned, back, data.xx, data.xy)[0]).max() < tolerance
        assert np.abs(naive.gradients("ordered", turned, back, data.xx, data.xy)[0]).max() > 1e3 * tolerance


def rotation3():
    return np.linalg.qr(np.random.default_rng(8).normal(size=(3, 3)))[0]


def test_rotated_minima_of_mse_are_no_minima_of_ordered():
    """Oftadeh: the invariant minima of mse become worse points, and permuted ones saddles, under the ordered loss."""
    sxx, _ = covariance()
    assert theory.descending_directions(sxx, [0, 1, 2], P, "ordered") == 0
    assert theory.descending_directions(sxx, [0, 2, 1], P, "ordered") == 1
    assert theory.descending_directions(sxx, [2, 1, 0], P, "ordered") == 3
    assert theory.descending_directions(sxx, [2, 1, 0], P, "mse") == 0


# ---------------------------------------------------------------------------------------------------------------------
# condition bounds


def condition_number(kind, parameters, a, b, sxx, flat):
    values = np.sort(np.linalg.eigvalsh(hessian(kind, parameters, a, b, sxx)))
    assert values[0] > -1e-8 * values[-1]
    return values[-1] / values[flat]


def test_condition_bounds_are_lower_bounds():
    """Bao, Sec. 4.3.1 and 5: under the condition number for every penalty and prior tried, and not vacuous."""
    rng = np.random.default_rng(0)
    tightest = {"nonuniform_l2": np.inf, "ordered": np.inf}
    for trial in range(40):
        p = int(rng.integers(2, 5))
        values = np.sort(rng.uniform(0.2, 5.0, p + 2))[::-1]
        sxx, leading = np.diag(values), values[:p]
        lams = np.sort(rng.uniform(0.02, 0.98, p)) * leading[-1]
        a, b = theory.optimum(sxx, p, losses.nonuniform_l2(lams))
        bound = theory.condition_bound(leading, "nonuniform_l2")
        number = condition_number("nonuniform_l2", {"lams": lams}, a, b, sxx, 0)
        assert bound < number
        assert (bound == 0.0) == (p == 2)
        if p > 2:
            tightest["nonuniform_l2"] = min(tightest["nonuniform_l2"], number / bound)
        prior = rng.dirichlet(np.full(p, 4.0)) if trial % 2 else np.full(p, 1.0 / p)
        a, b = theory.optimum(sxx, p, losses.nested_dropout(prior))
        bound = theory.condition_bound(leading, losses.nested_dropout(prior))
        number = condition_number("nested_dropout", {"prior": prior}, a, b, sxx, p)
        assert bound < number
        tightest["ordered"] = min(tightest["ordered"], number / bound)
    assert tightest["ordered"] < 4, "the nested-dropout bound is nearly sharp"
    assert tightest["nonuniform_l2"] < 1e3


def test_condition_bounds_by_hand():
    s = [5.0, 3.0, 2.0, 1.0]
    assert theory.condition_bound(s, "nonuniform_l2") == pytest.approx(2 * 3 * 4 * (2 + 1) / 5)
    assert theory.condition_bound(s, "ordered") == pytest.approx(8 * 5 * 9 / 4)
    assert theory.condition_bound(np.multiply(7.0, s), "nested_dropout") == pytest.approx(90.0)
    assert theory.condition_bound(s, losses.nonuniform_l2([0.1, 0.2, 0.3, 0.4])) == pytest.approx(14.4)


# ---------------------------------------------------------------------------------------------------------------------
# probabilistic PCA and the linear VAE


def log_likelihood(w, noise, values_or_s):
    """Mean log likelihood of probabilistic PCA for a mean covariance."""
    d = len(values_or_s)
    model = w @ w.T + noise * np.eye(d)
    sign, determinant = np.linalg.slogdet(model)
    assert sign > 0
    return -0.5 * (d * math.log(2 * math.pi) + determinant + np.trace(np.linalg.solve(model, values_or_s)))


def test_ppca_maximises_the_likelihood(samples):
    x = samples.x[:, :4] - samples.x[:, :4].mean(0)
    s = x.T @ x / len(x)
    w, noise = theory.ppca(s, 2)
    best = log_likelihood(w, noise, s)
    scipy_value = multivariate_normal(np.zeros(4), w @ w.T + noise * np.eye(4)).logpdf(x).mean()
    assert best == pytest.approx(scipy_value, rel=1e-10)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-1):
        for _ in range(50):
            moved = log_likelihood(w + size * rng.normal(size=w.shape), noise * math.exp(size * rng.normal()), s)
            assert moved < best
    turned, _ = theory.ppca(s, 2, mixing=np.array([[0.6, 0.8], [-0.8, 0.6]]))
    assert np.abs(turned - w).max() > 0.1
    assert log_likelihood(turned, noise, s) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("scale", ["sum", "mean"])
def test_ppca_theorem(samples, scale):
    """Kunin Thm. 3.1: Sxx^(1/2) A of the sum loss is the W of pPCA with noise lam; collapsed components included."""
    factor = 1.0 if scale == "sum" else 1.0 / samples.own.weight_sum
    values, vectors = np.linalg.eigh(samples.own.xx * factor)
    lam = float(values[2:4].mean())  # between the second and third largest
    w, noise = theory.ppca(samples.own, P, lam, scale=scale)
    a, _ = theory.optimum(samples.own, P, losses.sum_l2(lam), scale=scale)
    root = (vectors * np.sqrt(values)) @ vectors.T
    np.testing.assert_allclose(root @ a, w, atol=1e-10 * np.abs(w).max())
    assert noise == lam
    assert np.linalg.matrix_rank(w) == 2


def test_vae_optimum(samples):
    """Zero gradient, value `minimum`, and that value is the negative log likelihood of pPCA (Lucas et al. 2019)."""
    best = theory.vae_optimum(samples.own, 2)
    s = samples.own.xx / samples.own.weight_sum
    for slope in naive.vae_gradients(*best, s):
        assert np.abs(slope).max() < 1e-10
    value = naive.vae_loss(*best, samples.x, samples.weights)
    assert value == pytest.approx(theory.minimum(samples.own, 2, "vae"), rel=1e-12)
    w, noise = theory.ppca(samples.own, 2)
    np.testing.assert_allclose(best.decoder, w, rtol=1e-12, atol=1e-12)
    assert value == pytest.approx(-log_likelihood(w, noise, s), rel=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(30):
        moved = [part + 0.05 * rng.normal(size=np.shape(part)) for part in best]
        assert naive.vae_loss(*moved, samples.x, samples.weights) > value


# ---------------------------------------------------------------------------------------------------------------------
# errors


S = np.diag(VALUES)
TARGETS = SimpleNamespace(xx=S, xy=np.eye(5)[:, :4], yy_trace=9.0, n_samples=10, weight_sum=10.0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.optimum(S, 6), r"p=6 must be an integer >= 1 and <= min\(d, q\) = 5"),
        (lambda: theory.optimum(TARGETS, 5), r"min\(d, q\) = 4"),
        (lambda: theory.optimum(S, 0), "p=0 must be"),
        (lambda: theory.optimum(S, 2, scale="rms"), "scale='rms' is unknown; choose one of 'mean', 'sum'"),
        (lambda: theory.optimum(np.ones((3, 2)), 1), "symmetric"),
        (lambda: theory.optimum(np.triu(np.ones((3, 3))), 1), "symmetric"),
        (lambda: theory.optimum(S, 2, "vae"), "vae_optimum"),
        (lambda: theory.optimum(TARGETS, 2, losses.sum_l2(0.1)), "no closed form is known for loss 'sum_l2'"),
        (lambda: theory.optimum(S, 2, losses.nonuniform_l2([0.1])), "lams has 1 entries"),
        (lambda: theory.optimum(S, 2, losses.nested_dropout(PRIOR)), "prior has 3 entries"),
        (lambda: theory.optimum(S, 2, "mse", mixing=np.ones((2, 2))), "linearly independent"),
        (lambda: theory.optimum(S, 2, "mse", mixing=np.ones((3, 2))), r"mixing must have shape \(2, 2\)"),
        (lambda: theory.optimum(S, 2, losses.sum_l2(0.1), mixing=2 * np.eye(2)), "orthonormal"),
        (lambda: theory.optimum(S, 2, "ordered", mixing=[1.0, 0.0]), "nonzero factors"),
        (lambda: theory.optimum(S, 2, losses.nonuniform_l2([0.1, 0.2]), mixing=[1.0, 2.0]), r"\+1 and -1"),
        (lambda: theory.minimum(S, 2, "vae", scale="sum"), "scale='mean'"),
        (lambda: theory.critical_point(S, [0, 0], 2), "distinct"),
        (lambda: theory.critical_point(S, [0, 5], 2), "between 0 and 4"),
        (lambda: theory.critical_point(S, [0, 1, 2], 2), "more than p = 2"),
        (lambda: theory.critical_point(S, [4], 1, losses.sum_l2(0.7)), "does not exceed the penalty"),
        (lambda: theory.descending_directions(TARGETS, [0], 1), "Y = X only"),
        (lambda: theory.flat_directions(np.eye(3), [0], 1), "distinct eigenvalues"),
        (lambda: theory.flat_directions(np.diag([1.0, 0.0]), [0], 1), "distinct eigenvalues"),
        (lambda: theory.flat_directions(np.zeros((2, 2)), [0], 1), "distinct eigenvalues"),
        (lambda: theory.flat_directions(S, [0], 1, losses.sum_l2(1.2)), "equals an eigenvalue"),
        (lambda: theory.flat_directions(S, [0], 3, losses.nested_dropout([0.5, 0.0, 0.5])), "zero in it"),
        (lambda: theory.condition_bound(VALUES, "mse"), "no bound is known"),
        (lambda: theory.condition_bound([1.0], "ordered"), "p >= 2"),
        (lambda: theory.condition_bound([1.0, 2.0], "ordered"), "descending"),
        (lambda: theory.condition_bound([1.0, 1.0], "ordered"), "first over the last"),
        (lambda: theory.shrinkage([-1.0], "mse"), "non-negative"),
        (lambda: theory.ppca(S, 5), "leaves no eigenvalue"),
        (lambda: theory.ppca(np.diag([1.0, 0.0, 0.0]), 1), "unbounded"),
        (lambda: theory.ppca(TARGETS, 2), "without xy"),
        (lambda: theory.ppca(S, 2, -1.0), "noise_variance"),
        (lambda: theory.vae_optimum(TARGETS, 2), "without xy"),
    ],
)
def test_bad_values(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.optimum(S, 2.0), "p=2.0 must be an integer"),
        (lambda: theory.critical_point(S, [0.5], 1), "must be a sequence of integers"),
        (lambda: theory.optimum(S + 1j, 2), "real numbers"),
    ],
)
def test_bad_types(call, match):
    with pytest.raises(TypeError, match=match):
        call()
