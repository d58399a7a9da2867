"""The theorems on critical points, checked numerically: Hessian counts, left inverses, condition bounds."""

import itertools

import numpy as np
import pytest

from lae_fast import losses, metrics, theory
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import PRIOR, P
from tests.oracle.theory_cases import CASES, VALUES, covariance, hessian


def signature(matrix):
    """(negative, zero) eigenvalues, demanding a clear gap around zero so that no count is a matter of tolerance."""
    values = np.linalg.eigvalsh(matrix)
    small = np.abs(values) <= 1e-9 * np.abs(values).max()
    assert np.all(np.abs(values[~small]) > 1e-5 * np.abs(values).max()), "no gap: choose another spectrum"
    return int(np.sum(values[~small] < 0)), int(np.sum(small))


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
