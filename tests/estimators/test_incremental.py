"""IncrementalPCA: the batches do not matter, the sketch keeps its bound, states merge, forget and survive errors."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import parametrize_with_checks

import lae_fast as lf
from lae_fast.errors import MemoryLimitError
from lae_fast.operators.frequent_directions import Sketch, sketch_size

SMALL = 60_000  # bytes: no room for the moments of 200 features, room for a sketch of 4 rows


def data(m=120, d=9, mean=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, d)) @ np.diag(0.8 ** np.arange(d)) @ rng.standard_normal((d, d)) + mean


def variances(X, weights=None):
    """Eigenvalues of the covariance with frequency weights, descending, float64."""
    w = np.ones(len(X)) if weights is None else weights
    centred = X - w @ X / w.sum()
    return np.linalg.eigvalsh((centred * w[:, None]).T @ centred / (w.sum() - 1))[::-1]


def parts(X, cuts):
    return np.split(np.arange(len(X)), sorted(cuts))


@parametrize_with_checks(
    [lf.IncrementalPCA(n_components=2), lf.IncrementalPCA(n_components=1, whiten=True), lf.TruncatedSVD()]
)
def test_estimator_checks(estimator, check):
    check(estimator)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 119), max_size=8, unique=True),
    weighted=st.booleans(),
    forget=st.sampled_from([1.0, 0.97]),
    dtype=st.sampled_from(["float64", "float32", "int16"]),
)
def test_any_partition_gives_the_weighted_covariance(cuts, weighted, forget, dtype):
    X = (10 * data()).astype(dtype)
    weights = np.random.default_rng(1).integers(0, 4, len(X)).astype(float) if weighted else None
    pca = lf.IncrementalPCA(3, forget=forget)
    for rows in parts(X, cuts):
        if weighted and not weights[rows].sum():
            continue
        pca.partial_fit(X[rows], sample_weight=None if weights is None else weights[rows])
    seen = np.concatenate([rows for rows in parts(X, cuts) if not weighted or weights[rows].sum()])
    total = forget ** np.arange(len(seen) - 1, -1, -1.0) * (1.0 if weights is None else weights[seen])
    expected = variances(X[seen].astype(np.float64), total)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(pca.explained_variance_, expected[:3], rtol=tolerance, atol=tolerance * expected[0])
    np.testing.assert_allclose(pca.mean_, total @ X[seen] / total.sum(), rtol=10 * tolerance, atol=tolerance)
    assert pca.exact_ and pca.error_bound_ == 0.0 and pca.n_samples_seen_ == len(seen)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_against_one_fit(batch):
    X = data()
    whole = lf.IncrementalPCA(4).fit(X)
    pieces = lf.IncrementalPCA(4)
    for first in range(0, len(X), batch):
        pieces.partial_fit(X[first : first + batch])
    np.testing.assert_allclose(pieces.components_, whole.components_, atol=1e-10)
    np.testing.assert_allclose(pieces.var_, X.var(axis=0), rtol=1e-12)
    np.testing.assert_allclose(pieces.transform(X), lf.PCA(4).fit_transform(X), atol=1e-9)


def test_first_batch_may_be_smaller_than_the_number_of_components():
    X = data()
    pca = lf.IncrementalPCA(5).partial_fit(X[:1])
    assert not hasattr(pca, "components_")
    assert pca.partial_fit(X[1:3]).components_.shape == (3, 9)
    assert pca.partial_fit(X[3:]).components_.shape == (5, 9)
    np.testing.assert_allclose(pca.explained_variance_, variances(X)[:5], rtol=1e-12)


def test_sparse_batches():
    X = scipy.sparse.random(80, 12, 0.3, format="csr", random_state=0)
    pca = lf.IncrementalPCA(3).partial_fit(X[:30]).partial_fit(X[30:])
    np.testing.assert_allclose(pca.explained_variance_, variances(X.toarray())[:3], rtol=1e-12)


def sketched(X, p=3, batch=17, **parameters):
    pca = lf.IncrementalPCA(p, max_memory=SMALL, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for first in range(0, len(X), batch):
            pca.partial_fit(X[first : first + batch])
    return pca


@pytest.mark.parametrize("batch", [1, 5, 400])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_sketch_keeps_its_bound(batch, mean):
    X = data(400, 200, mean)
    pca = sketched(X, batch=batch)
    true = variances(X)
    rounding = 1e-9 * true[0]
    gap = true[:3] - pca.explained_variance_
    assert pca.solver_ == "sketch" and not pca.exact_ and pca.error_bound_ > 0
    assert (gap >= -rounding).all() and (gap <= pca.error_bound_ + rounding).all()
    size = pca._stream.size
    for k in range(size):  # Ghashami et al. 2016, Theorem 1.1
        assert pca.error_bound_ <= true[k:].sum() / (size - k) * (1 + 1e-9)
    np.testing.assert_allclose(pca.mean_, X.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(pca.var_, X.var(axis=0), rtol=1e-9)
    covariance = np.cov(X.T)
    for u, value, residual in zip(pca.components_, pca.explained_variance_, pca.residuals_):
        assert np.linalg.norm(covariance @ u - value * u) <= residual * value + rounding


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 12), step=st.integers(1, 50), split=st.integers(0, 90), seed=st.integers(0, 9))
def test_sketch_against_the_definition(size, step, split, seed):
    X = data(90, 15, 5.0, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, 90)
    halves = []
    for first, last in ((0, split), (split, 90)):
        sketch = Sketch(15, size)
        for start in range(first, last, step):
            stop = min(start + step, last)
            sketch = sketch.updated(X[start:stop], weights[start:stop])
        halves.append(sketch)
    both = halves[0].merged(halves[1])
    centred = X - weights @ X / weights.sum()
    exact = (centred * weights[:, None]).T @ centred
    error = np.linalg.eigvalsh(exact - both.rows.T @ both.rows)
    rounding = 1e-11 * np.trace(exact)
    assert error[0] >= -rounding and error[-1] <= both.discarded + rounding
    np.testing.assert_allclose(both.squares, exact.diagonal(), rtol=1e-10)
    tail = np.linalg.eigvalsh(exact)[::-1]
    assert both.discarded <= min(tail[k:].sum() / (size - k) for k in range(size)) + rounding


def test_a_sketch_that_discards_nothing_is_exact():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 200)) + 2.0
    pca = sketched(X, 3)
    np.testing.assert_allclose(pca.explained_variance_, variances(X)[:3], rtol=1e-9)
    assert pca.error_bound_ <= 1e-9 * pca.explained_variance_[0]


def test_sketch_warns_once_and_needs_a_count_and_room():
    X = data(400, 200)
    pca = lf.IncrementalPCA(3, max_memory=SMALL * 2)
    with pytest.warns(UserWarning, match="error_bound_") as caught:
        for first in range(0, 400, 40):
            pca.partial_fit(X[first : first + 40])
    assert len(caught) == 1
    with pytest.raises(ValueError, match="set n_components"):
        lf.IncrementalPCA(max_memory=SMALL).fit(X)
    with pytest.raises(MemoryLimitError, match=r"needs 76\.8 kB"):
        lf.IncrementalPCA(5, max_memory=SMALL).fit(X)
    assert sketch_size(200, 3, None) == 76
    with pytest.raises(MemoryLimitError, match="IncrementalPCA"):
        lf.PCA(2, max_memory=SMALL).partial_fit(X)


@pytest.mark.parametrize("d", [9, 200])
@pytest.mark.parametrize("forget", [1.0, 0.99])
def test_merge(d, forget):
    X = data(100, d)
    make = sketched if d == 200 else lambda X, **p: lf.IncrementalPCA(3, **p).partial_fit(X)
    left, right = make(X[:60]), make(X[60:], forget=forget)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        left.merge(right)
    w = np.concatenate([np.ones(60), forget ** np.arange(39, -1, -1.0)])
    gap = variances(X, w)[:3] - left.explained_variance_
    assert (gap >= -1e-9).all() and (gap <= left.error_bound_ + 1e-9).all()
    np.testing.assert_allclose(left.mean_, w @ X / w.sum(), rtol=1e-10)
    assert left.n_samples_seen_ == 100 and right.n_samples_seen_ == 40
    empty = lf.IncrementalPCA(3, max_memory=SMALL if d == 200 else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        empty.merge(left)
    np.testing.assert_array_equal(empty.components_, left.components_)


def test_merge_refuses_what_does_not_go_together():
    pca = lf.IncrementalPCA(2).fit(data())
    with pytest.raises(TypeError, match="other must be"):
        pca.merge(lf.PCA())
    with pytest.raises(ValueError, match="has seen no rows"):
        pca.merge(lf.IncrementalPCA(2))
    with pytest.raises(ValueError, match="features"):
        pca.merge(lf.IncrementalPCA(2).fit(data(d=5)))
    with pytest.raises(ValueError, match="max_memory"):
        lf.IncrementalPCA(2).fit(data(400, 200)).merge(sketched(data(400, 200)))


@pytest.mark.parametrize("d", [9, 200])
def test_an_error_leaves_the_state(d):
    X = data(100, d)
    pca = sketched(X[:50]) if d == 200 else lf.IncrementalPCA(3).fit(X[:50])
    before = pca.components_.copy()
    bad = X[50:].copy()
    bad[20, 4] = np.nan
    with pytest.raises(ValueError, match="row 20, column 4"):
        pca.partial_fit(bad)
    with pytest.raises(ValueError, match="features"):
        pca.partial_fit(X[:, :-1])
    assert pca.n_samples_seen_ == 50
    np.testing.assert_array_equal(pca.components_, before)


def test_pickled_in_the_middle_of_a_stream():
    X = data()
    copy = pickle.loads(pickle.dumps(lf.IncrementalPCA(3).partial_fit(X[:50])))
    np.testing.assert_allclose(copy.partial_fit(X[50:]).explained_variance_, variances(X)[:3], rtol=1e-12)


def test_goes_on_from_moments_and_leaves_them():
    X = data()
    moments = lf.Moments.from_data(X[:50])
    pca = lf.IncrementalPCA.from_moments(moments, 3).partial_fit(X[50:])
    np.testing.assert_allclose(pca.explained_variance_, variances(X)[:3], rtol=1e-12)
    assert moments.n_samples == 50


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"forget": 0.0}, "forget"),
        ({"forget": 1.5}, "forget"),
        ({"batch_size": 0}, "batch_size"),
        ({"n_components": 10}, "n_components=10 invalid for n_features=9"),
        ({"n_components": 0.5}, "n_components"),
        ({"max_memory": "much"}, "max_memory"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        lf.IncrementalPCA(**parameters).fit(data())


def rows_at_a_time(X, step=1, read_every=0, **parameters):
    pca = lf.IncrementalPCA(3, **parameters)
    memory = np.empty_like(X[:step])
    for i in range(0, len(X), step):
        rows = memory[: len(X[i : i + step])]
        rows[:] = X[i : i + step]  # whose memory is used again
        pca.partial_fit(rows)
        if read_every and i and i // step % read_every == 0:
            assert pca.components_.shape == (3, X.shape[1]) and pca.n_samples_seen_ == i + len(rows)
    return pca


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8"])
def test_single_rows_update_the_state_rarely_and_reading_changes_nothing(monkeypatch, dtype):
    X = (10 * data(5000) + 128).clip(0, 255).astype(dtype)
    updates = []
    update = lf.Moments.update
    monkeypatch.setattr(lf.Moments, "update", lambda self, *a, **k: updates.append(1) or update(self, *a, **k))
    pca = rows_at_a_time(X, 7)
    assert len(updates) == 2 and pca.n_samples_seen_ == 5000
    read = rows_at_a_time(X, 7, read_every=100)
    np.testing.assert_array_equal(read.components_, pca.components_)
    np.testing.assert_array_equal(read.explained_variance_, pca.explained_variance_)
    tolerance = 1e-12 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(pca.explained_variance_, variances(X.astype(np.float64))[:3], rtol=tolerance)


def test_waiting_rows_are_copied_pickled_merged_and_transformed_with():
    X = data(90)
    half = rows_at_a_time(X[:50])
    copies = [copy.copy(half), copy.deepcopy(half), pickle.loads(pickle.dumps(half))]
    for other in copies:
        other.partial_fit(X[50:51])
        for row in X[51:]:
            other.partial_fit(row[None])
        np.testing.assert_allclose(other.explained_variance_, variances(X)[:3], rtol=1e-12)
        assert other.n_samples_seen_ == 90
    np.testing.assert_allclose(half.explained_variance_, variances(X[:50])[:3], rtol=1e-12)
    merged = lf.IncrementalPCA(3).merge(half).merge(rows_at_a_time(X[50:]))
    np.testing.assert_allclose(merged.explained_variance_, variances(X)[:3], rtol=1e-12)
    np.testing.assert_allclose(half.transform(X), lf.PCA(3).fit(X[:50]).transform(X), atol=1e-10)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e160])
def test_a_bad_row_is_refused_at_once_and_does_not_wait(bad):
    X = data(30)
    pca = rows_at_a_time(X)
    wrong = X[:2].copy()
    wrong[1, 4] = bad
    with pytest.raises(ValueError, match="row 1, column 4" if bad != 1e160 else "range of float64"):
        pca.partial_fit(wrong)
    assert pca.n_samples_seen_ == 30
    np.testing.assert_allclose(pca.partial_fit(X).explained_variance_, variances(np.vstack([X, X]))[:3], rtol=1e-12)


def test_rows_of_several_kinds_may_wait_together():
    X = data(40)
    weights = np.r_[np.ones(20), np.full(10, 2.0), np.ones(10)]
    pca = lf.IncrementalPCA(3)
    for row in X[:10].astype(np.float32):
        pca.partial_fit(row[None])
    for row in X[10:20]:
        pca.partial_fit(row[None])
    pca.partial_fit(X[20:30], sample_weight=np.full(10, 2.0))
    for row in X[30:]:
        pca.partial_fit(scipy.sparse.csr_array(row[None]))
    np.testing.assert_allclose(pca.explained_variance_, variances(X, weights)[:3], rtol=1e-6)


def test_waiting_rows_forget():
    X = data(100)
    w = 0.95 ** np.arange(99, -1, -1.0)
    np.testing.assert_allclose(rows_at_a_time(X, forget=0.95).explained_variance_, variances(X, w)[:3], rtol=1e-11)
