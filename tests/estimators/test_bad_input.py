"""Bad input: every message names the argument, says what is wrong and what to do; nothing that was there is lost."""

import copy
import datetime
import decimal
import re
import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning, NotFittedError

import lae_fast as lf
from lae_fast import validation
from lae_fast.errors import MemoryLimitError
from tests.oracle import spectra

ROUTES = ("gram", "krylov")


def data(m=60, d=8, dtype=np.float64):
    return spectra.decaying(m, d).astype(dtype)


# --- NaN and Inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(3000, 8), (20, 3000)], ids=["tall", "wide"])
@pytest.mark.parametrize("route", ROUTES)
def test_nonfinite_names_the_first(bad, dtype, shape, route):
    X = data(*shape, dtype=dtype)
    row, column = shape[0] - 3, shape[1] - 5
    X[row, column] = bad
    X[row + 1, column - 1] = bad
    message = rf"Input X contains {'NaN' if np.isnan(bad) else 'infinity'}.*row {row}, column {column}.*drop or impute"
    with pytest.raises(ValueError, match=message):
        lf.PCA(n_components=2, svd_solver=route).fit(X)
    with pytest.raises(ValueError, match=message):
        lf.PCA(n_components=2, standardize=True, svd_solver=route).fit(X)


@pytest.mark.parametrize("method", ["transform", "score_samples", "score", "partial_fit"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nonfinite_after_the_fit(method, bad):
    X = data()
    pca = lf.PCA(n_components=2).fit(X)
    X[7, 3] = bad
    with pytest.raises(ValueError, match="row 7, column 3"):
        getattr(pca, method)(X)


def test_nonfinite_of_weight_zero_is_refused_too():
    X = data()
    X[5, 1] = np.nan
    with pytest.raises(ValueError, match="row 5, column 1"):
        lf.PCA(n_components=2).fit(X, sample_weight=np.arange(60.0) != 5)


def test_overflow_is_not_called_nan():
    X = np.full((40, 5), 3e38, np.float32) * np.random.default_rng(0).choice([-1, 1], size=(40, 5)).astype(np.float32)
    pca_or_error = None
    try:
        pca_or_error = lf.PCA(n_components=2).fit(X)
    except ValueError as error:
        assert re.search(r"overflow.*rescale X or convert", str(error))
    else:
        assert np.isfinite(pca_or_error.components_).all()


# --- shapes and dtypes


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.empty((0, 4)), r"0 sample\(s\).*minimum of 1 is required in X"),
        (np.empty((4, 0)), r"0 feature\(s\).*minimum of 1 is required in X"),
        (np.ones((1, 4)), r"X has n_samples=1.*at least 2 samples"),
        (np.ones(4), r"Expected 2D array, got 1D array.*X has shape \(4,\).*Reshape"),
        (np.ones((2, 3, 4)), r"Expected 2D array, got 3D"),
        (np.float64(3.0), r"Expected 2D array, got scalar.*Reshape"),
        (np.ones((4, 3), complex), r"Complex data not supported: X.*X\.real"),
        (np.array([["a", "b"], ["c", "d"]]), r"X holds strings.*(?i:encode)"),
        (np.array([["a", 1], ["c", 2]], dtype=object), r"X holds objects that are no numbers"),
        (np.array([[1j, 1], [0, 2]], dtype=object), r"Complex data not supported: X"),
        ([[1.0, 2.0], [3.0]], r"X cannot be made into an array \(ragged rows\?\)"),
        (np.array([[1, 2], [3, 4]], dtype="M8[s]"), r"X has dtype datetime64.*convert"),
        (np.zeros(3, dtype=[("a", "f4")]).reshape(3, 1), r"X has dtype.*convert"),
    ],
    ids=lambda value: None if isinstance(value, str) else "x",
)
@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_transform"])
def test_shape_and_dtype(X, message, method):
    if method == "partial_fit" and "n_samples=1" in message:
        pytest.skip("a batch may hold a single row")
    with pytest.raises(ValueError, match=message):
        getattr(lf.PCA(n_components=1), method)(X)


