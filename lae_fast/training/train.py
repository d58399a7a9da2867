"""The course of a training run: recording, stopping, divergence, callbacks, interruption; and the step of partial_fit.

The arithmetic of a step is in the engines; start.py makes the run.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import metrics, progress
from ..backends.training_interface import Outcome
from ..data import sources
from ..errors import DivergenceError
from . import conclusion
from .batches import BatchReader
from .problem import RowProblem
from .run import Run, Settings, State
from .start import start

# Seconds in compiled code between two visits to Python, where Ctrl-C is seen.
_SLICE_SECONDS = 0.25
# A run has diverged where its loss is over that of the start by this many times the loss's size; the loss of a single
# batch may be far from the mean.
_GROWTH, _BATCH_GROWTH = 10.0, 1e4
# Alignment counts as reached from this mean squared cosine on, unless tol says otherwise.
_EPS_ALIGNED = 0.01


@dataclass
class _Course:
    """What a run remembers from one call of its engine to the next.

    kept : snapshot of the last recording whose loss was no sign of divergence
    pace : seconds of an iteration, None before the first
    asks_at : iteration from which the gradient is watched again, 0 while it is
    began : when the loop did, in seconds
    """

    kept: list[Any]
    pace: float | None = None
    asks_at: int = 0
    began: float = field(default_factory=time.perf_counter)


def proceed(run: Run, reference: np.ndarray | None = None, report: progress.Reporter | None = None) -> Run:
    """Iterate until max_iter, convergence, a callback's True, or an interruption; returns the run.

    reference : (q, p) true directions in columns, recorded against and used by stop="alignment"

    Raises
    ------
    DivergenceError
        The direction is no longer finite, or the loss has grown far over that of the start.  The run keeps the weights
        of the last recording.
    KeyboardInterrupt
        The run keeps the weights of the last finished iterations.
    """
    settings = run.settings
    course = _Course(run.engine.snapshot())
    with run.engine:
        while run.iteration < settings.max_iter:
            recording = run.iteration % settings.record_every == 0
            result = _advance(run, course, recording, reference)
            run.iteration += result.done
            if report is not None:
                report("training", run.iteration, settings.max_iter)
            if recording and _callback_stops(run, result):
                run.stopped_by = "callback"
            if result.converged and not run.stopped_by:
                _judge(run, course)
            if run.stopped_by:
                break
    return run


def _advance(run: Run, course: _Course, recording: bool, reference: np.ndarray | None) -> Outcome:
    """One call of the engine, and what is recorded of it."""
    engine = run.engine
    count = _length_of_call(run, course, recording)
    entered = engine.snapshot() if recording else course.kept
    decoder = np.array(engine.decoder) if recording and reference is not None else None
    began = time.perf_counter()
    result = engine.advance(run.iteration, count, recording)
    course.pace = max((time.perf_counter() - began) / max(result.done, 1), 1e-9)
    grown = recording and _has_grown(run, result.loss)
    if result.diverged or grown:
        engine.restore(course.kept)
        raise DivergenceError(divergence_message(run, run.iteration + max(result.done, 1), grown))
    if recording:
        course.kept = entered
        _record(run, result, time.perf_counter() - course.began)
    if decoder is not None and reference is not None and _record_alignment(run, decoder.T, reference):
        run.stopped_by, run.converged = "alignment", True
    return result


def _length_of_call(run: Run, course: _Course, recording: bool) -> int:
    """Iterations of the next call: to the next recording at most, and for `_SLICE_SECONDS`."""
    settings = run.settings
    until = settings.max_iter - run.iteration
    until = min(until, settings.record_every - run.iteration % settings.record_every)
    if run.iteration < course.asks_at:
        until = min(until, course.asks_at - run.iteration)
    elif run.iteration == course.asks_at > 0:
        run.engine.watch(True)
        course.asks_at = 0
    # One iteration to learn the pace, and one where it is recorded: a call returns its last gradient norm.
    if course.pace is None or recording:
        return 1
    count = max(1, min(until, int(_SLICE_SECONDS / course.pace)))
    return min(count, until, run.engine.most or until)


def _record(run: Run, result: Outcome, seconds: float | None = None) -> None:
    run.history.iteration.append(run.iteration)
    run.history.loss.append(result.loss)
    run.history.gradient_norm.append(result.ratio)
    if seconds is not None:
        run.history.seconds.append(seconds)


def _record_alignment(run: Run, decoder: np.ndarray, reference: np.ndarray) -> bool:
    """Record A (q, p) against the reference; whether stop="alignment" is reached."""
    run.history.alignment.append(metrics.axis_alignment_distance(reference, decoder))
    run.history.ratio_tp.append(metrics.ratio_tp(reference, decoder, _EPS_ALIGNED))
    return run.settings.stop == "alignment" and run.history.ratio_tp[-1] == 1.0


def _callback_stops(run: Run, result: Outcome) -> bool:
    """Call the callback, if there is one."""
    if run.settings.callback is None:
        return False
    state = State(run.iteration, result.loss, result.ratio, run.engine.encoder, run.engine.decoder.T, run.history)
    return run.settings.callback(state) is True


def _judge(run: Run, course: _Course) -> None:
    """Where every gradient is small: whether the run has converged.  If not, it is measured again after a while."""
    if conclusion.judge(run):
        run.stopped_by, run.converged = "gradient", True
        return
    # a saddle, or a fixed point that is not the solution
    run.false_stops += 1
    last = run.settings.max_iter - run.engine.recipe.patience  # the end of the run is watched in any case
    course.asks_at = min(run.iteration + conclusion.pause(run), last)
    run.engine.watch(False)


def _has_grown(run: Run, loss: float) -> bool:
    """Whether a recorded loss tells of a diverging run, whose numbers may stay finite for long."""
    if not run.history.loss:
        return False
    first, most = run.history.loss[0], _GROWTH if run.engine.reader is None else _BATCH_GROWTH
    if run.loss is not None and run.loss.name == "vae":
        size = float(run.problem.d)  # in nats
    else:
        size = float(run.problem.yy_trace)
        if run.loss is not None and run.loss.in_family:
            size *= float(run.loss.prefix(run.settings.n_components)[0])
    return loss > first + most * (abs(first) + size)


def divergence_message(run: Run, iteration: int, grown: bool = False) -> str:
    """What has diverged, and which learning rate to try."""
    rate = ""
    if run.optimizer is not None:
        used = run.optimizer.rate(max(iteration - 1, 0))
        advised = 0.1 * used
        given = getattr(run.settings.optimizer, "learning_rate", None) is not None
        if given or not isinstance(run.settings.learning_rate, str):
            rate = f"the learning rate was {used:.3g}: lower it (try {advised:.2g}), or leave learning_rate='auto'"
        else:
            rate = f"learning_rate='auto' took {used:.3g}, too much for these data: set learning_rate={advised:.2g}"
            rate += conclusion.other_ways(run)
    what = "the loss has grown far over that of the start" if grown else "the gradient is no longer finite"
    return (
        f"Training diverged at iteration {iteration}: {what}; {rate or 'rescale the data'}. "
        f"The estimator keeps the weights of iteration {run.history.iteration[-1] if run.history.iteration else 0}."
    )


# ---------------------------------------------------------------------------------------------------------------------
# partial_fit


def partial_step(
    run: Run | None,
    source: sources.Source,
    targets: sources.Source | None,
    weights: np.ndarray | None,
    settings: Settings,
) -> Run:
    """One step on one batch of rows: takes it into the means, then steps; the work of `partial_fit`.

    run : of the batches before, or None.  It is left as it was, and the one returned shares nothing with it that
        changes: copies of an estimator may hold the same run.

    The step goes against the weighted mean gradient of the batch, and its rate is multiplied by the weight of the batch
    (the number of rows without weights) over the largest that a batch has had so far.  So batches count in proportion
    to their weights, as rows that come that many times, and no batch makes a step longer than the rate allows.

    Raises
    ------
    ValueError
        NaN or Inf, targets missing or of another width, choices that do not go together.
    DivergenceError
        The gradient of the step is not finite.
    """
    if targets is not None and targets.shape[0] != source.shape[0]:
        raise ValueError(f"targets has {targets.shape[0]} rows, but X has {source.shape[0]}.")
    run = _first(source, targets, weights, settings) if run is None else _next(run, source, targets, weights)
    with run.engine as engine:
        result = engine.advance(run.iteration, 1, True)
    if result.diverged:
        raise DivergenceError(divergence_message(run, run.iteration + 1))
    _record(run, result)
    run.iteration += 1
    return run


def _first(source: sources.Source, targets: sources.Source | None, weights: Any, settings: Settings) -> Run:
    """The run of the first batch; its largest eigenvalue stands for that of all data."""
    for given in (source,) if targets is None else (source, targets):
        _finite_rows(given)
    size = source.shape[0]
    if size < 2:
        raise ValueError("The first batch of partial_fit has n_samples=1: the scale needs at least 2 samples.")
    # How many batches will come is not known, so the rate falls only where a schedule is given.
    schedule = settings.schedule or "constant"
    settings = dataclasses.replace(settings, batch_size=size, regime="rows", schedule=schedule)
    return start(source, targets, weights, settings)


def _next(run: Run, source: sources.Source, targets: sources.Source | None, weights: np.ndarray | None) -> Run:
    """A run that goes on from another one, on this batch and with the batch in its means."""
    problem = _with_batch(run.problem, source, targets, weights)
    run = dataclasses.replace(run, problem=problem, engine=copy.deepcopy(run.engine), history=run.history.copy())
    run.engine.problem = problem
    run.engine.read_from(BatchReader(problem, problem.n_samples, np.random.default_rng(run.iteration)))
    if run.optimizer is not None and run.learning_rate is not None:
        slower = run.optimizer.with_rate(run.learning_rate * _mass(source, weights) / problem.heaviest)
        run.engine.recipe = dataclasses.replace(run.engine.recipe, optimizer=slower)
    return run


def _with_batch(
    old: Any, source: sources.Source, targets: sources.Source | None, weights: np.ndarray | None
) -> RowProblem:
    """The problem of this batch, with the means and the weight of all rows so far."""
    mass = _mass(source, weights)
    mean = _mean(source, weights)
    mean_y = mean if targets is None else _mean(targets, weights)
    if old.same != (targets is None):
        raise ValueError("targets must be given in every call of partial_fit, or in none.")
    if targets is not None and targets.shape[1] != old.q:
        raise ValueError(f"targets has {targets.shape[1]} columns, but the first batch had {old.q}.")
    total = old.weight_sum + mass
    share = mass / total if total > 0 else 0.0
    return dataclasses.replace(
        old,
        n_samples=source.shape[0],
        mean=old.mean + share * (mean - old.mean),
        mean_y=old.mean_y + share * (mean_y - old.mean_y),
        weight_sum=total,
        source=source,
        targets=targets,
        weights=weights,
        operator=None,
        heaviest=max(old.heaviest or old.weight_sum, mass),
    )


def _mass(source: sources.Source, weights: np.ndarray | None) -> float:
    return float(source.shape[0] if weights is None else weights.sum())


def _mean(source: sources.Source, weights: np.ndarray | None) -> np.ndarray:
    rows = _finite_rows(source)
    return rows.mean(axis=0) if weights is None else weights @ rows / weights.sum()


def _finite_rows(source: sources.Source) -> np.ndarray:
    """All rows as float64."""
    rows = np.asarray(source.block(0, source.shape[0], False), dtype=np.float64)
    if not np.isfinite(rows).all():
        sources.raise_nonfinite(source)
    return rows
