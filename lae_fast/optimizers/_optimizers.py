"""Optimizers as frozen descriptions, with one plain NumPy step (docs/math.md Eq. 33 to 36)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from .._registry import Registry
from ..validation import check_real
from ._schedules import Schedule, constant, resolve_schedule


@dataclass(frozen=True)
class Optimizer:
    """Base of all optimizers (docs/math.md Eq. 33 to 36).

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

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> adam = optimizers.adam(0.1, schedule=optimizers.exponential(0.5))
    >>> adam.rate(0), adam.rate(2), adam.code, adam.n_states
    (0.1, 0.025, 3, 2)
    >>> optimizers.momentum().scalars, optimizers.momentum().with_rate(0.01).learning_rate
    ((0.9, 0.0, 0.0), 0.01)
    >>> optimizers.sgd().rate(0)
    Traceback (most recent call last):
        ...
    ValueError: the learning_rate of sgd is not set; give one, such as sgd(1e-3), or let the estimator choose it
    """

    learning_rate: float | None = None
    schedule: Schedule = field(default_factory=constant, kw_only=True)
    name: ClassVar[str] = ""
    code: ClassVar[int] = -1
    n_states: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            object.__setattr__(
                self, "learning_rate", check_real(self.learning_rate, "learning_rate", above=0, below=math.inf)
            )
        object.__setattr__(self, "schedule", resolve_schedule(self.schedule))

    @property
    def scalars(self) -> tuple[float, float, float]:
        """Three floats for the kernels: (mu, 0, 0), or (beta1, beta2, eps) for adam, or zeros."""
        return (0.0, 0.0, 0.0)

    def rate(self, iteration: int | np.ndarray) -> float | np.ndarray:
        """Return learning_rate * schedule.factor(iteration).

        Parameters
        ----------
        iteration : int or array of int of any shape, >= 0
            Counted from 0.

        Returns
        -------
        float, or ndarray of the shape of `iteration`, float64

        Raises
        ------
        ValueError
            If no learning rate is set, or an iteration is negative.
        """
        if self.learning_rate is None:
            raise ValueError(
                f"the learning_rate of {self.name} is not set; give one, such as {self.name}(1e-3), "
                "or let the estimator choose it"
            )
        return self.learning_rate * self.schedule.factor(iteration)

    def with_rate(self, learning_rate: float | None, schedule: Schedule | None = None) -> Optimizer:
        """Return a copy with this learning rate, and this schedule if it is not None."""
        if schedule is None:
            return replace(self, learning_rate=learning_rate)
        return replace(self, learning_rate=learning_rate, schedule=schedule)


@dataclass(frozen=True)
class sgd(Optimizer):
    """Plain descent: w <- w - a g (docs/math.md Eq. 33).

    Parameters and errors as of `Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> optimizers.step(optimizers.sgd(0.5), np.ones(2), np.array([1.0, -1.0]), (), 0)
    array([0.5, 1.5])
    """

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

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> w, v = np.ones(1), np.zeros(1)
    >>> for t in range(3):
    ...     _ = optimizers.step(optimizers.momentum(0.1, mu=0.5), w, np.ones(1), [v], t)
    >>> w.round(12), v  # 1 - 0.1 (1 + 1.5 + 1.75)
    (array([0.575]), array([1.75]))
    """

    mu: float = 0.9
    name: ClassVar[str] = "momentum"
    code: ClassVar[int] = 1
    n_states: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mu", check_real(self.mu, "mu", low=0, below=1))

    @property
    def scalars(self) -> tuple[float, float, float]:
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

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> optimizers.step(optimizers.nesterov(0.1, mu=0.5), np.ones(1), np.ones(1), [np.zeros(1)], 0)
    array([0.85])
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

    Examples
    --------
    The first step has the length of the rate, whatever the size of the gradient:

    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> states = [np.zeros(2), np.zeros(2)]
    >>> optimizers.step(optimizers.adam(0.1), np.zeros(2), np.array([1e3, -1e-3]), states, 0).round(4)
    array([-0.1,  0.1])
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    name: ClassVar[str] = "adam"
    code: ClassVar[int] = 3
    n_states: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "beta1", check_real(self.beta1, "beta1", low=0, below=1))
        object.__setattr__(self, "beta2", check_real(self.beta2, "beta2", low=0, below=1))
        object.__setattr__(self, "eps", check_real(self.eps, "eps", above=0, below=math.inf))

    @property
    def scalars(self) -> tuple[float, float, float]:
        """(beta1, beta2, eps)."""
        return (self.beta1, self.beta2, self.eps)


OPTIMIZERS = Registry("optimizer", "optimizers", Optimizer, sgd, momentum, nesterov, adam)


def names() -> tuple[str, ...]:
    """Return the names of all optimizers, a tuple of str in the order of their codes.

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> optimizers.names()
    ('sgd', 'momentum', 'nesterov', 'adam')
    """
    return OPTIMIZERS.names()


def from_name(name: str, learning_rate: float | None = None, schedule: Schedule | str | None = None) -> Optimizer:
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

    Returns
    -------
    Optimizer

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> optimizers.from_name("adam", 1e-3).learning_rate
    0.001
    """
    return OPTIMIZERS.by_name(name)(learning_rate, schedule=resolve_schedule(schedule))


def resolve(optimizer: Optimizer | str) -> Optimizer:
    """Return `optimizer` as an Optimizer: an object as it is, a string through `from_name`; else TypeError.

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> optimizers.resolve("momentum").mu
    0.9
    """
    given = OPTIMIZERS.checked(optimizer)
    return from_name(given) if isinstance(given, str) else given


def step(
    optimizer: Optimizer | str, weights: np.ndarray, gradient: np.ndarray, states: Sequence[np.ndarray], iteration: int
) -> np.ndarray:
    """One step in plain NumPy, in place (docs/math.md Eq. 33 to 36).

    Parameters
    ----------
    optimizer : Optimizer
        With a learning rate.
    weights : array (p, n) of float32 or float64
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

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> weights, velocity = np.ones(2), np.zeros(2)
    >>> _ = optimizers.step(optimizers.momentum(0.1), weights, np.array([1.0, 2.0]), [velocity], 0)
    >>> weights, velocity  # both changed in place
    (array([0.9, 0.8]), array([1., 2.]))
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
    elif isinstance(optimizer, adam):
        first, second = states
        first *= optimizer.beta1
        first += (1.0 - optimizer.beta1) * gradient
        second *= optimizer.beta2
        second += (1.0 - optimizer.beta2) * (gradient * gradient)
        # -expm1(n log beta) = 1 - beta^n without cancellation; beta = 0 gives 1.
        correction1 = _one_minus_power(optimizer.beta1, iteration + 1)
        correction2 = _one_minus_power(optimizer.beta2, iteration + 1)
        weights -= (rate / correction1) * first / (np.sqrt(second / correction2) + optimizer.eps)
    else:
        raise TypeError(f"{optimizer.name} has no step in NumPy.")
    return weights


def _one_minus_power(base: float, exponent: int) -> float:
    """Return 1 - base^exponent as a Python float."""
    if base == 0.0:
        return 1.0
    return -math.expm1(exponent * math.log(base))
