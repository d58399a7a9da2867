"""Whole fits on the CUDA backend, on Numba's simulator: equal to the CPU's, from data and arrays on either side.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_train_fits.py
"""

import pickle

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses, metrics
from lae_fast.operators.moments import Moments
from lae_fast.training.run import Settings
from tests.oracle import loop_cases as cases
from tests.oracle import naive_autoencoder as naive
from tests.oracle import simulator
from tests.oracle.simulated_cases import LOSSES, PRIOR, STEPS, P, Q, data, start

pytestmark = [
    simulator.only,
    pytest.mark.filterwarnings("ignore::lae_fast.errors.ConvergenceWarning"),
    # what overflows in the simulator's threads warns; the tests check what comes of it
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
]

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays, target


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
