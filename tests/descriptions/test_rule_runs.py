"""Rules over many steps: against the oracle, what they conserve, what they converge to, and the exact solves."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from lae_fast import losses, metrics, optimizers, rules
from lae_fast.training import alternating, compatibility, problem
from lae_fast.training.engine import Recipe
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loss_cases import CASES, P
from tests.oracle.rule_cases import ENCODER_ONLY, D, Q, directions, weights


def alternating_engine(loss, a, b, sxx, sxy=None, coupling="untied"):
    """The engine of the alternating rule on these moments, with weights a (q, p) and b (p, d)."""
    loss = losses.resolve(loss)
    q = len(sxx) if sxy is None else sxy.shape[1]
    described = problem.MomentProblem(
        n_samples=40, d=len(sxx), q=q, same=sxy is None, dtype=np.dtype(np.float64), mean=np.zeros(len(sxx)),
        mean_y=np.zeros(q), yy_trace=1.0, factor=1.0, weight_sum=1.0, largest=1.0, trace=1.0, sxx=sxx,
        sxy=np.zeros((0, 0)) if sxy is None else sxy, moments=SimpleNamespace(xx=sxx, xy=sxy),
    )  # fmt: skip
    recipe = Recipe(rules.alternating(), loss, None, coupling, "mean", 1e-9)
    return alternating.AlternatingEngine(described, recipe, b, a.T)


def library_train(rule, optimizer, a, b, sxx, sxy, loss, coupling, iterations):
    """A training loop out of the library's own NumPy pieces."""
    rule = rules.resolve(rule)
    at, b = a.T.copy(), b.copy()
    states = [[np.zeros_like(w) for _ in range(optimizer.n_states)] for w in (at, b)]
    path = []
    for t in range(iterations):
        if not rule.iterative:
            b, at = alternating_engine(loss, at.T, b, sxx, sxy, coupling).solved(at)
            path.append((at.T.copy(), b.copy()))
            continue
        decoder, encoder = directions(rule, loss, at.T, b, sxx, sxy)
        if not rule.has_decoder:
            optimizers.step(optimizer, b, encoder, states[1], t)
            b = rules.normalise_rows(b) if rule.normalises_rows else b
            at = b.copy()
        elif coupling == "tied":
            optimizers.step(optimizer, at, decoder, states[0], t)
            b = at.copy()
        elif coupling == "synchronised":
            optimizers.step(optimizer, b, rules.synchronise(encoder, decoder.T)[0], states[1], t)
            at = b.copy()
        else:
            optimizers.step(optimizer, b, encoder, states[1], t)
            if isinstance(rule, rules.gradient) and rule.sequential:
                decoder, _ = directions(rule, loss, at.T, b, sxx, sxy)
            optimizers.step(optimizer, at, decoder, states[0], t)
        path.append((at.T.copy(), b.copy()))
    return path


def combinations():
    """Every allowed combination of rule, loss, optimizer, targets and coupling that runs on moments.

    AdaOja, which has steps of its own, has its twin in tests/training/test_adaoja.py.
    """
    for entry in compatibility.TABLE:
        for rule, loss in itertools.product(entry.rules, entry.losses or (None,)):
            if (loss is not None and loss not in CASES) or rule == "adaoja":
                continue
            for optimizer, coupling, targets in itertools.product(
                entry.optimizers or ("sgd",), entry.couplings, (False, True) if entry.targets else (False,)
            ):
                if not (targets and coupling != "untied"):
                    yield rule, loss, optimizer, coupling, targets


