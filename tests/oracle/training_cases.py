"""Data for training to the end, its principal components, and the losses with a known minimum: shared by backends."""

import warnings

import numpy as np

import lae_fast as lf
from lae_fast import losses
from lae_fast.errors import ConvergenceWarning

P, D, M = 4, 10, 200


def samples(dtype=np.float64, seed=0, d=D, m=M):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (rng.standard_normal((m, d)) * np.geomspace(3.0, 0.3, d) @ rotation + 5.0).astype(dtype)


def truth_of(x, p=P):
    values, vectors = np.linalg.eigh(np.cov(np.asarray(x, dtype=np.float64), rowvar=False, ddof=0))
    return values[::-1][:p], vectors[:, ::-1][:, :p]


def quiet_fit(model, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*args, **kwargs)


X = samples()
VALUES, TRUTH = truth_of(X)
MOMENTS = lf.Moments.from_data(X)
DETERMINISTIC = {
    "mse": losses.mse(),
    "ordered": losses.ordered(),
    "nested_dropout": losses.nested_dropout("uniform"),
    "sum_l2": losses.sum_l2(0.3),
    "nonuniform_l2": losses.nonuniform_l2([0.1, 0.3, 0.5, 0.7]),
    "product_l2": losses.product_l2(0.3),
    "mixed_l2": losses.mixed_l2(0.3, 0.5, 0.5),
}
