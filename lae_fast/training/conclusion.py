"""What is said of a training run when it is over: whether it has converged, how far it is from the optimum, and why.

The measurements are those of optimality.py; when to ask is train.py's.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .. import optimizers, plan, rules, stopping
from ..errors import ConvergenceWarning, user_level
from . import optimality
from .problem import MomentProblem, RowProblem
from .run import Run

# Where the gradient is small but the optimum is not reached, a run goes on for an eighth of its iterations before it is
# measured again, and for at least so many times what a measurement costs in iterations.
_PAUSE = 8
_PAUSE_COSTS = 20


def judge(run: Run) -> bool:
    """Measure the run where it stands; whether it is within what the tolerance allows, as far as is known."""
    return not _measure(run).lacking


def _measure(run: Run) -> optimality.Assessment:
    """How far the weights are from the optimum; it is left in the run."""
    run.assessment = assess(run)
    return run.assessment


def assess(run: Run, look_for_it: bool = False) -> optimality.Assessment:
    """How far the weights are from the optimum, which is looked for once.

    look_for_it : whatever it costs; else as far as training makes up for it
    """
    if run.optimum is None or (look_for_it and run.optimum.skipped):
        flops = 4.0 * _width(run) * run.problem.d**2 * run.iteration
        effort = optimality.Effort(np.inf, np.inf) if look_for_it else optimality.Effort(flops, _passes(run))
        run.optimum = optimality.find(
            run.problem, optimality.solved_loss(run.rule, run.loss), _width(run), run.settings.scale, run.backend,
            effort,
        )  # fmt: skip
    extra = run.engine.extra[0] if run.loss is not None and run.loss.name == "vae" else None
    weights = optimality.Weights(run.engine.encoder, run.engine.decoder, extra)
    promised = optimality.promise(run.rule, run.loss, _width(run))
    return optimality.assess(run.problem, run.optimum, promised, weights, run.settings.tol)


def pause(run: Run) -> int:
    """Iterations until the next measurement of a run whose gradient was small before the optimum was reached."""
    iterations = 1.0
    if isinstance(run.problem, RowProblem):
        iterations = max(1.0, run.iteration / max(_passes(run), 1e-300))
    return max(run.iteration // _PAUSE, int(_PAUSE_COSTS * iterations))


def _passes(run: Run) -> float:
    """Passes over the rows so far."""
    if run.engine.reader is None:
        return float(run.iteration)
    return run.iteration * run.engine.reader.size / run.problem.n_samples


def conclude(run: Run) -> None:
    """Measure the weights that the run ended with, and say how it ended in `run.reason`."""
    found = run.assessment if run.converged and run.assessment is not None else _measure(run)
    if run.converged and run.stopped_by == "gradient":
        text = f"the gradient of every component is within tol={run.settings.tol:g}"
    elif run.converged:
        text = run.stopped_by
    elif run.stopped_by:
        text = f"stopped by {run.stopped_by}"
    elif _asks_for_all(run):
        text = f"all max_iter={run.settings.max_iter} iterations are done, which tol=0 asks for"
    elif run.false_stops and found.lacking:
        text = f"the gradient was within tol={run.settings.tol:g}, and the weights not at the optimum"
    else:
        targets = [
            f"the gradient of every component was within tol={run.settings.tol:g} of the component's own scale"
            if isinstance(one, stopping.gradient) else f"{one.describe()} held"
            for one in stopping.resolve(run.settings.stop)
        ]  # fmt: skip
        text = f"max_iter={run.settings.max_iter} iterations ended before {' or '.join(targets)}"
    if found.lacking and not run.converged and not _asks_for_all(run):
        text += f"; {found.lacking}"
    if found.reason:
        text += f"; excess_loss_ is nan: {found.reason}"
    run.reason = text


def warn(run: Run) -> None:
    """Warnings after a run: not converged, with what is left and what to change; or components that are removed.

    Warns
    -----
    ConvergenceWarning
    """
    if not run.converged and run.stopped_by != "callback" and not _asks_for_all(run):
        warnings.warn(_not_converged(run), ConvergenceWarning, stacklevel=user_level())
    message = infeasible(run)
    if message:
        warnings.warn(message, ConvergenceWarning, stacklevel=user_level())


def _asks_for_all(run: Run) -> bool:
    """Whether the run has no end but max_iter: tol=0 and no other criterion."""
    plain = all(isinstance(one, stopping.gradient) for one in stopping.resolve(run.settings.stop))
    return plain and run.settings.tol == 0.0


def _not_converged(run: Run) -> str:
    excess, said = np.nan if run.assessment is None else run.assessment.excess, ""
    if np.isfinite(excess) and "excess_loss_" not in run.reason:
        said = f" (excess_loss_ is {excess:.2g})"
    return f"Training has not converged: {run.reason}{said}; {_advice(run)}."


def _width(run: Run) -> int:
    return run.settings.n_components


def _advice(run: Run) -> str:
    """What to change."""
    optimizer = run.optimizer
    name = "" if optimizer is None else optimizer.name
    empty = 0 if run.optimum is None else int(np.count_nonzero(run.optimum.removed))
    if run.rule.normalises_rows and empty:
        return (
            f"only {_width(run) - empty} components have variance that rounding can tell from zero, and the rows of "
            f"rule {run.rule.name!r} keep length 1: set n_components={max(1, _width(run) - empty)}"
        )
    if run.rule.name != "gradient" and run.rule.iterative and name != "sgd":
        return f"rule {run.rule.name!r} reaches the directions with optimizer='sgd', which 'auto' takes"
    if run.rule.name == "rag" and run.false_stops:
        return "lower learning_rate and init_scale: the difference of A'A and BB' stays, and large steps add to it"
    if run.engine.reader is not None:
        return (
            "raise max_iter or batch_size, or let the learning rate fall (schedule='cosine'): at a constant one the "
            "noise of mini-batches stays"
        )
    if run.false_stops:
        return "raise max_iter, or start elsewhere: change random_state, raise init_scale" + other_ways(run)
    if not run.rule.iterative:
        return "raise max_iter or tol"
    other = ", or use optimizer='adam'" if run.rule.name == "gradient" and name == "sgd" else ""
    if name != "adam":
        change = "change learning_rate"
    elif optimizer is not None and optimizer.schedule == optimizers.constant():
        change = "let the learning rate fall (schedule='cosine'), so that adam settles"
    else:
        change = "raise learning_rate"
    return f"raise max_iter, or {change}{other}{other_ways(run)}"


def other_ways(run: Run) -> str:
    """Advice for data on which gradient descent is slow; empty where there is none."""
    loss, settings, ways = run.loss, run.settings, ""
    if run.rule.name != "gradient" or loss is None or run.engine.reader is not None:
        return ""
    plain = settings.coupling == "untied" and not settings.hidden and run.backend == "cpu"
    if plain and loss.name in rules.EXACT_LOSSES and run.problem.d <= plan.LARGEST_GRAM:
        ways = ", or use rule='alternating', which takes exact steps for this loss"
    if _uneven(run.problem):
        ways += ", or standardize the columns, whose deviations differ by a factor over 100"
    return ways


def _uneven(described: Any) -> bool:
    """Whether the variances of the columns of X are so far apart that descent is slow along the small ones."""
    if isinstance(described, MomentProblem):
        variances = np.diagonal(described.moments.xx)
    elif described.operator is not None:
        variances = described.operator.variances[: described.d]
    else:
        return False
    used = variances[variances > 0.0]
    return bool(used.size) and bool(used.max() > 1e4 * used.min())


def infeasible(run: Run) -> str:
    """Why some components are zero at the optimum: lam_i >= l_i  (docs/math.md Eq. 18); empty if none is."""
    if run.loss is None or not run.loss.in_family or not run.problem.same or run.optimum is None:
        return ""
    penalty, values = run.loss.row_penalty(_width(run)), run.optimum.values
    if not penalty.any():
        return ""
    lost = np.flatnonzero(penalty >= values)
    if not lost.size:
        return ""
    i = int(lost[0])
    return (
        f"The penalty of {run.loss.describe()} removes {lost.size} of {len(values)} components: that of component {i} "
        f"(counting from 0), {penalty[i]:.4g}, is not under the eigenvalue of its place, {values[i]:.4g} at "
        f"scale={run.settings.scale!r}, so at the optimum these rows are zero; lower the penalty or n_components "
        "(penalties are compared with eigenvalues at the same scale)."
    )