@pytest.mark.parametrize(("rule", "loss", "optimizer", "coupling", "targets"), list(combinations()))
def test_fifty_steps_against_the_oracle(moments, rule, loss, optimizer, coupling, targets):
    """Step by step: every allowed combination follows its naive twin for 50 iterations."""
    sxx, sxy = moments[0], moments[1] if targets else None
    described, parameters = CASES[loss] if loss else (None, {})
    a, b = weights(Q if targets else D, seed=2, scale=0.3)
    if coupling != "untied" or rule in ENCODER_ONLY:
        a = b.T.copy()
    iterations = 10 if rule == "alternating" else 50
    schedule = optimizers.harmonic(0.01)
    lib = optimizers.from_name(optimizer, 3e-3, schedule)
    expected = naive.train(
        rule, optimizer, a, b, sxx, sxy, lambda t: 3e-3 / (1 + 0.01 * t), iterations,
        kind=loss or "mse", coupling=coupling, **parameters,
    )  # fmt: skip
    got = library_train(rule, lib, a, b, sxx, sxy, described, coupling, iterations)
    assert np.abs(expected[-1][1] - b).max() > 1e-3, "nothing moved"
    for (got_a, got_b), (a_t, b_t) in zip(got, expected, strict=True):
        np.testing.assert_allclose(got_a, a_t, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(got_b, b_t, rtol=1e-8, atol=1e-9)


def test_sequential_gradient_is_kunins_untied_update(moments):
    """W2 sees the new W1 (Kunin et al. 2019, Alg. 1, with half the gradient of the stated loss: rate a/2 here)."""
    sxx = moments[0]
    a, b = weights(D, scale=0.3)
    lam, alpha = 0.7, 1e-2
    w1, w2 = b.copy(), a.copy()
    eye = np.eye(D)
    for _ in range(20):
        w1 -= alpha * (w2.T @ (w2 @ w1 - eye) @ sxx + lam * w1)
        w2 -= alpha * ((w2 @ w1 - eye) @ sxx @ w1.T + lam * w2)
    rule = rules.gradient(sequential=True)
    got = library_train(rule, optimizers.sgd(alpha / 2), a, b, sxx, None, losses.sum_l2(lam), "untied", 20)[-1]
    np.testing.assert_allclose(got[0], w2, rtol=1e-12)
    np.testing.assert_allclose(got[1], w1, rtol=1e-12)
    other = library_train("gradient", optimizers.sgd(alpha / 2), a, b, sxx, None, losses.sum_l2(lam), "untied", 20)[-1]
    assert np.abs(other[0] - w2).max() > 1e-4


def test_rag_rotation_conserves_the_map_to_first_order(moments):
    """(A - a A R)(B + a R B) = AB - a^2 A R R B: halving the rate quarters the change."""
    a, b = weights(D)
    r = rules.rotation(b @ moments[0] @ b.T)
    np.testing.assert_array_equal(r, -r.T)
    np.testing.assert_allclose(r, naive.rotation(b @ moments[0] @ b.T), rtol=1e-13)
    rates = (1e-3, 5e-4)
    both = [np.linalg.norm((a @ (np.eye(P) - t * r)) @ ((np.eye(P) + t * r) @ b) - a @ b) for t in rates]
    one = [np.linalg.norm((a @ (np.eye(P) - t * r)) @ b - a @ b) for t in rates]
    assert both[0] / both[1] == pytest.approx(4.0, rel=1e-6)
    assert one[0] / one[1] == pytest.approx(2.0, rel=1e-6), "rotating one matrix alone is of first order"


def test_rag_keeps_the_balance_and_not_the_transpose(moments):
    """From A = B' the rule conserves A'A = BB' up to the discretisation, not A = B', which holds again at the end.

    Bao et al. 2020 (footnote 3) say "stays balanced", which is true of A'A - BB' in the limit of small rates.
    """
    b = weights(D, scale=0.3)[1]

    def final(rate, iterations):
        return library_train("rag", optimizers.sgd(rate), b.T, b, moments[0], None, losses.mse(), "untied", iterations)

    drifts, gaps = [], []
    for rate, iterations in ((0.02, 10), (0.01, 20)):
        a, encoder = final(rate, iterations)[-1]
        drifts.append(np.linalg.norm(a.T @ a - encoder @ encoder.T))
        gaps.append(np.linalg.norm(a - encoder.T))
    assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.4), "the drift of the balance vanishes with the rate"
    assert gaps[0] / gaps[1] == pytest.approx(1.0, rel=0.4), "the gap of the transpose does not"
    assert gaps[1] > 10 * drifts[1]
    a, encoder = final(0.02, 4000)[-1]
    assert np.linalg.norm(a - encoder.T) < 0.05 * gaps[0]


