"""Weights are frequencies: a row of weight 2 is two rows, of weight 0 none, in every number, limit and error."""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.sparse
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lae_fast
from lae_fast import PCA, IncrementalPCA, LinearAutoencoder, Moments

_ATTRIBUTES = (
    "n_components_", "explained_variance_", "explained_variance_ratio_", "singular_values_", "noise_variance_", "mean_",
)  # fmt: skip


def _fit(n, X, w, **parameters):
    return PCA(n, **parameters).fit(X, sample_weight=w)


def _partial(n, X, w):
    model, half = PCA(n), len(X) // 2
    for rows in (slice(0, half), slice(half, None)):
        if w is None or w[rows].any():
            model.partial_fit(X[rows], sample_weight=None if w is None else w[rows])
    return model


def _merged(n, X, w, path):
    half = len(X) // 2
    parts = []
    for rows in (slice(0, half), slice(half, None)):
        if w is None or w[rows].any():
            parts.append(Moments.from_data(X[rows], sample_weight=None if w is None else w[rows]))
    sum(parts[1:], parts[0]).save(path)
    return PCA.from_moments(Moments.load(path), n)


def _stream(n, X, w, **parameters):
    model, other, half = IncrementalPCA(n, **parameters), IncrementalPCA(n, **parameters), len(X) // 2
    for part, rows in ((model, slice(0, half)), (other, slice(half, None))):
        if w is None or w[rows].any():
            part.partial_fit(X[rows], sample_weight=None if w is None else w[rows])
    if not hasattr(other, "n_samples_seen_"):
        return model
    return model.merge(other)


_ROUTES = {
    "gram": lambda n, X, w: _fit(n, X, w, svd_solver="gram"),
    "krylov": lambda n, X, w: _fit(n, X, w, svd_solver="krylov"),
    "standardize": lambda n, X, w: _fit(n, X, w, standardize=True),
    "sparse": lambda n, X, w: _fit(n, scipy.sparse.csr_array(X), w),
    "blocks": lambda n, X, w: _fit(n, [X[:3], X[3:]], w),
    "iterator": lambda n, X, w: _fit(n, iter([X[:3], X[3:]]), w),
    "partial_fit": _partial,
    "incremental": lambda n, X, w: IncrementalPCA(n).fit(X, sample_weight=w),
    "stream": _stream,
    "sketch": lambda n, X, w: _stream(n, X, w, max_memory=30 * 64 * X.shape[1]),
    "em": lambda n, X, w: _fit(n, X, w, missing="em"),
}


def _outcome(route, n, X, w, folder):
    """The fitted model, or the message without what is said of weights."""
    try:
        return _merged(n, X, w, folder / "moments.npz") if route == "moments" else _ROUTES[route](n, X, w)
    except ValueError as error:
        return re.sub(r" \(\d+ rows of positive weight\)|\(n_samples=.*\)|\(shape=.*\)", "", str(error))


