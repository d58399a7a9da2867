"""Optimizers and learning-rate schedules as frozen descriptions, with a plain NumPy step each.

A kernel needs of an optimizer its integer `code`, its three `scalars` and the learning rate of each iteration
(`rate`, which also takes an array of iterations, so that a compiled loop can be given the rates of a whole block).
Iterations count from 0.  The equations are docs/math.md Eq. 33 to 37.

Imports NumPy and, downwards, checks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import ClassVar

import numpy as np

from .checks import check_real

__all__ = [
    "Optimizer",
    "Schedule",
    "adam",
    "constant",
    "cosine",
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


def _check_steps(value, name):
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer number of iterations, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1 iteration, got {value}")
    return int(value)


# ---------------------------------------------------------------------------------------------------------------------
# schedules


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules: a factor on the learning rate as a function of the iteration t = 0, 1, ..."""

    name: ClassVar[str] = ""

    def factor(self, iteration):
        """Return the factor at `iteration`, a float, or an array for an array of iterations.

        One number at a time: vectorised powers and cosines differ in the last bit with the position in the array, and
        a run must not depend on how its iterations are cut into blocks.
        """
        t = np.asarray(iteration, dtype=np.float64)
        if np.any(t < 0):
            raise ValueError(f"iteration must be non-negative, got {iteration!r}")
        if t.ndim == 0:
            return float(self._factor(float(t)))
        return np.array([self._factor(value) for value in t.ravel().tolist()], dtype=np.float64).reshape(t.shape)

    def _factor(self, t):
        raise TypeError(f"{type(self).__name__} is a base class: a schedule defines its factor")


@dataclass(frozen=True)
class constant(Schedule):
    """Factor 1."""

    name: ClassVar[str] = "constant"

    def _factor(self, t):
        return 1.0


@dataclass(frozen=True)
class exponential(Schedule):
    """Factor decay^(t/steps): multiplied by `decay` every `steps` iterations, smoothly, and on beyond them.

    Parameters
    ----------
    decay : float in (0, 1]
    steps : int, default 1
        exponential(1e-3, steps=max_iter) takes a rate of 1e-3 to 1e-6 (Oftadeh et al. 2020, Sec. 4).
    """

    decay: float
    steps: int = 1
    name: ClassVar[str] = "exponential"

    def __post_init__(self):
        object.__setattr__(self, "decay", check_real(self.decay, "decay", 0.0, True, 1.0))
        object.__setattr__(self, "steps", _check_steps(self.steps, "steps"))

    def _factor(self, t):
        return self.decay ** (t / self.steps)


@dataclass(frozen=True)
class cosine(Schedule):
    """Factor final + (1 - final)(1 + cos(pi min(t, steps)/steps))/2: half a cosine from 1 to `final`, then `final`.

    Parameters
    ----------
    steps : int
    final : float in [0, 1], default 0
    """

    steps: int
    final: float = 0.0
    name: ClassVar[str] = "cosine"

    def __post_init__(self):
        object.__setattr__(self, "steps", _check_steps(self.steps, "steps"))
        object.__setattr__(self, "final", check_real(self.final, "final", 0.0, False, 1.0))

    def _factor(self, t):
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * min(t, self.steps) / self.steps))


@dataclass(frozen=True)
class harmonic(Schedule):
    """Factor 1/(1 + decay t): the `decay` of older Keras optimizers, and the classical step of stochastic methods.

    Parameters
    ----------
    decay : float >= 0
        Kunin et al. 2019 use Adam with rate 0.05 and a decay of 0.1 of this kind.
    """

    decay: float
    name: ClassVar[str] = "harmonic"

    def __post_init__(self):
        object.__setattr__(self, "decay", check_real(self.decay, "decay", 0.0))

    def _factor(self, t):
        return 1.0 / (1.0 + self.decay * t)


@dataclass(frozen=True)
class warmup(Schedule):
    """Linear warm-up: factor (t+1)/steps for t < steps, then the factor of `after` at t - steps.

    Parameters
    ----------
    steps : int
    after : Schedule, default constant()
        Starts its own count when the warm-up ends.
    """

    steps: int
    after: Schedule = field(default_factory=constant)
    name: ClassVar[str] = "warmup"

    def __post_init__(self):
        object.__setattr__(self, "steps", _check_steps(self.steps, "steps"))
        if not isinstance(self.after, Schedule):
            raise TypeError(f"after must be a schedule of lae_fast.optimizers, got {type(self.after).__name__}")

    def _factor(self, t):
        return (t + 1.0) / self.steps if t < self.steps else self.after._factor(t - self.steps)


_SCHEDULES = {
    "constant": (constant, ""),
    "exponential": (exponential, "decay, steps=1"),
    "cosine": (cosine, "steps, final=0.0"),
    "harmonic": (harmonic, "decay"),
    "warmup": (warmup, "steps, after=constant()"),
}


