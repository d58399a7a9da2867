"""The training of a linear autoencoder: regime, start, recording, stopping, divergence, callbacks, interruption.

The arithmetic of a step is in cpu_loop.py and below.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import backends, metrics, optimizers, plan, progress, rules, validation
from ..backends.threads import serial_blas
from ..data import sources
from ..errors import DivergenceError
from ..operators.moments import Moments
from ..sizes import format_bytes
from . import compatibility, conclusion, cpu_loop, problem, rates

REGIMES = ("auto", "moments", "rows")
STOPS = ("gradient", "alignment")
SCALES = ("mean", "sum")
# Seconds in compiled code between two visits to Python, where Ctrl-C is seen.
_SLICE_SECONDS = 0.25
# Rows of a batch of stochastic nested dropout where none are asked for.
_DROPOUT_BATCH = 256
# A run has diverged where its loss is over that of the start by this many times the loss's size; the loss of a single
# batch may be far from the mean.
_GROWTH, _BATCH_GROWTH = 10.0, 1e4
# Second moments outside these bounds have gradients whose squares leave the range of float64 on the way.
_RANGE = (1e-130, 1e130)
# What rounding leaves of a product, in units of eps and of the norms of its factors.
_ROUNDINGS = 8.0
# Alignment counts as reached from this mean squared cosine on, unless tol says otherwise.
_EPS_ALIGNED = 0.01


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
    callback: Any = None
    progress: Any = False


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
    """A training run that can go on: what `start` makes and `proceed` moves."""

    settings: Settings
    problem: problem.Problem
    engine: Any
    rule: rules.Rule
    loss: Any
    optimizer: Any
    backend: str  # "cpu" | "cuda", what runs
    regime: str
    regime_reason: str
    curvature: float  # c_1 l_1: the unit of gradient norms and learning rates
    iteration: int = 0
    converged: bool = False
    stopped_by: str = ""
    false_stops: int = 0  # times the gradient was within tol and the weights not at the optimum
    optimum: Any = None  # optimality.Optimum and Assessment, once they have been asked for
    assessment: Any = None
    reason: str = ""  # how the run ended
    history: History = field(default_factory=History)

    @property
    def encoder(self) -> np.ndarray:
        """B (p, d), a copy."""
        return np.array(self.engine.encoder, dtype=self.problem.dtype)

    @property
    def decoder(self) -> np.ndarray:
        """A (q, p), a copy."""
        return np.ascontiguousarray(self.engine.decoder.T, dtype=self.problem.dtype)


def start(data: Any, targets: Any, weights: np.ndarray | None, settings: Settings, tick: Any = None) -> Run:
    """Check, choose the regime, gather what is needed and set the start weights.

    data : Source, array or Moments;  targets : Source, array or None;  weights : (m,) float64 or None

    Raises
    ------
    ValueError, TypeError
        Bad settings, or what does not go together, with the reason and the valid choices.
    BackendUnavailableError, UnsupportedOnBackendError
        backend="cuda" without CUDA, or for what has no code there.
    """
    _check(settings)
    rule, loss, optimizer = compatibility.check(
        settings.rule, settings.loss, settings.optimizer, targets is not None or getattr(data, "n_targets", 0) > 0,
        settings.coupling, settings.hidden, settings.batch_size, n_components=settings.n_components,
    )  # fmt: skip
    if not isinstance(data, Moments):
        data = sources.as_source(data)
    name = _backend(data, rule, settings)
    regime, reason = choose_regime(data, loss, rule, settings)
    if regime == "moments":
        if not isinstance(data, Moments):
            data = _gather(data, targets, weights, tick, name)
        described: problem.Problem = problem.from_moments(data, settings.scale)
    else:
        described = problem.from_rows(
            data, None if targets is None else sources.as_source(targets, "targets"), weights, settings.scale, name
        )
    return _assemble(described, settings, rule, loss, optimizer, name, regime, reason)


def _backend(data: Any, rule: rules.Rule, settings: Settings) -> str:
    """The backend that runs: "auto" follows the data, and what has no CUDA code stays on the CPU."""
    if not rule.iterative or settings.hidden:
        what = f"rule={rule.name!r}" if not rule.iterative else "training of hidden layers"
        return backends.resolve_cpu(settings.backend, what)
    return backends.choose(settings.backend, getattr(data, "on_device", False))


def _gather(source: sources.Source, targets: Any, weights: Any, tick: Any, backend: str) -> Moments:
    n_targets = 0 if targets is None else sources.as_source(targets, "targets").shape[1]
    return Moments(source.n_features, n_targets).update(source, targets, weights, tick=tick, backend=backend)


def _assemble(
    described: problem.Problem,
    settings: Settings,
    rule: Any,
    loss: Any,
    optimizer: Any,
    backend: str,
    regime: str,
    reason: str,
) -> Run:
    p = settings.n_components
    if p > min(described.d, described.q):
        raise ValueError(
            f"n_components={p} exceeds min(n_features, n_targets)={min(described.d, described.q)}: there are no more "
            "directions to learn; lower n_components."
        )
    _check_size(described)
    rng = np.random.default_rng(_seed(settings.random_state))
    curvature = described.largest
    if loss is not None and loss.in_family:
        curvature *= float(loss.prefix(p, described.dtype)[0])
    weights, n_encoder = _initial_weights(described, settings, rng)
    if optimizer is not None:
        optimizer = _with_rate(optimizer, settings, described, loss, weights, n_encoder)
    reader = _reader(described, loss, settings, rng)
    recipe = _recipe(described, settings, rule, loss, optimizer, curvature, reader)
    engine = _engine(described, recipe, weights, n_encoder, reader, rng, backend)
    return Run(settings, described, engine, rule, loss, optimizer, backend, regime, reason, curvature)


def _check_size(described: problem.Problem) -> None:
    """Refuse data so large or so small that training would meet inf or zero."""
    sizes = (
        [("X", described.largest)] if described.same else [("X", described.largest), ("targets", described.yy_trace)]
    )
    for name, size in sizes:
        if size != 0.0 and not _RANGE[0] < size < _RANGE[1]:
            order = int(np.round(0.5 * np.log10(size))) if size < np.inf else 154
            raise ValueError(
                f"The second moments of {name} are about {size:.1e}, and training takes numbers between "
                f"{_RANGE[0]:.0e} and {_RANGE[1]:.0e}: squares of gradients leave the range of float64. "
                f"Multiply {name} by 1e{-order}."
            )


def _recipe(
    described: Any, settings: Settings, rule: Any, loss: Any, optimizer: Any, curvature: float, reader: Any
) -> cpu_loop.Plan:
    """What to run, and when to stop  (docs/math.md Eq. 46).

    tol=0 asks for the gradient to vanish exactly.  With mini-batches every batch of an epoch must be within tol, which
    the batches of two epochs in a row hold whatever their order.  Both sides of Eq. 46 are in units of the loss, which
    with targets are those of Y^2 whatever the units of X.
    """
    if settings.stop != "gradient":
        return cpu_loop.Plan(rule, loss, optimizer, settings.coupling, settings.scale, -1.0)
    tol, rounding = settings.tol, 0.0
    if tol > 0.0:
        eps = float(np.finfo(described.dtype if rule.iterative else np.float64).eps)
        rounding = _ROUNDINGS * eps
        tol = max(tol, rounding)
    cross, explained = described.largest, curvature
    if not described.same:
        cross = float(np.sqrt(described.largest) * np.sqrt(described.yy_trace))
        explained = described.yy_trace * (curvature / described.largest if described.largest > 0.0 else 1.0)
    patience = 1 if reader is None else 2 * max(1, described.n_samples // reader.size)
    return cpu_loop.Plan(
        rule, loss, optimizer, settings.coupling, settings.scale, tol,
        (rounding * cross, rounding * described.largest), settings.tol * explained, patience,
    )  # fmt: skip


def choose_regime(data: Any, loss: Any, rule: rules.Rule, settings: Settings) -> tuple[str, str]:
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
    if needs_rows and (why_moments or settings.regime == "moments"):
        other = why_moments or "regime='moments'"
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
    settings, engine = run.settings, run.engine
    began, pace, ask = time.perf_counter(), None, 0
    saved = last = engine.snapshot()
    with engine:
        while run.iteration < settings.max_iter:
            recording = run.iteration % settings.record_every == 0
            if recording:
                last = engine.snapshot()
            until = settings.max_iter - run.iteration
            until = min(until, settings.record_every - run.iteration % settings.record_every)
            if run.iteration < ask:
                until = min(until, ask - run.iteration)
            elif run.iteration == ask > 0:
                engine.watch(True)
                ask = 0
            # One iteration to learn the pace, and one where it is recorded: a call returns its last gradient norm.
            count = 1 if pace is None or recording else max(1, min(until, int(_SLICE_SECONDS / pace)))
            count = min(count, until, engine.most or until)
            before = _decoder_of(engine) if recording and (reference is not None or settings.callback) else None
            tick = time.perf_counter()
            result = engine.advance(run.iteration, count, recording)
            pace = max((time.perf_counter() - tick) / max(result.done, 1), 1e-9)
            grown = recording and _has_grown(run, result.loss)
            if result.diverged or grown:
                engine.restore(saved)
                raise DivergenceError(divergence_message(run, run.iteration + max(result.done, 1), grown))
            if recording:
                at, saved = run.iteration, last
                run.history.iteration.append(at)
                run.history.loss.append(result.loss)
                run.history.gradient_norm.append(result.ratio)
                run.history.seconds.append(time.perf_counter() - began)
                if _record_alignment(run, before, reference):
                    run.stopped_by, run.converged = "alignment", True
            run.iteration += result.done
            if report is not None:
                report("training", run.iteration, settings.max_iter)
            if recording and settings.callback is not None and _call(run, result):
                run.stopped_by = "callback"
            if result.converged and not run.stopped_by:
                if conclusion.judge(run):
                    run.stopped_by, run.converged = "gradient", True
                else:  # a saddle, or a fixed point that is not the solution
                    run.false_stops += 1
                    last = settings.max_iter - engine.plan.patience  # the end of the run is watched in any case
                    ask = min(run.iteration + conclusion.pause(run), last)
                    engine.watch(False)
            if run.stopped_by:
                break
    return run


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


def _call(run: Run, result: cpu_loop.Outcome) -> bool:
    state = State(run.iteration, result.loss, result.ratio, run.engine.encoder, run.engine.decoder.T, run.history)
    return run.settings.callback(state) is True


def _record_alignment(run: Run, before: np.ndarray | None, reference: np.ndarray | None) -> bool:
    """Record against the reference; whether stop="alignment" is reached."""
    if reference is None or before is None:
        return False
    decoder = before.T
    run.history.alignment.append(metrics.axis_alignment_distance(reference, decoder))
    run.history.ratio_tp.append(metrics.ratio_tp(reference, decoder, _EPS_ALIGNED))
    return run.settings.stop == "alignment" and run.history.ratio_tp[-1] == 1.0


def variances(run: Run, directions: np.ndarray) -> np.ndarray:
    """Variance of Y along unit directions (q, p), denominator sum of weights - 1; (p,) float64.

    nan where the weights leave no denominator, as those of a first batch may.
    """
    if not validation.leaves_a_denominator(run.problem.weight_sum):
        return np.full(directions.shape[1], np.nan)
    return np.maximum(run.problem.target_moments(directions), 0.0) / (run.problem.weight_sum - 1.0)


def _check(settings: Settings) -> None:
    validation.check_integer(settings.n_components, "n_components", low=1)
    validation.check_integer(settings.max_iter, "max_iter", low=1)
    validation.check_integer(settings.record_every, "record_every", low=1)
    validation.check_real(settings.tol, "tol", low=0.0)
    if not validation.check_real(settings.init_scale, "init_scale", low=0.0) > 0.0 and settings.init is None:
        raise ValueError("init_scale=0 starts at a critical point that no rule leaves; make it positive.")
    validation.check_choice(settings.stop, STOPS, "stop")
    validation.check_choice(settings.scale, SCALES, "scale")
    validation.check_choice(settings.regime, REGIMES, "regime")
    if settings.callback is not None and not callable(settings.callback):
        raise TypeError(f"callback must be callable, got {type(settings.callback).__name__}")


def _seed(random_state: Any) -> Any:
    """None is a fixed seed; RandomState objects give one draw, so that scikit-learn's habits work."""
    if random_state is None:
        return 0
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, 2**31 - 1))
    return random_state


