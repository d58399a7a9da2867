"""Data of any size: results are those of the data times a power of two, or an error says that X is out of range."""

import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast import validation
from tests.oracle.tolerances import eps

LOW, HIGH = {"float32": -149, "float64": -1074}, {"float32": 120, "float64": 1018}
BASE = np.random.default_rng(0).standard_normal((80, 6)) * [5, 3, 2, 1, 0.5, 0.2] + [3, 0, -2, 0, 1, 0]


def sized(dtype, exponent):
    """Rows of about 2^exponent, what float32 or float64 makes of them, and the same with the size taken out again."""
    X = np.ldexp(BASE, exponent).astype(dtype)
    assert np.isfinite(X).all()
    out = X.astype(np.float64)
    while exponent:  # in steps, because 2^1074 is no number
        step = int(np.clip(exponent, -1000, 1000))
        out, exponent = np.ldexp(out, -step), exponent - step
    return X, out


def unsized(values, exponent):
    """values / 2^exponent in long double, whose range is enough."""
    return np.ldexp(np.asarray(values).astype(np.longdouble), -exponent)


@st.composite
def sizes(draw):
    dtype = draw(st.sampled_from(["float32", "float64"]))
    return dtype, draw(st.integers(LOW[dtype] + 4, HIGH[dtype]))


MODELS = {
    "gram": lambda p: lf.PCA(p, svd_solver="gram"),
    "krylov": lambda p: lf.PCA(p, svd_solver="krylov"),
    "whiten": lambda p: lf.PCA(p, whiten=True),
    "standardize": lambda p: lf.PCA(p, standardize=True),
    "incremental": lambda p: lf.IncrementalPCA(p, whiten=True),
    "sketch": lambda p: lf.IncrementalPCA(p, max_memory=40_000),
    "svd": lambda p: lf.TruncatedSVD(p),
    "stream": lambda p: lf.PCA(p),
}
FORMS = {
    "dense": lambda X: X,
    "wide": lambda X: X.T[:, :70],
    "sparse": scipy.sparse.csr_matrix,
    "blocks": lambda X: [X[:13], X[13:]],
}


def make(name, X, p=3):
    model = MODELS[name](p)
    if name == "stream":
        for part in np.array_split(X, 3):
            model.partial_fit(part)
        return model
    return model.fit(X)


@given(size=sizes(), name=st.sampled_from(sorted(MODELS)), form=st.sampled_from(sorted(FORMS)))
@settings(max_examples=150, deadline=None)
def test_results_have_the_size_of_the_data_or_the_error_says_so(size, name, form):
    dtype, exponent = size
    X, plain = sized(dtype, exponent)
    given_rows, rows = FORMS[form](X), FORMS["dense" if form in ("sparse", "blocks") else form](plain)
    if name == "sketch" and form != "wide":
        return  # there is no room for one that holds no more than the moments
    if name == "stream" and form in ("sparse", "blocks"):
        given_rows = X
    expected = make(name, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            model = make(name, given_rows)
        except ValueError as error:
            assert "of X" in str(error) and "range of float64" in str(error)
            assert dtype == "float64" and abs(exponent) > 470
            return
        checked(model, expected, given_rows if form != "blocks" else X, rows, exponent, dtype, name)


def checked(model, expected, X, rows, exponent, dtype, name):
    standardized = name == "standardize"
    unit = 0 if standardized else exponent
    slack = 200 * eps(dtype)
    np.testing.assert_allclose(
        unsized(model.explained_variance_, 2 * unit).astype(float), expected.explained_variance_, rtol=slack
    )
    np.testing.assert_allclose(
        unsized(model.singular_values_, unit).astype(float), expected.singular_values_, rtol=slack
    )
    np.testing.assert_allclose(model.components_, expected.components_, atol=slack)
    np.testing.assert_allclose(
        model.explained_variance_ratio_, expected.explained_variance_ratio_, rtol=slack, atol=slack
    )
    if name == "svd":
        return
    np.testing.assert_allclose(
        float(unsized(model.noise_variance_, 2 * unit)),
        expected.noise_variance_,
        rtol=1e-3 if dtype == "float32" else 1e-9,
    )
    whitened = getattr(model, "whiten", False) or standardized
    scores = model.transform(X)
    fine = 2.0 ** (LOW[dtype] - exponent)  # a unit in the last place of subnormal scores and rows
    deviations = unsized(scores, 0 if whitened else unit).astype(float)
    np.testing.assert_allclose(deviations, expected.transform(rows), atol=20 * slack + (0 if whitened else 4 * fine))
    back = unsized(model.inverse_transform(scores), exponent).astype(float)
    there = expected.inverse_transform(expected.transform(rows))
    np.testing.assert_allclose(back, there, atol=20 * slack + 20 * fine)
    if rows.shape[0] > rows.shape[1]:
        shift = rows.shape[1] * exponent * np.log(2.0)
        np.testing.assert_allclose(model.score(X) + shift, expected.score(rows), rtol=1e-3, atol=1e-2)


@given(
    low=st.floats(-30, 30), spread=st.floats(0, 60), dtype=st.sampled_from(["float32", "float64"]), wide=st.booleans()
)
@settings(max_examples=40, deadline=None)
def test_standardized_features_of_any_size(low, spread, dtype, wide):
    rng = np.random.default_rng(1)
    Z = rng.standard_normal((12, 90) if wide else (90, 12))
    Z[:, 3] += Z[:, 0]
    d = Z.shape[1]
    orders = np.clip(low + spread * np.linspace(-0.5, 0.5, d)[rng.permutation(d)], -36, 36)
    X = (Z * 10.0**orders).astype(dtype)
    model = lf.PCA(4, standardize=True).fit(X)
    exact = X.astype(np.longdouble) - X.astype(np.longdouble).mean(axis=0)
    exact = (exact / np.sqrt((exact**2).sum(axis=0) / (len(X) - 1))).astype(np.float64)
    _, singular, _ = np.linalg.svd(exact, full_matrices=False)
    slack = 200 * eps(dtype)
    np.testing.assert_allclose(model.explained_variance_, singular[:4] ** 2 / (len(X) - 1), rtol=slack)
    np.testing.assert_allclose(model.transform(X).std(axis=0, ddof=1), singular[:4] / np.sqrt(len(X) - 1), rtol=slack)
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_standardized_sparse_features_of_any_size(dtype):
    rng = np.random.default_rng(2)
    X = rng.standard_normal((900, 40)) * (rng.random((900, 40)) < 0.05) * 10.0 ** rng.uniform(-18, 18, 40)
    X = scipy.sparse.csr_matrix(X.astype(dtype))
    found = lf.PCA(3, standardize=True).fit(X)
    Z = X.toarray().astype(np.float64)
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0, ddof=1)
    values = np.linalg.svd(Z, compute_uv=False)[:3] ** 2 / 899
    np.testing.assert_allclose(found.explained_variance_, values, rtol=200 * eps(dtype))
    np.testing.assert_allclose(found.transform(X).std(axis=0, ddof=1), np.sqrt(values), rtol=200 * eps(dtype))


