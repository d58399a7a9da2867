"""What is recorded of a training run besides its loss: which quantities, at which iterations, and the criteria on them.

A quantity is measured at weights that do not move meanwhile; train.py sees to that.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import metrics, stopping, validation
from ..data import containers
from . import conclusion
from .optimality import Assessment
from .run import Run, Settings, State

# Recordings for each factor of ten of iterations, for record_every="log".
_PER_DECADE = 10
# Recorded of every run, and what a reference adds.
_ALWAYS = ("iteration", "loss", "gradient_norm", "seconds")
_OF_REFERENCE = ("alignment", "ratio_tp")
# A direction counts as found from this absolute cosine on.
_EPS_ALIGNED = 0.01


# ---------------------------------------------------------------------------------------------------------------------
# at which iterations


class Schedule:
    """The iterations that are recorded, besides the last one.

    record_every : a number of iterations, "log", or the iterations themselves
    """

    def __init__(self, record_every: Any) -> None:
        self._step, self._places = 0, [0]
        if isinstance(record_every, str):
            validation.check_choice(record_every, ("log",), "record_every")
            self._places = _logarithmic(10**9)
        elif np.ndim(record_every) == 0:
            self._step = validation.check_integer(record_every, "record_every", low=1)
        else:
            given = [validation.check_integer(one, "record_every[...]", low=0) for one in record_every]
            self._places = sorted({0, *given})

    def has(self, iteration: int) -> bool:
        """Whether this iteration is one of them."""
        if self._step:
            return iteration % self._step == 0
        place = bisect.bisect_left(self._places, iteration)
        return place < len(self._places) and self._places[place] == iteration

    def until(self, iteration: int) -> int | None:
        """Iterations from this one to the next that is recorded, at least 1; None if there is none."""
        if self._step:
            return self._step - iteration % self._step
        place = bisect.bisect_right(self._places, iteration)
        return self._places[place] - iteration if place < len(self._places) else None


def _logarithmic(last: int) -> list[int]:
    """0, then the powers of 10^(1/10), rounded: about as many recordings in each decade."""
    exponents = np.arange(0, _PER_DECADE * np.log10(last) + 1) / _PER_DECADE
    return [0, *map(int, np.unique(np.round(10.0**exponents)))]


# ---------------------------------------------------------------------------------------------------------------------
# which quantities


@dataclass
class _Measured:
    """A recording: the state, the reference (q, p) or None, and what is measured when it is asked for."""

    state: State
    truth: Any
    run: Run

    @cached_property
    def assessment(self) -> Assessment:
        """How far these weights are from the optimum, in float64; see `LinearAutoencoder.excess_loss_`."""
        return conclusion.assess(self.run, look_for_it=True)

    @property
    def loss_ratio(self) -> float:
        """L / L*."""
        found, optimum = self.assessment, self.run.optimum
        if found.reason or optimum is None:
            return np.nan
        return 1.0 + found.excess * (optimum.at_zero - optimum.minimum) / optimum.minimum

    @property
    def latent_gram(self) -> np.ndarray:
        """B Sxx B', (p, p) float64."""
        encoder = self.state.encoder.astype(np.float64)
        return np.asarray(encoder @ self.run.problem.multiply(encoder.T))


class _Quantity(NamedTuple):
    """of : what makes it;  needs : "reference", "vae", "square" (encoder and decoder of one shape), or nothing."""

    of: Callable[[_Measured], Any]
    needs: str = ""


def _to_reference(metric: Callable[..., Any], *options: Any) -> _Quantity:
    return _Quantity(lambda seen: metric(seen.truth, seen.state.decoder, *options), "reference")


QUANTITIES = {
    "alignment": _to_reference(metrics.axis_alignment_distance),
    "d_align": _to_reference(metrics.axis_alignment_distance),
    "d_sub": _to_reference(metrics.subspace_distance),
    "d_sub_published": _to_reference(metrics.subspace_distance, True),
    "matched_alignment": _to_reference(metrics.matched_alignment),
    "ratio_tp": _to_reference(metrics.ratio_tp, _EPS_ALIGNED),
    "ratio_fp": _to_reference(metrics.ratio_fp, _EPS_ALIGNED),
    "ratio_total": _to_reference(metrics.ratio_total, _EPS_ALIGNED),
    "streak": _to_reference(metrics.longest_correct_streak),
    "transpose_gap": _Quantity(lambda seen: metrics.transpose_gap(seen.state.decoder, seen.state.encoder), "square"),
    "nondiagonality": _Quantity(lambda seen: metrics.nondiagonality(seen.latent_gram)),
    "loss_ratio": _Quantity(lambda seen: seen.loss_ratio),
    "excess_loss": _Quantity(lambda seen: seen.assessment.excess),
    "alignment_residuals": _Quantity(lambda seen: seen.assessment.residuals),
    "update_norm": _Quantity(lambda seen: seen.state.update_norm),
    "rate": _Quantity(lambda seen: seen.state.rate),
    "noise_variance": _Quantity(lambda seen: seen.state.noise_variance, "vae"),
    "latent_variances": _Quantity(lambda seen: seen.state.latent_variances, "vae"),
}
_OF_STATE = {
    "loss": _Quantity(lambda seen: seen.state.loss),
    "gradient_norm": _Quantity(lambda seen: seen.state.gradient_norm),
}


def _checked_name(name: Any, known: Mapping[str, Any], parameter: str) -> None:
    if name not in known:
        raise ValueError(f"{parameter}: {name!r} is unknown; choose one of {validation.listed(known)}, or a callable.")


