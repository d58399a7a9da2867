"""Learning-rate schedules: a factor on the rate at every iteration (docs/math.md Eq. 37)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .._registry import Registry
from ..validation import check_integer, check_real


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules: a factor on the learning rate as a function of the iteration t = 0, 1, ...

    docs/math.md Eq. 37.  `custom` makes a schedule of a function of your own.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> optimizers.cosine(4).factor(np.arange(6)).round(3)
    array([1.   , 0.854, 0.5  , 0.146, 0.   , 0.   ])
    """

    name: ClassVar[str] = ""

    def factor(self, iteration: int | np.ndarray) -> float | np.ndarray:
        """Return the factor at `iteration`, a float, or float64 of the same shape for an array of iterations.

        One number at a time: vectorised powers and cosines differ in the last bit with the position in the array, and
        a run must not depend on how its iterations are cut into blocks.
        """
        t = np.asarray(iteration, dtype=np.float64)
        if np.any(t < 0):
            raise ValueError(f"iteration must be non-negative, got {iteration!r}")
        if t.ndim == 0:
            return float(self._factor(float(t)))
        return np.array([self._factor(value) for value in t.ravel().tolist()], dtype=np.float64).reshape(t.shape)

    def _factor(self, t: float) -> float:
        raise TypeError(f"{type(self).__name__} is a base class: a schedule defines its factor")


@dataclass(frozen=True)
class constant(Schedule):
    """Factor 1 (docs/math.md Eq. 37).

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> optimizers.constant().factor(1000)
    1.0
    """

    name: ClassVar[str] = "constant"

    def _factor(self, t: float) -> float:
        return 1.0


@dataclass(frozen=True)
class exponential(Schedule):
    """Factor decay^(t/steps): multiplied by `decay` every `steps` iterations, smoothly, and on beyond them.

    Parameters
    ----------
    decay : float in (0, 1]
    steps : int, default 1
        exponential(1e-3, steps=max_iter) takes a rate of 1e-3 to 1e-6 (Oftadeh et al. 2020, Sec. 4).

    Raises
    ------
    ValueError
        `decay` is outside (0, 1], or `steps` is less than 1.

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> schedule = optimizers.exponential(1e-3, steps=100)
    >>> schedule.factor(0), schedule.factor(100), schedule.factor(200)
    (1.0, 0.001, 1e-06)
    """

    decay: float
    steps: int = 1
    name: ClassVar[str] = "exponential"

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", check_real(self.decay, "decay", above=0, high=1))
        object.__setattr__(self, "steps", check_integer(self.steps, "steps", low=1))

    def _factor(self, t: float) -> float:
        return self.decay ** (t / self.steps)


@dataclass(frozen=True)
class cosine(Schedule):
    """Factor final + (1 - final)(1 + cos(pi min(t, steps)/steps))/2: half a cosine from 1 to `final`, then `final`.

    docs/math.md Eq. 37.

    Parameters
    ----------
    steps : int
    final : float in [0, 1], default 0

    Raises
    ------
    ValueError
        `steps` is less than 1, or `final` is outside [0, 1].

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> schedule = optimizers.cosine(100, final=0.5)
    >>> schedule.factor(0), schedule.factor(50), schedule.factor(100), schedule.factor(500)
    (1.0, 0.75, 0.5, 0.5)
    """

    steps: int
    final: float = 0.0
    name: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", check_integer(self.steps, "steps", low=1))
        object.__setattr__(self, "final", check_real(self.final, "final", low=0, high=1))

    def _factor(self, t: float) -> float:
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * min(t, self.steps) / self.steps))