@pytest.mark.parametrize("route", [*_ROUTES, "moments"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_whole_weights_are_repeated_rows(tmp_path_factory, route, data):
    m, d = data.draw(st.integers(6, 14)), data.draw(st.integers(3, 16))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    w = np.array(data.draw(st.lists(st.integers(0, 3), min_size=m, max_size=m)))
    assume(w.sum() > 1)
    n = data.draw(st.sampled_from([None, 1, 2, 5, 9, 13, 0.7, "mle"]))
    if route in ("incremental", "stream", "sketch") and not isinstance(n, int):
        n = 2
    X = rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) * 3.0 + rng.normal(size=d)
    folder = tmp_path_factory.getbasetemp()
    by_weight = _outcome(route, n, X, w, folder)
    by_rows = _outcome(route, n, np.repeat(X, w, axis=0), None, folder)
    if isinstance(by_rows, str) or isinstance(by_weight, str):
        assert by_weight == by_rows
        return
    if not hasattr(by_rows, "components_"):
        assert not hasattr(by_weight, "components_")
        return
    largest = float(by_rows.singular_values_.max(initial=1.0))
    for name in _ATTRIBUTES:
        unit = largest**2 if "noise" in name else largest if name == "singular_values_" else 1.0
        np.testing.assert_allclose(
            getattr(by_weight, name), getattr(by_rows, name), rtol=1e-6, atol=1e-6 * unit, err_msg=name
        )
    if by_rows.noise_variance_ > 1e-9 * largest**2:
        assert by_weight.score(X) == pytest.approx(by_rows.score(X), rel=1e-5)
    p = by_weight.n_components_
    np.testing.assert_allclose(by_weight.components_ @ by_weight.components_.T, np.eye(p), atol=1e-12)


def _train(X, w):
    return LinearAutoencoder(1, optimizer="nesterov", tol=1e-3).fit(X, sample_weight=w)


_ONES = {
    "PCA": lambda X, w: PCA(1).fit(X, sample_weight=w),
    "krylov": lambda X, w: PCA(1, svd_solver="krylov").fit(X, sample_weight=w),
    "em": lambda X, w: PCA(1, missing="em").fit(X, sample_weight=w),
    "blocks": lambda X, w: PCA(1).fit(iter([X[:7], X[7:]]), sample_weight=w),
    "incremental": lambda X, w: IncrementalPCA(1).fit(X, sample_weight=w),
    "from_moments": lambda X, w: PCA.from_moments(Moments.from_data(X, sample_weight=w), 1),
    "covariance": lambda X, w: Moments.from_data(X, sample_weight=w).covariance(),
    "total_variance": lambda X, w: Moments.from_data(X, sample_weight=w).total_variance,
    "standardized eigenpairs": lambda X, w: lae_fast.top_eigenpairs(X, 1, sample_weight=w, standardize=True),
    "eigenpairs of moments": lambda X, w: lae_fast.top_eigenpairs(
        Moments.from_data(X, sample_weight=w), 1, standardize=True
    ),
    "autoencoder": _train,
    "autoencoder of blocks": lambda X, w: _train(iter([X[:7], X[7:]]), w),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("n", [93])
@pytest.mark.parametrize("route", _ONES)
def test_weights_that_sum_to_one_are_refused_with_the_way_out(route, n, dtype):
    """Whatever rounding leaves of the sum: 1 + 2e-16 is no denominator."""
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 3))
    for w in (np.full(n, 1 / n), rng.uniform(size=n)):
        w = (w / w.sum()).astype(dtype)
        with pytest.raises(ValueError, match=r"sample_weight sums to .*denominator.*scale them.*multiply them by") as e:
            _ONES[route](X, w)
        factor = float(re.search(r"multiply them by (.*)\.$", str(e.value)).group(1))
        _ONES[route](X, w.astype(float) * factor)


def test_a_stream_may_begin_below_a_weight_of_one():
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(40, 3)), np.full(40, 0.05)
    for model in (PCA(2), IncrementalPCA(2)):
        model.partial_fit(X[:20], sample_weight=w[:20])
        assert not hasattr(model, "components_")
        model.partial_fit(X[20:], sample_weight=w[20:])
        np.testing.assert_allclose(model.explained_variance_, PCA(2).fit(X, sample_weight=w).explained_variance_)
    model = LinearAutoencoder(2, learning_rate=0.01, optimizer="sgd")
    model.partial_fit(X[:20], sample_weight=w[:20])
    assert np.isnan(model.explained_variance_).all()
    model.partial_fit(X[20:], sample_weight=w[20:])
    assert np.isfinite(model.explained_variance_).all()


@pytest.mark.parametrize("total", [1.5, 3.0, 100.0])
def test_an_autoencoder_divides_by_the_weight_sum_less_one(total):
    rng = np.random.default_rng(1)
    X, w = rng.normal(size=(100, 4)) * [4, 3, 2, 1], rng.uniform(size=100)
    w *= total / w.sum()
    model = LinearAutoencoder(2, optimizer="nesterov").fit(X, sample_weight=w)
    np.testing.assert_allclose(model.explained_variance_, PCA(2).fit(X, sample_weight=w).explained_variance_, rtol=1e-3)


def test_moments_of_an_older_file_count_their_rows(tmp_path):
    X = np.random.default_rng(2).normal(size=(8, 20))
    Moments.from_data(X).save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as stored:
        np.savez(tmp_path / "old.npz", **{name: stored[name] for name in stored.files if name != "n_positive"})
    assert Moments.load(tmp_path / "old.npz").n_counted == 8


def test_a_row_that_is_nearly_forgotten_counts_however_batches_are_cut():
    X = np.random.default_rng(3).normal(size=(600, 300))
    whole = IncrementalPCA(forget=0.01).fit(X)
    parts = IncrementalPCA(forget=0.01)
    for first in range(0, 600, 150):
        parts.partial_fit(X[first : first + 150])
    assert whole.n_components_ == parts.n_components_ == 300


def test_messages_name_the_rows_that_count():
    X, w = np.random.default_rng(4).normal(size=(60, 20)), np.zeros(60)
    w[:10] = 1.0
    for model in (PCA(15), PCA("mle"), PCA(15, missing="em"), IncrementalPCA(15)):
        with pytest.raises(ValueError, match="10 rows of positive weight"):
            model.fit(X, sample_weight=w)
    assert PCA(10).fit(X, sample_weight=w).n_samples_ == 60