DAY = datetime.date(2020, 1, 2)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ({1.0, 2.0}, "X is a set, which has no order: pass a list of rows"),
        (..., "X is an object of the type 'ellipsis', which is no matrix: pass a 2-D array"),
        ([{"a": 1, "b": 2}, {"a": 3, "b": 5}], "the type 'dict': pass a table made of the rows"),
        ([[DAY, 1.0], [DAY, 2.0]], "the type 'date': pass numbers, such as days"),
        ([[decimal.Decimal(1), {1}], ["2", None]], "the type 'set': pass numbers"),
    ],
)
def test_objects_are_told_what_to_pass(X, message):
    for call in (lf.PCA(1).fit, lf.IncrementalPCA(1).partial_fit, lf.Moments.from_data):
        with pytest.raises(TypeError, match=message) as found:
            call(X)
        assert "float() argument" not in str(found.value)
    assert np.asarray("1970-01-03", "datetime64[D]").astype(float) == 2.0  # what is advised


def test_tensors_that_are_no_matrix():
    torch = pytest.importorskip("torch")
    rows = [torch.ones(2, 3), torch.ones(1, 3)]
    for X, message in (
        (torch.nested.nested_tensor(rows, layout=torch.jagged), r"nested tensor.*torch\.cat\(X\.unbind\(\)\)"),
        (torch.empty(4, 3, device="meta"), "device 'meta', which has a shape but no numbers"),
        (torch.sparse_coo_tensor([[0, 2]], torch.ones(2, 3), (4, 3)), r"hybrid sparse.*pass X\.to_dense\(\)"),
    ):
        with pytest.raises(TypeError, match=f"X is a.*{message}"):
            lf.PCA(1).fit(X)
    hybrid = torch.sparse_coo_tensor([[0, 2]], torch.tensor([[1.0, 2, 3], [5, 1, 2]]), (4, 3))
    assert lf.PCA(1).fit(hybrid.to_dense().to_sparse()).n_features_in_ == 3


@pytest.mark.parametrize("X", [np.array([[None, {}], [1, 2]], dtype=object), np.array([[[], 1], [2, 3]], dtype=object)])
def test_objects_that_cannot_be_numbers(X):
    with pytest.raises((TypeError, ValueError), match=r"X holds objects that are no numbers|X has shape|3D"):
        lf.PCA(n_components=1).fit(X)


@pytest.mark.parametrize("method", ["transform", "score_samples", "partial_fit"])
def test_wrong_width(method):
    pca = lf.PCA(n_components=2)
    pca.partial_fit(data())
    before = copy.deepcopy(pca)
    with pytest.raises(ValueError, match=r"X has 7 features, but PCA is expecting 8 features"):
        getattr(pca, method)(data(d=7))
    np.testing.assert_array_equal(pca.components_, before.components_)


def test_wrong_width_of_scores():
    pca = lf.PCA(n_components=2).fit(data())
    with pytest.raises(ValueError, match=r"X has 3 columns, but this PCA has 2 components"):
        pca.inverse_transform(np.ones((4, 3)))


@pytest.mark.parametrize(
    "method", ["transform", "inverse_transform", "score_samples", "get_covariance", "get_precision"]
)
def test_not_fitted(method):
    arguments = () if method.startswith("get_") else (data(),)
    with pytest.raises(NotFittedError, match=r"not fitted yet.*fit"):
        getattr(lf.PCA(), method)(*arguments)


@pytest.mark.parametrize(
    "out",
    [np.empty((60, 3)), np.empty((60, 2), np.float32), np.empty((2, 60)).T, np.empty((59, 2))],
    ids=["width", "dtype", "order", "length"],
)
def test_wrong_out(out):
    pca = lf.PCA(n_components=2).fit(data())
    with pytest.raises(ValueError, match=r"out must be a C-ordered array of shape \(60, 2\) and dtype float64"):
        pca.transform(data(), out=out)


# --- parameters


