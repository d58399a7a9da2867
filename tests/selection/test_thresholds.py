"""Parallel analysis and Gavish-Donoho: against naive draws, published constants, and planted components."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import decomposition, preprocessing

import lae_fast as lf
from lae_fast import selection

SHAPES = [(600, 40), (60, 200), (100, 100)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("signal", [1, 4])
def test_planted_components_are_counted(planted, shape, signal):
    spectrum = selection.spectrum(planted(*shape, signal, 3.0))
    assert selection.gavish_donoho(spectrum).n_components == signal
    assert selection.gavish_donoho(spectrum, noise=1.0).n_components == signal
    assert selection.parallel_analysis(spectrum).n_components == signal


def test_noise_alone_has_no_components(planted):
    found = [selection.spectrum(planted(300, 30, 1, 0.0, seed)) for seed in range(8)]
    assert [selection.gavish_donoho(one).n_components for one in found] == [0] * 8
    # at a quantile of 0.95 one set of rows in twenty has a component by chance
    assert sum(selection.parallel_analysis(one).n_components for one in found) <= 1


def test_features_of_different_size_are_no_signal():
    """Independent features, one ten times as large as the others: parallel analysis draws such features too."""
    X = np.random.default_rng(1).standard_normal((400, 20)) * np.r_[10.0, np.ones(19)]
    assert selection.parallel_analysis(selection.spectrum(X)).n_components == 0
    assert selection.parallel_analysis(selection.spectrum(X, standardize=True)).n_components == 0


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("shape", [(200, 12), (15, 40)])
def test_the_thresholds_are_those_of_rows_that_are_drawn(shape, standardize):
    m, d = shape
    deviations = np.linspace(1.0, 3.0, d)
    random = np.random.default_rng(5)
    X = random.standard_normal(shape) * deviations
    spectrum = selection.spectrum(X, standardize=standardize)
    drawn = []
    for _ in range(400):
        rows = random.standard_normal(shape) * X.std(axis=0, ddof=1)
        if standardize:
            rows = rows / rows.std(axis=0, ddof=1)
        drawn.append(np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[: min(m - 1, d)] ** 2 / (m - 1))
    naive = np.quantile(drawn, 0.9, axis=0)
    found = selection.parallel_analysis(spectrum, n_draws=400, quantile=0.9).thresholds
    assert found.shape == naive.shape
    # 400 draws know a quantile to a few percent of the spread, which is a tenth of the largest variance
    np.testing.assert_allclose(found, naive, atol=0.03 * naive[0])


def test_parallel_analysis_repeats_itself_and_takes_seeds(planted):
    spectrum = selection.spectrum(planted(80, 20, 2, 2.0))
    first, again = selection.parallel_analysis(spectrum), selection.parallel_analysis(spectrum)
    np.testing.assert_array_equal(first.thresholds, again.thresholds)
    other = selection.parallel_analysis(spectrum, random_state=np.random.RandomState(3))
    assert (other.thresholds != first.thresholds).all()


def test_published_constants():
    """Gavish and Donoho 2014: 4 / sqrt(3) and 2.858 for square matrices, and their cubic for the others, to 0.02."""
    assert selection.optimal_threshold(1.0) == pytest.approx(4.0 / np.sqrt(3.0))
    for beta in (0.05, 0.1, 0.3, 0.5, 0.8, 1.0):
        omega = selection.optimal_threshold(beta) / np.sqrt(selection.marchenko_pastur_median(beta))
        assert omega == pytest.approx(0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43, abs=0.02)
    assert omega == pytest.approx(2.858, abs=5e-4)


@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0])
def test_at_the_threshold_keeping_costs_what_dropping_does(beta):
    """Kept, a noisy singular value y of a signal x adds y^2 - 2 y h to the squared error x^2 of dropping it.

    h = sqrt((y^2 - beta - 1)^2 - 4 beta) / y, x times both cosines, is the best value in its place (Gavish and Donoho,
    IEEE Trans. Inf. Theory 63, 2017).  y = 2 h is 3 t^2 - 8 (beta + 1) t + 4 (beta - 1)^2 = 0 in t = y^2.
    """
    y = selection.optimal_threshold(beta)
    assert y == pytest.approx(2.0 * np.sqrt((y**2 - beta - 1.0) ** 2 - 4.0 * beta) / y, rel=1e-12)
    assert y**2 == pytest.approx(max(np.roots([3.0, -8.0 * (beta + 1.0), 4.0 * (beta - 1.0) ** 2])), rel=1e-12)


def test_median_of_the_law_is_that_of_noise():
    noise = np.random.default_rng(0).standard_normal((2000, 500))
    values = np.linalg.eigvalsh(noise.T @ noise / 2000)
    assert selection.marchenko_pastur_median(0.25) == pytest.approx(np.median(values), rel=0.01)


def test_constant_features_have_no_noise(planted):
    """Two thirds of the features are constant: the median is that of the others."""
    X = np.hstack([planted(300, 20, 3, 3.0), np.full((300, 40), 7.0)])
    spectrum = selection.spectrum(X)
    assert spectrum.rank == 20
    assert selection.gavish_donoho(spectrum).n_components == 3
    assert selection.parallel_analysis(spectrum).n_components == 3


def test_without_noise_the_error_names_the_way_out():
    X = np.random.default_rng(0).standard_normal((50, 3)) @ np.random.default_rng(1).standard_normal((3, 20))
    spectrum = selection.Spectrum(np.r_[9.0, 4.0, 1.0, np.zeros(17)], 50.0, X.var(axis=0))
    with pytest.raises(ValueError, match=r"no noise to measure: use gavish_donoho\(noise=\.\.\.\)"):
        selection.gavish_donoho(spectrum)
    assert selection.gavish_donoho(spectrum, noise=1e-3).n_components == 3


@pytest.mark.parametrize("choice", ["parallel", "gavish-donoho", "mle"])
@pytest.mark.parametrize("standardize", [False, True])
def test_pca_takes_the_choice(planted, choice, standardize):
    X = planted(400, 25, 3, 3.0).astype(np.float32)
    pca = lf.PCA(choice, standardize=standardize).fit(X)
    spectrum = selection.spectrum(X, standardize=standardize)
    expected = selection.chosen(choice, spectrum)
    count = 3
    if choice == "mle" and standardize:  # Minka's noise is equal in all directions, and no longer is
        count = decomposition.PCA("mle", svd_solver="full").fit(preprocessing.scale(X.astype(float))).n_components_
    assert pca.n_components_ == pca.choice_.n_components == expected.n_components == count
    assert len(pca.components_) == len(pca.residuals_) == count and pca.solver_ == "gram"
    from_moments = lf.PCA.from_moments(lf.Moments.from_data(X), choice, standardize=standardize)
    assert from_moments.n_components_ == count
    assert not hasattr(pca.set_params(n_components=2).fit(X), "choice_")


@pytest.mark.parametrize("choice", ["parallel", "gavish-donoho"])
def test_pca_takes_the_choice_of_wide_and_weighted_rows(planted, choice):
    X = planted(60, 200, 2, 3.0)
    assert lf.PCA(choice).fit(X).n_components_ == 2
    weights = np.r_[np.full(30, 2.0), np.ones(30)]
    repeated = np.vstack([X[:30], X[:30], X[30:]])
    found = lf.PCA(choice).fit(X, sample_weight=weights)
    assert found.n_components_ == lf.PCA(choice).fit(repeated).n_components_
    np.testing.assert_allclose(found.choice_.thresholds, lf.PCA(choice).fit(repeated).choice_.thresholds, rtol=1e-6)


def test_refusals_name_the_way_out(planted):
    X = planted(60, 200, 2, 3.0)
    with pytest.raises(ValueError, match="'parallel' and 'gavish-donoho' take fewer samples too"):
        lf.PCA("mle").fit(X)
    with pytest.raises(ValueError, match="needs the whole spectrum, of svd_solver='auto' or 'gram'"):
        lf.PCA("parallel", svd_solver="krylov").fit(X)
    with pytest.raises(ValueError, match="use gavish_donoho or parallel_analysis"):
        selection.minka(selection.spectrum(X))
    with pytest.raises(ValueError, match="center=True"):
        selection.spectrum(lf.Moments.from_data(X, center=False))
    with pytest.raises(ValueError, match="variances must descend"):
        selection.Spectrum(np.array([1.0, 2.0]), 10.0, np.ones(2))
    with pytest.raises(ValueError, match=r"variances\[1\]=-1.0 is negative"):
        selection.Spectrum(np.array([1.0, -1.0]), 10.0, np.ones(2))


def test_the_choice_is_in_the_file(planted, tmp_path):
    pca = lf.PCA("parallel").fit(planted(400, 25, 3, 3.0))
    pca.save(tmp_path / "model.npz")
    loaded = lf.load(tmp_path / "model.npz")
    assert loaded.choice_.method == "parallel" and loaded.choice_.n_components == 3
    np.testing.assert_array_equal(loaded.choice_.thresholds, pca.choice_.thresholds)
