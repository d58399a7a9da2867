"""How runs end on the CUDA backend, on Numba's simulator: stopping, divergence, callbacks, interruption, many calls.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_train_ends.py
"""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import losses, optimizers, rules
from lae_fast.errors import ConvergenceWarning, DivergenceError
from lae_fast.training.engine import Recipe
from tests.oracle import loop_cases as cases
from tests.oracle import simulator
from tests.oracle.simulated_cases import D, P, data, device_loop, start

pytestmark = [
    simulator.only,
    pytest.mark.filterwarnings("ignore::lae_fast.errors.ConvergenceWarning"),
    # what overflows in the simulator's threads warns; the tests check what comes of it
    pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning"),
]


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