@pytest.mark.parametrize(
    ("n_components", "message"),
    [
        (-1, r"n_components=-1 must be between 0 and min\(n_samples, n_features\)=8 with svd_solver='full' or 'auto'"),
        (9, r"n_components=9 must be between 0 and min\(n_samples, n_features\)=8"),
        (0.0, r"n_components=0.0: a float must lie in \(0, 1\)"),
        (1.0, r"n_components=1.0: a float must lie in \(0, 1\).*int"),
        (2.5, r"n_components=2.5: a float must lie in \(0, 1\)"),
        (np.nan, r"n_components=nan: a float must lie in \(0, 1\)"),
        (
            "five",
            r"n_components='five' must be an integer, a float in \(0, 1\), 'mle', 'parallel', .* or None",
        ),
        (True, r"n_components=True must be an integer"),
        ([2], r"n_components=\[2\] must be an integer"),
    ],
)
def test_n_components(n_components, message):
    with pytest.raises(ValueError, match=message):
        lf.PCA(n_components=n_components).fit(data())


@pytest.mark.parametrize("n_components", ["3", "five", b"mle", True, [2], 1 + 2j])
@pytest.mark.parametrize("missing", ["error", "em"])
def test_a_number_of_components_of_the_wrong_type(n_components, missing):
    with pytest.raises(validation.ParameterTypeError, match="must be an integer"):
        lf.PCA(n_components, missing=missing).fit(data())


def test_mle_needs_enough_samples():
    with pytest.raises(ValueError, match="n_components='mle' is only supported if n_samples >= n_features"):
        lf.PCA(n_components="mle").fit(data(5, 8))


def test_more_components_than_features_in_a_stream():
    with pytest.raises(ValueError, match="n_components=9 exceeds n_features=8"):
        lf.PCA(n_components=9).partial_fit(data())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"svd_solver": "lanczos"}, r"svd_solver='lanczos' is unknown; choose one of 'auto', 'gram', 'krylov', 'full'"),
        ({"svd_solver": None}, r"svd_solver=None is unknown; choose one of 'auto'"),
        ({"missing": "mean"}, r"missing='mean' is unknown; choose one of 'error', 'em'"),
        ({"backend": "tpu"}, r"backend='tpu' is unknown; choose one of 'auto', 'cpu', 'cuda'"),
        ({"tol": -1e-3}, r"tol=-0.001 must be a real number >= 0"),
        ({"tol": np.nan}, r"tol=nan must be a real number >= 0"),
        ({"tol": "small"}, r"tol='small' must be a real number >= 0"),
        ({"n_oversamples": 0}, r"n_oversamples=0 must be an integer >= 1"),
        ({"n_oversamples": 2.5}, r"n_oversamples=2.5 must be an integer >= 1"),
        ({"iterated_power": -1}, r"iterated_power=-1 must be an integer >= 0"),
        (
            {"power_iteration_normalizer": "SVD"},
            r"power_iteration_normalizer='SVD' is unknown; choose one of 'auto', 'QR'",
        ),
        ({"whiten": "yes"}, r"whiten='yes' must be True or False"),
        ({"standardize": 1}, r"standardize=1 must be True or False"),
        ({"max_memory": "lots"}, r"max_memory='lots' is not a size; write for example '500MB'"),
        ({"max_memory": 0}, r"max_memory=0 must be a real number >= 1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_parameters(parameters, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(lf.PCA(n_components=2, **parameters), method)(data())


def test_progress_must_be_callable():
    with pytest.raises(TypeError, match="progress must be False, True or a callable"):
        lf.PCA(n_components=2, progress="yes").fit(data())


def test_cuda_says_what_was_probed():
    if lf.backend_info()["cuda"]["available"]:
        pytest.skip("CUDA runs here")
    with pytest.raises(
        lf.BackendUnavailableError, match=r"backend='cuda' cannot run.*found.*Use backend='cpu', or 'auto'"
    ):
        lf.PCA(n_components=2, backend="cuda").fit(data())


@pytest.mark.full
@pytest.mark.parametrize("route", ["auto", *ROUTES])
@pytest.mark.parametrize("shape", [(3000, 500), (500, 3000)], ids=["tall", "wide"])
def test_memory_limit_says_what_is_needed(route, shape):
    X = data(*shape)
    with pytest.raises(
        MemoryLimitError, match=r"max_memory=100 kB is too small: .* needs [\d.]+ MB.*raise max_memory"
    ) as caught:
        lf.PCA(n_components=20, svd_solver=route, max_memory="100KB").fit(X)
    assert isinstance(caught.value, MemoryError)
    needed = re.search(r"needs ([\d.]+ MB)", str(caught.value))[1]
    pca = lf.PCA(n_components=20, svd_solver=route, max_memory=needed).fit(X)
    assert np.isfinite(pca.components_).all()


@pytest.mark.full
def test_a_limit_takes_the_leaner_route():
    X = data(3000, 1500, np.float32)
    free = lf.PCA(n_components=300).fit(X)
    assert free.solver_ == "gram"
    limited = lf.PCA(n_components=3, max_memory="12MB", tol=1e-2).fit(X)
    assert limited.solver_ == "krylov"
    assert "would take" in limited.route_reason_


# --- weights


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(59), r"sample_weight has shape \(59,\), but X has 60 samples: pass \(60,\)"),
        (np.ones((60, 1)), r"sample_weight has shape \(60, 1\)"),
        (np.where(np.arange(60) == 7, -1.0, 1.0), r"sample_weight must not be negative, first at row 7 "),
        (np.where(np.arange(60) == 7, np.nan, 1.0), r"sample_weight contains NaN or inf, first at row 7"),
        (np.where(np.arange(60) == 7, np.inf, 1.0), r"sample_weight contains NaN or inf, first at row 7"),
        (np.zeros(60), r"sample_weight is zero for every sample"),
        (np.full(60, 0.5 / 60), r"sample_weight sums to 0.5.*denominator.*scale them"),
        (np.eye(60)[0], r"sample_weight sums to 1;.*denominator.*scale them"),
    ],
    ids=["short", "2-D", "negative", "nan", "inf", "zero", "small", "one"],
)
def test_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        lf.PCA(n_components=2).fit(data(), sample_weight=weights)


