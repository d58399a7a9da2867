"""Scores of rows on Dask: lazy, one task a chunk, the same numbers as of rows in memory."""

import numpy as np
import pytest

import lae_fast as lf
from tests.oracle import dask_cases

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
pytest.importorskip("dask.dataframe")

MODELS = {
    "pca": lambda: lf.PCA(3, svd_solver="gram"),
    "whitened": lambda: lf.PCA(3, whiten=True, standardize=True),
    "incremental": lambda: lf.IncrementalPCA(3),
    "truncated": lambda: lf.TruncatedSVD(3),
    "autoencoder": lambda: lf.LinearAutoencoder(3, rule="alternating", max_iter=200, tol=1e-3),
}


@pytest.mark.parametrize("cut", dask_cases.DENSE)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores(cut, model, dtype):
    X = dask_cases.rows(mean=3.0, dtype=dtype)
    fitted = MODELS[model]().fit(X)
    found = fitted.transform(dask_cases.DENSE[cut](X))
    assert isinstance(found, da.Array) and found.dtype == dtype and found.shape[1] == 3
    expected = fitted.transform(X)
    computed = found.compute(scheduler="synchronous")
    assert computed.dtype == dtype and computed.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(computed, expected, atol=(1e-5 if dtype == np.float32 else 1e-13) * scale)
    rows = fitted.inverse_transform(found)
    assert isinstance(rows, da.Array) and rows.shape[1] == 12
    np.testing.assert_allclose(rows.compute(), fitted.inverse_transform(computed), rtol=1e-5, atol=1e-5)


def test_sparse_scores():
    X = dask_cases.sparse_rows()
    fitted = lf.PCA(3).fit(X)
    for cut in dask_cases.SPARSE.values():
        np.testing.assert_allclose(fitted.transform(cut(X)).compute(), fitted.transform(X), atol=1e-5)


def test_fit_transform_is_fit_then_transform():
    X = dask_cases.even(dask_cases.rows())
    together = lf.PCA(3).fit_transform(X).compute()
    np.testing.assert_array_equal(together, lf.PCA(3).fit(X).transform(X).compute())


def test_nothing_is_computed_before_it_is_asked_for():
    made = []

    def make():
        made.append(1)
        return dask_cases.rows()

    fitted = lf.PCA(3).fit(dask_cases.rows())
    X = da.from_delayed(dask.delayed(make)(), (900, 12), np.float32)
    scores = fitted.transform(X)
    assert not made and scores.chunks == ((900,), (3,))
    scores.compute(scheduler="synchronous")
    assert len(made) == 1
    total, _ = dask.compute(X.sum(), scores, scheduler="synchronous")  # both of one reading
    assert len(made) == 2 and np.isfinite(total)


def test_one_task_for_each_chunk():
    X = dask_cases.even(dask_cases.rows())
    scores = lf.PCA(3).fit(dask_cases.rows()).transform(X)
    before, after = len(dict(X.__dask_graph__())), len(dict(scores.__dask_graph__()))
    assert after - before == X.numblocks[0] + 1  # and what all of them are given


def test_columns_of_a_dataframe_are_matched_by_name():
    X = dask_cases.rows()
    frame = dask_cases.dataframe(X)
    fitted = lf.PCA(3).fit(frame)
    turned = frame[list(frame.columns[::-1])]
    np.testing.assert_allclose(fitted.transform(turned).compute(), lf.PCA(3).fit(X).transform(X), atol=1e-5)
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- other"):
        fitted.transform(frame.rename(columns={"c1": "other"}))


def test_errors_of_chunks_come_when_they_are_computed():
    X = dask_cases.rows()
    fitted = lf.PCA(3).fit(X)
    X[431, 7] = np.nan
    scores = fitted.transform(dask_cases.even(X))
    np.testing.assert_array_equal(scores[:400].compute().shape, (400, 3))
    with pytest.raises(ValueError, match=r"Chunk 2 of X, which begins with row 400: .* first at row 431, column 7"):
        scores.compute()
    with pytest.raises(ValueError, match="X has 11 features, but PCA is expecting 12"):
        fitted.transform(dask_cases.even(X[:, :11]))
    with pytest.raises(ValueError, match="X has 4 columns, but this PCA has 3 components"):
        fitted.inverse_transform(da.ones((10, 4), chunks=5))
    with pytest.raises(TypeError, match=r"there is no out to write to: leave it out, and store"):
        fitted.transform(dask_cases.even(X), out=np.empty((900, 3), np.float32))


@pytest.mark.parametrize("cut", ["even", "unknown_rows", "delayed_blocks"])
@pytest.mark.parametrize("model", ["pca", "whitened", "incremental"])
def test_log_likelihoods(cut, model):
    X = dask_cases.rows()
    fitted = MODELS[model]().fit(X)
    found = fitted.score_samples(dask_cases.DENSE[cut](X))
    assert isinstance(found, da.Array) and found.dtype == np.float64 and found.ndim == 1
    expected = fitted.score_samples(X)
    np.testing.assert_allclose(found.compute(), expected, rtol=1e-10)
    assert fitted.score(dask_cases.DENSE[cut](X)) == pytest.approx(expected.mean(), rel=1e-12)


def test_log_likelihoods_of_sparse_rows():
    X = dask_cases.sparse_rows()
    fitted = lf.PCA(3).fit(X)
    np.testing.assert_allclose(fitted.score_samples(dask_cases.sparse_chunks(X)).compute(), fitted.score_samples(X))


@pytest.mark.filterwarnings("ignore:X has feature names")  # a dataframe's
@pytest.mark.parametrize("cut", dask_cases.DENSE)
def test_the_score_of_an_autoencoder_is_added_up_where_the_rows_are(cut):
    X, weights = dask_cases.rows(), np.arange(len(dask_cases.rows())) % 3
    model, there = MODELS["autoencoder"]().fit(X), dask_cases.DENSE[cut](X)
    assert model.score(there) == pytest.approx(model.score(X), rel=1e-12)
    weighted = model.score(X, sample_weight=weights)
    assert model.score(there, sample_weight=weights) == pytest.approx(weighted, rel=1e-12)
    with pytest.raises(TypeError, match="score one block of each"):
        model.score(there, targets=X)


@pytest.mark.parametrize("model", ["pca", "incremental", "autoencoder"])
def test_the_score_of_no_rows_is_refused_whether_their_number_is_known_or_not(model):
    X = dask_cases.rows()
    fitted, known = MODELS[model]().fit(X), da.from_array(X, chunks=(20, -1))
    for none in (X[:0], known[:0], known[known[:, 0] > 1e9]):
        with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
            fitted.score(none)
