"""Sparse matrices: kernels against their naive twins, the operator and `PCA` against dense data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast import plan
from lae_fast.backends.cpu.passes import sparse as kernels
from lae_fast.data import sources
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.projection import scores
from lae_fast.operators.sparse import SparseOperator
from tests.oracle import cases, naive
from tests.oracle.tolerances import eps, tolerance

# Each pair is a set of kernels to compile: the short run has three of them.
SHORT = (np.float32, np.int32), (np.float64, np.int64), (np.uint8, np.int32)
KINDS = (
    *SHORT, (np.float32, np.int64), (np.float64, np.int32), (np.int16, np.int32), (np.int8, np.int64),
    (np.bool_, np.int32),
)  # fmt: skip


@st.composite
def matrices(draw):
    """Small CSR matrices: any density, empty rows and columns, unsorted indices, both index dtypes."""
    m, n = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dense = rng.standard_normal((m, n)) + draw(st.sampled_from([0.0, 3.0]))
    dense[rng.random((m, n)) > draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))] = 0.0
    dense[:, rng.random(n) < 0.2] = 0.0
    dense[rng.random(m) < 0.2] = 0.0
    dtype, order = draw(st.sampled_from(KINDS if cases.full else SHORT))
    if np.dtype(dtype).kind == "u":
        dense = np.abs(dense)
    matrix = scipy.sparse.csr_array(dense.round(3 if np.dtype(dtype).kind == "f" else 0).astype(dtype))
    matrix.indices, matrix.indptr = matrix.indices.astype(order), matrix.indptr.astype(order)
    return matrix


@pytest.mark.draws
@settings(max_examples=60, deadline=None)
@given(
    X=matrices(),
    by_feature=st.booleans(),
    weighted=st.booleans(),
    b=st.sampled_from([1, 30, 64, 100]),
    tile=st.sampled_from([8, 64]),
    reach=st.sampled_from([3, 7, 1000]),
)
def test_kernels_against_their_twins(X, by_feature, weighted, b, tile, reach):
    rng = np.random.default_rng(0)
    source = sources.SparseSource(X)
    lines, n = source.n_lines(by_feature), source.n_lines(not by_feature)
    dense = (X.toarray().T if by_feature else X.toarray()).astype(float)
    dtype = source.compute_dtype
    part = source.lines(0, lines, by_feature)
    weights = rng.random(n if by_feature else lines) if weighted else np.empty(0)
    sums, squares = np.zeros((2, lines if by_feature else n))
    counts, largest = np.zeros(n, np.int64), np.zeros(1)
    marks = np.full(n, -1)
    assert kernels.statistics_chunk(*part, by_feature, 0.5, weights, marks, counts, sums, squares, largest) == 0
    expected = naive.sparse_statistics(dense, by_feature, 0.5, weights if weighted else None)
    for found, wanted in zip((sums, squares, counts, largest[0]), expected):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)

    block = kernels.padded(rng.standard_normal((n, b)).astype(dtype))
    offset, alpha = rng.standard_normal(block.shape[1]).astype(dtype), rng.standard_normal(lines)
    line_weights = rng.random(lines) if weighted else np.empty(0)
    heavy = np.flatnonzero(rng.random(n) < 0.3)
    wide = block.shape[1]
    image, inner = np.zeros((n, wide), dtype), np.zeros((wide, wide), dtype)
    exact, total = np.zeros((heavy.size, wide)), np.zeros(wide)
    kernels.pass_chunk(
        *part, dtype.type(0.5), alpha, line_weights, block, offset, reach, np.empty(tile, np.int64),
        np.empty(tile, dtype), np.empty((tile, wide), dtype), image, inner, heavy, exact, total,
        np.empty((0, wide), dtype), np.empty((0, wide)),
    )  # fmt: skip
    out = np.zeros((n, wide))
    kernels.commit(image, heavy, exact, out)
    assert not image.any() and not exact.any()
    rows = np.empty((lines, wide), dtype)
    kernels.project_chunk(*part, dtype.type(0.5), alpha, block, offset, reach, np.empty(lines, np.int64), rows)
    twin = naive.sparse_pass(dense, 0.5, alpha, line_weights if weighted else None, block, offset)
    bound = naive.sparse_pass(abs(dense), 0.5, -abs(alpha), line_weights if weighted else None, abs(block), abs(offset))
    below = np.tril(np.ones((wide, wide)))  # of `inner` only that triangle is filled
    for found, wanted, size, used in zip((rows, out, inner, total), twin, bound, (1, 1, below, 1)):
        error = abs(found - wanted) * used
        assert (error <= tolerance("row_pass", dtype) * (abs(size) + 1e-30)).all()


def truth(X, V, weights, center, standardize):
    return naive.apply_scatter(X.toarray(), V, weights, center, standardize).astype(float)


@pytest.mark.draws
@settings(max_examples=40, deadline=None)
@given(
    X=matrices(),
    by_feature=st.booleans(),
    weighted=st.booleans(),
    center=st.booleans(),
    standardize=st.booleans(),
)
def test_operator_is_the_scatter(X, by_feature, weighted, center, standardize):
    rng = np.random.default_rng(1)
    m, d = X.shape
    weights = rng.integers(1, 4, m).astype(float) if weighted else None
    if m < 2:
        return
    source = sources.SparseSource(X)
    operator = SparseOperator(source, weights=weights, center=center, standardize=standardize, by_feature=by_feature)
    V = rng.standard_normal((operator.dim, 3)).astype(source.compute_dtype)
    image, inner = operator.apply_inner(V)
    dense = X.toarray().astype(float)
    if by_feature:
        w = np.ones(m) if weights is None else weights
        centred = dense - (w @ dense) / w.sum() if center else dense
        squares = w @ centred**2
        rounding = squares > 1e-12 * (w @ dense**2)
        centred = centred * rounding if standardize else centred
        if standardize:
            centred = centred / np.where(rounding, np.sqrt(squares / (w.sum() - 1)), 1)
        K = np.sqrt(w)[:, None] * centred
        expected, size = K @ (K.T @ V.astype(float)), np.linalg.norm(K, 2) ** 2
    else:
        expected = truth(X, V, weights, center, standardize)
        size = np.linalg.norm(truth(X, np.eye(d), weights, center, standardize), 2)
    if not standardize:  # the mean is subtracted from products of the data as they are
        size = max(size, np.linalg.norm(truth(X, np.eye(d), weights, False, False), 2))
    size *= operator.scale**2
    bound = 64 * eps(source.compute_dtype) * (size + (20 * m if standardize else 0)) * np.linalg.norm(V) + 1e-30
    assert abs(image - expected * operator.scale**2).max() <= bound
    assert abs(inner - V.T.astype(float) @ expected * operator.scale**2).max() <= bound * np.linalg.norm(V)


def powerlaw(rng, m=3000, d=400, each=12, dtype=np.float32):
    """Columns drawn with probability 1 / k: some are in most rows, most are in few."""
    p = 1 / np.arange(1, d + 1)
    rows = np.repeat(np.arange(m), each)
    columns = rng.choice(d, m * each, p=p / p.sum())
    values = (rng.exponential(1.0, m * each) * (1 + (rows % 5 == columns % 5))).astype(dtype)
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(m, d)).tocsr()


def uniform(rng, m=3000, d=400, dtype=np.float32):
    X = scipy.sparse.random_array((m, d), density=0.02, rng=rng, dtype=dtype, format="csr")
    return X


def counts(rng, m=2000, d=300, dtype=np.uint8):
    return scipy.sparse.csr_array((rng.random((m, d)) < 0.03) * rng.integers(1, 9, (m, d))).astype(dtype)


def outlier(rng, m=2000, d=300, dtype=np.float32):
    X = uniform(rng, m, d, dtype).tolil()
    X[700, :] = X[700, :] * 1e4
    X[700, 5] = 3e4
    return X.tocsr()


DATA = [powerlaw, uniform, counts, outlier]


@pytest.mark.parametrize("make", DATA)
@pytest.mark.parametrize("double", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("standardize", [False, True], ids=["plain", "standardized"])
@pytest.mark.parametrize("center", [True, False], ids=["centred", "about_zero"])
def test_certificate_bounds_the_truth(make, double, standardize, center):
    rng = np.random.default_rng(5)
    X = make(rng)
    if double:
        X = X.astype(np.float64)
    assert plan.sparse_pays(*X.shape, X.nnz)
    weights = rng.integers(1, 3, X.shape[0]).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = top_eigenpairs(X, 8, solver="krylov", center=center, standardize=standardize, sample_weight=weights)
    assert pairs.solver == "krylov"
    images = naive.apply_scatter(X.toarray(), pairs.vectors, weights, center, standardize)
    true = naive.relative_residuals(pairs.values, pairs.vectors, images, eps(pairs.vectors.dtype))
    assert (true <= pairs.residuals).all(), (true / pairs.residuals).max()
    assert pairs.residuals.max() < 1000 * eps(pairs.vectors.dtype) * pairs.values[0] / pairs.values[-1]
    dense = X.toarray().astype(float)
    dense = dense - weights @ dense / weights.sum() * center
    if standardize:
        deviation = np.sqrt(weights @ dense**2 / (weights.sum() - 1))
        dense = dense / np.where(deviation > 0, deviation, 1)
    S = (weights[:, None] * dense).T @ dense
    values = np.linalg.eigvalsh(S)[::-1][:8]
    promised = np.where(values >= 1e-2 * values[0], 1e-5 * values, 1e-7 * values[0])
    assert (abs(values - pairs.values) <= promised).all()


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_pca_of_sparse_is_pca_of_dense(form):
    X = powerlaw(np.random.default_rng(0))
    ours = lf.PCA(5, svd_solver="krylov").fit(X.asformat(form))
    dense = lf.PCA(5, svd_solver="gram").fit(X.toarray())
    np.testing.assert_allclose(ours.explained_variance_, dense.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(abs((ours.components_ * dense.components_).sum(axis=1)), 1, atol=1e-4)
    np.testing.assert_allclose(ours.mean_, dense.mean_, atol=1e-6)
    np.testing.assert_allclose(ours.explained_variance_ratio_, dense.explained_variance_ratio_, rtol=1e-5)
    signs = np.sign((ours.components_ * dense.components_).sum(axis=1))
    np.testing.assert_allclose(ours.transform(X) * signs, dense.transform(X.toarray()), atol=2e-3)


def test_wide_sparse_goes_by_the_samples():
    X = powerlaw(np.random.default_rng(0)).T.tocsr()
    ours = lf.PCA(5, svd_solver="krylov").fit(X)
    dense = lf.PCA(5, svd_solver="gram").fit(X.toarray())
    np.testing.assert_allclose(ours.explained_variance_, dense.explained_variance_, rtol=1e-5)
    assert (ours.residuals_ < 1e-3).all()


def test_same_bits_for_any_number_of_threads():
    X = powerlaw(np.random.default_rng(2), m=9000)
    found = []
    try:
        for n in (1, 2, 4):
            lf.set_num_threads(n)
            found.append(lf.PCA(6, svd_solver="krylov").fit(X))
    finally:
        lf.set_num_threads(None)
    for other in found[1:]:
        np.testing.assert_array_equal(other.components_, found[0].components_)
        np.testing.assert_array_equal(other.explained_variance_, found[0].explained_variance_)


def test_nothing_is_made_dense(monkeypatch):
    X = powerlaw(np.random.default_rng(0))

    def refuse(*_args):
        raise AssertionError("a block of a sparse matrix was made dense")

    monkeypatch.setattr(sources.SparseSource, "block", refuse)
    lf.PCA(5, svd_solver="krylov", standardize=True).fit(X).transform(X)


def test_far_means_and_dense_matrices_are_left_to_tiles():
    rng = np.random.default_rng(3)
    X = uniform(rng, 1000, 100).toarray()
    X[:, 3] = 1e4 + rng.standard_normal(1000)
    far = scipy.sparse.csr_array(X)
    assert plan.sparse_pays(*far.shape, far.nnz) and SparseOperator(sources.as_source(far)).is_far
    found = lf.PCA(3, svd_solver="krylov").fit(far)
    np.testing.assert_allclose(found.explained_variance_, lf.PCA(3).fit(X).explained_variance_, rtol=1e-5)
    assert not plan.sparse_pays(1000, 100, 50_000)


def test_repeated_entries_are_summed_and_the_matrix_is_left_alone():
    X = scipy.sparse.csr_array(
        (np.array([1.0, 2.0, 4.0, 3.0, 8.0]), np.array([2, 0, 2, 1, 1]), np.array([0, 3, 4, 4, 5])), shape=(4, 300)
    )
    before = [array.copy() for array in (X.data, X.indices, X.indptr)]
    found = lf.PCA(1, svd_solver="krylov").fit(X)
    for array, old in zip((X.data, X.indices, X.indptr), before):
        np.testing.assert_array_equal(array, old)
    np.testing.assert_allclose(found.explained_variance_, lf.PCA(1).fit(X.toarray()).explained_variance_, rtol=1e-12)


@pytest.mark.parametrize("by_feature", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_first_nonfinite_is_named(by_feature, value):
    X = uniform(np.random.default_rng(0))
    X = X.T.tocsr() if by_feature else X
    X.data[77] = value
    row, column = np.argwhere(~np.isfinite(X.toarray()))[0]
    with pytest.raises(ValueError, match=f"first at row {row}, column {column}"):
        lf.PCA(2, svd_solver="krylov").fit(X)


@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_broken_indices_are_refused(part):
    X = uniform(np.random.default_rng(0))
    getattr(X, part)[40] = 10**6
    with pytest.raises(ValueError, match="Sparse X is broken"):
        lf.PCA(2).fit(X)


def test_scores_of_float64_model_on_single_data():
    X = uniform(np.random.default_rng(0))
    loadings, mean = np.random.default_rng(1).standard_normal((3, 400)), np.full(400, 0.25)
    source = sources.as_source(X)
    found = scores(source, mean, loadings, None)
    np.testing.assert_allclose(found, (X.toarray() - mean) @ loadings.T, atol=1e-4)
    view = np.zeros((3000, 6), np.float32)
    scores(source, mean, loadings, view[:, :3])
    np.testing.assert_array_equal(view[:, :3], found)


@pytest.mark.draws
@settings(max_examples=40, deadline=None)
@given(X=matrices(), weighted=st.booleans(), parts=st.integers(1, 3))
def test_gram_over_pairs(X, weighted, parts):
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 4, X.shape[0]).astype(float) if weighted else None
    lines = kernels.Lines(sources.SparseSource(X), False, -(-X.shape[0] // parts), 0.5)
    found = kernels.gram(lines, np.empty(0) if weights is None else weights)
    dense = 0.5 * X.toarray().astype(float) * (1 if weights is None else np.sqrt(weights)[:, None])
    np.testing.assert_allclose(found, naive.gram(dense), rtol=1e-13, atol=1e-13 * (1 + np.abs(dense).max() ** 2))


@pytest.mark.parametrize("make", DATA)
@pytest.mark.parametrize("center", [True, False], ids=["centred", "about_zero"])
def test_moments_over_pairs_are_those_of_dense_rows(make, center, monkeypatch):
    X = make(np.random.default_rng(4))
    weights = np.random.default_rng(0).integers(1, 3, X.shape[0]).astype(float)
    assert plan.sparse_gram_pays(*X.shape, sources.SparseSource(X).pairs())
    monkeypatch.setattr(sources.SparseSource, "block", None)
    found = lf.Moments.from_data(X, sample_weight=weights, center=center)
    wanted = lf.Moments.from_data(X.toarray().astype(float), sample_weight=weights, center=center)
    assert found.n_samples == X.shape[0] and found.weight_sum == weights.sum()
    size = np.sqrt(np.multiply.outer(*[wanted.xx.diagonal()] * 2)) + 1e-30
    assert (abs(found.xx - wanted.xx) <= 1e-12 * size).all()
    np.testing.assert_allclose(found.mean, wanted.mean, atol=1e-12 * abs(wanted.mean).max())
    halves = lf.Moments.from_data(X[:900], sample_weight=weights[:900], center=center)
    halves.update(X[900:], sample_weight=weights[900:])
    assert (abs(halves.xx - wanted.xx) <= 1e-11 * size).all()


@pytest.mark.parametrize("standardize", [False, True], ids=["plain", "standardized"])
@pytest.mark.parametrize("center", [True, False], ids=["centred", "about_zero"])
def test_gram_of_samples_over_pairs(center, standardize, monkeypatch):
    X = powerlaw(np.random.default_rng(6), m=2500, d=300).T.tocsr()
    weights = np.random.default_rng(0).integers(0, 3, X.shape[0]).astype(float)
    assert plan.sparse_gram_pays(*X.shape[::-1], sources.SparseSource(X).pairs(True))
    options = dict(solver="gram", center=center, standardize=standardize, sample_weight=weights)
    dense = top_eigenpairs(X.toarray().astype(float), 6, **options)
    monkeypatch.setattr(sources.SparseSource, "block", None)
    found = top_eigenpairs(X, 6, **options)
    assert found.solver == "gram"
    np.testing.assert_allclose(found.values, dense.values, rtol=1e-5)
    images = naive.apply_scatter(X.toarray(), found.vectors, weights, center, standardize)
    true = naive.relative_residuals(found.values, found.vectors, images, eps(found.vectors.dtype))
    assert (true <= found.residuals).all() and found.residuals.max() < 1e-4


@pytest.mark.draws
@settings(max_examples=30, deadline=None)
@given(X=matrices(), weighted=st.booleans(), center=st.booleans(), standardize=st.booleans())
def test_gram_of_samples_is_the_operator(X, weighted, center, standardize):
    if X.shape[0] < 2:
        return
    weights = np.random.default_rng(0).integers(1, 4, X.shape[0]).astype(float) if weighted else None
    operator = SparseOperator(
        sources.SparseSource(X), weights=weights, center=center, standardize=standardize, by_feature=True
    )
    gram = operator.gram()
    image = operator.apply(np.eye(operator.dim))
    size = np.abs(image).max() + operator.scale**2 * float(abs(X.astype(float)).max()) ** 2 + standardize
    assert abs(gram - image).max() <= 256 * eps(operator.dtype) * X.shape[1] * size + 1e-30


@pytest.mark.parametrize(
    "shape, nnz, n_chunks", [((200_000, 20_000), 19_000_000, 16), ((3000, 400), 36_000, 8), ((100, 400), 1000, 1)]
)
def test_chunks_are_shared_evenly_by_threads(shape, nnz, n_chunks):
    lines = kernels.Lines(sources.SparseSource(scipy.sparse.csr_array(shape)), False, plan.sparse_chunk(*shape, nnz), 1)
    assert lines.n_chunks == n_chunks


@pytest.mark.parametrize("copies", [5, 12, 30])
def test_tied_eigenvalues_come_in_full_number(copies):
    rng = np.random.default_rng(copies)
    A = scipy.sparse.random_array((80, 50), density=0.1, rng=rng, dtype=np.float32)
    X = scipy.sparse.kron(scipy.sparse.eye_array(copies, dtype=np.float32), A)
    X = scipy.sparse.vstack([X, -X]).tocsr()
    assert plan.sparse_pays(*X.shape, X.nnz)
    p = copies + 3
    found = top_eigenpairs(X, p, solver="krylov")
    single = np.linalg.eigvalsh(2 * (A.T @ A).toarray().astype(float))[::-1]
    np.testing.assert_allclose(found.values, np.repeat(single, copies)[:p], rtol=1e-5)


@pytest.mark.parametrize(
    "n, nnz, b, whole",
    [
        (20_000, 19_000_000, 16, True),  # little more than the cache
        (20_000, 19_000_000, 64, False),
        (1_000_000, 19_000_000, 64, True),  # a line would have less than one entry in a range
        (300, 10_000, 64, True),
    ],
)
def test_ranges_of_indices_are_walked_where_they_pay(n, nnz, b, whole):
    class Stored:
        def n_lines(self, by_feature):
            return n if by_feature else 200_000

    Stored.nnz = nnz
    tile, reach = kernels.walk(kernels.Lines(Stored(), False, 12_500, 1.0), np.empty((n, b), np.float32))
    assert (reach == n) is whole
    assert tile <= (256 if whole else 4096)
