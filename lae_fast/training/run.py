"""A training run as a value: what was asked for, what was recorded, where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import losses, optimizers, rules, validation
from .engine import Engine
from .optimality import Assessment, Optimum
from .problem import Problem

REGIMES = ("auto", "moments", "rows")
STOPS = ("gradient", "alignment")
SCALES = ("mean", "sum")


@dataclass(frozen=True)
class Settings:
    """Everything about a run but the data; see LinearAutoencoder for the meaning."""

    n_components: int
    loss: Any = "auto"
    rule: Any = "gradient"
    optimizer: Any = "auto"
    learning_rate: Any = "auto"
    schedule: Any = None
    max_iter: int = 10_000
    tol: float = 1e-6
    stop: str = "gradient"
    batch_size: int | None = None
    scale: str = "mean"
    coupling: str = "untied"
    hidden: tuple[int, ...] = ()
    init: Any = None
    init_scale: float = 1e-4
    random_state: Any = None
    backend: str = "auto"
    regime: str = "auto"
    record_every: int = 100
    callback: Callable[[State], Any] | None = None

    def check(self) -> None:
        """Refuse what no run can do, whatever the data.

        Raises
        ------
        ValueError, TypeError
        """
        validation.check_integer(self.n_components, "n_components", low=1)
        validation.check_integer(self.max_iter, "max_iter", low=1)
        validation.check_integer(self.record_every, "record_every", low=1)
        validation.check_real(self.tol, "tol", low=0.0)
        if not validation.check_real(self.init_scale, "init_scale", low=0.0) > 0.0 and self.init is None:
            raise ValueError("init_scale=0 starts at a critical point that no rule leaves; make it positive.")
        validation.check_choice(self.stop, STOPS, "stop")
        validation.check_choice(self.scale, SCALES, "scale")
        validation.check_choice(self.regime, REGIMES, "regime")
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {type(self.callback).__name__}")


@dataclass
class History:
    """What was recorded, one entry per recording; `alignment` and `ratio_tp` are empty without a reference.

    iteration : number of steps taken before;  loss : at these weights, at the scale of the run, for mini-batches of
    the batch that followed;  gradient_norm : max(|dA| / |A|, |dB| / |B|) there, of EigenGames with e of docs/math.md
    Eq. 47 for the direction;  seconds : since the loop began
    """

    iteration: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    alignment: list[float] = field(default_factory=list)
    ratio_tp: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def copy(self) -> History:
        """Lists of its own."""
        return History(**{name: list(values) for name, values in vars(self).items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """The lists as arrays, without the empty ones."""
        return {name: np.array(values) for name, values in vars(self).items() if values}


@dataclass
class State:
    """What a callback sees.  `encoder` (p, d) and `decoder` (q, p) are views: copy what should be kept."""

    iteration: int
    loss: float
    gradient_norm: float
    encoder: np.ndarray
    decoder: np.ndarray
    history: History


@dataclass
class Run:
    """A training run that can go on: what `start.start` makes and `train.proceed` moves.

    rule, loss, optimizer : resolved, with a learning rate;  backend : "cpu" or "cuda", what runs
    regime, regime_reason : "moments" or "rows", and why
    converged, stopped_by : whether and by what it has ended: "gradient", "alignment", "callback", or "" for max_iter
    false_stops : times the gradient was within tol and the weights not at the optimum
    optimum, assessment : None until they have been asked for;  reason : how the run ended
    """

    settings: Settings
    problem: Problem
    engine: Engine
    rule: rules.Rule
    loss: losses.Loss | None
    optimizer: optimizers.Optimizer | None
    backend: str
    regime: str
    regime_reason: str
    iteration: int = 0
    converged: bool = False
    stopped_by: str = ""
    false_stops: int = 0
    optimum: Optimum | None = None
    assessment: Assessment | None = None
    reason: str = ""
    history: History = field(default_factory=History)

    @property
    def encoder(self) -> np.ndarray:
        """B (p, d), a copy."""
        return np.array(self.engine.encoder, dtype=self.problem.dtype)

    @property
    def decoder(self) -> np.ndarray:
        """A (q, p), a copy."""
        return np.ascontiguousarray(self.engine.decoder.T, dtype=self.problem.dtype)

    @property
    def learning_rate(self) -> float | None:
        """The rate before its schedule; None for a rule that takes no steps."""
        rate = None if self.optimizer is None else self.optimizer.learning_rate
        return None if rate is None else float(rate)

    def variances(self, directions: np.ndarray) -> np.ndarray:
        """Variance of Y along unit directions (q, p), denominator sum of weights - 1; (p,) float64.

        nan where the weights leave no denominator, as those of a first batch may.
        """
        if not validation.leaves_a_denominator(self.problem.weight_sum):
            return np.full(directions.shape[1], np.nan)
        return np.maximum(self.problem.target_moments(directions), 0.0) / (self.problem.weight_sum - 1.0)
