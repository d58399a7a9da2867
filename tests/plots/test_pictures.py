"""Scores, biplot, circle, loadings, images, history: positions and scales are those of the model."""

import types

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import plots
from lae_fast.plots import _loadings

D, M = 6, 50


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    return random.standard_normal((M, D)) @ random.standard_normal((D, D))


def fitted(rows, count, whiten=False):
    """PCA by LAPACK, with the attributes that pictures read."""
    m = len(rows)
    centred = rows - rows.mean(axis=0)
    _, s, vt = np.linalg.svd(centred, full_matrices=False)
    variances = s**2 / (m - 1)
    model = types.SimpleNamespace(
        components_=vt[:count],
        explained_variance_=variances[:count],
        explained_variance_ratio_=variances[:count] / variances.sum(),
        noise_variance_=0.0,
        whiten=whiten,
        scale_=None,
    )
    return model, centred @ vt[:count].T / (np.sqrt(variances[:count]) if whiten else 1.0)


def tips(axes):
    """Where arrows end; texts come after them."""
    return np.array([text.xy for text in axes.texts if text.arrow_patch is not None])


def factor(axes):
    return float(axes.get_xlabel().rsplit("x ", 1)[1])


@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("scaling", ["covariance", "form"])
def test_biplot_is_a_factorization_of_the_rows(rows, scaling, whiten):
    """Gabriel's X = G H', so the rows are given back by what is drawn, two components of two."""
    flat = (rows - rows.mean(axis=0)) @ np.outer(np.eye(D)[0], np.eye(D)[0]) + np.outer(rows[:, 1], np.eye(D)[2])
    model, codes = fitted(flat, 2, whiten)
    axes = plots.biplot(model, codes, scaling=scaling)
    points = np.asarray(axes.collections[0].get_offsets())
    arrows = np.zeros((D, 2))
    arrows[np.argsort(-(model.components_**2 * _weights(model, scaling)).sum(axis=0), kind="stable")] = tips(axes)
    np.testing.assert_allclose(
        points @ arrows.T / factor(axes), flat - flat.mean(axis=0), atol=1e-2 * np.abs(flat).max()
    )
    if scaling == "covariance":
        np.testing.assert_allclose(points.var(axis=0, ddof=1), 1.0)
    assert axes.get_aspect() == 1.0


def _weights(model, scaling):
    return model.explained_variance_[:, None] if scaling == "covariance" else 1.0


def test_correlation_circle_has_the_correlations(rows):
    model, codes = fitted(rows, 3)
    deviations = rows.std(axis=0, ddof=1)
    expected = np.corrcoef(rows, codes, rowvar=False)[:D, D:]
    np.testing.assert_allclose(_loadings.correlations(model, deviations), expected, atol=1e-12)
    axes = plots.correlation_circle(model, components=(2, 0), deviations=deviations)
    order = np.argsort(-(expected[:, [2, 0]] ** 2).sum(axis=1))
    np.testing.assert_allclose(tips(axes), expected[order][:, [2, 0]], atol=1e-12)
    assert axes.get_xlabel().startswith("correlation with component 3")
    with pytest.raises(ValueError, match=r"pass deviations=X.std\(axis=0, ddof=1\)"):
        plots.correlation_circle(model)
    with pytest.raises(ValueError, match="denominator n_samples - 1"):
        plots.correlation_circle(model, deviations=deviations / 2)
    model.scale_ = deviations
    model.components_ = model.components_ * 0.1
    np.testing.assert_allclose(
        _loadings.correlations(model), (model.components_ * np.sqrt(model.explained_variance_)[:, None]).T
    )


def test_loadings_are_the_largest_first(rows):
    model, _ = fitted(rows, 2)
    model.feature_names_in_ = np.array(list("abcdef"), dtype=object)
    axes = plots.loadings(model, component=1, n_features=4)
    order = np.argsort(-np.abs(model.components_[1]))[:4]
    assert [text.get_text() for text in axes.get_yticklabels()] == [model.feature_names_in_[j] for j in order]
    drawn = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    np.testing.assert_allclose([drawn[i] for i in range(4)], model.components_[1][order])


@pytest.mark.parametrize("components", [(1, 0), (2, 0, 1)])
def test_scores_are_drawn_by_class(rows, components):
    model, codes = fitted(rows, 3)
    labels = np.arange(M) % 3
    axes = plots.scores(codes, components=components, labels=labels, model=model)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1", "2"]
    assert axes.get_xlabel().startswith(f"component {components[0] + 1} (")
    if len(components) == 3:
        for kind, cloud in enumerate(axes.collections):
            drawn = np.sort(np.transpose(cloud._offsets3d), axis=0)  # which may be in order of depth
            np.testing.assert_allclose(drawn, np.sort(codes[labels == kind][:, components], axis=0))
    else:
        for kind, cloud in enumerate(axes.collections):
            np.testing.assert_allclose(cloud.get_offsets(), codes[labels == kind][:, components])
        markers = {cloud.get_paths()[0].vertices.tobytes() for cloud in axes.collections}
        assert len(markers) == 3  # told apart without colours