def test_features_that_no_dtype_holds_are_named():
    X = BASE.copy()
    X[:, 2] *= 1e-160
    with pytest.raises(ValueError, match="Columns 2 and 0 of X"):
        lf.PCA(2, standardize=True).fit(X)
    narrow = BASE.astype("float32")
    narrow[:, 2] *= np.float32(1e-20)
    with pytest.raises(ValueError, match="Column 2 of X"):
        lf.PCA.from_moments(lf.Moments.from_data(narrow), 2, standardize=True)
    model = lf.PCA(2, standardize=True).partial_fit(narrow)
    np.testing.assert_allclose(
        model.explained_variance_, lf.PCA(2, standardize=True).fit(BASE).explained_variance_, rtol=1e-5
    )


@given(
    exponents=st.lists(st.integers(-460, 460), min_size=2, max_size=4),
    means=st.lists(st.integers(-460, 460), min_size=4, max_size=4),
    kind=st.sampled_from([lf.PCA, lf.IncrementalPCA]),
)
@settings(max_examples=60, deadline=None)
def test_batches_of_any_sizes(exponents, means, kind):
    """A stream whose batches and their means are of different sizes is that of its largest numbers."""
    rng = np.random.default_rng(0)
    parts = [
        np.ldexp(rng.standard_normal((20, 4)) * [4, 2, 1, 0.5], e) + np.ldexp(1.0, mean)
        for e, mean in zip(exponents, means)
    ]
    model = kind(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in parts:
            model.partial_fit(part)
        X = np.concatenate(parts).astype(np.longdouble)
        X -= X[0]  # exact where all rows are near; the mean of numbers far off would be rounded
        X -= X.mean(axis=0)
        largest = np.abs(X).max() or 1  # of rows all alike
        values = np.linalg.svd((X / largest).astype(np.float64), compute_uv=False)[:1] ** 2 / (len(X) - 1)
        got = model.explained_variance_[:1].astype(np.longdouble) / largest**2
    np.testing.assert_allclose(got.astype(float), values, rtol=1e-12)


def test_a_row_that_the_pilot_did_not_see():
    X = np.random.default_rng(0).standard_normal((5000, 3))
    X[777, 1] = 1e200
    for model in (lf.PCA(1), lf.IncrementalPCA(1), lf.PCA(1, svd_solver="krylov"), lf.TruncatedSVD(1)):
        with pytest.raises(ValueError, match="X"):
            model.fit(X)


@pytest.mark.parametrize("limit", [np.inf, float("inf"), np.float32("inf")])
def test_infinite_memory_is_no_limit(limit):
    assert validation.memory_bytes(limit) is None
    assert lf.PCA(2, max_memory=limit).fit(BASE).n_components_ == 2
    assert lf.PCA(2, max_memory=limit).partial_fit(BASE).n_components_ == 2
    assert lf.IncrementalPCA(2, max_memory=limit).fit(BASE).exact_
    for bad in (-np.inf, np.nan, 0):
        with pytest.raises(ValueError, match="max_memory"):
            lf.PCA(2, max_memory=bad).fit(BASE)
