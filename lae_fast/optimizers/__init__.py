"""Optimizers and learning-rate schedules as frozen descriptions, with a plain NumPy step each.

A kernel needs of an optimizer its integer `code`, its three `scalars` and the learning rate of each iteration
(`rate`, which also takes an array of iterations, so that a compiled loop can be given the rates of a whole block).
Iterations count from 0.  The equations are docs/math.md Eq. 33 to 37.
"""

from ._optimizers import Optimizer, adam, from_name, momentum, names, nesterov, resolve, sgd, step
from ._schedules import (
    Schedule,
    constant,
    cosine,
    custom,
    exponential,
    harmonic,
    resolve_schedule,
    schedule_from_name,
    warmup,
)

__all__ = [
    "Optimizer",
    "Schedule",
    "adam",
    "constant",
    "cosine",
    "custom",
    "exponential",
    "from_name",
    "harmonic",
    "momentum",
    "names",
    "nesterov",
    "resolve",
    "resolve_schedule",
    "schedule_from_name",
    "sgd",
    "step",
    "warmup",
]
