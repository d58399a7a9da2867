"""Training on the CUDA backend, on Numba's simulator: step by step against the naive oracle and against the CPU.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_train.py
The cases, and the way to follow an oracle, are those of tests/oracle/loop_cases.py.
"""

import dataclasses
import pickle

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import losses, metrics, optimizers, rules
from lae_fast.data import sources
from lae_fast.errors import ConvergenceWarning, DivergenceError
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from lae_fast.training.engine import Recipe
from lae_fast.training.run import Settings
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
    from lae_fast.backends.cuda import arrays, target
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


def fits(x, y=None, **settings):
    """The same fit by both backends."""
    given = {"max_iter": STEPS, "record_every": 7, "init_scale": 0.3} | settings
    return [lf.LinearAutoencoder(P, backend=name, **given).fit(x, targets=y) for name in ("cuda", "cpu")]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "vae", "scale": "sum"},
        {"rule": "gha", "optimizer": "sgd"},
        {"regime": "rows"},
        {"batch_size": 4},
        {"loss": losses.stochastic_nested_dropout("uniform"), "batch_size": 5},
    ],
    ids=str,
)
def test_a_fit_is_that_of_the_cpu(settings):
    dtype = np.float64 if "batch_size" in settings else np.float32
    x, _ = data(dtype)
    there, here = fits(x, **settings)
    assert (there.backend_, here.backend_) == ("cuda", "cpu")
    tolerance = 1e-11 if dtype is np.float64 else 2e-3
    np.testing.assert_allclose(there.encoder_, here.encoder_, atol=tolerance)
    np.testing.assert_allclose(there.decoder_, here.decoder_, atol=tolerance)
    np.testing.assert_allclose(there.history_["loss"], here.history_["loss"], rtol=tolerance)
    np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=4 * tolerance)
    assert there.excess_loss_ == pytest.approx(here.excess_loss_, rel=tolerance, abs=tolerance, nan_ok=True)
    np.testing.assert_allclose(there.alignment_residuals_, here.alignment_residuals_, rtol=0.1, atol=tolerance)
    assert (there.converged_, there.converged_reason_[:20]) == (here.converged_, here.converged_reason_[:20])
    assert isinstance(there.encoder_, np.ndarray) and there.encoder_.dtype == dtype


def test_rows_with_targets_and_weights():
    x, y = data(q=Q)
    there, here = fits(x, y, regime="rows", max_iter=6)
    np.testing.assert_allclose(there.decoder_, here.decoder_, atol=1e-11)
    there, here = fits(x, y, regime="rows", batch_size=4, max_iter=6)
    np.testing.assert_allclose(there.decoder_, here.decoder_, atol=1e-11)


def test_data_on_the_device_are_followed_and_codes_come_back_there():
    x, _ = data()
    given = simulator.OnDevice(x)
    model = lf.LinearAutoencoder(P, max_iter=9, record_every=3).fit(given)
    assert model.backend_ == "cuda" and isinstance(model.components_, np.ndarray)
    codes = model.transform(given)
    np.testing.assert_allclose(codes, (x - model.mean_) @ model.encoder_.T, atol=1e-10)
    back = model.inverse_transform(simulator.OnDevice(codes))
    np.testing.assert_allclose(back, model.inverse_transform(np.asarray(codes)), rtol=1e-10)
    assert model.score(given) == pytest.approx(model.score(x), rel=1e-10)
    assert lf.LinearAutoencoder(P, max_iter=2, backend="cpu").fit(given).backend_ == "cpu"
    there = lf.LinearAutoencoder(P, max_iter=4, batch_size=5).fit(given)
    here = lf.LinearAutoencoder(P, max_iter=4, batch_size=5, backend="cpu").fit(x)
    assert there.backend_ == "cuda"
    np.testing.assert_allclose(there.encoder_, here.encoder_, atol=1e-12)


