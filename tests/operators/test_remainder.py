"""What components leave: noise_variance_, and the likelihood that follows from it, under components of any size."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast.data import sources
from lae_fast.operators import remainder

EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


def rows(dtype, seed, m, d, p, ratio, mixed):
    """p columns `ratio` times as large as the others, on their own axes or mixed into all features."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((m, d))
    X[:, :p] *= ratio
    if mixed:
        X = X @ scipy.linalg.qr(rng.standard_normal((d, d)))[0]
    return X.astype(dtype)


def left_out(X, p, standardize=False):
    """Mean of the variances left out, and the total variance, by the SVD of the centred rows."""
    X = X.astype(np.float64)
    X = X - X.mean(axis=0)
    if standardize:
        X = X / X.std(axis=0, ddof=1)
    variances = np.linalg.svd(X, compute_uv=False) ** 2 / (len(X) - 1)
    return variances[p:].sum() / (min(X.shape) - p), variances.sum()


CASES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["float32", "float64"]),
        "seed": st.integers(0, 2**16),
        "shape": st.sampled_from([(200, 12), (30, 60)]),
        "p": st.integers(1, 11),
        "orders": st.floats(0, 1),
        "mixed": st.booleans(),
    }
)


@given(case=CASES, solver=st.sampled_from(["gram", "krylov"]), standardize=st.booleans(), sparse=st.booleans())
@settings(max_examples=40)
def test_noise_of_rows(case, solver, standardize, sparse):
    """Right to a hundredth as long as more is left than the square of eight eps of the total."""
    eps, p = EPS[case["dtype"]], case["p"]
    ratio = (0.01 / eps) ** case["orders"]
    X = rows(case["dtype"], case["seed"], *case["shape"], p, ratio, case["mixed"])
    model = lf.PCA(p, svd_solver=solver, standardize=standardize)
    model.fit(scipy.sparse.csr_matrix(X) if sparse else X)
    noise, total = left_out(X, p, standardize)
    assert abs(model.noise_variance_ - noise) <= 0.01 * noise + (8 * eps) ** 2 * total
    assert model.noise_variance_ >= 0


@given(case=CASES, weighted=st.booleans(), kind=st.sampled_from([lf.PCA, lf.IncrementalPCA]))
@settings(max_examples=40)
def test_noise_of_moments(case, weighted, kind):
    """Right to sixteen eps of the total; of features of their own, which rounding does not mix, to a hundredth."""
    eps, p = EPS[case["dtype"]], case["p"]
    ratio = (0.01 / eps) ** case["orders"]
    X = rows(case["dtype"], case["seed"], *case["shape"], p, ratio, case["mixed"])
    model = kind(p)
    for part in np.array_split(X, 3):
        model.partial_fit(part, sample_weight=np.full(len(part), 1.0) if weighted else None)
    noise, total = left_out(X, p)
    allowed = 16 * eps * total if case["mixed"] or len(X) < X.shape[1] else (8 * eps) ** 2 * total
    assert abs(model.noise_variance_ - noise) <= 0.01 * noise + allowed
    assert model.noise_variance_ >= 0


def test_noise_of_a_sketch():
    X = rows("float64", 0, 100, 300, 2, 1e9, True)
    model = lf.IncrementalPCA(2, max_memory=300 * 64 * 110).fit(X)
    assert model.solver_ == "sketch" and model.exact_
    np.testing.assert_allclose(model.noise_variance_, left_out(X, 2)[0], rtol=1e-6)


def log_density(X, p):
    """By the SVD of the training rows: the maximum likelihood of the model, each row."""
    m, d = X.shape
    X = X.astype(np.float64)
    centred = X - X.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variances, axes = singular[:p] ** 2 / (m - 1), axes[:p]
    noise = left_out(X, p)[0]
    latent = centred @ axes.T
    rest = centred - latent @ axes
    squares = (latent**2 / variances).sum(axis=1) + (rest**2).sum(axis=1) / noise
    return -0.5 * (d * np.log(2 * np.pi) + np.log(variances).sum() + (d - p) * np.log(noise) + squares)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("dtype", "ratio"), [("float64", 1e2), ("float64", 1e9), ("float32", 1e2), ("float32", 1e5)])