def _with_rate(
    optimizer: Any, settings: Settings, described: problem.Problem, loss: Any, weights: list[np.ndarray], n_encoder: int
) -> Any:
    rate, schedule = settings.learning_rate, None
    if settings.schedule is not None:
        schedule = optimizers.resolve_schedule(settings.schedule, settings.max_iter)
    if not isinstance(rate, str):
        return optimizer.with_rate(float(rate) if isinstance(rate, (int, float, np.number)) else rate, schedule)
    validation.check_choice(rate, ("auto",), "learning_rate")
    region = _region(described, settings, loss, weights, n_encoder)
    return rates.auto_optimizer(
        optimizer, loss, settings.n_components, region, settings.max_iter, schedule, max(1, n_encoder)
    )


def _region(
    described: problem.Problem, settings: Settings, loss: Any, weights: list[np.ndarray], n_encoder: int
) -> rates.Region:
    """What decides the curvature: the spectrum of the data, what a batch adds to it, and the start."""
    p = settings.n_components
    size = settings.batch_size or (_DROPOUT_BATCH if loss is not None and loss.needs_samples else described.n_samples)
    noise = described.trace / size if size < described.n_samples else 0.0
    with serial_blas():
        sides = (
            weights if n_encoder == 1 else [cpu_loop.chain(weights[:n_encoder]), cpu_loop.chain(weights[n_encoder:])]
        )
        start = max(float(np.linalg.norm(side, 2)) for side in sides) ** 2
        tail = described.tail(p) if loss is not None and loss.name == "vae" else 0.0
    map_size = 1.0
    if not described.same and described.largest > 0.0:
        map_size = max(1.0, float(np.sqrt(described.yy_trace / described.largest)))
    return rates.Region(described.largest, described.trace, tail, described.d, noise, start, map_size)