def named(record: Any) -> dict[str, str | Callable[[State], Any]]:
    """What is to be recorded, under which name.

    record : names and callables in a sequence, where a callable goes by its `__name__`; or callables by name

    Raises
    ------
    ValueError, TypeError
        An unknown name, a name twice, or something else.
    """
    if isinstance(record, str) or callable(record):
        record = (record,)
    if isinstance(record, Mapping):
        asked = list(record.items())
    elif not isinstance(record, Iterable):
        raise TypeError(f"record={record!r} must be names and callables, in a sequence or by name.")
    else:
        asked = [(one if isinstance(one, str) else getattr(one, "__name__", ""), one) for one in record]
    found: dict[str, Any] = {}
    for name, one in asked:
        if isinstance(one, str):
            _checked_name(one, QUANTITIES, "record")
        elif not callable(one):
            raise TypeError(f"record: {one!r} must be a name or a callable.")
        elif not name.isidentifier():
            raise ValueError(f"record: {one!r} has no name; give it one: record={{'name': callable}}.")
        if name in _ALWAYS or name in found:
            raise ValueError(f"record: {name!r} is recorded already; give the callable another name.")
        found[name] = one
    return found


def check(settings: Settings, has_reference: bool) -> None:
    """Refuse what cannot be recorded or asked for, before any work is done.

    Raises
    ------
    ValueError, TypeError
    """
    Schedule(settings.record_every)
    asked = [(one, f"record={name!r}") for name, one in named(settings.record).items()]
    for criterion in stopping.resolve(settings.stop):
        if isinstance(criterion, (stopping.below, stopping.above)):
            if isinstance(criterion.quantity, str):
                _checked_name(criterion.quantity, QUANTITIES | _OF_STATE, "stop")
            what = "stop='alignment'" if settings.stop == "alignment" else f"stop={criterion.describe()}"
            asked.append((criterion.quantity, what))
    for one, what in asked:
        if isinstance(one, str) and (QUANTITIES | _OF_STATE)[one].needs == "reference" and not has_reference:
            raise ValueError(f"{what} needs reference=, the true directions (q, p) in columns.")


def checked_reference(settings: Settings, reference: Any, q: int) -> np.ndarray | None:
    """The true directions (q, p), or None; what needs them, and everything recorded, is checked too.

    Raises
    ------
    ValueError, TypeError
        As `check`, and for a reference of another shape, or that is no matrix of finite numbers.
    """
    check(settings, reference is not None)
    if reference is None:
        return None
    truth = validation.check_matrix(containers.as_matrix(reference, "reference"), "reference")
    shape = (q, settings.n_components)
    if truth.shape != shape:
        raise ValueError(f"reference has shape {truth.shape}, expected {shape}: one true direction per column.")
    return truth


class Recorder:
    """Records a run and asks its criteria.

    run : started;  truth : (q, p) true directions in columns, or None

    Raises
    ------
    ValueError
        A quantity that this run does not have.
    """

    def __init__(self, run: Run, truth: np.ndarray | None) -> None:
        settings = run.settings
        check(settings, truth is not None)
        self.run, self.truth = run, truth
        self.schedule = Schedule(settings.record_every)
        asked: dict[str, Any] = {} if truth is None else {name: name for name in _OF_REFERENCE}
        asked |= named(settings.record)
        self._asked = {name: self._quantity(one) for name, one in asked.items()}
        found = [one for one in stopping.resolve(settings.stop) if isinstance(one, (stopping.below, stopping.above))]
        self._criteria = [(criterion, self._quantity(criterion.quantity)) for criterion in found]

    def _quantity(self, one: Any) -> Callable[[_Measured], Any]:
        if not isinstance(one, str):
            return lambda seen: one(seen.state)
        quantity, run = (QUANTITIES | _OF_STATE)[one], self.run
        if quantity.needs == "vae" and (run.loss is None or run.loss.name != "vae"):
            raise ValueError(f"{one!r} is a quantity of loss='vae' alone.")
        if quantity.needs == "square" and not run.problem.same:
            raise ValueError(f"{one!r} compares encoder and decoder, which with targets are of different shapes.")
        return quantity.of

    @property
    def looks(self) -> bool:
        """Whether somebody looks at the weights of a recording."""
        return bool(self._asked or self._criteria or self.run.settings.callback)

    def add(self, state: State) -> None:
        """Record what was asked for, ask the criteria, then the callback; may set how the run has ended."""
        run = self.run
        seen = _Measured(state, self.truth, run)
        try:
            values = {name: quantity(seen) for name, quantity in self._asked.items()}
        except BaseException:
            run.history.drop_last()  # it has no more than the others
            raise
        for name, value in values.items():
            run.history.recorded.setdefault(name, []).append(value)
        for criterion, quantity in self._criteria:
            value = quantity(seen)
            if np.size(value) != 1:
                raise ValueError(
                    f"stop={criterion.describe()}: {criterion.label} has {np.size(value)} numbers, not one."
                )
            if criterion.quantity in ("excess_loss", "loss_ratio") and seen.assessment.reason:
                raise ValueError(f"stop={criterion.describe()}: the optimum is not known, {seen.assessment.reason}.")
            if criterion.holds(float(value)) and not run.stopped_by:
                run.stopped_by, run.converged = f"{criterion.label} is {float(value):.3g}: {criterion.describe()}", True
        if run.settings.callback is not None and run.settings.callback(state) is True and not run.stopped_by:
            run.stopped_by = "callback"
