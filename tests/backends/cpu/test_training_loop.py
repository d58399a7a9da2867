"""The compiled loop and its kernels against the naive oracle, step by step, and the same bits for any thread count."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse

from lae_fast import losses, optimizers, rules, set_num_threads
from lae_fast.backends import formulas
from lae_fast.backends.cpu.structs import by_reference
from lae_fast.backends.cpu.training import coefficients, minibatch, state, step
from lae_fast.data.sources import as_source
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from lae_fast.training.chain import ChainEngine
from lae_fast.training.cpu_loop import CpuLoopEngine
from lae_fast.training.engine import RULE_CODES, Recipe
from tests.oracle import naive_autoencoder as naive
from tests.oracle.loop_cases import (
    LOSSES,
    OPTIMIZERS,
    PRIOR,
    STEPS,
    TOLERANCE,
    D,
    M,
    P,
    Q,
    centred,
    data,
    follow,
    make_loop,
    make_plan,
    oracle_path,
    start,
)  # fmt: skip


class Coefficients(NamedTuple):
    """What coefficients.py reads of a Spec."""

    rule: int
    product_penalty: float


@pytest.fixture(autouse=True)
def threads():
    yield
    set_num_threads(None)


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("with_targets", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", LOSSES)
def test_gradient_follows_the_oracle(kind, optimizer, with_targets, dtype):
    x, y = data(dtype, q=Q if with_targets else 0)
    a, b = start(q=Q if with_targets else D)
    loss, numbers = LOSSES[kind]
    path = oracle_path("gradient", optimizer, a, b, x, y, kind, **numbers)
    follow(make_loop(x, y, a, b, make_plan(loss=loss, optimizer=optimizer)), path, TOLERANCE[dtype])


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", ["rag", "oja", "gha", "alpha_eigengame", "mu_eigengame"])
def test_rules_follow_the_oracle(rule, optimizer, dtype):
    x, _ = data(dtype)
    a, b = start()
    if rule != "rag":
        b = naive.normalise_rows(b)
        a = b.T.copy()
    path = oracle_path(rule, optimizer, a, b, x)
    loss = losses.mse() if rule == "rag" else None
    follow(make_loop(x, None, a, b, make_plan(rule, loss, optimizer)), path, TOLERANCE[dtype])


@pytest.mark.needs_jit
@pytest.mark.parametrize("coupling", ["synchronised", "tied", "sequential"])
@pytest.mark.parametrize("kind", ["ordered", "sum_l2", "mixed_l2"])
def test_couplings_follow_the_oracle(kind, coupling):
    x, _ = data()
    a, b = start()
    if coupling == "tied":
        b = a.T.copy()
    if coupling == "synchronised":  # starts from the mean of the two
        mean = (b + a.T) / 2
        a, b = mean.T.copy(), mean
    sequential = coupling == "sequential"
    loss, numbers = LOSSES[kind]
    option = {"sequential": True} if sequential else {"coupling": coupling}
    path = oracle_path("gradient", "adam", a, b, x, kind=kind, **option, **numbers)
    rule = rules.gradient(sequential=True) if sequential else "gradient"
    plan = make_plan(rule, loss, "adam", "untied" if sequential else coupling)
    follow(make_loop(x, None, a, b, plan), path, 1e-10)


@pytest.mark.needs_jit
@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("case", ["untied", "tied", "synchronised", "sequential", "targets", "sum"])
def test_recorded_loss_is_that_of_the_weights_on_entry(kind, case):
    y_width = Q if case == "targets" else 0
    x, y = data(q=y_width)
    a, b = start(q=Q if y_width else D)
    scale = "sum" if case == "sum" else "mean"
    if case in ("tied", "synchronised"):
        b = a.T.copy()
    loss, numbers = LOSSES[kind]
    rule = rules.gradient(sequential=case == "sequential")
    loop = make_loop(
        x, y, a, b, make_plan(rule, loss, coupling=case if case in ("tied", "synchronised") else "untied", scale=scale)
    )
    with loop:
        outcome = loop.advance(0, 1, True)
    expected = naive.loss(kind, a, b, centred(x), None if y is None else centred(y), scale=scale, **numbers)
    assert outcome.loss == pytest.approx(expected, rel=1e-10)
    sxx, sxy, _ = naive.second_moments(centred(x), None if y is None else centred(y), scale=scale)
    da, db = naive.gradients(kind, a, b, sxx, None if y is None else sxy, **numbers)
    if case in ("untied", "targets", "sum"):
        ratio = max(np.linalg.norm(da) / np.linalg.norm(a), np.linalg.norm(db) / np.linalg.norm(b))
        assert outcome.ratio == pytest.approx(ratio, rel=1e-9)


@pytest.mark.needs_jit
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_vae_follows_its_gradients(optimizer):
    x, _ = data()
    w, v = start()
    loop = make_loop(x, None, w, v, make_plan(loss=losses.vae(), optimizer=optimizer))
    s = naive.second_moments(centred(x), scale="mean")[0]
    e, log_noise, states = (
        np.zeros(P),
        0.0,
        [naive.optimizer_start(z) for z in (w, v, np.zeros(P), np.zeros(1))],
    )
    with loop:
        for t in range(STEPS):
            expected = naive.vae_loss(w, v, e, log_noise, centred(x)) if t % 10 == 0 else None
            outcome = loop.advance(t, 1, True)
            if expected is not None:
                assert outcome.loss == pytest.approx(expected, rel=1e-10)
            grads = naive.vae_gradients(w, v, e, log_noise, s)
            rate = OPTIMIZERS[optimizer].rate(t)
            w, v, e = (
                naive.optimizer_step(optimizer, z, g, state, rate, t)
                for z, g, state in zip((w, v, e), grads[:3], states[:3])
            )
            noise = naive.optimizer_step(optimizer, np.array([log_noise]), np.array([grads[3]]), states[3], rate, t)
            log_noise = float(noise[0])
            np.testing.assert_allclose(loop.decoder.T, w, atol=1e-10)
            np.testing.assert_allclose(loop.encoder, v, atol=1e-10)
            np.testing.assert_allclose(loop.extra[0], [*e, log_noise], atol=1e-10)


@pytest.mark.needs_jit
@pytest.mark.parametrize("layout", ["C", "F", "uint8", "float16", "sparse"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("with_targets", [False, True])
def test_mini_batches_follow_the_oracle(layout, weighted, with_targets):
    x, y = data(q=Q if with_targets else 0)
    if layout == "uint8":
        x = np.round(x * 20).clip(0, 255).astype(np.uint8)
    elif layout == "float16":
        x = x.astype(np.float16)
    stored = {"F": np.asfortranarray(x), "sparse": scipy.sparse.csr_array(x) if layout == "sparse" else x}.get(
        layout, x
    )
    weights = np.random.default_rng(5).uniform(0.2, 2.0, M) if weighted else None
    targets = None if y is None else as_source(y, "Y")
    described = problem.from_rows(as_source(stored), targets, weights, "mean")
    a, b = start(q=Q if with_targets else D)
    reader = BatchReader(described, 7, np.random.default_rng(3))
    twin = BatchReader(described, 7, np.random.default_rng(3))
    plan = make_plan(loss=losses.ordered(), optimizer="adam")
    scale = 1.0 / float(described.largest)
    plan = Recipe(plan.rule, plan.loss, optimizers.adam(0.01 * min(1.0, scale)), "untied", "mean", -1.0)
    loop = CpuLoopEngine(described, plan, b, a.T.copy(), reader)
    xf, mass = np.asarray(x, dtype=np.float64), np.ones(M) if weights is None else weights
    xc = xf - mass @ xf / mass.sum()
    yc = xc if y is None else y - mass @ y / mass.sum()
    states = (naive.optimizer_start(a), naive.optimizer_start(b))
    tolerance = 1e-9 if described.dtype == np.float64 else 2e-4
    with loop:
        for t in range(20):
            rows = twin.next_rows(1)[0]
            counted = twin.row_weights[rows] if twin.row_weights.size else None
            assert (counted is None) == (not weighted or layout != "sparse")  # rows of arrays are drawn by weight
            sxx, sxy, _ = naive.second_moments(xc[rows], yc[rows], counted, "mean")
            expected = naive.loss("ordered", a, b, xc[rows], yc[rows], counted, "mean")
            outcome = loop.advance(t, 1, True)
            assert outcome.loss == pytest.approx(expected, rel=1e-6 if tolerance > 1e-6 else 1e-10)
            a, b = naive.step("gradient", "adam", a, b, sxx, sxy, states, plan.optimizer.rate(t), t, kind="ordered")
            np.testing.assert_allclose(loop.encoder, b, atol=tolerance)
            np.testing.assert_allclose(loop.decoder.T, a, atol=tolerance)


@pytest.mark.needs_jit
@pytest.mark.parametrize("with_targets", [False, True])
def test_stochastic_nested_dropout_follows_the_oracle(with_targets):
    x, y = data(q=Q if with_targets else 0)
    described = problem.from_rows(as_source(x), None if y is None else as_source(y, "Y"), None, "mean")
    a, b = start(q=Q if with_targets else D)
    loss = losses.stochastic_nested_dropout(PRIOR)
    plan = make_plan(loss=loss, optimizer="sgd")
    reader = BatchReader(described, 11, np.random.default_rng(3))
    twin = BatchReader(described, 11, np.random.default_rng(3))
    loop = CpuLoopEngine(described, plan, b, a.T.copy(), reader, np.random.default_rng(9))
    draws = np.random.default_rng(9)
    xc = centred(x)
    yc = xc if y is None else centred(y)
    with loop:
        for t in range(20):
            rows = twin.next_rows(1)[0]
            kept = loss.sample(len(rows), P, draws)
            expected = naive.loss("stochastic_nested_dropout", a, b, xc[rows], yc[rows], scale="mean", kept=kept)
            da, db = naive.stochastic_gradients(a, b, xc[rows], yc[rows], kept, scale="mean")
            outcome = loop.advance(t, 1, True)
            assert outcome.loss == pytest.approx(expected, rel=1e-10)
            a, b = a - 0.02 * da, b - 0.02 * db
            np.testing.assert_allclose(loop.encoder, b, atol=1e-11)
            np.testing.assert_allclose(loop.decoder.T, a, atol=1e-11)


@pytest.mark.needs_jit
@pytest.mark.parametrize("rule", ["gradient", "rag", "gha", "alpha_eigengame"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_same_bits_for_any_number_of_threads(rule, dtype):
    d, p = 700, 200  # four blocks of each
    x, _ = data(dtype, d=d, m=90)
    a, b = start(p, d, d)
    a, b = a * 0.01, b * 0.01
    loss = {"gradient": losses.ordered(), "rag": losses.mse()}.get(rule)
    results = []
    for n in (1, 2, 4):
        set_num_threads(n)
        loop = make_loop(x, None, a, b, make_plan(rule, loss, "adam"))
        with loop:
            first = loop.advance(0, 7, True)
            outcome = loop.advance(7, 5, False)
        assert loop.loop.n_threads == n
        results.append((loop.encoder.tobytes(), loop.decoder.tobytes(), first.loss, outcome.ratio))
    assert results[0] == results[1] == results[2]


@pytest.mark.needs_jit
@pytest.mark.parametrize("loss", [losses.ordered(), losses.stochastic_nested_dropout("uniform")])
def test_mini_batches_have_the_same_bits_for_any_number_of_threads(loss):
    x, _ = data(np.float32, d=300, m=200)
    described = problem.from_rows(as_source(x), None, None, "mean")
    a, b = start(5, 300, 300)
    results = []
    for n in (1, 2, 4):
        set_num_threads(n)
        reader = BatchReader(described, 192, np.random.default_rng(0))
        loop = CpuLoopEngine(
            described, make_plan(loss=loss, optimizer="adam"), b, a.T.copy(), reader, np.random.default_rng(1)
        )
        with loop:
            loop.advance(0, 9, True)
        results.append((loop.encoder.tobytes(), loop.decoder.tobytes()))
    assert results[0] == results[1] == results[2]


@pytest.mark.needs_jit
def test_cutting_a_run_into_calls_does_not_change_it():
    x, _ = data(np.float32)
    a, b = start()
    whole, cut = (make_loop(x, None, a, b, make_plan(loss=losses.ordered(), optimizer="adam")) for _ in range(2))
    with whole, cut:
        whole.advance(0, 30, False)
        for t in range(0, 30, 7):
            cut.advance(t, min(7, 30 - t), True)
    assert whole.encoder.tobytes() == cut.encoder.tobytes()


def test_no_jit_or_jit_a_short_run_follows_the_oracle():
    """The smallest test of the whole loop: the one that runs without a compiler too."""
    x, _ = data()
    a, b = start()
    path = oracle_path("gradient", "adam", a, b, x, kind="ordered")[:4]
    follow(make_loop(x, None, a, b, make_plan(loss=losses.ordered(), optimizer="adam")), path, 1e-10)


@pytest.mark.parametrize("p", [1, 2, 31, 33, 70])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_masked_gram(p, dtype):
    rng = np.random.default_rng(0)
    gram = rng.standard_normal((p, p))
    gram = (gram + gram.T).astype(dtype)
    prefix = np.arange(p, 0, -1).astype(dtype)
    out = np.full((p, p), np.nan, dtype)
    coefficients.masked_gram(gram, prefix, out)
    np.testing.assert_allclose(out, naive.masked_gram(gram, prefix), rtol=1e-6)
    coefficients.masked_gram(gram, prefix, gram)  # in place
    np.testing.assert_array_equal(gram, out)


@pytest.mark.parametrize("cut", [(), (5,), (1, 40)])
@pytest.mark.parametrize("rule", ["gradient", "rag", "oja", "gha", "alpha_eigengame", "mu_eigengame"])
def test_coefficients_are_those_of_the_rules(rule, cut):
    """Against rules.py, which has its own tests against the oracle; by any cut into ranges of rows."""
    p = 45
    rng = np.random.default_rng(0)
    outer, latent, inner = (w @ w.T for w in rng.standard_normal((3, p, p + 3)))
    loss = {"gradient": losses.ordered(), "rag": losses.mse()}.get(rule)
    prefix = np.ones(p) if loss is None else loss.prefix(p)
    lower = [np.tril(g) + np.triu(np.full((p, p), np.nan), 1) for g in (outer, latent, inner)]
    p1, p3, q3 = np.zeros((3, p, p))
    spec = by_reference(Coefficients(RULE_CODES[rule], 0.0))
    bounds = [0, *cut, p]
    for lo, hi in itertools.pairwise(bounds):
        coefficients.encoder_coefficients(spec, prefix, 1.0, lower[0], lower[1], lo, hi, p1, p3)
        if loss is not None:
            coefficients.decoder_coefficients(spec, prefix, 1.0, np.zeros(p), lower[2], lower[1], lo, hi, q3)
    expected = rules.encoder_matrices(rule, loss, outer, latent)
    for ours, theirs in ((p1, expected.on_encoder_product), (p3, expected.on_weights)):
        if theirs is not None and theirs.ndim == 2:
            if rule == "alpha_eigengame":
                ours = ours - np.eye(p)  # its diagonal is taken in the step
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    if loss is not None:
        np.testing.assert_allclose(q3, rules.decoder_matrices(rule, loss, inner, latent).on_weights, rtol=1e-12)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fused_step(optimizer, dtype):
    rng = np.random.default_rng(0)
    rows, width = 3, 20
    whole = rng.standard_normal((6, rows, 50)).astype(dtype)
    dense, z, w, v, u = (part[:, 10 : 10 + width] for part in whole[:5])
    u[:] = np.abs(u)
    on_z, penalty, prefix, on_w = (rng.uniform(0.1, 1.0, rows).astype(dtype) for _ in range(4))
    chosen = OPTIMIZERS[optimizer]
    scalars = np.array(chosen.scalars)
    g = (dense + on_z[:, None] * z + 2 * penalty[:, None] * w).astype(np.float64)
    state = [v.astype(np.float64), u.astype(np.float64)]
    expected = naive.optimizer_step(optimizer, w.astype(np.float64), g, state, 0.01, 3)
    old = w.astype(np.float64)
    untouched = whole[:, :, :10].copy()
    sums, row_sums, squares = np.zeros(formulas.N_SUMS), np.zeros((rows, formulas.N_ROW_SUMS)), np.zeros(rows)
    step.fused_step(
        chosen.code, scalars, 0.01, 3, dense, z, on_z, on_w, penalty, prefix, True, w, v, u, sums, row_sums, squares
    )
    rtol = 1e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(w, expected, rtol=rtol, atol=rtol)
    e = g + on_w[:, None].astype(np.float64) * old
    np.testing.assert_allclose(sums[0], np.sum(e**2), rtol=rtol)
    for column, (one, other) in enumerate(((e, e), (e, old), (old, old))):
        np.testing.assert_allclose(row_sums[:, column], np.sum(one * other, axis=1), rtol=rtol, atol=10 * rtol)
    np.testing.assert_allclose(sums[1], np.sum(old**2), rtol=rtol)
    np.testing.assert_allclose(sums[2], np.sum(penalty[:, None] * old**2), rtol=rtol)
    np.testing.assert_allclose(sums[3], np.sum(prefix[:, None] * z * old), rtol=rtol)
    np.testing.assert_allclose(squares, np.sum(expected**2, axis=1), rtol=rtol)
    np.testing.assert_array_equal(whole[:, :, :10], untouched)


@pytest.mark.parametrize("order", ["C", "F"])
def test_gather(order):
    x = np.asarray(data(np.float32)[0], order=order)
    chunk = as_source(x).chunk(0, M)
    rows, shift, weights = np.array([3, 1, 29, 3]), np.linspace(0, 1, D), np.linspace(0.5, 2.0, M)
    buffer = np.full((4, D), np.nan)
    total = minibatch.gather(chunk.flat, chunk.line_stride, chunk.entry_stride, rows, shift, 2.0, weights, 0, 4, buffer)
    np.testing.assert_allclose(buffer, naive.naive_batch(x, rows, shift, 2.0, weights), rtol=1e-12)
    assert total == pytest.approx(np.sum(buffer**2))


@pytest.mark.parametrize("size", [1, 15, 16, 96, 97, 128, 200, 784, 1000, 5000])
def test_blocks_cover_everything_once(size):
    bounds = state.blocks(size)
    assert bounds[0] == 0 and bounds[-1] == size and (np.diff(bounds) > 0).all()


STOPPING = [
    *(("gradient", kind, "untied") for kind in LOSSES),
    *(("gradient", kind, coupling) for kind in ("ordered", "sum_l2") for coupling in ("tied", "synchronised")),
    *((rule, "mse", "untied") for rule in ("rag", "oja", "gha", "alpha_eigengame", "mu_eigengame")),
]


@pytest.mark.needs_jit
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rule", "kind", "coupling"), STOPPING)
def test_the_loop_stops_where_the_oracle_says_that_every_component_is_still(rule, kind, coupling, dtype):
    x, _ = data(dtype)
    a, b = start()
    if rule not in ("gradient", "rag"):
        b = naive.normalise_rows(b)
    if coupling != "untied" or rule not in ("gradient", "rag"):
        a = b.T.copy()
    loss, numbers = LOSSES[kind]
    s = naive.second_moments(centred(x), scale="mean")[0]
    tolerance, t, states = 0.05, 0, (naive.optimizer_start(a), naive.optimizer_start(b))
    plan = make_plan(rule, loss if rule in ("gradient", "rag") else None, "sgd", coupling, tolerance)
    with make_loop(x, None, a, b, plan) as loop:
        outcome = loop.advance(0, 20_000, False)
    options = {"kind": kind, "coupling": coupling, **numbers}
    while not naive.is_still(rule, a, b, s, tolerance=tolerance, **options) and t < 20_000:
        a, b = naive.step(rule, "sgd", a, b, s, None, states, OPTIMIZERS["sgd"].rate(t), t, **options)
        t += 1
    assert outcome.converged
    # rounding may move the step by one
    assert abs(outcome.done - (t + 1)) <= (1 if dtype == np.float32 else 0)


@pytest.mark.needs_jit
@pytest.mark.parametrize("hidden", [False, True])
def test_a_batch_without_mass_says_nothing_and_one_that_is_still_is_one_of_many(hidden):
    """Neither stops a run, nor does the first without mass break the row of those that are still."""
    x = np.zeros((M, D))
    x[:9] = np.eye(9, D)
    x[8, 0] = 1.0  # the one row that the weights do not rebuild
    x[10:20] = -x[:10]
    described = problem.from_rows(as_source(x), None, np.r_[np.ones(20), np.zeros(M - 20)], "mean")
    a = np.eye(D, P)
    for rows, patience, ends in (([25, 25, 25], 1, None), ([0, 25, 1, 25, 10], 3, 5), ([0, 8, 1, 10], 2, 4)):
        plan = Recipe(rules.gradient(), losses.mse(), optimizers.sgd(1e-9), "untied", "mean", 1e-3, patience=patience)
        reader = BatchReader(described, 1, np.random.default_rng(0))
        reader._queue = np.array(rows)[:, None]
        if hidden:
            loop = ChainEngine(described, plan, [a.T, np.eye(P), np.eye(P), a], reader)
            outcomes = [loop.advance(t, 1, False) for t in range(len(rows))]
        else:
            loop = CpuLoopEngine(described, plan, a.T.copy(), a.T.copy(), reader)
            with loop:
                outcomes = [loop.advance(t, 1, False) for t in range(len(rows))]
        stops = [t + 1 for t, one in enumerate(outcomes) if one.converged]
        assert stops == ([] if ends is None else [ends])


@pytest.mark.needs_jit
def test_divergence_and_convergence_are_reported():
    x, _ = data()
    a, b = start()
    wild = Recipe(rules.gradient(), losses.ordered(), optimizers.sgd(10.0), "untied", "mean", -1.0)
    with make_loop(x, None, a, b, wild) as loop:
        outcome = loop.advance(0, 1000, False)
    assert outcome.diverged and outcome.done < 100
    calm = Recipe(rules.gradient(), losses.ordered(), optimizers.sgd(0.01), "untied", "mean", 1e-3)
    with make_loop(x, None, a, b, calm) as loop:
        outcome = loop.advance(0, 100_000, False)
    largest = np.linalg.eigvalsh(naive.second_moments(centred(x), scale="mean")[0])[-1]
    assert outcome.converged and outcome.done < 100_000 and outcome.ratio <= 1e-3 * P * largest  # tol c_1 l_1