@dataclass(frozen=True)
class harmonic(Schedule):
    """Factor 1/(1 + decay t): the `decay` of older Keras optimizers, and the classical step of stochastic methods.

    Parameters
    ----------
    decay : float >= 0
        Kunin et al. 2019 use Adam with rate 0.05 and a decay of 0.1 of this kind.

    Raises
    ------
    ValueError
        `decay` is negative or not finite.

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> schedule = optimizers.harmonic(0.25)
    >>> schedule.factor(0), schedule.factor(4)
    (1.0, 0.5)
    """

    decay: float
    name: ClassVar[str] = "harmonic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", check_real(self.decay, "decay", low=0, below=math.inf))

    def _factor(self, t: float) -> float:
        return 1.0 / (1.0 + self.decay * t)


@dataclass(frozen=True)
class warmup(Schedule):
    """Linear warm-up: factor (t+1)/steps for t < steps, then the factor of `after` at t - steps (docs/math.md Eq. 37).

    Parameters
    ----------
    steps : int
    after : Schedule, default constant()
        Starts its own count when the warm-up ends.

    Raises
    ------
    ValueError, TypeError
        `steps` is less than 1; `after` is no schedule.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import optimizers
    >>> optimizers.warmup(4, after=optimizers.exponential(0.5)).factor(np.arange(7))
    array([0.25, 0.5 , 0.75, 1.  , 1.  , 0.5 , 0.25])
    """

    steps: int
    after: Schedule = field(default_factory=constant)
    name: ClassVar[str] = "warmup"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", check_integer(self.steps, "steps", low=1))
        if not isinstance(self.after, Schedule):
            raise TypeError(f"after must be a schedule of lae_fast.optimizers, got {type(self.after).__name__}")

    def _factor(self, t: float) -> float:
        return (t + 1.0) / self.steps if t < self.steps else self.after._factor(t - self.steps)


@dataclass(frozen=True)
class custom(Schedule):
    """Factor function(t): any rule that the others do not have, such as the steps of a published run.

    docs/math.md Eq. 37.

    Parameters
    ----------
    function : callable
        Takes the iteration t = 0, 1, ... as a float and returns the factor, finite and >= 0.  It must not depend on
        anything else, or runs are no longer the same.

    Raises
    ------
    TypeError, ValueError
        `function` is not callable; later, a factor is negative or not finite.

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> steps = optimizers.custom(lambda t: 1.0 if t < 100 else 0.1)
    >>> steps.factor(99), steps.factor(100)
    (1.0, 0.1)
    """

    function: Callable[[float], float]
    name: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable, got {type(self.function).__name__}")

    def _factor(self, t: float) -> float:
        return check_real(self.function(t), f"the schedule's factor at iteration {t:.0f}", low=0, below=math.inf)


SCHEDULES = Registry("schedule", "optimizers", Schedule, constant, exponential, cosine, harmonic, warmup, custom)


def schedule_from_name(name: str, max_iter: int | None = None) -> Schedule:
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

    Returns
    -------
    Schedule

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> optimizers.schedule_from_name("cosine", max_iter=1000)
    cosine(steps=1000, final=0.0)
    """
    SCHEDULES.by_name(name)
    if max_iter is not None and name == "cosine":
        return cosine(max_iter)
    if max_iter is not None and name == "exponential":
        return exponential(1e-3, max_iter)
    return SCHEDULES.from_name(name)


def resolve_schedule(
    schedule: Schedule | str | Callable[[float], float] | None, max_iter: int | None = None
) -> Schedule:
    """Return `schedule` as a Schedule: None is constant, a string goes through `schedule_from_name`, a callable is
    `custom`.

    Raises
    ------
    TypeError, ValueError
        Something else; or as `schedule_from_name`.

    Examples
    --------
    >>> from lae_fast import optimizers
    >>> optimizers.resolve_schedule(None), optimizers.resolve_schedule("exponential", max_iter=500)
    (constant(), exponential(decay=0.001, steps=500))
    >>> optimizers.resolve_schedule(lambda t: 0.5).factor(7)
    0.5
    """
    if callable(schedule) and not isinstance(schedule, (Schedule, type)):
        return custom(schedule)
    given = SCHEDULES.checked(constant() if schedule is None else schedule)
    return schedule_from_name(given, max_iter) if isinstance(given, str) else given
