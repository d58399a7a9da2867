"""The start of a training run: what goes together, moments or rows, the first weights, the rate, the engine."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from .. import backends, losses, optimizers, plan, rules, stopping
from ..backends.threads import serial_blas
from ..data import sources
from ..operators.moments import Moments
from ..sizes import format_bytes
from . import compatibility
from .adaoja import AdaOjaEngine
from .alternating import AlternatingEngine
from .batches import BatchReader
from .chain import ChainEngine
from .cpu_loop import CpuLoopEngine, takes_whole_rows
from .engine import Engine, LoopEngine, Recipe
from .initial_weights import initial_weights, with_rate
from .problem import MomentProblem, Problem, RowProblem, from_moments, from_rows
from .run import Run, Settings
from .run_state import RunState, go_on

# Second moments outside these bounds have gradients whose squares leave the range of float64 on the way.
_RANGE = (1e-130, 1e130)
# What rounding leaves of a product, in units of eps and of the norms of its factors.
_ROUNDINGS = 8.0


class _Chosen(NamedTuple):
    """What the settings mean: resolved objects, the backend that runs, moments or rows and why."""

    rule: rules.Rule
    loss: losses.Loss | None
    optimizer: optimizers.Optimizer | None
    backend: str
    regime: str
    regime_reason: str


def start(
    data: Any,
    targets: Any,
    weights: np.ndarray | None,
    settings: Settings,
    tick: Any = None,
    earlier: RunState | None = None,
) -> Run:
    """Check, choose the regime, gather what is needed and set the start weights.

    data : Source, array or Moments;  targets : Source, array or None;  weights : (m,) float64 or None
    earlier : where a run stood that this one goes on from, for settings.max_iter more iterations

    Raises
    ------
    ValueError, TypeError
        Bad settings, or what does not go together, with the reason and the valid choices.
    BackendUnavailableError, UnsupportedOnBackendError
        backend="cuda" without CUDA, or for what has no code there.
    """
    settings.check()
    if isinstance(data, Moments) and data.center != settings.center:
        raise ValueError(
            f"The moments were made with center={data.center}, and this model has center={settings.center}: give both "
            "the same."
        )
    rule, loss, optimizer = compatibility.check(
        settings.rule, settings.loss, settings.optimizer, targets is not None or getattr(data, "n_targets", 0) > 0,
        settings.coupling, settings.hidden, settings.batch_size, learning_rate=settings.learning_rate,
        schedule=settings.schedule, n_components=settings.n_components,
    )  # fmt: skip
    if not isinstance(data, Moments):
        data = sources.as_source(data)
    backend = _backend(data, rule, settings)
    chosen = _Chosen(rule, loss, optimizer, backend, *choose_regime(data, loss, rule, settings))
    problem: MomentProblem | RowProblem
    if chosen.regime == "moments":
        moments = data if isinstance(data, Moments) else _gather(data, targets, weights, tick, backend, settings.center)
        problem = from_moments(moments, settings.scale)
    else:
        given = None if targets is None else sources.as_source(targets, "targets")
        problem = from_rows(data, given, weights, settings.scale, backend, settings.center)
    run = _assemble(problem, settings, chosen, 0 if earlier is None else earlier.iteration)
    if earlier is not None:
        go_on(run, earlier)
    return run


def _backend(data: Any, rule: rules.Rule, settings: Settings) -> str:
    """The backend that runs: "auto" follows the data, and what has no CUDA code stays on the CPU."""
    if not rule.iterative or settings.hidden:
        what = f"rule={rule.name!r}" if not rule.iterative else "training of hidden layers"
        return backends.resolve_cpu(settings.backend, what)
    return backends.choose(settings.backend, getattr(data, "on_device", False))


def _gather(source: sources.Source, targets: Any, weights: Any, tick: Any, backend: str, center: bool) -> Moments:
    n_targets = 0 if targets is None else sources.as_source(targets, "targets").shape[1]
    moments = Moments(source.n_features, n_targets, center=center)
    return moments.update(source, targets, weights, tick=tick, backend=backend)


def choose_regime(data: Any, loss: losses.Loss | None, rule: rules.Rule, settings: Settings) -> tuple[str, str]:
    """ "moments" or "rows", and why.

    An iteration costs 4 p d^2 flops on moments (after m d^2 once) and 8 m d p on rows.

    Raises
    ------
    ValueError
        A regime was asked for that cannot do the job.
    """
    needs_rows = settings.batch_size is not None or (loss is not None and loss.needs_samples)
    why_rows = "mini-batches" if settings.batch_size is not None else "masks per sample"
    why_moments = ""
    if isinstance(rule, rules.alternating):
        why_moments = "exact solves"
    elif getattr(rule, "sequential", False):
        why_moments = "a sequential step"
    if isinstance(data, Moments):
        why_moments = "data that are moments"
    elif isinstance(data, sources.BlockSource):
        why_moments = "rows that come in blocks"
    elif isinstance(data, sources.DaskSource):
        why_moments = "rows on Dask"
    if needs_rows and (why_moments or settings.regime == "moments"):
        other = why_moments or "regime='moments'"
        if isinstance(data, sources.DaskSource):
            what = f"batch_size={settings.batch_size}" if settings.batch_size is not None else f"loss={settings.loss!r}"
            raise ValueError(
                f"{what} draws single rows, and X is on Dask, of which only the moments are gathered: leave it out "
                "(batch_size=None trains on all rows), compute X first if it fits (X.compute()), or call partial_fit "
                "with a block at a time."
            )
        raise ValueError(f"{why_rows} need the rows of X, which {other} excludes; drop one of the two.")
    if why_moments and settings.regime == "rows":
        raise ValueError(f"regime='rows' does not go with {why_moments}; use regime='moments' or 'auto'.")
    if settings.regime != "auto":
        return settings.regime, "as asked"
    if needs_rows:
        return "rows", why_rows
    if why_moments:
        return "moments", why_moments
    m, d = sources.as_source(data).shape
    if d > plan.LARGEST_GRAM:
        return "rows", f"moments of {d} features would take {format_bytes(d * d * 8)}"
    p, n = settings.n_components, settings.max_iter
    on_moments, on_rows = float(m) * d * d + 4.0 * n * p * d * d, 8.0 * n * m * d * p
    comparison = f"{on_moments:.2g} flops in {n} iterations on moments, {on_rows:.2g} on rows"
    return ("moments" if on_moments <= on_rows else "rows"), comparison


def _assemble(problem: MomentProblem | RowProblem, settings: Settings, chosen: _Chosen, done: int) -> Run:
    """The run, with weights, rate and engine.  done : iterations before it"""
    rule, loss, optimizer = chosen.rule, chosen.loss, chosen.optimizer
    p, most = settings.n_components, min(problem.d, problem.q)
    if p > most:
        raise ValueError(
            f"n_components={p} exceeds min(n_features, n_targets)={most}: there are no more directions to learn; lower "
            "n_components."
        )
    _check_size(problem)
    rng = np.random.default_rng(_seed(settings.random_state))
    weights = initial_weights(problem, settings, rng)
    rng = copy.deepcopy(rng)  # the user's own draws nothing more
    last = done + settings.max_iter
    batch = settings.batch_size
    if batch is None and loss is not None and loss.needs_samples:
        # masks of all rows: by products of their own, or as a batch of all of them
        whole = chosen.backend == "cpu" and takes_whole_rows(problem)
        batch = None if whole else problem.n_samples
    if optimizer is not None:
        optimizer = with_rate(optimizer, settings, problem, loss, weights, batch, last)
    reader = BatchReader(problem, batch, rng) if batch is not None and isinstance(problem, RowProblem) else None
    recipe = Recipe(rule, loss, optimizer, settings.coupling, settings.scale, -1.0)
    if any(isinstance(one, stopping.gradient) for one in stopping.resolve(settings.stop)):
        recipe = _stopping(recipe, settings, problem, reader)
    engine = _engine(problem, recipe, weights, reader, rng, chosen.backend)
    return Run(
        settings, problem, engine, rule, loss, optimizer, chosen.backend, chosen.regime, chosen.regime_reason, last
    )  # fmt: skip


def _check_size(problem: Problem) -> None:
    """Refuse data so large or so small that training would meet inf or zero."""
    sizes = {"X": problem.largest} if problem.same else {"X": problem.largest, "targets": problem.yy_trace}
    for name, size in sizes.items():
        if size != 0.0 and not _RANGE[0] < size < _RANGE[1]:
            order = int(np.round(0.5 * np.log10(size))) if size < np.inf else 154
            raise ValueError(
                f"The second moments of {name} are about {size:.1e}, and training takes numbers between "
                f"{_RANGE[0]:.0e} and {_RANGE[1]:.0e}: squares of gradients leave the range of float64. "
                f"Multiply {name} by 1e{-order}."
            )


def _seed(random_state: Any) -> Any:
    """None is a fixed seed; RandomState objects give one draw, so that scikit-learn's habits work."""
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, 2**31 - 1))
    return random_state


