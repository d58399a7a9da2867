"""Training on a CUDA card: `python -m pytest --full -m gpu`; LAE_FAST_REQUIRE_CUDA=1 fails where no card is.

The same statements as tests/backends/cuda_simulated/test_train_{steps,fits,ends}.py at sizes of many blocks, and the
theorems of tests/training/test_train.py.
"""

import pickle

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses, metrics, optimizers, rules, theory
from lae_fast.data import sources
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from lae_fast.training.cpu_loop import CpuLoopEngine
from lae_fast.training.engine import Recipe
from tests.oracle import loop_cases as cases
from tests.oracle.training_cases import TRUTH, VALUES, P, X, quiet_fit

pytestmark = pytest.mark.gpu

D, WIDE = 203, 37
LOSSES = {
    "mse": losses.mse(), "ordered": losses.ordered(), "nested_dropout": losses.nested_dropout("uniform"),
    "sum_l2": losses.sum_l2(0.3), "product_l2": losses.product_l2(0.3), "mixed_l2": losses.mixed_l2(0.3, 0.5, 0.5),
}  # fmt: skip


def samples(dtype, d=D, m=500):
    rng = np.random.default_rng(0)
    return (rng.standard_normal((m, d)) * np.geomspace(3.0, 0.1, d) + 5.0).astype(dtype)


def pair(plan, x, y=None, p=WIDE):
    """The same loop on the card and on the CPU."""
    from lae_fast.training.cuda_loop import CudaLoopEngine

    moments = Moments(x.shape[1], 0 if y is None else y.shape[1]).update(x, y)
    described = problem.from_moments(moments, plan.scale, x.dtype)
    rng = np.random.default_rng(1)
    b, a = (rng.standard_normal((p, n)) / np.sqrt(n) for n in (described.d, described.q))
    if plan.coupling == "tied":
        b = a
    decoder = a if plan.rule.has_decoder else None
    return [kind(described, plan, b, decoder) for kind in (CudaLoopEngine, CpuLoopEngine)]