@pytest.mark.parametrize("loss", ["ordered", "vae", losses.stochastic_nested_dropout("uniform")], ids=str)
def test_partial_fit_is_that_of_the_cpu_through_pickle_too(loss):
    x, _ = data()
    there, here = (lf.LinearAutoencoder(P, loss=loss, backend=name, init_scale=0.3) for name in ("cuda", "cpu"))
    for k, rows in enumerate((x[:6], x[6:9], simulator.OnDevice(x[9:]))):
        there.partial_fit(rows)
        here.partial_fit(rows)
        assert (there.backend_, here.backend_) == ("cuda", "cpu")
        np.testing.assert_allclose(there.encoder_, here.encoder_, atol=1e-11)
        np.testing.assert_allclose(there.history_["loss"], here.history_["loss"], rtol=1e-9)
        if k == 0:
            there = pickle.loads(pickle.dumps(there))


def test_a_model_in_training_loads_where_there_is_no_cuda(monkeypatch):
    x, _ = data()
    model = lf.LinearAutoencoder(P, backend="cuda").partial_fit(x)
    kept = pickle.dumps(model)
    monkeypatch.setattr(target, "probe", lambda: target.Probe(False, "it is gone."))
    loaded = pickle.loads(pickle.dumps(pickle.loads(kept))).set_params(backend="auto")
    np.testing.assert_array_equal(loaded.transform(x), model.set_params(backend="cpu").transform(x))
    with pytest.raises(lf.BackendUnavailableError, match=r"in training on CUDA: it is gone\. Go on where CUDA runs"):
        loaded.partial_fit(x)


def test_what_has_no_cuda_code_says_so_and_auto_takes_the_cpu():
    x, _ = data()
    for settings, message in (
        ({"rule": "alternating"}, "rule='alternating' has no CUDA code yet: use backend='cpu'"),
        ({"hidden": (4,)}, "hidden layers has no CUDA code yet"),
    ):
        with pytest.raises(lf.UnsupportedOnBackendError, match=message):
            lf.LinearAutoencoder(P, backend="cuda", **settings).fit(x)
        model = lf.LinearAutoencoder(P, max_iter=3, **settings).fit(simulator.OnDevice(x))
        assert model.backend_ == "cpu"


def test_the_ordered_loss_finds_the_ordered_directions_and_mse_their_plane():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((40, 3)) * [3.0, 2.0, 0.4] @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    truth = np.linalg.eigh(np.cov(x, rowvar=False))[1][:, ::-1][:, :2]
    found = {}
    for loss in ("ordered", "mse"):
        model = lf.LinearAutoencoder(
            2, loss=loss, optimizer="nesterov", max_iter=250, init_scale=0.3, backend="cuda", tol=1e-3
        ).fit(x)
        assert model.converged_
        found[loss] = metrics.ratio_tp(truth, model.decoder_)
        assert metrics.subspace_distance(truth, model.decoder_) < 1e-3
    assert found == {"ordered": 1.0, "mse": 0.0}


def test_after_the_end_of_a_run_nothing_moves():
    """Iterations that were launched before the host knew of the end are those of the CPU: none."""
    x, _ = data()
    a, b = start()
    for optimizer, tolerance, ended in (
        (optimizers.sgd(0.05), 0.3, "converged"),
        (optimizers.sgd(10.0), -1.0, "diverged"),
    ):
        for rule, loss in (("gradient", losses.ordered()), ("mu_eigengame", None), ("gradient", losses.vae())):
            plan = Recipe(rules.resolve(rule), loss, optimizer, "untied", "mean", tolerance)
            if ended == "diverged" and (rule == "mu_eigengame" or loss == losses.vae()):
                continue  # rows of length 1 stay finite, and Python's exp raises where a device has infinity
            here, there = cases.make_loop(x, None, a, b, plan), device_loop(x, None, a, b, plan)
            with here:
                expected = here.advance(0, 200, False)
                found = there.advance(0, expected.done + 2, False)
            assert getattr(expected, ended) and getattr(found, ended) and found.done == expected.done < 200
            if ended == "converged":
                np.testing.assert_allclose(there.encoder, here.encoder, atol=1e-12)
                assert found.ratio == pytest.approx(expected.ratio, rel=1e-9)


