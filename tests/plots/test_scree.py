"""The scree plot: what is drawn is what the model says, on any number of components, without touching pyplot."""

import sys
import types

import numpy as np
import pytest

from lae_fast import plots, selection


def model(count, residuals=True):
    ratio = 0.5 ** np.arange(1, count + 1)
    fields = {"explained_variance_ratio_": ratio.astype(np.float32), "explained_variance_": 8.0 * ratio}
    if residuals:
        fields["residuals_"] = np.where(np.arange(count) % 3 == 1, 0.0, 1e-7 * np.arange(1, count + 1))
    return types.SimpleNamespace(**fields)


@pytest.mark.parametrize("count", [1, 2, 10, 61, 500])
def test_scree_draws_the_numbers(count):
    pca = model(count)
    top, bottom = plots.scree(pca)
    ratio = pca.explained_variance_ratio_
    if count <= 60:
        drawn = [bar.get_height() for bar in top.patches]
        (cumulative,) = top.lines
    else:
        points, cumulative = top.lines
        drawn = points.get_ydata()
    np.testing.assert_allclose(drawn, ratio, rtol=1e-6)
    np.testing.assert_allclose(cumulative.get_ydata(), np.cumsum(ratio, dtype=np.float64), rtol=1e-12)
    assert bottom.get_yscale() == "log"
    positive = pca.residuals_ > 0
    np.testing.assert_array_equal(bottom.lines[0].get_xdata(), np.flatnonzero(positive) + 1)
    np.testing.assert_array_equal(bottom.lines[0].get_ydata(), pca.residuals_[positive])


def test_scree_without_a_certificate_has_one_panel():
    assert len(plots.scree(model(3, residuals=False))) == 1
    em = model(3)
    em.residuals_ = np.full(3, np.nan)
    assert len(plots.scree(em)) == 1


def test_scree_shows_the_choices():
    choices = [
        selection.Choice("parallel", 2, thresholds=np.array([2.0, 1.0, 0.5, 0.2])),
        selection.Choice("cross-validated", 1, errors=np.ones(5)),
    ]
    (top, _) = plots.scree(model(4), choices=choices)
    assert [text.get_text() for text in top.get_legend().get_texts()][1:3] == ["parallel: 2", "cross-validated: 1"]
    _, line, thresholds, other = top.lines
    assert line.get_xdata()[0] == 2.5 and other.get_xdata()[0] == 1.5
    # shares of a total of 8: the first of the variances is 4, half of it
    np.testing.assert_allclose(thresholds.get_ydata(), np.array([2.0, 1.0, 0.5, 0.2]) / 8.0)
    made = model(4)
    made.choice_ = choices[0]
    assert len(plots.scree(made)[0].lines) == 3 and len(plots.scree(made, choices=[])[0].lines) == 1


def test_scree_takes_a_spectrum():
    spectrum = selection.Spectrum(np.array([3.0, 1.0]), 10.0, np.array([2.0, 2.0]))
    (top,) = plots.scree(spectrum, choices=[selection.gavish_donoho(spectrum, noise=1.0)])
    assert [bar.get_height() for bar in top.patches] == [0.75, 0.25]


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")])
def test_save_writes_the_format_of_the_suffix(tmp_path, name, magic):
    axes = plots.scree(model(4), title="a title with $ and _")
    plots.save(axes, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(ValueError, match=r"plain: end the name in one of \.png, \.pdf, \.svg"):
        plots.save(axes, tmp_path / "plain")


def test_scree_leaves_pyplot_alone(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plots.save(plots.scree(model(4)), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
