"""Runs that go on: with warm_start or a checkpoint they end with the bits of one that was not interrupted."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses
from lae_fast.errors import DataFileError
from tests.oracle.training_cases import P, X, quiet_fit, samples

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.needs_jit
CASES = {
    "adam": {},
    "float32": {"regime": "rows"},
    "sgd": {"optimizer": "sgd"},
    "momentum": {"optimizer": "momentum", "learning_rate": 0.01},
    "nesterov, tied": {"optimizer": "nesterov", "learning_rate": 0.01, "coupling": "tied"},
    "batches": {"batch_size": 24},
    "dropout": {"loss": losses.stochastic_nested_dropout("uniform"), "batch_size": 24},
    "vae": {"loss": "vae"},
    "chain": {"hidden": (6,)},
    "rag": {"rule": "rag"},
    "gha": {"rule": "gha"},
    "alternating": {"rule": "alternating", "schedule": None},
    "a fall over all": {"schedule": lf.optimizers.cosine(60), "learning_rate": 0.02},
}


def model_of(case, max_iter, **options):
    settings = {"schedule": "constant", "init_scale": 0.1, "tol": 0.0, "record_every": 10, "random_state": 3}
    return lf.LinearAutoencoder(P, max_iter=max_iter, **{**settings, **CASES[case], **options})


def data_of(case):
    return X.astype(np.float32) if case == "float32" else X


def assert_same(one, other):
    assert one.n_iter_ == other.n_iter_
    for name in ("encoder_", "decoder_", "explained_variance_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("iteration", "loss", "gradient_norm"):
        np.testing.assert_array_equal(one.history_[name], other.history_[name], err_msg=name)
    assert (np.diff(one.history_["seconds"]) >= 0.0).all()


@pytest.mark.parametrize("case", CASES)
def test_a_warm_start_is_one_long_run(case):
    whole = model_of(case, 60).fit(data_of(case))
    parts = model_of(case, 20, warm_start=True)
    for _ in range(3):
        parts = pickle.loads(pickle.dumps(parts.fit(data_of(case))))
    assert_same(parts, whole)
    cold = model_of(case, 20).fit(data_of(case))
    np.testing.assert_array_equal(model_of(case, 20, warm_start=True).fit(data_of(case)).encoder_, cold.encoder_)
    assert "_stands_at" not in vars(cold) or cold._stands_at is None


def test_a_warm_start_takes_other_data_and_settings_of_the_same_shapes():
    model = model_of("batches", 20, warm_start=True, loss="mse").fit(X)
    model.set_params(loss="ordered", learning_rate=0.001).fit(samples(seed=1, m=90))
    assert model.n_iter_ == 40 and np.isfinite(model.encoder_).all()
    for change, words in (
        ({"n_components": 3}, "n_components was 4 and is 3"),
        ({"optimizer": "sgd"}, "optimizer was 'adam' and is 'sgd'"),
    ):
        old = {name: getattr(model, name) for name in change}
        with pytest.raises(ValueError, match=rf"warm_start=True goes on with .*one: {words}\. Set warm_start=False"):
            model.set_params(**change).fit(X)
        model.set_params(**old)
    with pytest.raises(ValueError, match=r"the number of features was .* and is 7; the number of targets was"):
        model.fit(samples(d=7))
    assert model.set_params(warm_start=False).fit(X).n_iter_ == 20


def test_a_warm_start_goes_on_after_a_callback_has_stopped_or_failed():
    whole = model_of("adam", 60).fit(X)

    def fail(state):
        if state.iteration == 20:
            raise RuntimeError("enough")

    model = model_of("adam", 60, warm_start=True, callback=fail)
    with pytest.raises(RuntimeError):
        model.fit(X)
    assert_same(model.set_params(callback=None, max_iter=40).fit(X), whole)
    model = model_of("adam", 60, warm_start=True, callback=lambda state: state.iteration == 30).fit(X)
    assert_same(model.set_params(callback=None, max_iter=30).fit(X), whole)


def test_a_schedule_by_name_ends_at_the_last_iteration_of_all():
    rates = [
        model_of("adam", 20, warm_start=True, schedule="cosine", learning_rate=0.01, record="rate", record_every=1)
    ]
    rates = rates[0].fit(X).fit(X).history_["rate"]
    assert rates[19] < 1e-4 and rates[-1] == 0.0
    assert rates[25] == pytest.approx(0.01 * 0.5 * (1 + np.cos(np.pi * 25 / 40)))


class _Killed(Exception):
    pass


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_goes_on_to_the_same_bits(case, tmp_path):
    path = tmp_path / "run.npz"
    data = data_of(case)
    record = {"size": lambda state: np.array([np.linalg.norm(state.encoder)] * 2)}
    whole = model_of(case, 60, record=record).fit(data)

    def kill(state):
        if state.iteration == 30:
            raise _Killed

    with pytest.raises(_Killed):
        model_of(case, 60, record=record, callback=kill).fit(data, checkpoint=lf.Checkpoint(path, seconds=0.0))
    assert path.exists()
    again = lf.Checkpoint(path)
    model = model_of(case, 60, record=record).fit(data, checkpoint=again)
    assert again.resumed and 0 < int(again.at.split()[1]) <= 30
    assert_same(model, whole)
    np.testing.assert_array_equal(model.history_["size"], whole.history_["size"])
    with np.load(path, allow_pickle=False) as stored:
        assert "fingerprint" in stored


def test_a_checkpoint_of_another_run_is_refused_and_a_path_is_removed(tmp_path):
    path = tmp_path / "run.npz"
    model_of("adam", 30).fit(X, checkpoint=lf.Checkpoint(path, seconds=0.0))
    for other, data in (
        (model_of("adam", 40), X), (model_of("adam", 30, learning_rate=0.1), X), (model_of("sgd", 30), X),
        (model_of("adam", 30, random_state=4), X), (model_of("adam", 30), X + np.arange(len(X))[:, None]),
    ):  # fmt: skip
        with pytest.raises(DataFileError, match="is of another run"):
            other.fit(data, checkpoint=path)
    model_of("adam", 30).fit(X, checkpoint=path)
    assert not path.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_process_goes_on(number, tmp_path):
    code = """