def test_scores_of_many_numbers_have_a_scale_and_many_names_are_refused(rows):
    _, codes = fitted(rows, 2)
    axes = plots.scores(codes, labels=np.linspace(0, 1, M))
    np.testing.assert_allclose(axes.collections[0].get_array(), np.linspace(0, 1, M))
    assert len(axes.figure.axes) == 2  # the colour bar
    with pytest.raises(ValueError, match="50 different names, and 12 can be told apart"):
        plots.scores(codes, labels=[f"name {i}" for i in range(M)])
    with pytest.raises(ValueError, match="there are 50 rows"):
        plots.scores(codes, labels=[1, 2])
    for components in ((0, 0), (0, 2), (0,)):
        with pytest.raises(ValueError, match="different numbers from 0 to 1"):
            plots.scores(codes, components=components)


def test_images_have_zero_in_the_middle(rows):
    model, _ = fitted(rows, 5)
    panel = plots.images(model, (2, 3), n_images=3)
    shown = [axes for axes in panel.ravel() if axes.images]
    assert len(shown) == 3
    for axes, component in zip(shown, model.components_):
        np.testing.assert_allclose(axes.images[0].get_array(), component.reshape(2, 3))
        low, high = axes.images[0].get_clim()
        assert low == -high == -np.abs(component).max()
    colours = plots.images(np.ones((1, 12)) * np.r_[-2.0, np.ones(11)], (2, 2, 3))[0, 0].images[0].get_array()
    np.testing.assert_allclose(np.ravel(colours), 0.5 + np.r_[-2.0, np.ones(11)] / 4)
    with pytest.raises(ValueError, match="with 6 entries"):
        plots.images(model, (3, 3))


def test_history_draws_what_was_recorded():
    iteration = np.array([0, 1, 2, 4, 8, 16, 32, 64])
    recorded = {
        "iteration": iteration,
        "loss": np.linspace(2.0, 1.0, 8),
        "gradient_norm": 0.5**iteration,
        "alignment": np.linspace(1.0, 0.0, 8),
        "latent_variances": np.ones((8, 3)),
    }
    top, bottom = plots.history(recorded)
    assert top.get_yscale() == "log" and [line.get_label() for line in top.lines] == ["loss", "gradient norm"]
    np.testing.assert_array_equal(top.lines[0].get_ydata(), recorded["loss"])
    np.testing.assert_array_equal(bottom.lines[0].get_xdata(), iteration)
    assert bottom.get_xscale() == "symlog"
    del recorded["alignment"]
    recorded["loss"] = recorded["loss"] - 1.5
    (only,) = plots.history(types.SimpleNamespace(history_=recorded))
    assert only.get_yscale() == "linear"


def test_pictures_are_drawn_on_the_axes_that_are_given(rows):
    from matplotlib.figure import Figure

    model, codes = fitted(rows, 3)
    axes = Figure().subplots(2, 3)
    assert plots.scores(codes, axes[0, 0]) is axes[0, 0]
    assert plots.biplot(model, codes, axes[0, 1]) is axes[0, 1]
    assert plots.correlation_circle(model, axes[0, 2], deviations=np.full(D, 99.0)) is axes[0, 2]
    assert plots.loadings(model, axes[1, 0]) is axes[1, 0]
    assert list(plots.scree(model, axes[1, 1])) == [axes[1, 1]]
    assert plots.images(model, (2, 3), axes[1, 2:])[0] is axes[1, 2]


def test_names_that_lie_on_each_other_are_moved_apart():
    assert _loadings._apart([0.0, 1.0, 3.0], 1.0) == [0.0, 1.0, 3.0]
    np.testing.assert_allclose(_loadings._apart([0.0, 0.0, 0.9, 5.0], 1.0), [-0.7, 0.3, 1.3, 5.0])


def test_without_matplotlib_the_message_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"A picture needs matplotlib.*'lae-fast\[plot\]'"):
        plots.scores(np.ones((3, 2)))


def test_a_model_without_components_is_no_picture():
    X = np.random.default_rng(0).standard_normal((200, 12))
    none = lf.PCA("parallel").fit(X)
    assert none.n_components_ == 0
    for draw in (lambda: plots.images(none, (3, 4)), lambda: plots.scores(none.transform(X))):
        with pytest.raises(ValueError, match="no components to draw"):
            draw()