def _reader(described: Any, loss: Any, settings: Settings, rng: np.random.Generator) -> problem.BatchReader | None:
    if settings.batch_size is not None:
        return problem.BatchReader(described, settings.batch_size, rng)
    if loss is not None and loss.needs_samples:
        return problem.BatchReader(described, _DROPOUT_BATCH, rng)
    return None


def _engine(
    described: Any, recipe: cpu_loop.Plan, weights: Any, n_encoder: int, reader: Any, rng: np.random.Generator,
    backend: str,
) -> Any:  # fmt: skip
    if n_encoder > 1:
        return cpu_loop.ChainEngine(described, recipe, weights, n_encoder, reader)
    encoder, decoder = weights
    if not recipe.rule.iterative:
        with serial_blas():
            return cpu_loop.AlternatingEngine(described, recipe, encoder, decoder)
    if recipe.loss is not None and recipe.loss.needs_samples:
        # masks of their own stream: they must not depend on how iterations are cut into calls
        rng = np.random.default_rng(rng.integers(2**63))
    loop = cpu_loop.LoopEngine
    if backend == "cuda":
        from .cuda_loop import DeviceLoopEngine as loop
    return loop(described, recipe, encoder, decoder if recipe.rule.has_decoder else None, reader, rng)


def _initial_weights(
    described: Any, settings: Settings, rng: np.random.Generator
) -> tuple[list[np.ndarray] | tuple[np.ndarray, np.ndarray], int]:
    """The layers, or (B (p, d), A' (p, q)), and how many of them belong to the encoder."""
    if settings.hidden:
        return _initial_chain(described, settings, rng)
    return _initial_pair(described, settings, rng), 1