def schedule_from_name(name, max_iter=None):
    """Return the schedule called `name`.

    Parameters
    ----------
    name : str
        "constant"; and, if `max_iter` is given, "cosine" (to 0 at max_iter) and "exponential" (to 1e-3 at max_iter,
        the schedule of Oftadeh et al. 2020).
    max_iter : int, optional
        Planned number of iterations.

    Raises
    ------
    ValueError
        If the name is unknown (the message lists the valid ones) or needs a parameter (the message shows the call).
    TypeError
        If `name` is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a schedule must be a string, got {name!r} of type {type(name).__name__}")
    if name not in _SCHEDULES:
        calls = ", ".join(f"optimizers.{n}({needs})" for n, (_, needs) in _SCHEDULES.items())
        raise ValueError(f"unknown schedule {name!r}; valid: {calls}")
    if name == "constant":
        return constant()
    if max_iter is not None and name == "cosine":
        return cosine(max_iter)
    if max_iter is not None and name == "exponential":
        return exponential(1e-3, max_iter)
    needs = _SCHEDULES[name][1]
    raise ValueError(
        f"schedule {name!r} needs a parameter: pass lae_fast.optimizers.{name}({needs}) instead of the string"
    )


def resolve_schedule(schedule, max_iter=None):
    """Return `schedule` as a Schedule: None is constant, a string goes through `schedule_from_name`."""
    if schedule is None:
        return constant()
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, str):
        return schedule_from_name(schedule, max_iter)
    raise TypeError(f"schedule must be None, a string or a schedule of lae_fast.optimizers, got {schedule!r}")


# ---------------------------------------------------------------------------------------------------------------------
# optimizers


@dataclass(frozen=True)
class Optimizer:
    """Base of all optimizers.

    Parameters
    ----------
    learning_rate : float > 0 or None
        None leaves it to the estimator; `rate` then raises until `with_rate` has set one.
    schedule : Schedule
        Factor on the learning rate.

    Attributes
    ----------
    code : int
        What a kernel branches on: 0 sgd, 1 momentum, 2 nesterov, 3 adam.
    n_states : int
        Arrays of the shape of the weights that the optimizer keeps, all starting at zero.
    """

    learning_rate: float | None = None
    schedule: Schedule = field(default_factory=constant, kw_only=True)
    name: ClassVar[str] = ""
    code: ClassVar[int] = -1
    n_states: ClassVar[int] = 0

    def __post_init__(self):
        if self.learning_rate is not None:
            object.__setattr__(self, "learning_rate", check_real(self.learning_rate, "learning_rate", 0.0, True))
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", schedule_from_name(self.schedule))
        if not isinstance(self.schedule, Schedule):
            raise TypeError(f"schedule must be a schedule of lae_fast.optimizers, got {self.schedule!r}")

    @property
    def scalars(self):
        """Three floats for the kernels: (mu, 0, 0), or (beta1, beta2, eps) for adam, or zeros."""
        return (0.0, 0.0, 0.0)

    def rate(self, iteration):
        """Return learning_rate * schedule.factor(iteration).

        Parameters
        ----------
        iteration : int or array of int, >= 0
            Counted from 0.

        Returns
        -------
        float or ndarray

        Raises
        ------
        ValueError
            If no learning rate is set, or an iteration is negative.
        """
        if self.learning_rate is None:
            raise ValueError(
                f"the learning_rate of {self.name} is not set; give one, as in {self.name}(1e-3), "
                "or let the estimator choose it"
            )
        return self.learning_rate * self.schedule.factor(iteration)

    def with_rate(self, learning_rate, schedule=None):
        """Return a copy with this learning rate, and this schedule if it is not None."""
        if schedule is None:
            return replace(self, learning_rate=learning_rate)
        return replace(self, learning_rate=learning_rate, schedule=schedule)


@dataclass(frozen=True)
class sgd(Optimizer):
    """Plain descent: w <- w - a g."""

    name: ClassVar[str] = "sgd"
    code: ClassVar[int] = 0


@dataclass(frozen=True)
class momentum(Optimizer):
    """Heavy ball: v <- mu v + g;  w <- w - a v  (Polyak 1964).

    Parameters
    ----------
    learning_rate : float > 0 or None
    mu : float in [0, 1), default 0.9
    schedule : Schedule
    """

    mu: float = 0.9
    name: ClassVar[str] = "momentum"
    code: ClassVar[int] = 1
    n_states: ClassVar[int] = 1

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "mu", check_real(self.mu, "mu", 0.0, False, 1.0, True))

    @property
    def scalars(self):
        """(mu, 0, 0)."""
        return (self.mu, 0.0, 0.0)


@dataclass(frozen=True)
class nesterov(momentum):
    """Nesterov: v <- mu v + g;  w <- w - a (g + mu v)  (the form of PyTorch; Nesterov 1983).

    Parameters
    ----------
    learning_rate : float > 0 or None
    mu : float in [0, 1), default 0.9
    schedule : Schedule
    """

    name: ClassVar[str] = "nesterov"
    code: ClassVar[int] = 2


@dataclass(frozen=True)
class adam(Optimizer):
    """Adam with bias correction, eps outside the root (Kingma and Ba 2015, Alg. 1).

    Parameters
    ----------
    learning_rate : float > 0 or None
    beta1, beta2 : float in [0, 1), default 0.9 and 0.999
    eps : float > 0, default 1e-8
        Gradients well under it no longer move the weights at full rate: with scale="mean", small data and small
        prefix weights that happens, and rescaling the data or the loss is the remedy.
    schedule : Schedule
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    name: ClassVar[str] = "adam"
    code: ClassVar[int] = 3
    n_states: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "beta1", check_real(self.beta1, "beta1", 0.0, False, 1.0, True))
        object.__setattr__(self, "beta2", check_real(self.beta2, "beta2", 0.0, False, 1.0, True))
        object.__setattr__(self, "eps", check_real(self.eps, "eps", 0.0, True))

    @property
    def scalars(self):
        """(beta1, beta2, eps)."""
        return (self.beta1, self.beta2, self.eps)


