"""What the functions of lae_fast.theory refuse: values and types."""

from types import SimpleNamespace

import numpy as np
import pytest

from lae_fast import losses, theory
from tests.oracle.loss_cases import PRIOR
from tests.oracle.theory_cases import VALUES

S = np.diag(VALUES)
TARGETS = SimpleNamespace(xx=S, xy=np.eye(5)[:, :4], yy_trace=9.0, n_samples=10, weight_sum=10.0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.optimum(S, 6), r"p=6 must be an integer >= 1 and <= min\(d, q\) = 5"),
        (lambda: theory.optimum(TARGETS, 5), r"min\(d, q\) = 4"),
        (lambda: theory.optimum(S, 0), "p=0 must be"),
        (lambda: theory.optimum(S, 2, scale="rms"), "scale='rms' is unknown; choose one of 'mean', 'sum'"),
        (lambda: theory.optimum(np.ones((3, 2)), 1), "symmetric"),
        (lambda: theory.optimum(np.triu(np.ones((3, 3))), 1), "symmetric"),
        (lambda: theory.optimum(S, 2, "vae"), "vae_optimum"),
        (lambda: theory.optimum(TARGETS, 2, losses.sum_l2(0.1)), "no closed form is known for loss 'sum_l2'"),
        (lambda: theory.optimum(S, 2, losses.nonuniform_l2([0.1])), "lams has 1 entries"),
        (lambda: theory.optimum(S, 2, losses.nested_dropout(PRIOR)), "prior has 3 entries"),
        (lambda: theory.optimum(S, 2, "mse", mixing=np.ones((2, 2))), "linearly independent"),
        (lambda: theory.optimum(S, 2, "mse", mixing=np.ones((3, 2))), r"mixing must have shape \(2, 2\)"),
        (lambda: theory.optimum(S, 2, losses.sum_l2(0.1), mixing=2 * np.eye(2)), "orthonormal"),
        (lambda: theory.optimum(S, 2, "ordered", mixing=[1.0, 0.0]), "nonzero factors"),
        (lambda: theory.optimum(S, 2, losses.nonuniform_l2([0.1, 0.2]), mixing=[1.0, 2.0]), r"\+1 and -1"),
        (lambda: theory.minimum(S, 2, "vae", scale="sum"), "scale='mean'"),
        (lambda: theory.critical_point(S, [0, 0], 2), "distinct"),
        (lambda: theory.critical_point(S, [0, 5], 2), "between 0 and 4"),
        (lambda: theory.critical_point(S, [0, 1, 2], 2), "more than p = 2"),
        (lambda: theory.critical_point(S, [4], 1, losses.sum_l2(0.7)), "does not exceed the penalty"),
        (lambda: theory.descending_directions(TARGETS, [0], 1), "Y = X only"),
        (lambda: theory.flat_directions(np.eye(3), [0], 1), "distinct eigenvalues"),
        (lambda: theory.flat_directions(np.diag([1.0, 0.0]), [0], 1), "distinct eigenvalues"),
        (lambda: theory.flat_directions(np.zeros((2, 2)), [0], 1), "distinct eigenvalues"),
        (lambda: theory.flat_directions(S, [0], 1, losses.sum_l2(1.2)), "equals an eigenvalue"),
        (lambda: theory.flat_directions(S, [0], 3, losses.nested_dropout([0.5, 0.0, 0.5])), "zero in it"),
        (lambda: theory.condition_bound(VALUES, "mse"), "no bound is known"),
        (lambda: theory.condition_bound([1.0], "ordered"), "p >= 2"),
        (lambda: theory.condition_bound([1.0, 2.0], "ordered"), "descending"),
        (lambda: theory.condition_bound([1.0, 1.0], "ordered"), "first over the last"),
        (lambda: theory.shrinkage([-1.0], "mse"), "non-negative"),
        (lambda: theory.ppca(S, 5), "leaves no eigenvalue"),
        (lambda: theory.ppca(np.diag([1.0, 0.0, 0.0]), 1), "unbounded"),
        (lambda: theory.ppca(TARGETS, 2), "without xy"),
        (lambda: theory.ppca(S, 2, -1.0), "noise_variance"),
        (lambda: theory.vae_optimum(TARGETS, 2), "without xy"),
    ],
)
def test_bad_values(call, match):
    with pytest.raises(ValueError, match=match):
        call()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.optimum(S, 2.0), "p=2.0 must be an integer"),
        (lambda: theory.critical_point(S, [0.5], 1), "must be a sequence of integers"),
        (lambda: theory.optimum(S + 1j, 2), "real numbers"),
    ],
)
def test_bad_types(call, match):
    with pytest.raises(TypeError, match=match):
        call()
