"""The scree plot: what is drawn is what the model says, on any number of components, without touching pyplot."""

import sys
import types

import numpy as np
import pytest

from lae_fast.cli import plots


def model(count, residuals=True):
    ratio = 0.5 ** np.arange(1, count + 1)
    fields = {"explained_variance_ratio_": ratio.astype(np.float32)}
    if residuals:
        fields["residuals_"] = np.where(np.arange(count) % 3 == 1, 0.0, 1e-7 * np.arange(1, count + 1))
    return types.SimpleNamespace(**fields)


@pytest.mark.parametrize("count", [1, 2, 10, 61, 500])
def test_scree_draws_the_numbers(count):
    pca = model(count)
    top, bottom = plots.scree(pca).axes
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
    assert len(plots.scree(model(3, residuals=False)).axes) == 1


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml"), ("plain", b"\x89PNG")]
)
def test_scree_writes_the_format_of_the_suffix(tmp_path, name, magic):
    plots.scree(model(4), tmp_path / name, title="a title with $ and _")
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_scree_leaves_pyplot_alone(tmp_path):
    before = "matplotlib.pyplot" in sys.modules
    plots.scree(model(4), tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_image_formats():
    assert {"png", "pdf", "svg"} <= plots.image_formats()
