"""Names of columns: they travel from data to results, and columns are taken by them or refused."""

import itertools

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.data import feature_names, sources
from lae_fast.errors import DataFileError

pandas = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

ORDERS = list(itertools.permutations("abc"))


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    return pandas.DataFrame(rng.normal(size=(90, 3)) * [5, 3, 1], columns=list("abc"))


def same(found, expected):
    np.testing.assert_allclose(found.explained_variance_, expected.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-9)
    assert list(found.feature_names_in_) == list(expected.feature_names_in_)


FITS = {
    "PCA": lambda X: lf.PCA(2).fit(X),
    "PCA, krylov": lambda X: lf.PCA(1, svd_solver="krylov").fit(X),
    "IncrementalPCA": lambda X: lf.IncrementalPCA(2).fit(X),
    "TruncatedSVD": lambda X: lf.TruncatedSVD(2).fit(X),
    "Moments": lambda X: lf.PCA.from_moments(lf.Moments.from_data(X), 2),
    "IncrementalPCA of moments": lambda X: lf.IncrementalPCA.from_moments(lf.Moments.from_data(X), 2),
}


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("order", ORDERS, ids="".join)
def test_blocks_are_taken_by_name(frame, fit, order):
    """Frames, tables and sparse frames as blocks, in any order of the columns after the first."""
    order = list(order)
    parts = [frame[:20], frame[20:60][order], frame[60:][order[::-1]]]
    expected = FITS[fit](frame)
    for blocks in (
        parts,
        lambda: iter(parts),
        [pa.Table.from_pandas(part, preserve_index=False) for part in parts],
        [part.astype(pandas.SparseDtype(float, 0.0)) for part in parts],
    ):
        same(FITS[fit](blocks), expected)


def test_files_are_taken_by_name_by_every_method(frame, tmp_path):
    frame.to_parquet(tmp_path / "x.parquet")
    frame[list("cab")].to_parquet(tmp_path / "y.parquet")
    one, other = tmp_path / "x.parquet", tmp_path / "y.parquet"
    pca = lf.PCA(2).fit(one)
    for method in ("transform", "score_samples"):
        np.testing.assert_allclose(getattr(pca, method)(other), getattr(pca, method)(frame), rtol=1e-9)
    assert pca.score(other) == pytest.approx(pca.score(frame))
    same(lf.PCA(2).partial_fit(frame[:50]).partial_fit(other), lf.PCA(2).partial_fit(frame[:50]).partial_fit(frame))
    same(
        lf.IncrementalPCA(2).partial_fit(frame[:50]).partial_fit(other),
        lf.IncrementalPCA(2).partial_fit(frame[:50]).partial_fit(frame),
    )
    model = lf.LinearAutoencoder(2, max_iter=50, tol=1.0).fit(frame)
    np.testing.assert_allclose(model.transform(other), model.transform(frame), rtol=1e-9)
    assert model.score(other) == pytest.approx(model.score(frame))
    moments = lf.Moments.from_data(one).update(other)
    np.testing.assert_allclose(moments.xx, lf.Moments.from_data(frame).update(frame).xx)


