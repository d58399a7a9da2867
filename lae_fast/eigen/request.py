"""What `top_eigenpairs` was asked for, and the operators on rows that it takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import backends, plan
from .. import progress as progress_reports
from ..data import sources
from ..data.checkpoint import Checkpoint
from ..operators import rows, sparse
from .uncounted_rows import EXPECTED

Stage = str | progress_reports.Passes

# What is asked for at the least: residuals of this many eps of the largest eigenvalue.
_FLOOR_EPS = 8.0


@dataclass(frozen=True)
class Job:
    """What was asked for, validated, and what computes it."""

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

    def wanted(self, values: np.ndarray, trace: float) -> int | None:
        """p, given Ritz values from the top down: they bound the eigenvalues from below, so their sums do too."""
        if self.count is not None:
            return self.count
        if trace <= 0:
            return 1
        reached = int(np.searchsorted(np.cumsum(values) / trace, self.n_components, side="right")) + 1
        return reached if reached <= values.size else None

    def asked(self, values: np.ndarray, eps: float, allowance: np.ndarray | float = 0.0) -> np.ndarray:
        """Residual norms asked for: max(tol l_i, 8 eps l_1 + allowance).

        allowance : for the rounding of what residuals are measured against, once they are.  A residual that exceeds the
            floor by no more than that says nothing of the component.
        """
        return np.maximum(self.tol * values, _FLOOR_EPS * eps * values[0] + allowance)

    def at_most(self, p: int) -> Job:
        """The same request of at most p components."""
        count = self.count
        return self if count is None or count <= p else dataclasses.replace(self, n_components=p)

    def tick(self, stage: Stage) -> Any:
        return lambda done, total: self.report(str(stage), done, total)

    def of_operator(self, stage: Stage) -> dict[str, Any]:
        """What every operator on the rows takes from the job."""
        return {
            "weights": self.weights,
            "center": self.center,
            "standardize": self.standardize,
            "tick": self.tick(stage),
            "backend": self.backend.name,
        }


def rows_operator(
    source: sources.Source,
    job: Job,
    by_feature: bool,
    block: int,
    stage: Stage,
    location: np.ndarray | None = None,
    held: int = 0,
) -> rows.RowsOperator | sparse.SparseOperator:
    """S over stored entries where that pays, else over tiles; `held` : bytes of max_memory that tiles do not have."""
    if isinstance(source, sources.SparseSource) and plan.sparse_pays(*source.shape, source.nnz):
        operator = sparse.SparseOperator(source, by_feature=by_feature, block=block, **job.of_operator(stage))
        if not operator.is_far:
            return operator
    return tiles_operator(source, job, by_feature, block, stage, location, held=held)


def tiles_operator(
    source: sources.Source,
    job: Job,
    by_feature: bool,
    block: int,
    stage: Stage,
    location: np.ndarray | None = None,
    precision: str = "float32",
    held: int = 0,
) -> rows.RowsOperator:
    """S over tiles; `held` as of `rows_operator`."""
    return rows.RowsOperator(
        source, by_feature=by_feature, block=block, location=location, precision=precision,
        max_memory=job.max_memory, held=held, **job.of_operator(stage),
    )  # fmt: skip
