"""Stochastic nested dropout on all rows at once: the masked products, the steps, and what it takes for data."""

import copy

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import losses
from lae_fast.backends.cpu.training import nested_dropout
from lae_fast.training import start
from lae_fast.training.run import Settings
from tests.oracle import naive_autoencoder as naive
from tests.oracle.training_cases import TRUTH, D, M, P, X, quiet_fit

pytestmark = pytest.mark.needs_jit
PRIORS = {
    "uniform": "uniform",
    "geometric": losses.geometric_prior(0.9),
    "early": losses.array_prior([0.7, 0.1, 0.1, 0.1]),
}


@pytest.mark.parametrize(("source", "dtype"), [(np.uint8, np.float32), (np.float64, np.float64)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("switch", [0, 2, 5])
@pytest.mark.parametrize(("m", "d"), [(150, 9), (3, 1)])
def test_masked_products_against_the_oracle(dtype, source, weighted, switch, m, d):
    rng, p = np.random.default_rng(0), 5
    x = rng.integers(0, 9, (m, d)).astype(source)
    shift, w = rng.standard_normal(d).astype(dtype), rng.standard_normal((2 * p, d)).astype(dtype)
    weights = rng.uniform(0.0, 2.0, m) if weighted else np.zeros(0)
    kept = rng.integers(1, p + 1, m)
    order = np.argsort(kept, kind="stable")
    out = np.ones((2 * p, d), dtype)
    nested_dropout.masked_products(
        x.reshape(-1), d, 1, order, shift, weights, np.searchsorted(kept[order], np.arange(p + 2)), switch, w,
        np.zeros((nested_dropout.ROWS_AT_ONCE, d), dtype), np.zeros((nested_dropout.ROWS_AT_ONCE, 2 * p), dtype), out,
    )  # fmt: skip
    rows = naive.naive_batch(x, np.arange(m), shift, 1.0, weights if weighted else np.ones(m))
    for k in range(2):
        keeps, all_rows = naive.masked_products(w[k::2], rows, kept), naive.masked_products(w[k::2], rows, [p] * m)
        expected = keeps - all_rows * (np.arange(p) < switch)[:, None]
        size = np.abs(all_rows).max()
        np.testing.assert_allclose(out[k::2] - 1.0, expected, atol=(1e-5 if dtype == np.float32 else 1e-13) * size)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_a_full_batch_follows_the_oracle(prior, scale, layout, center, weighted, wide):
    x = np.random.default_rng(1).standard_normal((40, 60)) + 1.0 if wide else X
    x = np.asarray(x, order=layout)
    m = len(x)
    weights = np.random.default_rng(2).uniform(0.5, 1.5, m) if weighted else None
    mass = np.ones(m) if weights is None else weights
    loss, rate = losses.stochastic_nested_dropout(PRIORS[prior]), (1e-3 if scale == "mean" else 1e-3 / mass.sum())
    settings = Settings(
        P, loss=loss, optimizer="sgd", learning_rate=rate, init_scale=0.2, scale=scale, center=center, random_state=5
    )
    run = start.start(x, None, weights, settings)
    assert run.engine.reader is None and (run.regime, run.backend) == ("rows", "cpu")
    rows = x - (mass @ x / mass.sum()) if center else x
    draws = copy.deepcopy(run.engine.masks)
    a, b = run.decoder, run.encoder
    with run.engine:
        for t in range(6):
            kept = loss.sample(m, P, draws)
            mask = np.arange(P) < kept[:, None]
            errors = ((rows @ b.T) * mask) @ a.T - rows
            expected = float(mass @ np.sum(errors**2, axis=1)) / (1.0 if scale == "sum" else mass.sum())
            da, db = naive.stochastic_gradients(a, b, rows, None, kept, mass, scale)
            outcome = run.engine.advance(t, 1, True)
            assert outcome.loss == pytest.approx(expected, rel=1e-10)
            a, b = a - rate * da, b - rate * db
            np.testing.assert_allclose(run.decoder, a, atol=1e-11)
            np.testing.assert_allclose(run.encoder, b, atol=1e-11)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_bits_do_not_depend_on_the_number_of_threads(threads):
    x = np.random.default_rng(1).integers(0, 255, (900, 70)).astype(np.uint8)
    options = {"loss": losses.stochastic_nested_dropout("uniform"), "max_iter": 8, "tol": 0.0, "record_every": 4}
    found = []
    for count in (2, threads):
        lf.set_num_threads(count)
        try:
            found.append(lf.LinearAutoencoder(6, **options).fit(x))
        finally:
            lf.set_num_threads(None)
    np.testing.assert_array_equal(found[0].encoder_, found[1].encoder_)
    np.testing.assert_array_equal(found[0].history_["loss"], found[1].history_["loss"])


@pytest.mark.parametrize("store", [scipy.sparse.csr_array, lambda x: x[:, ::-1][:, ::-1].astype(np.float16)])
def test_other_data_take_a_batch_of_all_rows(store):
    options = {"loss": losses.stochastic_nested_dropout("uniform"), "max_iter": 5, "tol": 0.0, "init_scale": 0.1}
    model = quiet_fit(lf.LinearAutoencoder(P, **options), store(X))
    batch = quiet_fit(lf.LinearAutoencoder(P, batch_size=M, **options), store(X))
    np.testing.assert_array_equal(model.encoder_, batch.encoder_)
    targets = quiet_fit(lf.LinearAutoencoder(3, **options), X, targets=X[:, :5])
    assert targets.decoder_.shape == (5, 3)


def test_it_finds_the_directions_in_order():
    model = lf.LinearAutoencoder(
        P, loss=losses.stochastic_nested_dropout("uniform"), max_iter=4000, tol=0.0, init_scale=0.1
    ).fit(X, reference=TRUTH)
    assert model.history_["alignment"][-1] < 0.02 and D > P