@pytest.mark.parametrize("kind", ["pandas", "polars", "Arrow"])
def test_frames_in_memory_keep_the_contract_of_scikit_learn(frame, kind):
    """Another order is an error: there a program has made the frame, and can be wrong."""
    if kind == "polars":
        pytest.importorskip("polars")
    make = {
        "pandas": lambda frame: frame,
        "polars": lambda frame: pytest.importorskip("polars").from_pandas(frame),
        "Arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    }[kind]
    pca = lf.PCA(2).fit(make(frame))
    assert list(pca.feature_names_in_) == list("abc")
    for columns, message in (
        (list("bac"), "must be in the same order as they were in fit"),
        (list("ab"), "seen at fit time, yet now missing:\n- c"),
        ({"a": "a", "b": "b", "c": "d"}, "unseen at fit time:\n- d"),
    ):
        other = frame.rename(columns=columns) if isinstance(columns, dict) else frame[columns]
        for call in (pca.transform, lf.Moments.from_data(make(frame)).update):
            with pytest.raises(ValueError, match=message):
                call(make(other))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but PCA was fitted with"):
        pca.transform(frame.to_numpy())
    with pytest.warns(UserWarning, match="X has feature names, but PCA was fitted without feature names"):
        lf.PCA(2).fit(frame.to_numpy()).transform(make(frame))


def test_merged_streams_and_moments_must_have_the_same_names(frame):
    a, b, c = frame[:40], frame[40:][list("cba")], frame[40:].rename(columns={"c": "d"})
    for other, message in ((b, "same names in another order"), (c, "only the first has 'c'; only the second has 'd'")):
        with pytest.raises(ValueError, match=f"feature names of the two estimators differ: .*{message}"):
            lf.IncrementalPCA(1).partial_fit(a).merge(lf.IncrementalPCA(1).partial_fit(other))
        with pytest.raises(ValueError, match=f"feature names of the moments differ: .*{message}"):
            lf.Moments.from_data(a) + lf.Moments.from_data(other)
    merged = lf.Moments.from_data(a) + lf.Moments.from_data(frame[40:])
    assert merged.feature_names == ("a", "b", "c")
    unnamed = lf.Moments.from_data(frame.to_numpy())
    for one, other, which in ((merged, unnamed, "first"), (unnamed, merged, "second")):
        with pytest.warns(UserWarning, match=f"^Of the two moments only the {which} has feature names"):
            assert (one + other).feature_names is None
    assert (unnamed + unnamed).feature_names is None  # without a warning
    same(lf.PCA.from_moments(merged, 2), lf.PCA(2).fit(frame))


def test_a_merged_stream_without_names_is_told_of_once(frame):
    def stream(rows):
        return lf.IncrementalPCA(1).partial_fit(rows)

    named, unnamed = frame[:40], frame[40:].to_numpy()
    for one, other, which in ((named, unnamed, "first"), (unnamed, named, "second")):
        with pytest.warns(UserWarning) as given:
            merged = stream(one).merge(stream(other))
        assert [str(warning.message).split(":")[0] for warning in given] == [
            f"Of the two estimators only the {which} has feature names"
        ]
        assert hasattr(merged, "feature_names_in_") == (one is named)
    stream(unnamed).merge(stream(unnamed))
    stream(named).merge(stream(named))


def test_names_are_saved_with_moments(frame, tmp_path):
    lf.Moments.from_data(frame).save(tmp_path / "m.npz")
    assert lf.Moments.load(tmp_path / "m.npz").feature_names == ("a", "b", "c")
    lf.Moments.from_data(frame.to_numpy()).save(tmp_path / "m.npz")
    assert lf.Moments.load(tmp_path / "m.npz").feature_names is None
    with np.load(tmp_path / "m.npz") as stored:
        np.savez(tmp_path / "bad.npz", **stored, feature_names=np.array(["a", "b"]))
    with pytest.raises(DataFileError, match="2 names for 3 features"):
        lf.Moments.load(tmp_path / "bad.npz")


def test_blocks_of_other_columns_are_refused(frame):
    other = frame.rename(columns={"c": "d"})
    with pytest.raises(ValueError, match=r"Block 1 of X has other columns than the first one.*\n.*unseen.*\n- d"):
        lf.PCA(1).fit([frame, other])
    lf.PCA(1).fit([frame, frame.to_numpy()])  # what has no names goes by its order


def test_a_failed_fit_keeps_the_names(frame):
    pca = lf.PCA(1).fit(frame)
    with pytest.raises(ValueError, match="NaN"):
        pca.fit(pa.table({"x": [1.0, None, 2.0], "y": [1.0, 2.0, 3.0]}))
    assert list(pca.feature_names_in_) == list("abc")


def test_names_that_are_no_strings_are_none():
    numbered = pandas.DataFrame(np.eye(3))
    assert sources.as_source(numbered).names is None
    assert not hasattr(lf.PCA(1).fit(numbered), "feature_names_in_")
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        lf.PCA(1).fit(numbered.rename(columns={0: "a"}))


def test_order():
    assert feature_names.order("abc", "abc") is None
    np.testing.assert_array_equal(feature_names.order("cab", "abc"), [1, 2, 0])
    with pytest.raises(ValueError, match="same order"):
        feature_names.order("aab", "aba")  # names that are there twice do not say which is which
    with pytest.raises(ValueError, match=r"- c\n- d\n- e\n- f\n- g\n- \.\.\."):
        feature_names.order("abcdefghijk", "ab")