def assert_together(there, here, dtype, steps=20):
    tolerance = 1e-9 if dtype is np.float64 else 2e-3
    with here:
        for t in range(0, steps, 5):
            found, expected = there.advance(t, 5, True), here.advance(t, 5, True)
            assert found.done == expected.done == 5
            assert found.loss == pytest.approx(expected.loss, rel=tolerance)
            assert found.ratio == pytest.approx(expected.ratio, rel=100 * tolerance)
            scale = np.abs(here.encoder).max()
            np.testing.assert_allclose(there.encoder, here.encoder, rtol=0, atol=tolerance * scale)
            np.testing.assert_allclose(there.decoder, here.decoder, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("graphs", ["0", "1"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adam"])
@pytest.mark.parametrize("name", [*LOSSES, "vae", "rag", "oja", "gha", "alpha_eigengame", "mu_eigengame"])
def test_every_rule_goes_with_the_cpu(name, optimizer, dtype, graphs, monkeypatch):
    monkeypatch.setenv("LAE_FAST_CUDA_GRAPHS", graphs)
    rule = name if name in rules.names() else "gradient"
    loss = {"rag": losses.mse(), "vae": losses.vae(), **LOSSES}.get(name)
    made = {"sgd": optimizers.sgd(1e-4), "nesterov": optimizers.nesterov(1e-4), "adam": optimizers.adam(1e-3)}[
        optimizer
    ]
    plan = Recipe(rules.resolve(rule), loss, made, "untied", "mean", -1.0)
    there, here = pair(plan, samples(dtype))
    assert_together(there, here, dtype)
    assert (there.loop._graph is not None) == (graphs == "1")


@pytest.mark.parametrize("case", ["tied", "synchronised", "sequential", "targets"])
def test_couplings_and_targets_go_with_the_cpu(case):
    x = samples(np.float64)
    y = x @ np.random.default_rng(2).standard_normal((D, 71)) * 0.1 if case == "targets" else None
    rule = rules.gradient(sequential=case == "sequential")
    coupling = case if case in ("tied", "synchronised") else "untied"
    plan = Recipe(rule, losses.mixed_l2(0.1, 0.5, 0.5), optimizers.adam(1e-3), coupling, "mean", -1.0)
    assert_together(*pair(plan, x, y), np.float64)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (33, 31), (64, 784), (257, 300)], ids=str)
def test_shapes_that_fit_no_block(shape):
    p, d = shape
    plan = cases.make_plan(loss=losses.ordered(), optimizer="adam")
    assert_together(*pair(plan, samples(np.float64, max(d, p)), p=p), np.float64)


@pytest.mark.parametrize("place", ["host", "device", "bytes"])
@pytest.mark.parametrize("loss", ["ordered", "dropout"])
def test_mini_batches_are_those_of_the_cpu(place, loss):
    cupy = pytest.importorskip("cupy")
    x = samples(np.float32)
    if place == "bytes":
        x = np.clip(x * 10, 0, 255).astype(np.uint8)
    made = losses.ordered() if loss == "ordered" else losses.stochastic_nested_dropout("uniform")
    settings = {"loss": made, "batch_size": 64, "max_iter": 30, "record_every": 10, "init_scale": 0.05}
    there = quiet_fit(lf.LinearAutoencoder(9, backend="cuda", **settings), cupy.asarray(x) if place == "device" else x)
    here = quiet_fit(lf.LinearAutoencoder(9, backend="cpu", **settings), x)
    assert there.backend_ == "cuda"
    np.testing.assert_allclose(there.history_["loss"], here.history_["loss"], rtol=1e-3)
    np.testing.assert_allclose(there.encoder_, here.encoder_, atol=5e-3 * np.abs(here.encoder_).max())


def test_rows_that_do_not_fit_are_staged(monkeypatch):
    from lae_fast.backends.cuda import arrays

    x = samples(np.float64)
    settings = {"batch_size": 64, "max_iter": 30, "init_scale": 0.05, "backend": "cuda"}
    here = quiet_fit(lf.LinearAutoencoder(9, **settings), x)
    monkeypatch.setattr(arrays, "free_bytes", lambda: 1000)
    there = quiet_fit(lf.LinearAutoencoder(9, **settings), x)
    np.testing.assert_array_equal(there.encoder_, here.encoder_)


def test_partial_fit_through_pickle():
    x = samples(np.float64)
    there, here = (lf.LinearAutoencoder(9, backend=name, init_scale=0.05) for name in ("cuda", "cpu"))
    for rows in (x[:100], x[100:130], x[130:]):
        there = pickle.loads(pickle.dumps(there.partial_fit(rows)))
        np.testing.assert_allclose(there.encoder_, here.partial_fit(rows).encoder_, atol=1e-9)


def test_rows_regime():
    x = samples(np.float64)
    settings = {"regime": "rows", "max_iter": 10, "init_scale": 0.05}
    there, here = (quiet_fit(lf.LinearAutoencoder(9, backend=name, **settings), x) for name in ("cuda", "cpu"))
    np.testing.assert_allclose(there.encoder_, here.encoder_, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_reaches_its_minimum(name):
    loss = LOSSES[name]
    model = lf.LinearAutoencoder(
        P, loss=loss, optimizer="nesterov", max_iter=60_000, tol=1e-8, init_scale=0.1, backend="cuda"
    ).fit(X)
    assert model.converged_ and model.backend_ == "cuda"
    moments = Moments.from_data(X)
    value = lf.loss(model.decoder_, model.encoder_, moments, loss)
    assert value == pytest.approx(theory.minimum(moments, P, loss), rel=1e-8)
    found = metrics.ratio_tp(TRUTH, model.decoder_)
    assert (found == 1.0) if loss.breaks_rotation(P) else (found < 1.0)


def test_shrinkage_of_the_sum_loss():
    model = lf.LinearAutoencoder(
        P, loss=losses.sum_l2(0.3), optimizer="nesterov", max_iter=60_000, tol=1e-9, backend="cuda"
    ).fit(X)
    squares = np.linalg.svd(model.decoder_, compute_uv=False) ** 2
    np.testing.assert_allclose(squares, 1.0 - 0.3 / VALUES, atol=1e-5)
    assert metrics.transpose_gap(model.decoder_, model.encoder_) < 1e-8


@pytest.mark.parametrize("rule", ["rag", "gha", "mu_eigengame", "alpha_eigengame"])
def test_rules_that_order_find_the_directions(rule):
    # rag keeps A'A - BB' of its start: from 0.1 its directions stay 0.14 off, which counts as not converged
    scale = 1e-4 if rule == "rag" else 0.1
    model = lf.LinearAutoencoder(
        P, rule=rule, optimizer="sgd", max_iter=60_000, init_scale=scale, tol=1e-7, backend="cuda"
    ).fit(X)
    assert model.converged_ and metrics.ratio_tp(TRUTH, model.decoder_) == 1.0


def test_divergence_and_the_end_of_a_run():
    x = samples(np.float64)
    for optimizer, tolerance, ended in (
        (optimizers.sgd(10.0), -1.0, "diverged"),
        (optimizers.sgd(0.008), 0.5, "converged"),
    ):
        plan = Recipe(rules.gradient(), losses.ordered(), optimizer, "untied", "mean", tolerance)
        there, here = pair(plan, x, p=3)
        with here:
            expected = here.advance(0, 3000, False)
        found = there.advance(0, 3000, False)
        assert getattr(expected, ended) and getattr(found, ended) and found.done == expected.done < 3000


@pytest.mark.parametrize("library", ["cupy", "numba", "torch"])
def test_losses_and_gradients_of_device_arrays(library, libraries):
    if library == "torch":
        pytest.importorskip("torch")
    x, rng = samples(np.float64), np.random.default_rng(3)
    a, b = rng.standard_normal((D, 5)), rng.standard_normal((5, D))
    given = [libraries(array).get(library) for array in (a, b, x)]
    if given[0] is None:
        pytest.skip(f"{library} sees no card")
    assert lf.loss(*given) == pytest.approx(lf.loss(a, b, x), rel=1e-10)
    found = lf.gradients(*given)
    out = libraries(np.zeros_like(a))[library], libraries(np.zeros_like(b))[library]
    lf.gradients(*given, out=out)
    for array, filled, wanted in zip(found, out, lf.gradients(a, b, x)):
        assert type(array).__module__.split(".")[0].startswith(library)
        for value in (array, filled):
            host = sources.as_source(value).block(0, value.shape[0], False)
            np.testing.assert_allclose(host, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("graphs", ["0", "1"])
def test_same_bits_from_run_to_run_and_by_graph(graphs, monkeypatch):
    monkeypatch.setenv("LAE_FAST_CUDA_GRAPHS", graphs)
    plan = cases.make_plan(loss=losses.ordered(), optimizer="adam")
    first, second = (pair(plan, samples(np.float32))[0] for _ in range(2))
    monkeypatch.setenv("LAE_FAST_CUDA_GRAPHS", "0")
    second.advance(0, 30, True)
    monkeypatch.setenv("LAE_FAST_CUDA_GRAPHS", graphs)
    first.advance(0, 30, True)
    np.testing.assert_array_equal(first.encoder, second.encoder)


def test_a_step_of_the_oracle():
    x = samples(np.float64, 12)
    plan = cases.make_plan(loss=losses.ordered(), optimizer="adam")
    there, _ = pair(plan, x, p=4)
    a, b = there.decoder.T, there.encoder
    path = cases.oracle_path("gradient", "adam", a, b, x, kind="ordered")
    cases.follow(there, path, 1e-10)
