"""Training on the CUDA backend, on Numba's simulator: step by step against the naive oracle.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_train_steps.py
The cases, and the way to follow an oracle, are those of tests/oracle/loop_cases.py.
"""

import dataclasses

import numpy as np
import pytest
import scipy.sparse

from lae_fast import losses, optimizers, rules
from lae_fast.data import sources
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from tests.oracle import loop_cases as cases
from tests.oracle import naive_autoencoder as naive
from tests.oracle import simulator
from tests.oracle.simulated_cases import LOSSES, PRIOR, STEPS, D, M, P, Q, data, device_loop, start

pytestmark = [
    simulator.only,
    pytest.mark.filterwarnings("ignore::lae_fast.errors.ConvergenceWarning"),
    # what overflows in the simulator's threads warns; the tests check what comes of it
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
]

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays
    from lae_fast.training.cuda_loop import CudaLoopEngine


def follow(x, y, a, b, plan, path):
    """All steps in float64 with Y = X, the others differ in their first ones if at all: the simulator is slow."""
    steps = STEPS if y is None and x.dtype == np.float64 else 6
    cases.follow(device_loop(x, y, a, b, plan), path[:steps], cases.TOLERANCE[x.dtype.type])


@pytest.mark.parametrize(
    ("kind", "with_targets"),
    [(kind, False) for kind in LOSSES] + [(kind, True) for kind in ("mse", "nonuniform_l2", "mixed_l2")],
)
def test_gradient_follows_the_oracle(kind, with_targets):
    x, y = data(q=Q if with_targets else 0)
    a, b = start(Q if with_targets else D)
    loss, numbers = LOSSES[kind]
    path = cases.oracle_path("gradient", "adam", a, b, x, y, kind, **numbers)
    follow(x, y, a, b, cases.make_plan(loss=loss, optimizer="adam"), path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", cases.OPTIMIZERS)
def test_optimizers_follow_the_oracle(optimizer, dtype):
    x, _ = data(dtype)
    a, b = start()
    path = cases.oracle_path("gradient", optimizer, a, b, x, kind="ordered")
    follow(x, None, a, b, cases.make_plan(loss=losses.ordered(), optimizer=optimizer), path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", ["rag", "oja", "gha", "alpha_eigengame", "mu_eigengame"])
def test_rules_follow_the_oracle(rule, dtype):
    x, _ = data(dtype)
    a, b = start()
    if rule != "rag":
        b = naive.normalise_rows(b)
        a = b.T.copy()
    path = cases.oracle_path(rule, "momentum", a, b, x)
    follow(x, None, a, b, cases.make_plan(rule, losses.mse() if rule == "rag" else None, "momentum"), path)


@pytest.mark.parametrize("coupling", ["synchronised", "tied", "sequential"])
@pytest.mark.parametrize(("kind", "with_targets"), [("mixed_l2", False), ("ordered", True)])
def test_couplings_follow_the_oracle(kind, coupling, with_targets):
    x, y = data(q=D if with_targets else 0)  # a tied decoder is as wide as the encoder
    if coupling == "synchronised" and with_targets:
        pytest.skip("a coupling needs Y = X; this one relies on it")
    a, b = start()
    if coupling == "tied":
        b = a.T.copy()
    if coupling == "synchronised":  # starts from the mean of the two
        mean = (b + a.T) / 2
        a, b = mean.T.copy(), mean
    sequential = coupling == "sequential"
    loss, numbers = LOSSES[kind]
    option = {"sequential": True} if sequential else {"coupling": coupling}
    path = cases.oracle_path("gradient", "adam", a, b, x, y, kind, **option, **numbers)
    rule = rules.gradient(sequential=True) if sequential else "gradient"
    follow(x, y, a, b, cases.make_plan(rule, loss, "adam", "untied" if sequential else coupling), path)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam"])
def test_vae_follows_its_gradients(optimizer):
    x, _ = data()
    w, v = start()
    loop = device_loop(x, None, w, v, cases.make_plan(loss=losses.vae(), optimizer=optimizer))
    s = naive.second_moments(cases.centred(x), scale="mean")[0]
    e, log_noise, states = (
        np.zeros(P),
        0.0,
        [naive.optimizer_start(z) for z in (w, v, np.zeros(P), np.zeros(1))],
    )
    for t in range(STEPS):
        outcome = loop.advance(t, 1, True)
        assert outcome.loss == pytest.approx(naive.vae_loss(w, v, e, log_noise, cases.centred(x)), rel=1e-10)
        grads, rate = (
            naive.vae_gradients(w, v, e, log_noise, s),
            cases.OPTIMIZERS[optimizer].rate(t),
        )
        w, v, e, noise = (
            naive.optimizer_step(optimizer, z, g, state, rate, t)
            for z, g, state in zip((w, v, e, np.array([log_noise])), (*grads[:3], np.array([grads[3]])), states)
        )
        log_noise = float(noise[0])
        np.testing.assert_allclose(loop.decoder.T, w, atol=1e-10)
        np.testing.assert_allclose(loop.encoder, v, atol=1e-10)
        np.testing.assert_allclose(loop.extra[0], [*e, log_noise], atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "case"),
    [(kind, "untied") for kind in LOSSES]
    + [(kind, case) for kind in ("ordered", "mixed_l2") for case in ("tied", "sequential", "targets", "sum")],
)
def test_recorded_loss_and_ratio_are_those_of_the_weights_on_entry(kind, case):
    x, y = data(q=Q if case == "targets" else 0)
    a, b = start(Q if case == "targets" else D)
    scale = "sum" if case == "sum" else "mean"
    if case == "tied":
        b = a.T.copy()
    loss, numbers = LOSSES[kind]
    rule = rules.gradient(sequential=case == "sequential")
    plan = cases.make_plan(rule, loss, coupling="tied" if case == "tied" else "untied", scale=scale)
    outcome = device_loop(x, y, a, b, plan).advance(0, 1, True)
    here = cases.make_loop(x, y, a, b, plan)
    with here:
        expected = here.advance(0, 1, True)
    truth = naive.loss(
        kind,
        a,
        b,
        cases.centred(x),
        None if y is None else cases.centred(y),
        scale=scale,
        **numbers,
    )
    assert outcome.loss == pytest.approx(truth, rel=1e-10)
    assert outcome.ratio == pytest.approx(expected.ratio, rel=1e-10)


@pytest.mark.parametrize("place", ["host", "device", "columns", "streamed", "bytes", "sparse"])
@pytest.mark.parametrize("with_targets", [False, True])
def test_mini_batches_follow_the_oracle(place, with_targets, monkeypatch):
    x, y = data(q=Q if with_targets else 0)
    if place == "bytes":
        x = np.round(x * 20).clip(0, 255).astype(np.uint8)
    if place == "streamed":
        monkeypatch.setattr(arrays, "SIMULATED_BYTES", 64)
    stored = {
        "device": lambda: simulator.OnDevice(x),
        "columns": lambda: np.asfortranarray(x),
        "sparse": lambda: scipy.sparse.csr_array(x),
    }.get(place, lambda: x)()
    weights = np.random.default_rng(5).uniform(0.2, 2.0, M)
    targets = None if y is None else sources.as_source(y, "Y")
    described = problem.from_rows(sources.as_source(stored), targets, weights, "mean")
    a, b = start(Q if with_targets else D)
    reader, twin = (BatchReader(described, 5, np.random.default_rng(3)) for _ in range(2))
    plan = dataclasses.replace(
        cases.make_plan(loss=losses.ordered(), optimizer="adam"), optimizer=optimizers.adam(1e-3)
    )
    loop = CudaLoopEngine(described, plan, b, a.T.copy(), reader)
    twin.by_row = reader.by_row
    xf = np.asarray(x, dtype=np.float64)
    xc = xf - weights @ xf / weights.sum()
    yc = xc if y is None else y - weights @ y / weights.sum()
    states = (naive.optimizer_start(a), naive.optimizer_start(b))
    tolerance = 1e-9 if described.dtype == np.float64 else 2e-4
    for t in range(0, 8, 2):
        first = None
        batches = twin.next_rows(2)
        outcome = loop.advance(t, 2, True)
        for k, rows in enumerate(batches):
            counted = twin.row_weights[rows] if twin.row_weights.size else None
            sxx, sxy, _ = naive.second_moments(xc[rows], yc[rows], counted, "mean")
            first = first or naive.loss("ordered", a, b, xc[rows], yc[rows], counted, "mean")
            a, b = naive.step("gradient", "adam", a, b, sxx, sxy, states, 1e-3, t + k, kind="ordered")
        assert outcome.loss == pytest.approx(first, rel=1e-6 if tolerance > 1e-6 else 1e-10)
        np.testing.assert_allclose(loop.encoder, b, atol=tolerance)
        np.testing.assert_allclose(loop.decoder.T, a, atol=tolerance)


@pytest.mark.parametrize("with_targets", [False, True])
def test_stochastic_nested_dropout_follows_the_oracle(with_targets):
    x, y = data(q=Q if with_targets else 0)
    described = problem.from_rows(sources.as_source(x), None if y is None else sources.as_source(y, "Y"), None, "mean")
    a, b = start(Q if with_targets else D)
    loss = losses.stochastic_nested_dropout(PRIOR)
    reader, twin = (BatchReader(described, 6, np.random.default_rng(3)) for _ in range(2))
    plan = cases.make_plan(loss=loss, optimizer="sgd")
    loop = CudaLoopEngine(described, plan, b, a.T.copy(), reader, np.random.default_rng(9))
    draws = np.random.default_rng(9)
    xc = cases.centred(x)
    yc = xc if y is None else cases.centred(y)
    for t in range(10):
        rows = twin.next_rows(1)[0]
        kept = loss.sample(len(rows), P, draws)
        expected = naive.loss("stochastic_nested_dropout", a, b, xc[rows], yc[rows], scale="mean", kept=kept)
        da, db = naive.stochastic_gradients(a, b, xc[rows], yc[rows], kept, scale="mean")
        assert loop.advance(t, 1, True).loss == pytest.approx(expected, rel=1e-10)
        a, b = a - 0.02 * da, b - 0.02 * db
        np.testing.assert_allclose(loop.encoder, b, atol=1e-11)
        np.testing.assert_allclose(loop.decoder.T, a, atol=1e-11)
