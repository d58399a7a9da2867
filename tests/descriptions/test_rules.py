"""Rules: their p x p matrices against the oracle's loops, what they converge to, and the compatibility table."""

import itertools
import re

import numpy as np
import pytest

from lae_fast import losses, metrics, optimizers, rules
from lae_fast.training import alternating, compatibility
from tests.oracle import naive_autoencoder as naive

P, D, Q = 3, 6, 4
PRIOR = (0.5, 0.2, 0.3)
FAMILY = {
    "mse": (losses.mse(), {}),
    "ordered": (losses.ordered(), {}),
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "sum_l2": (losses.sum_l2(0.7), {"lam": 0.7}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.4, 0.9]), {"lams": (0.1, 0.4, 0.9)}),
    "product_l2": (losses.product_l2(0.6), {"lam": 0.6}),
    "mixed_l2": (losses.mixed_l2(0.8, 0.25, 0.75), {"lam": 0.8, "w_sum": 0.25, "w_product": 0.75}),
}
ENCODER_ONLY = ("oja", "gha", "alpha_eigengame", "mu_eigengame")


@pytest.fixture
def moments():
    """(Sxx, Sxy) of 40 centred samples with targets of another width, scale mean."""
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(40, D)) * np.sqrt(np.arange(D, 0, -1)), rng.normal(size=(40, Q))
    y = y + x[:, :Q]
    x, y = x - x.mean(0), y - y.mean(0)
    return x.T @ x / 40, x.T @ y / 40


def weights(q, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(q, P)) * scale, rng.normal(size=(P, D)) * scale


