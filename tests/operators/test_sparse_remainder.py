"""What components leave of the rows of a sparse matrix, by its stored entries: against rows made dense."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.data import sources
from lae_fast.operators import remainder


def model(d, p, mean, dtype):
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.standard_normal((d, p)))[0].T.astype(dtype)
    return mean * rng.standard_normal(d), components, rng.uniform(0.5, 2.0, d)


def expected(X, mean, components, inverse):
    z = (np.asarray(X, dtype=np.longdouble) - mean) * inverse
    latent = z @ components.T.astype(np.longdouble)
    rest = z - latent @ components.astype(np.longdouble)
    return latent.astype(float), (rest**2).sum(axis=1).astype(float), (z**2).sum(axis=1).astype(float)


def found(X, *parameters, **options):
    parts = list(remainder.projected(sources.as_source(X), *parameters, "cpu", **options))
    assert [first for first, *_ in parts] == [0, *(last for _, last, *_ in parts[:-1])] and parts[-1][1] == X.shape[0]
    return tuple(np.concatenate([part[i] for part in parts]) for i in (2, 3, 4))


@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("mean", [0.0, 2.0])
@pytest.mark.parametrize("p", [0, 4])
def test_stored_entries(container, dtype, scaled, mean, p, monkeypatch):
    X = scipy.sparse.random(900, 300, 0.02, random_state=2, dtype=dtype)
    mean, components, inverse = model(300, p, mean, dtype)
    monkeypatch.setattr(sources.SparseSource, "block", None)
    monkeypatch.setattr(remainder, "_SPARSE_ROWS", 400)
    parts = found(container(X), mean, components, inverse if scaled else None)
    for ours, theirs in zip(parts, expected(X.toarray(), mean, components, inverse if scaled else 1.0)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_rows_in_the_components_are_made_dense():
    """Of rows that components explain but for 1e-9, a difference of squares says nothing."""
    rng = np.random.default_rng(1)
    X = scipy.sparse.csr_array(np.where(np.arange(300) < 3, rng.standard_normal((500, 3)) @ np.eye(3, 300), 0.0))
    X = X + 1e-9 * scipy.sparse.random(500, 300, 0.01, random_state=1, format="csr")
    mean, components = np.zeros(300), np.eye(3, 300)
    ours, theirs = found(X, mean, components, None), expected(X.toarray(), mean, components, 1.0)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-10)
    coarse = found(X, mean, components, None, least=1e-6)
    assert np.abs(coarse[1] - theirs[1]).max() < 1e-14  # nobody minds


def test_a_nan_is_named():
    X = scipy.sparse.random(900, 300, 0.02, random_state=2, format="csr")
    X.data[X.indptr[700]] = np.nan
    mean, components, _ = model(300, 2, 1.0, np.float64)
    with pytest.raises(ValueError, match=f"row 700.*column {X.indices[X.indptr[700]]}"):
        found(X, mean, components, None)


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_the_score_of_a_wide_model_needs_no_square_matrix(container):
    """d = 20 000: one d x d matrix of float64 would take 3.2 GB."""
    X = container(scipy.sparse.random(40, 20_000, 0.01, random_state=3).toarray())
    pca = lf.PCA(3).fit(X)
    pca.score(X)  # compiles
    tracemalloc.start()
    score = pca.score(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(score) and peak < 64e6, peak


def test_noise_of_a_huge_matrix_of_low_rank_makes_no_dense_rows(monkeypatch):
    rng = np.random.default_rng(4)
    used, n = np.sort(rng.choice(2**16, 40, replace=False)), 2**13
    rows = scipy.sparse.csr_array(rng.standard_normal((n, 2)) * (rng.random((n, 2)) < 0.02))
    wide = scipy.sparse.csr_array((rng.standard_normal(80), (np.repeat([0, 1], 40), np.tile(used, 2))), (2, 2**16))
    monkeypatch.setattr(sources.SparseSource, "block", None)
    pca = lf.PCA(4, tol=1e-6).fit(rows @ wide)
    assert pca.noise_variance_ == 0.0
