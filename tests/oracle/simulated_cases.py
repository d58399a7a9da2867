"""The cases of tests/oracle/loop_cases.py, small enough for the CUDA simulator, and the CUDA loop that runs them."""

import numpy as np

from lae_fast import losses
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from tests.oracle import loop_cases as cases
from tests.oracle import simulator

if simulator.SIMULATED:
    from lae_fast.training.cuda_loop import CudaLoopEngine

STEPS, P, D, Q, M = 20, 3, 4, 5, 14
PRIOR = np.array([0.5, 0.3, 0.2])
LOSSES = cases.LOSSES | {
    "nested_dropout": (losses.nested_dropout(PRIOR), {"prior": PRIOR}),
    "nonuniform_l2": (losses.nonuniform_l2([0.1, 0.2, 0.3]), {"lams": [0.1, 0.2, 0.3]}),
}


def data(dtype=np.float64, q=0):
    return cases.data(dtype, D, q, M)


def start(q=D):
    return cases.start(P, D, q)


def moments_of(x, y=None):
    return Moments(x.shape[1], 0 if y is None else y.shape[1]).update(x, y)


def device_loop(x, y, a, b, plan):
    described = problem.from_moments(moments_of(x, y), plan.scale, x.dtype)
    return CudaLoopEngine(described, plan, b, a.T.copy() if plan.rule.has_decoder else None)
