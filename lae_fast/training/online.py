"""One training step on one batch of rows that arrive from outside: the work of `partial_fit`."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np

from ..data import sources
from ..errors import DivergenceError
from . import problem, train
from .cpu_loop import LoopEngine


def partial_step(
    run: train.Run | None,
    source: sources.Source,
    targets: sources.Source | None,
    weights: Any,
    settings: train.Settings,
) -> train.Run:
    """Take the batch into the means, then one step; returns a run of its own, and leaves `run` as it was.

    run : of the batches before, or None.  Copies of an estimator may share one, as it is never written to.

    The step goes against the weighted mean gradient of the batch, and its rate is multiplied by the weight of the batch
    (the number of rows without weights) over the largest that a batch has had so far.  So batches count in proportion
    to their weights, as rows that come that many times, and no batch makes a step longer than the rate allows.

    Raises
    ------
    ValueError
        NaN or Inf, targets missing or of another width, choices that do not go together.
    DivergenceError
        The step left the finite numbers.
    """
    if targets is not None and targets.shape[0] != source.shape[0]:
        raise ValueError(f"targets has {targets.shape[0]} rows, but X has {source.shape[0]}.")
    size = source.shape[0]
    mean, mass = _mean(source, weights)
    mean_y = mean if targets is None else _mean(targets, weights)[0]
    if run is None:
        run = _first(source, targets, weights, dataclasses.replace(settings, batch_size=size))
    else:
        old = run.problem
        if old.same != (targets is None):
            raise ValueError("targets must be given in every call of partial_fit, or in none.")
        if targets is not None and targets.shape[1] != old.q:
            raise ValueError(f"targets has {targets.shape[1]} columns, but the first batch had {old.q}.")
        total = old.weight_sum + mass
        share = mass / total if total > 0 else 0.0
        batch = dataclasses.replace(
            old,
            n_samples=size,
            mean=old.mean + share * (mean - old.mean),
            mean_y=old.mean_y + share * (mean_y - old.mean_y),
            weight_sum=total,
            source=source,
            targets=targets,
            weights=weights,
            operator=None,
            heaviest=max(old.heaviest or old.weight_sum, mass),
        )
        run = dataclasses.replace(run, engine=copy.deepcopy(run.engine), history=run.history.copy())
        run.problem = run.engine.problem = batch
        run.engine.reader = problem.BatchReader(batch, size, np.random.default_rng(run.iteration))
        if isinstance(run.engine, LoopEngine):
            run.engine.resize(size)
        slower = run.optimizer.with_rate(run.optimizer.learning_rate * mass / batch.heaviest)
        run.engine.plan = dataclasses.replace(run.engine.plan, optimizer=slower)
    with run.engine as engine:
        result = engine.advance(run.iteration, 1, True)
    run.iteration += 1
    if result.diverged:
        raise DivergenceError(train.divergence_message(run, run.iteration))
    run.history.iteration.append(run.iteration - 1)
    run.history.loss.append(result.loss)
    run.history.gradient_norm.append(result.ratio)
    return run


def _first(source: Any, targets: Any, weights: Any, settings: train.Settings) -> train.Run:
    """The run of the first batch; its largest eigenvalue stands for that of all data."""
    if source.shape[0] < 2:
        raise ValueError("The first batch of partial_fit has n_samples=1: the scale needs at least 2 samples.")
    # Nobody knows how many batches will come, so nothing falls unless it is asked to.
    schedule = settings.schedule or "constant"
    return train.start(source, targets, weights, dataclasses.replace(settings, regime="rows", schedule=schedule))


def _mean(source: sources.Source, weights: Any) -> tuple[np.ndarray, float]:
    rows = np.asarray(source.block(0, source.shape[0], False), dtype=np.float64)
    if not np.isfinite(rows).all():
        sources.raise_nonfinite(source)
    if weights is None:
        return rows.mean(axis=0), float(len(rows))
    return weights @ rows / weights.sum(), float(weights.sum())
