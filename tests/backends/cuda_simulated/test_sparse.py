"""Sparse matrices on the CUDA backend, on Numba's simulator: passes, scores, and the Gram matrix of stored entries.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_sparse.py
Chunks are cut to a few lines, so that streaming, pipelining and residence have something to do.
"""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.eigen.solve import top_eigenpairs
from tests.oracle import naive, simulator
from tests.oracle.simulated_rows import assert_pairs

pytestmark = [simulator.only, pytest.mark.usefixtures("small_chunks")]

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays
    from lae_fast.backends.cuda.passes import sparse


@pytest.fixture
def stored_entries(monkeypatch):
    """The names of the passes over stored entries on the device, in order: denser matrices are read as tiles."""
    names = []
    for name in ("row_pass", "project", "gram"):
        run = getattr(sparse, name)
        monkeypatch.setattr(sparse, name, lambda *given, name=name, run=run: names.append(name) or run(*given))
    return names


@pytest.mark.parametrize("by_feature", [False, True])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_passes(by_feature, center, weighted, stored_entries):
    X = scipy.sparse.random(33, 9, 0.1, "csr", dtype=np.float32, random_state=2)
    X = X.T.tocsr() if by_feature else X
    weights = np.random.default_rng(3).integers(0, 3, X.shape[0]).astype(float) if weighted else None
    pairs = top_eigenpairs(X, 2, solver="krylov", backend="cuda", center=center, sample_weight=weights)
    assert_pairs(pairs, X.toarray(), center, weights)
    assert pairs.solver == "krylov" and "row_pass" in stored_entries


def test_sparse_scores_and_standardize(stored_entries):
    X = scipy.sparse.random(33, 9, 0.1, "csr", dtype=np.float32, random_state=2)
    there = lf.PCA(2, svd_solver="krylov", standardize=True, backend="cuda").fit(X)
    here = lf.PCA(2, svd_solver="krylov", standardize=True).fit(X)
    np.testing.assert_allclose(there.explained_variance_, here.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(there.transform(X), here.transform(X), atol=1e-4)
    assert {"row_pass", "project"} <= set(stored_entries)


@pytest.mark.parametrize("shape", [(33, 9), (9, 33)], ids=["tall", "wide"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sparse_gram_reads_stored_entries_where_it_pays(shape, weighted, stored_entries, monkeypatch):
    X = scipy.sparse.random(*shape, 0.1, "csr", dtype=np.float32, random_state=2)
    weights = np.random.default_rng(3).integers(0, 3, shape[0]).astype(float) if weighted else None
    for standardize in (False, True):
        there, here = (
            top_eigenpairs(X, 2, solver="gram", backend=name, sample_weight=weights, standardize=standardize)
            for name in ("cuda", "cpu")
        )
        assert there.solver == "gram" and there.converged.all()
        np.testing.assert_allclose(there.values, here.values, rtol=1e-5)
    assert stored_entries.count("gram") == 2
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 64)  # no room for both formats: dense chunks
    moments = lf.Moments.from_data(X, sample_weight=weights, backend="cuda")
    assert stored_entries.count("gram") == 2
    bound = 1e-5 * np.abs(naive.moments(X.toarray(), weights)[2]).max()
    np.testing.assert_allclose(moments.xx, naive.moments(X.toarray(), weights)[2], atol=bound)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sparse_scores_of_columns_far_from_zero(dtype):
    """The rules are the host's: such a column is centred before it is multiplied."""
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((60, 30)) * (rng.random((60, 30)) < 0.1)).astype(dtype)
    X[:, 4] = (1e6 if dtype == "float32" else 1e12) + rng.standard_normal(60)
    model = lf.PCA(2, whiten=True).fit(X)
    wanted = model.transform(X)
    scores = model.set_params(backend="cuda").transform(scipy.sparse.csr_matrix(X))
    np.testing.assert_allclose(scores, wanted, atol=1e-4 if dtype == "float32" else 1e-10)
