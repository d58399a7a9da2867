"""The course of a training run: recording, stopping, divergence, callbacks, interruption; and the step of partial_fit.

The arithmetic of a step is in the engines; start.py makes the run.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .. import progress, rules
from ..backends.training_interface import Outcome
from ..data import sources
from ..data.checkpoint import Checkpoint, changing
from ..errors import DivergenceError
from . import conclusion, run_state
from .batches import BatchReader
from .engine import Position
from .problem import RowProblem
from .recording import Recorder
from .run import Run, Settings, State
from .start import start

# Seconds in compiled code between two visits to Python, where Ctrl-C is seen.
_SLICE_SECONDS = 0.25
# A run has diverged where its loss is over that of the start by this many times the loss's size; the loss of a single
# batch may be far from the mean.
_GROWTH, _BATCH_GROWTH = 10.0, 1e4
# `Run.stopped_by` where a callback, or a recorded callable, has raised.
BY_AN_EXCEPTION = "an exception"


@dataclass
class _Course:
    """What `proceed` remembers from one call of its engine to the next.

    kept, kept_at : where the engine was at the last recording whose loss was no sign of divergence, and its iteration
    pace : seconds of an iteration, None before the first
    began : when the loop did, in seconds, less what an earlier part of the run took
    """

    kept: Position
    kept_at: int
    began: float
    pace: float | None = None


def proceed(
    run: Run,
    reference: np.ndarray | None = None,
    report: progress.Reporter | None = None,
    checkpoint: Checkpoint | None = None,
) -> Run:
    """Iterate until the last iteration, a criterion, a callback's True, or an interruption; returns the run.

    The first and the last iterate are always recorded.  What is recorded, and what a callback sees, is the run before
    the step that measured it; a run that ends there has not taken this step.

    reference : (q, p) true directions in columns, recorded against and used by criteria
    checkpoint : keeps where the run stands, and is written now and then

    Raises
    ------
    DivergenceError
        The direction is no longer finite, or the loss has grown far over that of the start.  The run goes back to the
        last recording.
    KeyboardInterrupt
        The run keeps the weights of the last call of its engine that ended.
    Exception
        Whatever a callback or a recorded callable raises: `run.stopped_by` says so, and the run stays where they saw
        it.
    """
    recorder = Recorder(run, reference)
    seconds = run.history.seconds[-1] if run.history.seconds else 0.0
    course = _Course(run.engine.position(), run.iteration, time.perf_counter() - seconds)
    with run.engine:
        while run.iteration < run.last and not run.stopped_by:
            with changing(checkpoint):
                result = _advance(run, course, recorder)
                if result.converged and not run.stopped_by:
                    _judge(run)
                if checkpoint is not None and not run.stopped_by:
                    checkpoint.offer(
                        lambda: run_state.to_arrays(run_state.taken(run)), f"iteration {run.iteration} of {run.last}"
                    )
            if report is not None:
                report("training", run.iteration, run.last)
        if not _is_recorded(run):
            _measure(run, course, recorder)
    return run


def _is_recorded(run: Run) -> bool:
    return bool(run.history.iteration) and run.history.iteration[-1] == run.iteration


def _advance(run: Run, course: _Course, recorder: Recorder) -> Outcome:
    """One call of the engine, or where something is recorded one iteration, of which that is measured."""
    if 0 < run.asks_at <= run.iteration:
        run.engine.watch(True)
        run.asks_at = 0
    if recorder.schedule.has(run.iteration) and not _is_recorded(run):
        return _measure(run, course, recorder, moves=True)
    engine = run.engine
    before = engine.position()
    began = time.perf_counter()
    try:
        result = engine.advance(run.iteration, _length_of_call(run, course, recorder), False)
    except KeyboardInterrupt:
        engine.go_to(before)
        raise
    course.pace = max((time.perf_counter() - began) / max(result.done, 1), 1e-9)
    if result.diverged:
        _give_up(run, course, result.done)
    run.iteration += result.done
    return result


def _measure(run: Run, course: _Course, recorder: Recorder, moves: bool = False) -> Outcome:
    """Record the run where it stands, by a step that is taken only if it moves and nothing ends the run here."""
    engine = run.engine
    before = engine.position()
    encoder, decoder = (np.array(one) for one in (engine.encoder, engine.decoder)) if recorder.looks else (None, None)
    extra = engine.extra[0].copy() if recorder.looks and run.loss is not None and run.loss.name == "vae" else None
    try:
        result = engine.advance(run.iteration, 1, True)
    except KeyboardInterrupt:
        engine.go_to(before)
        raise
    grown = _has_grown(run, result.loss)
    if result.diverged or grown:
        _give_up(run, course, max(result.done, 1), grown)
    _record(run, result, time.perf_counter() - course.began)
    course.kept, course.kept_at = before, run.iteration
    if encoder is not None and decoder is not None:
        after = engine.position() if moves else None
        state = _seen(run, result, encoder, decoder, extra)
        engine.go_to(before)  # what is measured of the run is measured here
        try:
            recorder.add(state)
        except BaseException:  # Ctrl-C in a callback too: what it saw is kept, then the exception goes on
            run.stopped_by = BY_AN_EXCEPTION
            raise
        if after is not None and not run.stopped_by:
            engine.go_to(after)
    elif not moves:
        engine.go_to(before)
    if moves and not run.stopped_by:
        run.iteration += result.done
    return result


def _seen(run: Run, result: Outcome, encoder: np.ndarray, decoder: np.ndarray, extra: np.ndarray | None) -> State:
    """The state at (B, A') before the step that the engine has just taken."""
    moved = float(np.linalg.norm(run.engine.encoder.astype(np.float64) - encoder))
    if run.rule.has_decoder:
        moved = math.hypot(moved, float(np.linalg.norm(run.engine.decoder.astype(np.float64) - decoder)))
    optimizer = run.engine.recipe.optimizer
    return State(
        run.iteration, result.loss, result.ratio, encoder, decoder.T, run.history,
        math.nan if optimizer is None else float(optimizer.rate(run.iteration)), moved,
        None if extra is None else np.exp(extra[:-1]), None if extra is None else float(np.exp(extra[-1])),
    )  # fmt: skip


def _give_up(run: Run, course: _Course, done: int, grown: bool = False) -> NoReturn:
    """Back to the last recording, and say that the run has diverged."""
    message = divergence_message(run, run.iteration + done, grown)
    run.engine.go_to(course.kept)
    run.iteration = course.kept_at
    raise DivergenceError(message)


def _length_of_call(run: Run, course: _Course, recorder: Recorder) -> int:
    """Iterations of the next call: to the next recording at most, and for `_SLICE_SECONDS`."""
    until = run.last - run.iteration
    until = min(until, recorder.schedule.until(run.iteration) or until)
    if run.iteration < run.asks_at:
        until = min(until, run.asks_at - run.iteration)
    if course.pace is None:  # one iteration, to learn the pace
        return 1
    count = max(1, min(until, int(_SLICE_SECONDS / course.pace)))
    return min(count, until, run.engine.most or until)


def _record(run: Run, result: Outcome, seconds: float | None = None) -> None:
    run.history.iteration.append(run.iteration)
    run.history.loss.append(result.loss)
    run.history.gradient_norm.append(result.ratio)
    if seconds is not None:
        run.history.seconds.append(seconds)


def _judge(run: Run) -> None:
    """Where every gradient is small: whether the run has converged.  If not, it is measured again after a while."""
    if conclusion.judge(run):
        run.stopped_by, run.converged = "gradient", True
        return
    # a saddle, or a fixed point that is not the solution
    run.false_stops += 1
    last = run.last - run.engine.recipe.patience  # the end of the run is watched in any case
    run.asks_at = min(run.iteration + conclusion.pause(run), last)
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
    schedule = settings.schedule
    if schedule is None and rules.resolve(settings.rule).iterative:
        schedule = "constant"
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
    share = mass / total if total > 0 and old.center else 0.0
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