def _initial_pair(described: Any, settings: Settings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(B (p, d), A' (p, q)): as given, or normal with deviation init_scale."""
    p, d, q = settings.n_components, described.d, described.q
    if settings.init is None:
        return settings.init_scale * rng.standard_normal((p, d)), settings.init_scale * rng.standard_normal((p, q))
    if not isinstance(settings.init, (tuple, list)) or len(settings.init) != 2:
        raise ValueError("init must be None or a pair (decoder (q, p), encoder (p, d)).")
    decoder, encoder = (np.asarray(part, dtype=np.float64) for part in settings.init)
    for name, part, shape in (("decoder", decoder, (q, p)), ("encoder", encoder, (p, d))):
        if part.shape != shape:
            raise ValueError(f"init: the {name} has shape {part.shape}, expected {shape}.")
        if not np.isfinite(part).all():
            raise ValueError(f"init: the {name} holds NaN or inf.")
    return encoder, decoder.T


def _initial_chain(described: Any, settings: Settings, rng: np.random.Generator) -> tuple[list[np.ndarray], int]:
    """Layers d -> h_1 -> ... -> p and p -> ... -> h_1 -> q, and how many belong to the encoder.

    Each layer is a scaled orthogonal matrix.  Layers of deviation init_scale would have a product that takes ages to
    grow; `rates.chain_size` makes them grow as fast as two layers of that deviation do.
    """
    widths = [described.d, *settings.hidden, settings.n_components]
    shapes = [(b, a) for a, b in itertools.pairwise(widths)]
    back = [settings.n_components, *reversed(settings.hidden), described.q]
    n = len(shapes)
    shapes += [(b, a) for a, b in itertools.pairwise(back)]
    if settings.init is not None:
        layers = [np.asarray(layer, dtype=np.float64) for layer in settings.init]
        if [layer.shape for layer in layers] != shapes:
            raise ValueError(f"init: layers have shapes {[layer.shape for layer in layers]}, expected {shapes}.")
        return layers, n
    size = rates.chain_size(settings.init_scale * float(np.sqrt(described.d)), n)
    layers = []
    for rows, columns in shapes:
        with serial_blas():
            basis = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))[0]
        layers.append(size * (basis if rows >= columns else basis.T))
    return layers, n


def _decoder_of(engine: Any) -> np.ndarray:
    return np.array(engine.decoder)


def divergence_message(run: Run, iteration: int, grown: bool = False) -> str:
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


__all__ = ["History", "Run", "Settings", "State", "choose_regime", "proceed", "start"]