STOPPING = [
    ("gradient", losses.ordered(), "untied"), ("gradient", losses.sum_l2(0.3), "tied"),
    ("gradient", losses.mixed_l2(0.3, 0.4, 0.6), "synchronised"), ("rag", losses.mse(), "untied"),
    ("oja", None, "untied"), ("alpha_eigengame", None, "untied"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "loss", "coupling"), STOPPING, ids=str)
def test_a_run_stops_where_that_of_the_cpu_does(rule, loss, coupling):
    x, _ = data()
    a, b = start()
    plan = Recipe(rules.resolve(rule), loss, optimizers.sgd(0.05), coupling, "mean", 0.3, patience=2)
    here, there = cases.make_loop(x, None, a, b, plan), device_loop(x, None, a, b, plan)
    with here:
        expected = here.advance(0, 400, False)
    assert expected.converged
    # cut into calls, so that what is counted must be kept
    found = [there.advance(0, expected.done - 1, False), there.advance(expected.done - 1, 3, False)]
    assert [one.converged for one in found] == [False, True] and found[1].done == 1
    there.watch(False)
    assert not there.advance(expected.done, 4, False).converged
    there.watch(True)
    again = there.advance(expected.done + 4, 4, False)
    assert again.converged and again.done == 2  # the count begins anew


def test_a_batch_without_mass_is_no_end():
    x = np.zeros((20, D))
    x[:6] = data()[0][:6]
    x[:6] -= x[:6].mean(axis=0)
    model = lf.LinearAutoencoder(
        P, loss="mse", optimizer="sgd", learning_rate=1e-4, batch_size=1, max_iter=50, backend="cuda"
    ).fit(x)
    assert model.n_iter_ == 50 and not model.converged_


def test_divergence_keeps_the_weights_of_the_last_recording():
    x, _ = data()
    model = lf.LinearAutoencoder(
        P, optimizer="sgd", learning_rate=5.0, init_scale=0.3, backend="cuda", record_every=2, max_iter=50
    )
    with pytest.raises(DivergenceError, match="diverged at iteration"):
        model.fit(x)
    assert np.isfinite(model.encoder_).all() and model.backend_ == "cuda"


def test_callbacks_see_arrays_and_may_stop():
    x, _ = data()
    seen = []

    def stop(state):
        seen.append((state.iteration, state.encoder.copy(), state.decoder.shape))
        return len(seen) == 2

    model = lf.LinearAutoencoder(P, backend="cuda", record_every=3, callback=stop).fit(x)
    assert model.n_iter_ == seen[-1][0] < 10 and seen[0][2] == (D, P)
    assert isinstance(seen[0][1], np.ndarray)


def test_an_interruption_leaves_a_fitted_model():
    x, _ = data()

    def interrupt(state):
        if state.iteration > 3:
            raise KeyboardInterrupt

    model = lf.LinearAutoencoder(P, backend="cuda", record_every=3, callback=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x)
    assert model.n_iter_ > 3 and np.isfinite(model.transform(x)).all()


def test_alignment_stops_at_the_true_directions():
    x, _ = data()
    truth = np.linalg.eigh(np.cov(x, rowvar=False))[1][:, ::-1][:, :P]
    model = lf.LinearAutoencoder(
        P, backend="cuda", stop="alignment", record_every=2, init=(truth, truth.T), max_iter=50, optimizer="sgd"
    ).fit(x, reference=truth)
    assert model.converged_ and model.history_["ratio_tp"][-1] == 1.0


def test_cutting_a_run_into_calls_does_not_change_it(monkeypatch):
    x, _ = data(np.float32)
    a, b = start()
    plan = cases.make_plan(loss=losses.ordered(), optimizer="adam")
    whole, cut, captured = (device_loop(x, None, a, b, plan) for _ in range(3))
    whole.advance(0, 9, False)
    for t in range(0, 9, 4):
        cut.advance(t, min(4, 9 - t), True)
    monkeypatch.setenv("LAE_FAST_CUDA_GRAPHS", "1")
    captured.advance(0, 9, False)
    assert captured.loop._graph is not None and whole.loop._graph is None
    assert whole.encoder.tobytes() == cut.encoder.tobytes() == captured.encoder.tobytes()