@pytest.mark.parametrize(
    ("rule", "loss", "coupling", "aligned"),
    [
        ("gradient", "ordered", "untied", True),
        ("gradient", "ordered", "tied", True),
        ("gradient", "mse", "untied", False),
        ("rag", "mse", "untied", True),
        ("oja", None, "tied", False),
        ("gha", None, "tied", True),
        ("alpha_eigengame", None, "tied", True),
        ("mu_eigengame", None, "tied", True),
        ("alternating", "ordered", "untied", True),
        ("alternating", "mse", "untied", False),
    ],
)
def test_what_a_rule_converges_to(rule, loss, coupling, aligned):
    """All find the subspace; those that break the rotation find every direction in its place, the others do not."""
    rng = np.random.default_rng(5)
    u = np.linalg.qr(rng.normal(size=(D, D)))[0]
    sxx = (u * [6.0, 4.0, 2.5, 1.0, 0.6, 0.3]) @ u.T
    a, b = weights(D, seed=3, scale=0.3)
    if rule == "rag" or coupling == "tied":
        a = b.T
    described = losses.resolve(loss) if loss else None
    iterations = 400 if rule == "alternating" else 2000
    a, b = library_train(rule, optimizers.sgd(0.02), a, b, sxx, None, described, coupling, iterations)[-1]
    assert metrics.subspace_distance(u[:, :P], a) < 1e-6
    if aligned:
        assert metrics.ratio_tp(u[:, :P], a, eps=1e-3) == 1.0
    else:
        assert metrics.ratio_tp(u[:, :P], a) < 1.0
        assert metrics.axis_alignment_distance(u[:, :P], a) > 1e-2


def test_gha_with_the_other_triangle_is_wrong():
    """Trap: triu for rows as components orders nothing the right way round."""
    u = np.eye(D)
    sxx = np.diag([6.0, 4.0, 2.5, 1.0, 0.6, 0.3])
    results = {}
    for mask in (np.tril, np.triu):
        b = weights(D, seed=3, scale=0.3)[1]
        for _ in range(3000):
            b = b + 0.02 * (b @ sxx - mask(b @ sxx @ b.T) @ b)
        results[mask] = metrics.ratio_tp(u[:, :P], b.T)
    assert results[np.tril] == 1.0
    assert results[np.triu] < 1.0
    gram = weights(D)[1] @ sxx @ weights(D)[1].T
    np.testing.assert_array_equal(rules.encoder_matrices("gha", None, None, gram).on_weights, np.tril(gram))


class TestExactSolves:
    @pytest.mark.parametrize("targets", [False, True])
    @pytest.mark.parametrize("kind", ["mse", "ordered", "nested_dropout", "sum_l2"])
    def test_against_the_full_normal_equations(self, moments, kind, targets):
        sxx, sxy = moments[0], moments[1] if targets else None
        loss, parameters = CASES[kind]
        a, b = weights(Q if targets else D)
        engine = alternating_engine(loss, a, b, sxx, sxy)
        got_b, got_a = engine.best_encoder(a.T), engine.best_decoder(b).T
        np.testing.assert_allclose(got_b, naive.exact_encoder(kind, a, sxx, sxy, **parameters), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(got_a, naive.exact_decoder(kind, b, sxx, sxy, **parameters), rtol=1e-8, atol=1e-10)
        # And they are stationary, which does not rest on any solver.
        assert np.abs(naive.gradients(kind, a, got_b, sxx, sxy, **parameters)[1]).max() < 1e-10
        assert np.abs(naive.gradients(kind, got_a, b, sxx, sxy, **parameters)[0]).max() < 1e-10

    @pytest.mark.parametrize("kind", ["mse", "ordered"])
    def test_dependent_columns(self, moments, kind):
        """A of rank 2 without a zero column: A'A is singular, M o A'A is not (Oppenheim); both are solved."""
        a, b = weights(D)
        a[:, 2] = a[:, 0]
        b = alternating_engine(kind, a, b, moments[0]).best_encoder(a.T)
        assert np.isfinite(b).all()
        assert np.abs(b).max() < 10
        assert np.abs(naive.gradients(kind, a, b, moments[0])[1]).max() < 1e-10

    def test_steep_prefix_weights_are_no_rank_deficiency(self):
        """c spans 1e-14; the last components must still be solved for."""
        rng = np.random.default_rng(0)
        p, loss = 30, losses.nested_dropout(losses.geometric_prior(0.3))
        sxx = np.diag(np.linspace(3.0, 1.0, 40))
        a = np.linalg.qr(rng.normal(size=(40, p)))[0]
        b = alternating_engine(loss, a, a.T, sxx).best_encoder(a.T)
        np.testing.assert_allclose(b, a.T, atol=1e-6)

    def test_zero_column_stays_finite(self, moments):
        a, b = weights(D)
        a[:, 1], b[1] = 0.0, 0.0
        engine = alternating_engine("ordered", a, b, moments[0])
        assert np.isfinite(engine.best_encoder(a.T)).all()
        assert np.isfinite(engine.best_decoder(b)).all()