# --- what happens to what was there


@pytest.mark.parametrize(
    "spoil",
    [
        lambda X: (np.where(np.arange(8) == 3, np.nan, X), None),
        lambda X: (X[:, :5], None),
        lambda X: (X, -np.ones(len(X))),
        lambda X: (X.astype(complex), None),
        lambda X: (np.empty((0, 8)), None),
    ],
    ids=["nan", "width", "weights", "complex", "empty"],
)
def test_a_failed_batch_changes_nothing(spoil):
    X = data(500)
    pca = lf.PCA(n_components=3).partial_fit(X[:200])
    before = {name: copy.deepcopy(value) for name, value in vars(pca).items()}
    scatter = pca._moments.xx
    batch, weights = spoil(X[200:350])
    with pytest.raises(ValueError, match=r"X|sample_weight|array"):
        pca.partial_fit(batch, sample_weight=weights)
    assert set(vars(pca)) == set(before)
    for name, value in vars(pca).items():
        if name != "_moments":
            np.testing.assert_array_equal(value, before[name], err_msg=name)
    np.testing.assert_array_equal(pca._moments.xx, scatter)
    pca.partial_fit(X[200:])
    whole = lf.PCA(n_components=3).partial_fit(X[:200]).partial_fit(X[200:])
    np.testing.assert_array_equal(pca.components_, whole.components_)


def test_a_failed_first_batch_leaves_an_unfitted_estimator():
    X = data()
    pca = lf.PCA(n_components=3)
    with pytest.raises(ValueError, match="NaN"):
        pca.partial_fit(np.where(np.arange(8) == 3, np.nan, X))
    with pytest.raises(NotFittedError):
        pca.transform(X)
    pca.partial_fit(data(d=5))  # the width of the failed batch does not bind
    assert pca.n_features_in_ == 5


def test_a_failed_fit_keeps_the_last_result():
    X = data()
    pca = lf.PCA(n_components=3).fit(X)
    scores = pca.transform(X)
    with pytest.raises(ValueError, match="NaN"):
        pca.fit(np.where(np.arange(8) == 3, np.nan, X))
    np.testing.assert_array_equal(pca.transform(X), scores)


