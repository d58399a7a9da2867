"""Optimizers and schedules against PyTorch, the oracle, and their formulas."""

import dataclasses
import math

import numpy as np
import pytest

from lae_fast import optimizers
from tests.oracle import naive_autoencoder as naive

CASES = {
    "sgd": (optimizers.sgd(0.05), {}),
    "momentum": (optimizers.momentum(0.05, mu=0.8), {"mu": 0.8}),
    "nesterov": (optimizers.nesterov(0.05, mu=0.8), {"mu": 0.8}),
    "adam": (optimizers.adam(0.05, beta1=0.8, beta2=0.99, eps=1e-3), {"beta1": 0.8, "beta2": 0.99, "eps": 1e-3}),
}


def gradient(w):
    """Gradient of a convex function that is no quadratic, so that no two optimizers agree by accident."""
    return np.sinh(w) + 0.3 * np.roll(w, 1, axis=0)


def path(optimizer, iterations=60):
    w = np.random.default_rng(0).normal(size=(3, 4))
    states = [np.zeros_like(w) for _ in range(optimizer.n_states)]
    out = []
    for t in range(iterations):
        optimizers.step(optimizer, w, gradient(w), states, t)
        out.append(w.copy())
    return out


@pytest.mark.parametrize("name", CASES)
def test_against_the_oracle(name):
    optimizer, numbers = CASES[name]
    w = np.random.default_rng(0).normal(size=(3, 4))
    state = naive.optimizer_start(w)
    for t, got in enumerate(path(optimizer)):
        w = naive.optimizer_step(name, w, gradient(w), state, 0.05, t, **numbers)
        np.testing.assert_allclose(got, w, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_against_torch(name):
    torch = pytest.importorskip("torch", reason="the second, independent implementation of the optimizers is PyTorch's")
    w = torch.tensor(np.random.default_rng(0).normal(size=(3, 4)), requires_grad=True)
    their = {
        "sgd": lambda: torch.optim.SGD([w], lr=0.05),
        "momentum": lambda: torch.optim.SGD([w], lr=0.05, momentum=0.8),
        "nesterov": lambda: torch.optim.SGD([w], lr=0.05, momentum=0.8, nesterov=True),
        "adam": lambda: torch.optim.Adam([w], lr=0.05, betas=(0.8, 0.99), eps=1e-3),
    }[name]()
    for got in path(CASES[name][0]):
        w.grad = torch.tensor(gradient(w.detach().numpy()))
        their.step()
        np.testing.assert_allclose(got, w.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_optimizers_differ():
    """Guards the tests above: no two of the four paths agree."""
    ends = [path(optimizer)[9] for optimizer, _ in CASES.values()]
    for i in range(4):
        for j in range(i):
            assert np.abs(ends[i] - ends[j]).max() > 1e-3


SCHEDULES = {
    "constant": (optimizers.constant(), lambda t: 1.0),
    "exponential": (optimizers.exponential(1e-3, steps=50), lambda t: 10 ** (-3 * t / 50)),
    "cosine": (optimizers.cosine(40, final=0.1), lambda t: 0.1 + 0.9 * math.cos(math.pi * min(t, 40) / 80) ** 2),
    "harmonic": (optimizers.harmonic(0.1), lambda t: 1 / (1 + 0.1 * t)),
    "warmup": (
        optimizers.warmup(10, optimizers.exponential(0.5)),
        lambda t: (t + 1) / 10 if t < 10 else 0.5 ** (t - 10),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_against_their_formulas(name):
    schedule, formula = SCHEDULES[name]
    optimizer = optimizers.sgd(0.2, schedule=schedule)
    iterations = np.arange(60)
    expected = [0.2 * formula(t) for t in range(60)]
    np.testing.assert_allclose([optimizer.rate(int(t)) for t in iterations], expected, rtol=1e-13)
    # A compiled loop asks for a block of rates at once and must get the same ones.
    np.testing.assert_array_equal(optimizer.rate(iterations), [optimizer.rate(int(t)) for t in iterations])
    assert isinstance(optimizer.rate(3), float)


def test_a_callable_is_a_schedule():
    optimizer = optimizers.adam(0.2, schedule=lambda t: 1.0 / (1.0 + t) ** 0.5)
    np.testing.assert_allclose(optimizer.rate(np.array([0, 3, 8])), 0.2 * np.array([1.0, 1 / 2, 1 / 3]))
    assert optimizers.resolve_schedule(abs) == optimizers.custom(abs)
    for bad in (lambda t: -1.0, lambda t: np.inf, lambda t: "1"):
        with pytest.raises((ValueError, TypeError), match="the schedule's factor at iteration 5="):
            optimizers.custom(bad).factor(5)
    with pytest.raises(TypeError, match="function must be callable"):
        optimizers.custom(0.5)
    with pytest.raises(TypeError, match="not a class"):
        optimizers.resolve_schedule(optimizers.cosine)


def test_schedules_against_torch():
    torch = pytest.importorskip("torch", reason="the independent implementation of the schedules is PyTorch's")
    theirs = torch.optim.lr_scheduler
    pairs = [
        (optimizers.exponential(0.9), lambda o: theirs.ExponentialLR(o, gamma=0.9)),
        (optimizers.cosine(30, final=0.05), lambda o: theirs.CosineAnnealingLR(o, T_max=30, eta_min=0.05 * 0.2)),
        (optimizers.warmup(10), lambda o: theirs.LinearLR(o, start_factor=0.1, total_iters=9)),
    ]
    for schedule, make in pairs:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        scheduler = make(optimizer)
        for t in range(30):
            assert 0.2 * schedule.factor(t) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9), (schedule, t)
            optimizer.step()
            scheduler.step()


def test_oftadeh_schedule():
    """1e-3 at the start, 1e-6 at the end of the planned run."""
    optimizer = optimizers.adam(1e-3, schedule=optimizers.schedule_from_name("exponential", 100_000))
    assert optimizer.rate(0) == pytest.approx(1e-3, rel=1e-15)
    assert optimizer.rate(100_000) == pytest.approx(1e-6, rel=1e-12)


def test_codes_scalars_and_states():
    """What the kernels branch on; changing it is a breaking change for embedded code."""
    assert [optimizers.from_name(n).code for n in optimizers.names()] == [0, 1, 2, 3]
    assert [optimizers.from_name(n).n_states for n in optimizers.names()] == [0, 1, 1, 2]
    assert CASES["sgd"][0].scalars == (0.0, 0.0, 0.0)
    assert CASES["nesterov"][0].scalars == (0.8, 0.0, 0.0)
    assert CASES["adam"][0].scalars == (0.8, 0.99, 1e-3)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name):
    optimizer = CASES[name][0]
    w = np.ones((2, 3), dtype=np.float32)
    states = [np.zeros_like(w) for _ in range(optimizer.n_states)]
    out = optimizers.step(optimizer, w, np.full_like(w, 0.5), states, 0)
    assert out is w
    assert w.dtype == np.float32
    assert np.abs(w - 1).min() > 1e-3
    assert all(state.dtype == np.float32 for state in states)


def test_adam_without_first_moment():
    """beta1 = 0 needs no correction (log 0 must not appear), and the first step has length rate."""
    optimizer = optimizers.adam(0.1, beta1=0.0, eps=1e-12)
    w = np.array([[1.0, -2.0]])
    optimizers.step(optimizer, w, np.array([[3.0, -4.0]]), [np.zeros((1, 2)), np.zeros((1, 2))], 0)
    np.testing.assert_allclose(w, [[0.9, -1.9]], rtol=1e-9)


def test_rate_needs_a_learning_rate():
    with pytest.raises(ValueError, match="learning_rate of adam is not set"):
        optimizers.adam().rate(0)
    optimizer = optimizers.adam(beta1=0.5).with_rate(0.1, optimizers.harmonic(1.0))
    assert optimizer.rate(1) == pytest.approx(0.05)
    assert optimizer.beta1 == 0.5
    assert optimizer.with_rate(0.2).rate(1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optimizers.sgd(0.0), "learning_rate=0.0 must be a finite number > 0"),
        (lambda: optimizers.sgd(np.nan), "learning_rate=nan must be a finite number"),
        (lambda: optimizers.momentum(0.1, mu=1.0), "mu=1.0 must be a real number >= 0 and < 1"),
        (lambda: optimizers.adam(0.1, beta2=1.0), "beta2"),
        (lambda: optimizers.adam(0.1, eps=0.0), "eps"),
        (lambda: optimizers.exponential(1.5), "decay=1.5 must be a real number > 0 and <= 1"),
        (lambda: optimizers.exponential(0.5, steps=0), "steps=0 must be an integer >= 1"),
        (lambda: optimizers.cosine(10, final=-0.1), "final"),
        (lambda: optimizers.harmonic(-1.0), "decay"),
        (lambda: optimizers.constant().factor(-1), "iteration must be non-negative"),
        (lambda: optimizers.from_name("lbfgs"), "choose one of 'sgd', 'momentum', 'nesterov', 'adam'"),
        (
            lambda: optimizers.schedule_from_name("step"),
            r"schedule='step' is unknown; choose one of 'constant', optimizers.exponential\(decay, steps=1\)",
        ),
        (lambda: optimizers.schedule_from_name("cosine"), r"pass lae_fast.optimizers.cosine\(steps"),
        (lambda: optimizers.schedule_from_name("harmonic", 100), "needs a parameter"),
        (lambda: optimizers.step(CASES["adam"][0], np.ones(2), np.ones(2), [], 0), "keeps 2 state arrays"),
    ],
)
def test_bad_values(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: optimizers.sgd("auto"), "learning_rate='auto' must be a finite number"),
        (lambda: optimizers.sgd(0.1, schedule=0.9), "schedule"),
        (lambda: optimizers.cosine(10.0), "steps=10.0 must be an integer"),
        (lambda: optimizers.warmup(10, after=0.5), "after must be a schedule"),
        (lambda: optimizers.resolve(optimizers.adam), r"write optimizers.adam\(...\)"),
        (lambda: optimizers.resolve(0.1), "optimizer=0.1 must be"),
        (lambda: optimizers.resolve(optimizers.Optimizer()), "base class"),
        (lambda: optimizers.from_name(None), "must be a string"),
        (lambda: optimizers.resolve_schedule(0.1), "schedule=0.1 must be"),
        (lambda: optimizers.schedule_from_name(1), "must be a string"),
    ],
)
def test_bad_types(make, match):
    with pytest.raises(TypeError, match=match):
        make()


def test_names_and_frozen():
    for name in optimizers.names():
        assert optimizers.resolve(name) == optimizers.from_name(name)
        assert optimizers.from_name(name, 0.1, "constant").rate(5) == pytest.approx(0.1)
    assert optimizers.resolve_schedule(None) == optimizers.constant()
    assert optimizers.resolve_schedule("cosine", 10) == optimizers.cosine(10)
    assert optimizers.sgd(0.1, schedule="constant").schedule == optimizers.constant()
    with pytest.raises(dataclasses.FrozenInstanceError):
        CASES["adam"][0].eps = 1.0
    hash(CASES["adam"][0])