def test_same_bits_from_run_to_run():
    x, _ = data(np.float32)
    settings = {"max_iter": 6, "record_every": 2, "batch_size": 4, "backend": "cuda"}
    first, second = (lf.LinearAutoencoder(P, **settings).fit(x) for _ in range(2))
    np.testing.assert_array_equal(first.encoder_, second.encoder_)
    np.testing.assert_array_equal(first.history_["loss"], second.history_["loss"])


def test_a_warning_when_iterations_run_out():
    with pytest.warns(ConvergenceWarning, match="max_iter=3"):
        lf.LinearAutoencoder(P, backend="cuda", max_iter=3).fit(data()[0])


def test_moments_may_come_from_either_side():
    from lae_fast.training import train
    from lae_fast.training.start import start as begin

    x, _ = data()
    settings = Settings(P, max_iter=6, backend="cuda", init_scale=0.3)
    runs = [train.proceed(begin(Moments.from_data(x, backend=name), None, None, settings)) for name in ("cpu", "cuda")]
    assert [run.backend for run in runs] == ["cuda", "cuda"]
    np.testing.assert_allclose(runs[0].encoder, runs[1].encoder, atol=1e-12)


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("on_device", ["A B", "X", "A B X Y"])
def test_losses_and_gradients_of_device_arrays(kind, on_device, monkeypatch):
    x, y = data(q=Q)
    a, b = start(Q)
    given = {name: array for name, array in zip("ABXY", (a, b, x, y))}
    for name in on_device.split():
        given[name] = simulator.OnDevice(given[name])
    loss, numbers = LOSSES[kind]
    returned = []
    monkeypatch.setattr(arrays, "as_library", lambda array, like: returned.append(like) or array)
    args = given["A"], given["B"], (given["X"], given["Y"]), loss
    truth = naive.loss(kind, a, b, cases.centred(x), cases.centred(y), scale="mean", **numbers)
    assert lf.loss(*args) == pytest.approx(truth, rel=1e-10)
    da, db = lf.gradients(*args)
    assert returned == [given[on_device[0]]] * 2  # the library of the first that was there
    out = simulator.OnDevice(np.zeros_like(a)), np.zeros_like(b)
    assert lf.gradients(*args, out=out) is out
    sxx, sxy, _ = naive.second_moments(cases.centred(x), cases.centred(y), scale="mean")
    for found, filled, wanted in zip(
        (da, db), (out[0].array, out[1]), naive.gradients(kind, a, b, sxx, sxy, **numbers)
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(filled, wanted, rtol=1e-9, atol=1e-9)


def test_losses_of_device_arrays_in_rows_and_drawn(monkeypatch):
    from lae_fast import plan

    x, _ = data()
    a, b = start()
    drawn = losses.stochastic_nested_dropout(PRIOR)
    for settings in ({"loss": drawn, "random_state": 3}, {}):
        found = lf.loss(simulator.OnDevice(a), b, x, **settings)
        assert found == pytest.approx(lf.loss(a, b, x, **settings), rel=1e-10)
        monkeypatch.setattr(plan, "LARGEST_GRAM", 2)  # so the second is computed by passes over rows
    for ours, theirs in zip(lf.gradients(a, b, simulator.OnDevice(x)), lf.gradients(a, b, x)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_bad_device_arrays_get_the_usual_errors():
    x, _ = data()
    a, b = start()
    with pytest.raises(ValueError, match="B holds NaN"):
        lf.loss(a, simulator.OnDevice(b * np.nan), x)
    with pytest.raises(ValueError, match="Expected 2D array"):
        lf.loss(simulator.OnDevice(a[0]), b, x)
    with pytest.raises(lf.UnsupportedOnBackendError, match=r"no CUDA code yet: copy W, V and the data"):
        lf.vae_loss(simulator.OnDevice(a), b, 1.0, 1.0, x)
