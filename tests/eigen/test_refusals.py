"""What top_eigenpairs refuses: counts, options, too little memory, data that are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from lae_fast import plan
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.errors import MemoryLimitError
from tests.oracle.eigen_cases import SIDES, SOLVERS

pytestmark = pytest.mark.usefixtures("serial_oracle")


@pytest.mark.needs_jit
@SOLVERS
def test_too_little_memory_names_the_figures(rng, solver):
    X = rng.standard_normal((600, 500))
    with pytest.raises(
        MemoryLimitError, match=rf"max_memory=1 kB is too small: the {solver} route needs [\d.]+ [kM]B for 600 x 500"
    ):
        top_eigenpairs(X, 5, solver=solver, max_memory=1000)
    need = plan.gram_bytes(500, 8, 1) if solver == "gram" else 2 * 500 * 60 * 8
    pairs = top_eigenpairs(X, 5, solver=solver, max_memory="1GB")
    assert need <= pairs.workspace_bytes <= 1e9


@pytest.mark.parametrize("p", [0, -1, 13, 1.0, 0.0, 1.5, True, "3", np.nan])
def test_bad_counts(rng, p):
    with pytest.raises(ValueError, match=r"p="):
        top_eigenpairs(rng.standard_normal((30, 12)), p)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "magic"}, "choose one of 'auto', 'gram', 'krylov'"),
        ({"backend": "tpu"}, "choose one of 'auto', 'cpu', 'cuda'"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"tol": "x"}, "tol='x'"),
        ({"n_oversamples": 0}, "n_oversamples=0"),
        ({"sample_weight": np.ones(3)}, r"sample_weight has shape \(3,\)"),
        ({"sample_weight": -np.ones(30)}, "must not be negative, first at row 0"),
        ({"sample_weight": np.zeros(30)}, "zero for every sample"),
        ({"max_memory": "much"}, "write for example '500MB'"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_bad_options(rng, options, message):
    with pytest.raises(ValueError, match=message):
        top_eigenpairs(rng.standard_normal((30, 12)), 2, **options)


@SOLVERS
@SIDES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_data_are_named_on_every_route(rng, solver, wide, bad):
    X = rng.standard_normal((50, 700) if wide else (700, 50)).astype(np.float32)
    row, column = (33, 411) if wide else (411, 33)
    X[row, column] = bad
    with pytest.raises(ValueError, match=rf"first at row {row}, column {column}\b"):
        top_eigenpairs(X, 3, solver=solver)