import sys, numpy as np, lae_fast as lf
x = np.random.default_rng(0).standard_normal((300, 40)) * np.linspace(3, 1, 40)
seconds = float(sys.argv[2])
def look(state):
    if state.iteration: print("going", flush=True)
model = lf.LinearAutoencoder(6, batch_size=20, tol=0.0, max_iter=int(sys.argv[3]), record_every=2000, callback=look)
model.fit(x, checkpoint=lf.Checkpoint(sys.argv[1], seconds))
np.savez(sys.argv[4], encoder=model.encoder_, loss=model.history_["loss"])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}

    def run(name, seconds, result):
        arguments = [sys.executable, "-c", code, str(tmp_path / name), seconds, "60000", str(tmp_path / result)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    whole = run("whole.npz", "30", "a.npz")
    assert whole.communicate(timeout=120)[1] == "" and whole.returncode == 0
    killed = run("killed.npz", "1000" if number == signal.SIGINT else "0", "b.npz")
    assert killed.stdout.readline().strip() == "going"
    time.sleep(0.1)
    killed.send_signal(number)
    killed.communicate(timeout=60)
    assert not (tmp_path / "b.npz").exists()
    with np.load(tmp_path / "killed.npz") as stored:
        assert 0 < int(stored["iteration"]) < 60_000
    resumed = run("killed.npz", "30", "b.npz")
    assert resumed.communicate(timeout=120)[1] == ""
    with np.load(tmp_path / "a.npz") as expected, np.load(tmp_path / "b.npz") as found:
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_a_random_generator_is_not_drawn_from_by_batches():
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    model_of("batches", 5, random_state=first).fit(X)
    model_of("batches", 50, random_state=second).fit(X)
    assert first.random() == second.random()
    one = quiet_fit(
        model_of("batches", 20, random_state=np.random.default_rng(np.random.Philox(3)), warm_start=True), X
    )
    assert one.fit(X).n_iter_ == 40
