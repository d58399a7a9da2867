"""learning_rate="auto" and the start of chains: every loss, rule and optimizer comes down, in any units."""

import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import lae_fast as lf
from lae_fast import losses, theory
from lae_fast.errors import ConvergenceWarning
from lae_fast.training import problem, rates
from tests.oracle import naive_autoencoder as naive

pytestmark = pytest.mark.needs_jit

M, D, P = 120, 8, 3
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adam")
SPECTRA = {
    "graded": 10.0 ** -np.linspace(0, 4, D),
    "white": np.ones(D),
    "gap": np.r_[np.ones(P), np.full(D - P, 1e-3)],
}
UNITS = (2.0**-20, 1.0, 2.0**20)
# Of the largest eigenvalue.
PENALTIES = (0.01, 0.5, 30.0, 1e4)
LOSSES = {
    "mse": lambda _: losses.mse(),
    "ordered": lambda _: losses.ordered(),
    "nested_dropout": lambda _: losses.nested_dropout("geometric"),
    "vae": lambda _: losses.vae(),
    **{f"sum_l2 {x}": lambda l1, x=x: losses.sum_l2(x * l1) for x in PENALTIES},
    **{f"nonuniform_l2 {x}": lambda l1, x=x: losses.nonuniform_l2([x * l1, 2 * x * l1, 5 * x * l1]) for x in PENALTIES},
    **{f"product_l2 {x}": lambda l1, x=x: losses.product_l2(x * l1) for x in PENALTIES},
    **{f"mixed_l2 {x}": lambda l1, x=x: losses.mixed_l2(x * l1, 0.5, 0.5) for x in PENALTIES},
}


def data(spectrum, unit=1.0, seed=0, m=M):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0]
    x = rng.standard_normal((m, D)) * np.sqrt(SPECTRA[spectrum]) @ axes * unit
    return x, np.linalg.eigvalsh(np.cov(x.T, ddof=0))[-1]


def fitted(x, **settings):
    """(model, loss at the start, loss at the end): of all rows, from the history."""
    given = {"max_iter": 201, "record_every": 50, "tol": 0.0} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = lf.LinearAutoencoder(P, **given).fit(x)
    return model, model.history_["loss"][0], model.history_["loss"][-1]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_comes_down(name, optimizer):
    for spectrum in SPECTRA:
        for unit in UNITS:
            x, largest = data(spectrum, unit)
            _, first, last = fitted(x, loss=LOSSES[name](largest), optimizer=optimizer)
            assert last <= first + 1e-12 * abs(first), (spectrum, unit)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize(
    "name", ["ordered", "stochastic_nested_dropout", "sum_l2 30.0", "product_l2 0.5", "mixed_l2 1e4"]
)
def test_mini_batches_come_down(name, size, optimizer):
    for spectrum in SPECTRA:
        x, largest = data(spectrum, m=400)
        made = {"stochastic_nested_dropout": lambda _: losses.stochastic_nested_dropout("uniform")} | LOSSES
        loss = made[name.replace("1e4", "10000.0")](largest)
        model, _, _ = fitted(x, loss=loss, optimizer=optimizer, batch_size=size, max_iter=500)
        mean = getattr(loss, "expectation", loss)
        last, zero = (
            lf.loss(a, b, x, mean) for a, b in ((model.decoder_, model.encoder_), (np.zeros((D, P)), np.zeros((P, D))))
        )
        assert last <= 1.02 * zero, spectrum


@pytest.mark.parametrize("init_scale", [1e-4, 2.0])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "settings",
    [
        {"rule": "rag"},
        {"rule": "oja"},
        {"rule": "gha"},
        {"rule": "mu_eigengame"},
        {"rule": "alpha_eigengame"},
        {"coupling": "tied"},
        {"coupling": "synchronised"},
        {"hidden": (5,)},
        {"hidden": (7, 6, 4)},
    ],
    ids=str,
)
def test_every_rule_comes_down_from_any_start(settings, optimizer, init_scale):
    for spectrum in ("graded", "white"):
        x, _ = data(spectrum)
        _, first, last = fitted(x, optimizer=optimizer, init_scale=init_scale, **settings)
        assert last <= first + 1e-9 * abs(first), spectrum


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("settings", [{}, {"rule": "gha"}, {"hidden": (5,)}, {"batch_size": 8}], ids=str)
def test_units_do_not_matter(settings, optimizer):
    """Data times a power of two: rates over its square, and the same weights."""
    plain = fitted(data("graded")[0], optimizer=optimizer, **settings)[0]
    for unit in UNITS:
        other = fitted(data("graded", unit)[0], optimizer=optimizer, **settings)[0]
        np.testing.assert_allclose(other.encoder_, plain.encoder_, rtol=1e-6, atol=1e-9)
        if optimizer != "adam":
            assert other.learning_rate_ * unit**2 == pytest.approx(plain.learning_rate_, rel=1e-9)


def hessian(slope, point, step):
    """Of a function with gradient `slope`, by central differences."""
    sides = [(slope(point + step * e) - slope(point - step * e)) / (2 * step) for e in np.eye(point.size)]
    return 0.5 * (np.array(sides) + np.array(sides).T)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "vae"])