@pytest.mark.full
def test_no_convergence_warns_and_keeps_the_best(monkeypatch):
    from lae_fast.eigen import krylov_route

    monkeypatch.setattr(krylov_route, "_MOST_PRODUCTS", 2)
    X = spectra.decaying(2000, 600, decay=0.995).astype(np.float32)
    pca = lf.PCA(n_components=6, svd_solver="krylov")
    message = r"of 6 components are above the tolerance: components .*worst residual.*best that was found.*larger tol"
    with pytest.warns(ConvergenceWarning, match=message) as caught:
        pca.fit(X)
    assert not pca.converged_.all()
    truth = spectra.answer(X)
    values = pca.explained_variance_ * 1999.0
    assert (values <= truth.values[:6] * (1 + 1e-5)).all()  # Ritz values bound from below
    assert values.sum() > 0.5 * truth.values[:6].sum()
    true = spectra.residuals(X, values, pca.components_.T, np.finfo(np.float32).eps)
    assert (true <= pca.residuals_ * (1 + 1e-5)).all()
    late = np.flatnonzero(~pca.converged_)
    assert f"components {', '.join(map(str, late))} (counting from 0)," in str(caught[0].message)


def test_a_larger_tolerance_silences_the_warning(monkeypatch):
    from lae_fast.eigen import krylov_route

    monkeypatch.setattr(krylov_route, "_MOST_PRODUCTS", 2)
    X = spectra.decaying(2000, 600, decay=0.995).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lf.PCA(n_components=6, svd_solver="krylov", tol=0.9).fit(X).converged_.all()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_set_num_threads(n):
    before = lf.get_num_threads()
    with pytest.raises(ValueError, match=r"n=.* must be an integer >= 1, or None for"):
        lf.set_num_threads(n)
    assert lf.get_num_threads() == before


@pytest.mark.parametrize("size", [1e-200, 1e160, 1e300])
@pytest.mark.parametrize("fit", [lf.Moments.from_data, lf.PCA(2).fit, lf.PCA(2, svd_solver="krylov").fit])
@pytest.mark.parametrize("transposed", [False, True], ids=["tall", "wide"])
def test_squares_beyond_float64_say_so(size, fit, transposed):
    X = np.random.default_rng(0).uniform(-1, 1, (40, 6)) * size
    with pytest.raises(ValueError, match="leave the range of float64; multiply X by a power of ten"):
        fit(X.T if transposed else X)


@pytest.mark.parametrize("size", [1e-140, 1e140])
def test_squares_within_float64_are_fine(size):
    X = np.random.default_rng(0).uniform(-1, 1, (40, 6))
    small, plain = lf.PCA(2).fit(X * size), lf.PCA(2).fit(X)
    np.testing.assert_allclose(small.components_, plain.components_, atol=1e-12)
    np.testing.assert_allclose(small.singular_values_ / size, plain.singular_values_, rtol=1e-12)


def test_a_far_constant_about_zero_overflows_aloud():
    X = np.full((30, 4), 1e200)
    X[0] = 2e200
    with pytest.raises(ValueError, match="leave the range of float64"):
        lf.top_eigenpairs(X, 2, center=False)


def test_only_moments_are_moments():
    with pytest.raises(TypeError, match=r"moments must be lae_fast\.Moments, got ndarray: pass Moments\.from_data"):
        lf.PCA.from_moments(np.eye(3), 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("made", [lf.PCA, lf.IncrementalPCA, lf.TruncatedSVD, lf.LinearAutoencoder])
def test_scores_that_are_not_finite_have_no_rows(made, bad):
    """As rows that are not finite have no scores, and as scikit-learn's and the command line do it."""
    model = made(2, **({"rule": "alternating"} if made is lf.LinearAutoencoder else {})).fit(data())
    scores = model.transform(data())
    scores[7, 1] = bad
    with pytest.raises(ValueError, match="row 7, column 1") as refused:
        model.inverse_transform(scores)
    assert "missing" not in str(refused.value)  # which would not take them either
    da = pytest.importorskip("dask.array")
    rows = model.inverse_transform(da.from_array(scores, chunks=(5, 2)))  # nothing is computed yet
    with pytest.raises(ValueError, match="row 7, column 1"):
        rows.compute(scheduler="synchronous")
