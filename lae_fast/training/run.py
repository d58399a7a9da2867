"""A training run as a value: what was asked for, what was recorded, where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import losses, optimizers, rules, stopping, validation
from .engine import Engine
from .optimality import Assessment, Optimum
from .problem import Problem

REGIMES = ("auto", "moments", "rows")
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
    stop: Any = "gradient"
    batch_size: int | None = None
    scale: str = "mean"
    coupling: str = "untied"
    center: bool = True
    hidden: tuple[int, ...] = ()
    init: Any = None
    init_scale: Any = 1e-4
    random_state: Any = None
    backend: str = "auto"
    regime: str = "auto"
    record_every: Any = 100
    record: Any = ()
    callback: Callable[[State], Any] | None = None

    def check(self) -> None:
        """Refuse what no run can do, whatever the data.

        Raises
        ------
        ValueError, TypeError
        """
        validation.check_integer(self.n_components, "n_components", low=1)
        validation.check_integer(self.max_iter, "max_iter", low=1)
        validation.check_real(self.tol, "tol", low=0.0)
        if not any(self.deviations()) and (self.init is None or isinstance(self.init, str)):
            raise ValueError("init_scale=0 starts at a critical point that no rule leaves; make it positive.")
        stopping.resolve(self.stop)
        validation.check_choice(self.scale, SCALES, "scale")
        validation.check_choice(self.regime, REGIMES, "regime")
        if self.callback is not None and not callable(self.callback):
            raise TypeError(f"callback must be callable, got {type(self.callback).__name__}")

    def deviations(self) -> tuple[float, float]:
        """Standard deviations of the entries of decoder and encoder at a random start.

        Raises
        ------
        ValueError, TypeError
        """
        if np.ndim(self.init_scale) == 0:
            both = validation.check_real(self.init_scale, "init_scale", low=0.0, below=np.inf)
            return both, both
        if len(self.init_scale) != 2:
            raise ValueError(f"init_scale={self.init_scale!r} must be a number, or a pair (decoder, encoder).")
        decoder, encoder = (validation.check_real(one, "init_scale", low=0.0, below=np.inf) for one in self.init_scale)
        return decoder, encoder


@dataclass
class History:
    """What was recorded, one entry per recording.

    iteration : number of steps taken before;  loss : at these weights, at the scale of the run, for mini-batches of
    the batch that followed;  gradient_norm : max(|dA| / |A|, |dB| / |B|) there, of EigenGames with e of docs/math.md
    Eq. 47 for the direction;  seconds : since the loop began
    recorded : what else was asked for, by name (recording.py)
    """

    iteration: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    recorded: dict[str, list[Any]] = field(default_factory=dict)

    def _lists(self) -> dict[str, list[Any]]:
        own = {name: values for name, values in vars(self).items() if name != "recorded"}
        return own | self.recorded

    def copy(self) -> History:
        """Lists of its own."""
        lists = {name: list(values) for name, values in self._lists().items()}
        recorded = {name: lists.pop(name) for name in self.recorded}
        return History(**lists, recorded=recorded)

    def drop_last(self) -> None:
        """Take away the last recording, of which `recorded` has nothing yet."""
        for values in (self.iteration, self.loss, self.gradient_norm, self.seconds):
            values.pop()

    def arrays(self) -> dict[str, np.ndarray]:
        """The lists as arrays, without the empty ones."""
        return {name: _as_array(values) for name, values in self._lists().items() if values}


def _as_array(values: list[Any]) -> np.ndarray:
    """An array; of objects where a callable has given arrays of different shapes."""
    try:
        return np.array(values)
    except ValueError:
        found = np.empty(len(values), dtype=object)
        found[:] = values
        return found


@dataclass
class State:
    """What a callback sees: everything at one iteration, and nothing of it moves meanwhile.

    iteration : number of steps taken before;  loss, gradient_norm : as in `history`, which has them already
    encoder : (p, d), decoder : (q, p), copies on the host
    history : lists, with what `record` has asked for in `history.recorded`
    rate : the learning rate of the step that follows, nan for rules without;  update_norm : the Frobenius norm of what
        that step adds to decoder and encoder together (to the one matrix of rules with one)
    latent_variances : (p,) and noise_variance : float, of the vae loss only, else None
    """

    iteration: int
    loss: float
    gradient_norm: float
    encoder: np.ndarray
    decoder: np.ndarray
    history: History
    rate: float
    update_norm: float
    latent_variances: np.ndarray | None
    noise_variance: float | None


@dataclass
class Run:
    """A training run that can go on: what `start.start` makes and `train.proceed` moves.

    rule, loss, optimizer : resolved, with a learning rate;  backend : "cpu" or "cuda", what runs
    regime, regime_reason : "moments" or "rows", and why
    iteration, last : the number of steps so far, and when it ends at the latest
    converged, stopped_by : whether and by what it has ended: "gradient", "callback", a criterion and its number in
        words, or "" for `last`
    false_stops : times the gradient was within tol and the weights not at the optimum
    asks_at : iteration from which the gradient is watched again after that, 0 while it is
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
    last: int
    iteration: int = 0
    converged: bool = False
    stopped_by: str = ""
    false_stops: int = 0
    asks_at: int = 0
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