def test_the_curvature_is_a_close_bound(name, spectrum):
    """Of the Hessian at the optimum, where it has components, and at zero."""
    x, largest = data(spectrum)
    loss, moments = LOSSES[name](largest), lf.Moments.from_data(x)
    region = rates.Region(largest, np.trace(moments.xx) / M, 0.0, D)

    def slope(w):
        a, b = w[: D * P].reshape(D, P), w[D * P :].reshape(P, D)
        return np.concatenate([part.ravel() for part in lf.gradients(a, b, moments, loss)])

    a, b = theory.optimum(moments, P, loss)
    optimum = np.concatenate([a.ravel(), b.ravel()])
    worst = max(np.linalg.eigvalsh(hessian(slope, point, 1e-4))[-1] for point in (optimum, 0.0 * optimum))
    bound = rates.curvature(loss, P, region)
    assert worst <= 1.001 * bound
    assert bound <= 4.0 * worst


def test_the_curvature_of_the_vae_is_a_close_bound():
    x = 2.0 * data("graded")[0]
    moments = lf.Moments.from_data(x)
    s = moments.xx / M
    best = theory.vae_optimum(moments, P)
    sizes = np.cumsum([D * P, P * D, P])

    def slope(w):
        dec, enc, e, noise = np.split(w, sizes)
        da, db, de, dn = naive.vae_gradients(dec.reshape(D, P), enc.reshape(P, D), e, noise[0], s)
        return np.concatenate([da.ravel(), db.ravel(), de, [dn]])

    point = np.concatenate(
        [best.decoder.ravel(), best.encoder.ravel(), best.log_latent_variances, [best.log_noise_variance]]
    )
    values = np.linalg.eigvalsh(s)[::-1]
    region = rates.Region(values[0], values.sum(), values[P:].sum(), D)
    worst = np.linalg.eigvalsh(hessian(slope, point, 1e-5))[-1]
    assert worst <= rates.curvature(losses.vae(), P, region) <= 5.0 * worst


@pytest.mark.parametrize("n_layers", [2, 3, 5])
def test_a_chain_leaves_the_start_as_soon_as_two_layers(n_layers):
    """Gradient flow of one component of variance 1: layers of size s move by s^(2n - 1)."""
    start, rate = 3e-3, 1e-3

    def steps(size, power):
        count = 0
        while size**power < 0.5:
            size += rate * size ** (power - 1)
            count += 1
        return count

    assert steps(rates.chain_size(start, n_layers), 2 * n_layers) == pytest.approx(steps(start, 2), rel=0.5)
    assert rates.chain_size(start, 1) == start
    sizes = [rates.chain_size(size, n_layers) for size in (1e-8, 1e-4, 0.1, 0.9, 0.999, 1.0, 1.1, 50.0)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("hidden", [(6,), (8, 7, 6, 5)])
def test_deep_chains_train_from_the_default_start(hidden):
    x, _ = data("gap")
    x = x * np.linspace(1.0, 0.5, D)
    _, first, last = fitted(x, hidden=hidden, optimizer="sgd", max_iter=4001)
    least = theory.minimum(lf.Moments.from_data(x), P, "ordered")
    assert last - least < 0.01 * (first - least)


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov"])
def test_growth_without_end_is_divergence(optimizer):
    """A rate far over the VAE's leaves the numbers finite for long, and the loss grows."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 30)) * np.r_[np.full(4, 2.0), np.full(26, 0.05)]
    settings = {"loss": "vae", "optimizer": optimizer, "record_every": 10, "max_iter": 500}
    model = lf.LinearAutoencoder(4, learning_rate=0.2, **settings)
    with pytest.raises(lf.DivergenceError, match=r"diverged at iteration \d+: the loss has grown.*lower it"):
        model.fit(x)
    assert np.isfinite(model.transform(x)).all()
    assert (model.history_["loss"] <= model.history_["loss"][0] + 1000).all()
    with pytest.warns(ConvergenceWarning):
        trained = lf.LinearAutoencoder(4, **settings).fit(x)
    assert trained.history_["loss"][-1] < trained.history_["loss"][0]


def test_threads_of_blas_do_not_change_the_largest_eigenvalue():
    x = np.random.default_rng(0).standard_normal((1500, 1000))
    s = x.T @ x
    found = set()
    for n in (1, 2, 3):
        with threadpool_limits(n, "blas"):
            found.add(problem.largest_eigenvalue(lambda block: s @ block, 1000))
    assert len(found) == 1


@pytest.mark.parametrize("settings", [{}, {"loss": "vae"}, {"hidden": (40,)}, {"batch_size": 50}], ids=str)
def test_threads_of_blas_do_not_change_the_rate(settings):
    x = np.random.default_rng(0).standard_normal((400, 300))
    found = []
    for n in (1, 2, 3):
        with threadpool_limits(n, "blas"):
            model = fitted(x, optimizer="sgd", max_iter=3, **settings)[0]
        found.append((model.learning_rate_, model.encoder_, model.explained_variance_))
    for other in found[1:]:
        for mine, first in zip(other, found[0]):
            np.testing.assert_array_equal(mine, first)