def directions(rule, loss, a, b, sxx, sxy=None):
    """(direction of A' (p, q), direction of B (p, d)) through the library's p x p matrices."""
    z_b = b @ sxx
    gram_latent = z_b @ b.T
    z_a = a.T @ (sxx if sxy is None else sxy.T)
    cross = z_b if sxy is None else b @ sxy
    encoder = rules.apply(rules.encoder_matrices(rule, loss, a.T @ a, gram_latent), z_b, z_a, b)
    if not rules.resolve(rule).has_decoder:
        return None, encoder
    decoder = rules.apply(rules.decoder_matrices(rule, loss, b @ b.T, gram_latent), cross, None, a.T)
    return decoder, encoder


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("kind", FAMILY)
def test_gradient_matrices(moments, kind, targets):
    sxx, sxy = moments[0], moments[1] if targets else None
    loss, parameters = FAMILY[kind]
    a, b = weights(Q if targets else D)
    decoder, encoder = directions("gradient", loss, a, b, sxx, sxy)
    da, db = naive.gradients(kind, a, b, sxx, sxy, **parameters)
    np.testing.assert_allclose(encoder, db, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(decoder.T, da, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ENCODER_ONLY)
def test_encoder_only_matrices(moments, rule):
    _, b = weights(D)
    _, encoder = directions(rule, None, np.zeros((D, P)), b, moments[0])
    np.testing.assert_allclose(encoder, naive.encoder_only_direction(rule, b, moments[0]), rtol=1e-12, atol=1e-12)


def test_rag_matrices(moments):
    a, b = weights(D)
    decoder, encoder = directions("rag", "mse", a, b, moments[0])
    da, db = naive.rag_direction(a, b, moments[0])
    np.testing.assert_allclose(encoder, db, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(decoder.T, da, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["gradient", "rag", *ENCODER_ONLY])
def test_float32_stays_float32(moments, rule):
    loss = FAMILY["mixed_l2"][0] if rule == "gradient" else None
    a, b = weights(D)
    single = [m.astype(np.float32) for m in (a, b, moments[0])]
    for got, expected in zip(directions(rule, loss, *single), directions(rule, loss, a, b, moments[0]), strict=True):
        if expected is not None:
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_zero_and_diagonal_matrices_cost_no_product(moments):
    """The kernels rely on this: None for zero, one-dimensional for diagonal."""
    gram = np.eye(P)
    plain = rules.encoder_matrices("gradient", "ordered", gram, gram)
    assert plain.on_weights is None
    assert plain.on_decoder_product.ndim == 1
    assert rules.encoder_matrices("gradient", losses.sum_l2(1.0), gram, gram).on_weights.ndim == 1
    assert rules.encoder_matrices("gradient", losses.product_l2(1.0), gram, gram).on_weights.ndim == 2
    assert rules.encoder_matrices("gradient", losses.sum_l2(0.0), gram, gram).on_weights is None
    hebbian = rules.encoder_matrices("gha", None, None, gram)
    assert hebbian.on_encoder_product.ndim == 1
    assert hebbian.on_decoder_product is None
    assert rules.decoder_matrices("gradient", "mse", None, gram).on_decoder_product is None


def library_train(rule, optimizer, a, b, sxx, sxy, loss, coupling, iterations):
    """A training loop out of the library's own NumPy pieces."""
    rule = rules.resolve(rule)
    at, b = a.T.copy(), b.copy()
    states = [[np.zeros_like(w) for _ in range(optimizer.n_states)] for w in (at, b)]
    path = []
    for t in range(iterations):
        if not rule.iterative:
            b = alternating.exact_encoder(loss, at.T, sxx, sxy)
            at = alternating.exact_decoder(loss, b, sxx, sxy).T
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
    """Every allowed combination of rule, loss, optimizer, targets and coupling that runs on moments."""
    for entry in compatibility.TABLE:
        for rule, loss in itertools.product(entry.rules, entry.losses or (None,)):
            if loss is not None and loss not in FAMILY:
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
    described, parameters = FAMILY[loss] if loss else (None, {})
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
        loss, parameters = FAMILY[kind]
        a, b = weights(Q if targets else D)
        got_b, got_a = alternating.exact_encoder(loss, a, sxx, sxy), alternating.exact_decoder(loss, b, sxx, sxy)
        np.testing.assert_allclose(got_b, naive.exact_encoder(kind, a, sxx, sxy, **parameters), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(got_a, naive.exact_decoder(kind, b, sxx, sxy, **parameters), rtol=1e-8, atol=1e-10)
        # And they are stationary, which does not rest on any solver.
        assert np.abs(naive.gradients(kind, a, got_b, sxx, sxy, **parameters)[1]).max() < 1e-10
        assert np.abs(naive.gradients(kind, got_a, b, sxx, sxy, **parameters)[0]).max() < 1e-10

    @pytest.mark.parametrize("kind", ["mse", "ordered"])
    def test_dependent_columns(self, moments, kind):
        """A of rank 2 without a zero column: A'A is singular, M o A'A is not (Oppenheim); both are solved."""
        a, _ = weights(D)
        a[:, 2] = a[:, 0]
        b = alternating.exact_encoder(kind, a, moments[0])
        assert np.isfinite(b).all()
        assert np.abs(b).max() < 10
        assert np.abs(naive.gradients(kind, a, b, moments[0])[1]).max() < 1e-10

    def test_steep_prefix_weights_are_no_rank_deficiency(self):
        """c spans 1e-14; the last components must still be solved for."""
        rng = np.random.default_rng(0)
        p, loss = 30, losses.nested_dropout(losses.geometric_prior(0.3))
        sxx = np.diag(np.linspace(3.0, 1.0, 40))
        a = np.linalg.qr(rng.normal(size=(40, p)))[0]
        b = alternating.exact_encoder(loss, a, sxx)
        np.testing.assert_allclose(b, a.T, atol=1e-6)

    def test_zero_column_stays_finite(self, moments):
        a, b = weights(D)
        a[:, 1], b[1] = 0.0, 0.0
        assert np.isfinite(alternating.exact_encoder("ordered", a, moments[0])).all()
        assert np.isfinite(alternating.exact_decoder("ordered", b, moments[0])).all()

    def test_losses_without_a_solve(self, moments):
        for solve, matrix in zip((alternating.exact_decoder, alternating.exact_encoder), weights(D)[::-1], strict=True):
            with pytest.raises(ValueError, match=r"product_l2.*valid: 'mse'"):
                solve(losses.product_l2(1.0), matrix, moments[0])


class TestErrorsOfTheMatrices:
    def test_no_loss_for_encoder_only_rules(self):
        with pytest.raises(ValueError, match="has no loss"):
            rules.encoder_matrices("gha", "mse", None, np.eye(2))

    def test_no_decoder(self):
        with pytest.raises(ValueError, match="transpose of the encoder"):
            rules.decoder_matrices("oja", None, None, np.eye(2))

    @pytest.mark.parametrize("function", [rules.encoder_matrices, rules.decoder_matrices])
    def test_alternating_has_no_direction(self, function):
        with pytest.raises(ValueError, match="solves exactly"):
            function("alternating", None, np.eye(2), np.eye(2))

    def test_rag_with_another_loss(self):
        with pytest.raises(ValueError, match="'mse' only"):
            rules.encoder_matrices("rag", "ordered", np.eye(2), np.eye(2))

    def test_vae_is_outside(self):
        with pytest.raises(ValueError, match="no p x p matrices"):
            rules.encoder_matrices("gradient", "vae", np.eye(2), np.eye(2))

    def test_product_needs_the_encoder_gram(self):
        with pytest.raises(ValueError, match="gram_encoder"):
            rules.decoder_matrices("gradient", losses.product_l2(1.0), None, np.eye(2))

    def test_synchronise_shapes(self):
        with pytest.raises(ValueError, match="transposes"):
            rules.synchronise(np.ones((2, 3)), np.ones((4, 2)))

    def test_row_of_no_variance(self):
        """alpha-EigenGame divides by G_jj; a parent without variance pulls nobody."""
        gram = np.array([[0.0, 0.0], [0.0, 2.0]])
        matrices = rules.encoder_matrices("alpha_eigengame", None, None, gram)
        np.testing.assert_array_equal(matrices.on_encoder_product, -np.eye(2))
        np.testing.assert_array_equal(rules.normalise_rows(np.zeros((2, 3))), np.zeros((2, 3)))


# ---------------------------------------------------------------------------------------------------------------------
# compatibility


OBJECTS = {**{name: value[0] for name, value in FAMILY.items()}, "vae": losses.vae()}
OBJECTS["stochastic_nested_dropout"] = losses.stochastic_nested_dropout(PRIOR)


def allowed(rule, loss, optimizer, has_targets, coupling, hidden, batch_size):
    """The rules of the table, written a second time as plain conditions."""
    family = loss in FAMILY
    if rule in ENCODER_ONLY:
        return loss is None and not has_targets and coupling != "synchronised" and not hidden
    if rule == "rag":
        return loss in (None, "mse") and not has_targets and coupling == "untied" and not hidden
    if rule == "alternating":
        good = loss in (None, "mse", "ordered", "nested_dropout", "sum_l2")
        return good and coupling == "untied" and not hidden and batch_size is None
    if coupling != "untied" and (has_targets or hidden):
        return False
    if not family and loss is not None and (coupling != "untied" or hidden):
        return False
    return not (loss == "vae" and has_targets)


def test_every_combination():
    """7 rules x 10 losses x 4 optimizers x targets x 3 couplings x hidden x batch: 6720 cases."""
    seen = {True: 0, False: 0}
    for case in itertools.product(
        rules.names(), (None, *OBJECTS), optimizers.names(), (False, True), rules.COUPLINGS, ((), (4,)), (None, 32)
    ):
        rule, loss, *rest = case
        expected = allowed(*case)
        seen[expected] += 1
        try:
            compatibility.check(rule, OBJECTS.get(loss), *rest, n_components=P)
            got = True
        except ValueError as error:
            got = False
            assert len(str(error)) > 40, "a refusal must explain itself"
        assert got == expected, case
    assert min(seen.values()) > 100


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rule": "newton"}, r"rule='newton' is unknown; choose one of 'gradient', 'rag'"),
        ({"rule": "gradient", "loss": "l1"}, "loss='l1' is unknown"),
        ({"rule": "gradient", "optimizer": "lbfgs"}, "optimizer='lbfgs' is unknown; choose one of 'sgd'"),
        ({"rule": "rag", "loss": "ordered"}, r"conserves.*Valid losses for 'rag': 'mse'.*'gradient', 'alternating'"),
        ({"rule": "gha", "loss": "mse"}, "takes no loss"),
        ({"rule": "alternating", "loss": "vae"}, r"Valid losses for 'alternating': 'mse', 'ordered'"),
        ({"rule": "oja", "has_targets": True}, r"no target enters.*gradient with mse"),
        (
            {"rule": "gradient", "coupling": "shared"},
            "coupling='shared' is unknown; choose one of 'untied', 'synchronised', 'tied'",
        ),
        ({"rule": "rag", "coupling": "tied"}, r"by itself.*Valid: 'untied'"),
        ({"rule": "gradient", "coupling": "tied", "has_targets": True}, "same shape"),
        ({"rule": "gha", "hidden": (5,)}, r"hidden=\(\), or rule 'gradient'"),
        ({"rule": "gradient", "hidden": (2,), "n_components": 3}, r"hidden\[0\]=2 must be at least n_components = 3"),
        ({"rule": "gradient", "hidden": (5,), "coupling": "tied"}, "hidden layers need coupling='untied'"),
        ({"rule": "alternating", "batch_size": 8}, "batch_size=None"),
        ({"rule": "gradient", "batch_size": 0}, "batch_size=0 must be an integer >= 1"),
        ({"rule": rules.gradient(sequential=True), "coupling": "tied"}, "Kunin's untied"),
        ({"rule": "gradient", "loss": losses.nonuniform_l2([1, 2]), "n_components": 3}, "lams has 2 entries"),
        ({"rule": "gradient", "loss": losses.nested_dropout(PRIOR), "n_components": 4}, "prior has 3 entries"),
    ],
)
def test_refusals_say_why_and_what_instead(arguments, match):
    with pytest.raises(ValueError, match=match):
        compatibility.check(**arguments)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rule": 3}, "rule=3 must be"),
        ({"rule": rules.rag}, r"write rules.rag\(...\)"),
        ({"rule": rules.Rule()}, "base class"),
        ({"rule": "gradient", "optimizer": 1.0}, "optimizer=1.0 must be"),
        ({"rule": "gradient", "loss": 1.0}, "loss=1.0 must be"),
        ({"rule": "gradient", "hidden": 5}, "hidden=5 must be a tuple"),
        ({"rule": "gradient", "hidden": (5.0,)}, r"hidden\[0\]=.* must be an integer"),
        ({"rule": "gradient", "batch_size": 2.5}, "batch_size=2.5 must be an integer"),
    ],
)
def test_wrong_types(arguments, match):
    with pytest.raises(TypeError, match=match):
        compatibility.check(**arguments)
    with pytest.raises(TypeError, match="sequential"):
        rules.gradient(sequential=1)


def test_check_returns_what_it_resolved():
    rule, loss, optimizer = compatibility.check("gradient", "auto", "nesterov")
    assert (rule, loss, optimizer) == (rules.gradient(), losses.ordered(), optimizers.nesterov())
    assert compatibility.check("rag")[1] == losses.mse()
    assert compatibility.check("gha")[1] is None
    assert compatibility.check("alternating")[2] is None


def test_default_losses():
    expected = {"gradient": losses.ordered(), "alternating": losses.ordered(), "rag": losses.mse()}
    for name in rules.names():
        assert rules.default_loss(name) == expected.get(name)


def test_every_rule_and_loss_is_in_the_table():
    assert {name for entry in compatibility.TABLE for name in entry.rules} == set(rules.names())
    assert {name for entry in compatibility.TABLE for name in entry.losses} == set(losses.names())


def test_markdown_table_is_complete_and_well_formed():
    text = compatibility.markdown_table()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {8}
    assert len(table) == 2 + len(compatibility.TABLE)
    for name in (*rules.names(), *losses.names(), *optimizers.names(), *rules.COUPLINGS):
        assert re.search(rf"\b{name}\b", text), name
    for entry in compatibility.TABLE:
        for _, why in entry.reasons:
            assert why in text