_REGISTRY = {cls.name: cls for cls in (sgd, momentum, nesterov, adam)}


def names():
    """Return the names of all optimizers, a tuple of str in the order of their codes."""
    return tuple(_REGISTRY)


def from_name(name, learning_rate=None, schedule=None):
    """Return the optimizer called `name`.

    Parameters
    ----------
    name : {"sgd", "momentum", "nesterov", "adam"}
    learning_rate : float, optional
    schedule : Schedule or str, optional

    Raises
    ------
    ValueError
        If the name is unknown; the message lists the valid ones.
    TypeError
        If `name` is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of an optimizer must be a string, got {name!r} of type {type(name).__name__}")
    if name not in _REGISTRY:
        raise ValueError(f"unknown optimizer {name!r}; valid: {', '.join(repr(n) for n in _REGISTRY)}")
    return _REGISTRY[name](learning_rate, schedule=resolve_schedule(schedule))


def resolve(optimizer):
    """Return `optimizer` as an Optimizer: an object as it is, a string through `from_name`; else TypeError."""
    if isinstance(optimizer, Optimizer):
        if not optimizer.name:
            raise TypeError("Optimizer is the base class; use one of " + ", ".join(_REGISTRY))
        return optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an object, not a class: write optimizers.{optimizer.__name__}(...)")
    if isinstance(optimizer, str):
        return from_name(optimizer)
    raise TypeError(f"optimizer must be a string or an object of lae_fast.optimizers, got {type(optimizer).__name__}")


def step(optimizer, weights, gradient, states, iteration):
    """One step in plain NumPy, in place (docs/math.md Eq. 33 to 36).

    Parameters
    ----------
    optimizer : Optimizer
        With a learning rate.
    weights : array of float32 or float64
        Updated in place.
    gradient : array like `weights`
        Direction to move against.
    states : sequence of arrays like `weights`
        `optimizer.n_states` of them, zero before the first step; updated in place.
    iteration : int
        Counted from 0.

    Returns
    -------
    ndarray
        `weights`.

    Raises
    ------
    ValueError
        If the number of states is wrong or no learning rate is set.
    """
    optimizer = resolve(optimizer)
    if len(states) != optimizer.n_states:
        raise ValueError(f"{optimizer.name} keeps {optimizer.n_states} state arrays, got {len(states)}")
    # Python floats take the dtype of the arrays, so float32 stays float32.
    rate = float(optimizer.rate(iteration))
    if isinstance(optimizer, sgd):
        weights -= rate * gradient
    elif isinstance(optimizer, momentum):
        (velocity,) = states
        velocity *= optimizer.mu
        velocity += gradient
        if isinstance(optimizer, nesterov):
            weights -= rate * (gradient + optimizer.mu * velocity)
        else:
            weights -= rate * velocity
    else:
        first, second = states
        first *= optimizer.beta1
        first += (1.0 - optimizer.beta1) * gradient
        second *= optimizer.beta2
        second += (1.0 - optimizer.beta2) * (gradient * gradient)
        # -expm1(n log beta) = 1 - beta^n without cancellation; beta = 0 gives 1.
        correction1 = _one_minus_power(optimizer.beta1, iteration + 1)
        correction2 = _one_minus_power(optimizer.beta2, iteration + 1)
        weights -= (rate / correction1) * first / (np.sqrt(second / correction2) + optimizer.eps)
    return weights


def _one_minus_power(base, exponent):
    """Return 1 - base^exponent as a Python float."""
    if base == 0.0:
        return 1.0
    return -math.expm1(exponent * math.log(base))