def test_score_under_large_components(dtype, ratio, mixed, standardize):
    X = rows(dtype, 1, 400, 15, 3, ratio, mixed)
    model = lf.PCA(3, standardize=standardize).fit(X)
    if standardize:
        assert np.isfinite(model.score(X))
        return
    found, expected = model.score_samples(X), log_density(X, 3)
    # components are stored in the dtype, so that a row leaves 2 eps of its length or so beside the r.m.s. noise of 1
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=(1e-3 if dtype == "float32" else 1e-4) + 20 * EPS[dtype] * ratio
    )
    np.testing.assert_allclose(found.mean(), expected.mean(), atol=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_components_of_graded_data_keep_their_density(dtype):
    """A small variance is no singular one."""
    X = rows(dtype, 2, 300, 6, 2, {"float32": 1e4, "float64": 1e10}[dtype], False)
    wide = X.astype(np.float64) / X.std(axis=0, dtype=np.float64)
    shift = np.log(X.std(axis=0, dtype=np.float64)).sum()
    np.testing.assert_allclose(lf.PCA().fit(X).score(X), lf.PCA().fit(wide).score(wide) - shift, atol=1e-2)


@pytest.mark.parametrize(
    ("dtype", "m", "d", "rank"), [("float64", 100, 10, 4), ("float64", 60, 200, 20), ("float32", 100, 10, 4)]
)
@pytest.mark.parametrize("streamed", [False, True])
def test_nothing_left_is_no_noise(dtype, m, d, rank, streamed):
    """Rounding of data of low rank is no noise, and the likelihood is that on the subspace, for any number above it."""
    rng = np.random.default_rng(3)
    X = (rng.standard_normal((m, rank)) @ rng.standard_normal((rank, d))).astype(dtype)
    values = np.linalg.svd((X - X.mean(axis=0)).astype(np.float64), compute_uv=False)[:rank] ** 2 / (m - 1)
    expected = -0.5 * (rank * np.log(2 * np.pi) + np.log(values).sum() + rank * (m - 1) / m)
    for p in (rank, rank + 1, rank + 3):
        model = lf.PCA(p).partial_fit(X) if streamed else lf.PCA(p).fit(X)
        assert model.noise_variance_ == 0.0
        np.testing.assert_allclose(model.score(X), expected, atol=0.05)


def test_mle_does_not_depend_on_the_unit():
    X = rows("float64", 5, 500, 10, 3, 8.0, True)
    for unit in (1e-30, 1.0, 1e30):
        assert lf.PCA("mle").fit(X * unit).n_components_ == 3


def test_chunks_fit_the_memory_that_is_given():
    """A pass more takes no more memory than the fit, down to one row at a time, and gives the same."""
    X = rows("float64", 0, 300, 20, 2, 1e9, False)
    model = lf.PCA(2).fit(X)
    source, sizes = sources.as_source(X), []
    read = source.block
    source.block = lambda first, last, by_feature: sizes.append(last - first) or read(first, last, by_feature)
    for limit, most in ((None, 300), (8 * 5 * 20 * 7, 7), (10, 1)):
        sizes.clear()
        found = remainder.of_rows(source, X.mean(axis=0), model.components_, None, None, "cpu", limit)
        assert max(sizes) == most
        np.testing.assert_allclose(found / 299 / 18, model.noise_variance_, rtol=1e-9)


def test_projected_names_the_nan():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1030, 5))
    X[1027, 2] = np.nan
    with pytest.raises(ValueError, match=r"row 1027, column 2"):
        list(remainder.projected(sources.as_source(X), np.zeros(5), np.eye(2, 5), None))


def test_projected_against_its_definition():
    rng = np.random.default_rng(0)
    X, mean, inverse = rng.standard_normal((1030, 5)), rng.standard_normal(5), rng.uniform(1, 2, 5)
    U = scipy.linalg.qr(rng.standard_normal((5, 5)))[0][:2]
    Z = (X - mean) * inverse
    parts = list(remainder.projected(sources.as_source(X), mean, U, inverse))
    latent, rest, along = (np.concatenate([part[k] for part in parts]) for k in (2, 3, 4))
    np.testing.assert_allclose(latent, Z @ U.T, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(rest, ((Z - Z @ U.T @ U) ** 2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(along, (Z**2).sum(axis=1), rtol=1e-12)
