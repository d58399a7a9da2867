"""Property: any shape, dtype, strides, weights and cut into blocks give the eigenpairs of the definition."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from tests.oracle import cases
from tests.oracle.tolerances import eps

SHORT = ("uint8", "int32", "float16", "float32", "float64")
DTYPES = (*SHORT, *cases.RARE)


@st.composite
def matrices(draw):
    """An array of some layout, and the same numbers in float64."""
    m, d = draw(st.integers(2, 70)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.dtype(draw(st.sampled_from(DTYPES if cases.full else SHORT)))
    X = rng.standard_normal((m, d)) * draw(st.sampled_from([0.5, 1.0])) ** np.arange(d)
    if dtype.kind == "f":
        X += draw(st.sampled_from([0.0, 3.0]))
    else:
        X = np.clip(X * 20 + 40, 0, 100).round() if dtype.kind != "b" else X > 0
    X = X.astype(dtype)
    X[:, rng.random(d) < 0.1] = X[0, 0]  # constant columns
    step = draw(st.sampled_from([-2, -1, 1, 2])), draw(st.sampled_from([-3, -1, 1, 2]))
    room = np.zeros((abs(step[0]) * m, abs(step[1]) * d), dtype, order=draw(st.sampled_from("CF")))
    view = room[:: step[0], :: step[1]]
    view[...] = X
    room.setflags(write=draw(st.booleans()))
    return room[:: step[0], :: step[1]], X.astype(np.float64)


def check(pca, X, w):
    """Residuals, order and orthonormality against the weighted covariance, relative to its largest eigenvalue."""
    w = np.ones(len(X)) if w is None else w
    centred = X - w @ X / w.sum()
    covariance = (centred * w[:, None]).T @ centred / (w.sum() - 1)
    values = np.maximum(np.linalg.eigvalsh(covariance)[::-1][: pca.n_components_], 0)
    # the oracle's mean is rounded: equal numbers have some variance there
    own = X.shape[1] * (8 * eps(np.float64) * np.abs(X).max()) ** 2
    bound = 200 * eps(pca.components_.dtype) * values[0] + own
    U = pca.components_.astype(np.float64).T
    assert np.abs(pca.explained_variance_ - values).max() <= bound
    assert np.abs(covariance @ U - U * pca.explained_variance_).max() <= bound
    assert np.abs(U.T @ U - np.eye(U.shape[1])).max() <= 200 * eps(pca.components_.dtype)


@pytest.mark.draws
@settings(max_examples=150, deadline=None)
@given(
    given=matrices(),
    weighted=st.booleans(),
    solver=st.sampled_from(["gram", "krylov"]),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_arrays(given, weighted, solver, share, seed):
    data, X = given
    w = np.random.default_rng(seed).integers(0, 3, len(X)) + (np.arange(len(X)) < 2.0) if weighted else None
    p = 1 + int(share * (min(X.shape) - 1))
    check(lf.PCA(p, svd_solver=solver).fit(data, sample_weight=w), X, w)


@pytest.mark.draws
@settings(max_examples=100, deadline=None)
@given(given=matrices(), weighted=st.booleans(), cuts=st.lists(st.integers(0, 70), max_size=6), once=st.booleans())
def test_blocks(given, weighted, cuts, once):
    """However rows are cut: the definition, and the bits of one block."""
    data, X = given
    w = np.random.default_rng(1).random(len(X)) + 0.5 if weighted else None
    edges = sorted({0, len(X), *(cut for cut in cuts if cut < len(X))})
    parts = [data[a:b] for a, b in itertools.pairwise(edges)]
    p = min(3, *X.shape)
    pca = lf.PCA(p, svd_solver="gram").fit(iter(parts) if once else parts, sample_weight=w)
    whole = lf.PCA(p, svd_solver="gram").fit(iter([data]) if once else [data], sample_weight=w)
    np.testing.assert_array_equal(pca.components_, whole.components_)
    np.testing.assert_array_equal(pca.explained_variance_, whole.explained_variance_)
    check(pca, X, w)
