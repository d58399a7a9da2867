"""What is asked for: the options of a caller, the request that the routes serve, and the operators that it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import backends, plan, validation
from .. import progress as progress_reports
from ..data import sources
from ..data.checkpoint import Checkpoint
from ..operators import rows, sparse
from ..operators.moments import Moments

SOLVERS = ("auto", "gram", "krylov")
# Components that the cost model reckons with where their number is not known before the spectrum is.
EXPECTED = 32
# What is asked for at the least: residuals of this many eps of the largest eigenvalue.
_FLOOR_EPS = 8.0

# The name of a stage of the work, or the passes of an iteration.
Stage = str | progress_reports.Passes
# S by passes over rows, made dense or as stored entries.
OperatorOnRows = rows.RowsOperator | sparse.SparseOperator


@dataclass(frozen=True, kw_only=True)
class Options:
    """How eigenpairs are to be computed, as `top_eigenpairs` explains; checked when they are made."""

    tol: float = 0.0
    center: bool = True
    standardize: bool = False
    solver: str = "auto"
    n_oversamples: int = 10
    random_state: Any = None
    max_memory: Any = None
    backend: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        validation.check_choice(self.solver, SOLVERS, "solver")
        backends.check_precision(self.precision, self.backend)
        backends.resolve(self.backend)
        validation.check_real(self.tol, "tol", low=0.0)
        validation.check_integer(self.n_oversamples, "n_oversamples", low=1)
        validation.memory_bytes(self.max_memory)


@dataclass(frozen=True)
class Request:
    """What was asked for, validated, and what computes it.

    n_components : an integer, a fraction of the trace in (0, 1), or None for all
    largest : the most components that there can be;  max_memory : bytes left for the workspace, or None
    """

    n_components: int | float | None
    largest: int
    tol: float
    center: bool
    standardize: bool
    weights: np.ndarray | None
    solver: str
    oversamples: int
    seed: Any
    max_memory: int | None
    report: progress_reports.Reporter
    checkpoint: Checkpoint | None
    backend: backends.Backend
    precision: str

    @classmethod
    def of(
        cls,
        options: Options,
        p: Any,
        largest: int,
        backend: backends.Backend,
        *,
        report: progress_reports.Reporter,
        weights: np.ndarray | None = None,
        checkpoint: Checkpoint | None = None,
        held: int = 0,
    ) -> Request:
        """The request of p components under these options.

        held : bytes of `max_memory` that something else takes

        Raises
        ------
        ValueError
            p is not one of the things that `n_components` may be.
        UnsupportedOnBackendError
            The card has no such precision.
        """
        if backend.name == "cuda":
            backends.require_precision(options.precision)
        limit = validation.memory_bytes(options.max_memory)
        return cls(
            n_components=_checked_count(p, largest),
            largest=largest,
            tol=float(options.tol),
            center=bool(options.center),
            standardize=bool(options.standardize),
            weights=weights,
            solver=options.solver,
            oversamples=int(options.n_oversamples),
            seed=start_seed(options.random_state),
            max_memory=None if limit is None else limit - held,
            report=report,
            checkpoint=checkpoint,
            backend=backend,
            precision=options.precision,
        )

    @property
    def count(self) -> int | None:
        """p where it is known before the spectrum is."""
        if isinstance(self.n_components, float):
            return None
        return self.largest if self.n_components is None else self.n_components

    @property
    def expected(self) -> int:
        """p, or a guess of it, for the cost model."""
        return min(self.largest, EXPECTED) if self.count is None else self.count

    def block(self, n_entries: int | None = None) -> int:
        """Columns of a Krylov block on vectors of that length: p and oversamples; None: as many as there can be."""
        return plan.krylov_block(self.expected, self.oversamples, self.largest if n_entries is None else n_entries)

    def wanted(self, values: np.ndarray, trace: float) -> int | None:
        """p, given Ritz values from the top down; None where they do not say.

        Ritz values bound the eigenvalues from below, and so do their sums: a fraction that they reach is reached.
        """
        if not isinstance(self.n_components, float):
            return self.count
        if trace <= 0:
            return 1
        reached = int(np.searchsorted(np.cumsum(values) / trace, self.n_components, side="right")) + 1
        return reached if reached <= values.size else None

    def tolerances(self, values: np.ndarray, eps: float, allowance: np.ndarray | float = 0.0) -> np.ndarray:
        """Largest residual norms (p,) that will do: max(tol l_i, 8 eps l_1 + allowance).

        allowance : for the rounding of what residuals are measured against, once they are.  A residual that exceeds the
            floor by no more than that says nothing of the component.
        """
        return np.maximum(self.tol * values, _FLOOR_EPS * eps * values[0] + allowance)

    def share_of_tolerances(self, share: float, dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
        """Tolerances of an iteration in `dtype`, which stops early so that rounding has room."""
        eps = float(np.finfo(dtype).eps)
        return lambda values: share * self.tolerances(values, eps)

    def at_most(self, p: int) -> Request:
        """The same request of at most p components."""
        count = self.count
        return self if count is None or count <= p else dataclasses.replace(self, n_components=p)

    def tick(self, stage: Stage) -> Callable[[int, int | None], None]:
        """What a pass calls after each chunk."""
        return lambda done, total: self.report(str(stage), done, total)


def _checked_count(p: Any, largest: int) -> int | float | None:
    if p is None:
        return None
    if isinstance(p, (float, np.floating)) and 0.0 < p < 1.0:
        return float(p)
    if isinstance(p, (bool, float, np.floating)) or not 1 <= validation.check_integer(p, "p", low=1) <= largest:
        raise ValueError(
            f"p={p!r} must be an integer between 1 and {largest}, a fraction between 0 and 1, or None for all."
        )
    return int(p)


def start_seed(random_state: Any) -> Any:
    if random_state is None:
        return 0
    if hasattr(random_state, "randint"):  # a legacy RandomState, which scikit-learn's users pass
        return int(random_state.randint(2**31 - 1))
    try:
        np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise validation.ParameterTypeError(
            f"random_state={random_state!r} must be None, an integer >= 0 or a NumPy generator."
        ) from error
    return random_state


class OperatorUse(NamedTuple):
    """How an operator on rows is going to be used.

    by_feature : lines are features;  block : columns that it multiplies
    stage : what progress calls it;  location : (d,) the mean, where it is known
    held : bytes of `max_memory` that something else takes;  precision : of products of float32
    settles : blocks are components (`rows.RowsOperator`)
    """

    by_feature: bool
    block: int
    stage: Stage
    location: np.ndarray | None = None
    held: int = 0
    precision: str = "float32"
    settles: bool = False


def rows_operator(source: sources.Source, request: Request, use: OperatorUse) -> OperatorOnRows:
    """S over stored entries where that pays, else over tiles."""
    if sparse.stored_entries_pay(source):
        operator = sparse.SparseOperator(source, **_common(request, use))
        if not operator.is_far:
            return operator
    return tiles_operator(source, request, use)


def tiles_operator(source: sources.Source, request: Request, use: OperatorUse) -> rows.RowsOperator:
    """S over tiles."""
    return rows.RowsOperator(
        source, location=use.location, precision=use.precision, max_memory=request.max_memory, held=use.held,
        **_common(request, use),
    )  # fmt: skip


def gathered_moments(
    source: sources.Source, request: Request, checkpoint: Checkpoint | None = None, precision: str = "float32"
) -> Moments:
    """The d x d moments of the rows, in one pass.  precision : of products of float32"""
    moments = Moments(source.n_features, center=request.center)
    return moments.update(
        source, sample_weight=request.weights, tick=request.tick("Gram of the features"), backend=request.backend.name,
        checkpoint=checkpoint, precision=precision,
    )  # fmt: skip


def _common(request: Request, use: OperatorUse) -> dict[str, Any]:
    """What every operator on rows takes."""
    return {
        "weights": request.weights,
        "center": request.center,
        "standardize": request.standardize,
        "by_feature": use.by_feature,
        "block": use.block,
        "settles": use.settles,
        "tick": request.tick(use.stage),
        "backend": request.backend.name,
    }