def _stopping(recipe: Recipe, settings: Settings, problem: Problem, reader: BatchReader | None) -> Recipe:
    """The recipe, with what ends it  (docs/math.md Eq. 46).

    tol=0 asks for the gradient to vanish exactly.  With mini-batches every batch of an epoch must be within tol, which
    the batches of two epochs in a row hold whatever their order.  Both sides of Eq. 46 are in units of the loss, which
    with targets are those of Y^2 whatever the units of X.
    """
    tol, rounding = settings.tol, 0.0
    if tol > 0.0:
        eps = float(np.finfo(np.float64 if isinstance(recipe.rule, rules.alternating) else problem.dtype).eps)
        rounding = _ROUNDINGS * eps
        tol = max(tol, rounding)
    cross = explained = problem.largest
    if recipe.loss is not None and recipe.loss.in_family:
        explained *= float(recipe.loss.prefix(settings.n_components, problem.dtype)[0])
    if not problem.same:
        cross = float(np.sqrt(problem.largest) * np.sqrt(problem.yy_trace))
        explained = problem.yy_trace * (explained / problem.largest if problem.largest > 0.0 else 1.0)
    return dataclasses.replace(
        recipe,
        tolerance=tol,
        rounding=(rounding * cross, rounding * problem.largest),
        negligible=settings.tol * explained,
        patience=1 if reader is None else 2 * max(1, problem.n_samples // reader.size),
    )


def _engine(
    problem: Problem,
    recipe: Recipe,
    weights: list[np.ndarray],
    reader: BatchReader | None,
    rng: np.random.Generator,
    backend: str,
) -> Engine:
    if len(weights) > 2:
        return ChainEngine(problem, recipe, weights, reader)
    encoder, decoder = weights
    if isinstance(recipe.rule, rules.adaoja):
        return AdaOjaEngine(problem, recipe, encoder, reader)
    if isinstance(problem, MomentProblem) and isinstance(recipe.rule, rules.alternating):
        with serial_blas():
            return AlternatingEngine(problem, recipe, encoder, decoder)
    if recipe.loss is not None and recipe.loss.needs_samples:
        # masks of their own stream: they must not depend on how iterations are cut into calls
        rng = np.random.default_rng(rng.integers(2**63))
    kind: type[LoopEngine] = CpuLoopEngine
    if backend == "cuda":
        from .cuda_loop import CudaLoopEngine

        kind = CudaLoopEngine
    return kind(problem, recipe, encoder, decoder if recipe.rule.has_decoder else None, reader, rng)
