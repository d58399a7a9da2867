"""Cases of the training loops, and how to follow the oracle with one: for the tests of the CPU and of CUDA."""

import numpy as np

from lae_fast import losses, optimizers, rules
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from lae_fast.training.cpu_loop import CpuLoopEngine
from lae_fast.training.engine import Recipe
from tests.oracle import naive_autoencoder as naive

STEPS = 50
TOLERANCE = {np.float32: 2e-3, np.float64: 1e-10}
PRIOR = np.array([0.4, 0.3, 0.2, 0.1])
LOSSES = {
    "mse": (losses.mse(), {}),
    "ordered": (losses.ordered(), {}),
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "sum_l2": (losses.sum_l2(0.3), {"lam": 0.3}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.2, 0.3, 0.4]), {"lams": [0.1, 0.2, 0.3, 0.4]}),
    "product_l2": (losses.product_l2(0.3), {"lam": 0.3}),
    "mixed_l2": (losses.mixed_l2(0.3, 0.4, 0.6), {"lam": 0.3, "w_sum": 0.4, "w_product": 0.6}),
}
OPTIMIZERS = {
    "sgd": optimizers.sgd(0.02),
    "momentum": optimizers.momentum(0.005),
    "nesterov": optimizers.nesterov(0.005),
    "adam": optimizers.adam(0.01, schedule=optimizers.cosine(STEPS)),
}
M, D, Q, P = 30, 9, 6, 4


def data(dtype=np.float64, d=D, q=0, m=M, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((m, d)) * np.linspace(1.5, 0.5, d) + 3.0
    y = x @ rng.standard_normal((d, q)) * 0.4 + 0.1 * rng.standard_normal((m, q)) if q else None
    return x.astype(dtype), None if y is None else y.astype(dtype)


def start(p=P, d=D, q=D, seed=1):
    rng = np.random.default_rng(seed)
    return 0.5 * rng.standard_normal((q, p)), 0.5 * rng.standard_normal((p, d))


def centred(array):
    array = np.asarray(array, dtype=np.float64)
    return array - array.mean(axis=0)


def make_plan(rule="gradient", loss=None, optimizer="sgd", coupling="untied", tolerance=-1.0, scale="mean"):
    rule = rules.resolve(rule)
    return Recipe(rule, loss, OPTIMIZERS[optimizer], coupling, scale, tolerance)


def make_loop(x, y, a, b, plan):
    moments = Moments(x.shape[1], 0 if y is None else y.shape[1]).update(x, y)
    described = problem.from_moments(moments, plan.scale, x.dtype)
    return CpuLoopEngine(described, plan, b, a.T.copy() if plan.rule.has_decoder else None)


def follow(loop, path, tolerance):
    """Every iteration of the loop against the path of the oracle."""
    with loop:
        for t, (a, b) in enumerate(path):
            outcome = loop.advance(t, 1, True)
            assert outcome.done == 1 and not outcome.diverged
            scale = max(1.0, np.abs(a).max(), np.abs(b).max())
            np.testing.assert_allclose(loop.encoder, b, rtol=0, atol=tolerance * scale)
            np.testing.assert_allclose(loop.decoder.T, a, rtol=0, atol=tolerance * scale)


def oracle_path(rule, optimizer, a, b, x, y=None, kind="mse", scale="mean", **options):
    xc, yc = centred(x), None if y is None else centred(y)
    sxx, sxy, _ = naive.second_moments(xc, yc, scale=scale)
    return naive.train(
        rule, optimizer, a, b, sxx, None if y is None else sxy, rate=OPTIMIZERS[optimizer].rate, iterations=STEPS,
        kind=kind, **options,
    )  # fmt: skip
