"""Wrong kinds of input: an error that names the argument and the way out, before anything is drawn."""

from __future__ import annotations

import re
import types

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import plots, selection

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

CODES = np.arange(12.0).reshape(4, 3)
HISTORY = {"iteration": [0, 1], "loss": [2.0, 1.0]}


def model(**more):
    """What the pictures read of a fitted PCA, made without a fit."""
    return types.SimpleNamespace(
        components_=np.eye(3, 6), explained_variance_=np.array([3.0, 2.0, 1.0]),
        explained_variance_ratio_=np.array([0.5, 0.3, 0.2]), noise_variance_=0.1, **more,
    )  # fmt: skip


OF_A_MODEL = {
    "scree": lambda given: plots.scree(given),
    "loadings": lambda given: plots.loadings(given),
    "biplot": lambda given: plots.biplot(given, CODES),
    "circle": lambda given: plots.correlation_circle(given, deviations=np.full(6, 9.0)),
    "images": lambda given: plots.images(given, (2, 3)),
    "history": lambda given: plots.history(given),
    "scores": lambda given: plots.scores(CODES, model=given),
}


@pytest.mark.parametrize("picture", OF_A_MODEL)
def test_a_model_that_is_none(picture):
    with pytest.raises(ValueError, match=r"model is a PCA that is not fitted: call model\.fit\(X\) first"):
        OF_A_MODEL[picture](lf.PCA(2))
    for wrong in (lf.PCA, "pca", 3):
        with pytest.raises(TypeError, match=r"model is .*, which has no .*: pass a fitted"):
            OF_A_MODEL[picture](wrong)
    if picture != "images":  # which draws arrays of components too
        with pytest.raises(TypeError, match="model is of the type 'ndarray'"):
            OF_A_MODEL[picture](np.eye(3, 6))


@pytest.mark.parametrize("draw", [plots.scores, lambda codes: plots.biplot(model(), codes)])
@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (CODES[0], "codes has shape (3,)"), (None, "codes=None"), ("abc", "codes holds strings"),
        ([[1.0], [1.0, 2.0]], "codes cannot be made into an array"), (np.zeros((0, 3)), "0 sample(s)"),
        (np.full((2, 3), np.nan), "codes[0, 0]=nan must be finite"), (CODES + 1j, "codes has dtype complex128"),
    ],
)  # fmt: skip
def test_codes_that_are_no_matrix_of_numbers(draw, codes, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        draw(codes)


OF_AXES = {
    "scree": (lambda axes: plots.scree(model(), axes), 2),
    "history": (lambda axes: plots.history(HISTORY, axes), 2),
    "loadings": (lambda axes: plots.loadings(model(), axes), 1),
    "biplot": (lambda axes: plots.biplot(model(), CODES, axes), 1),
    "circle": (lambda axes: plots.correlation_circle(model(), axes, deviations=np.full(6, 9.0)), 1),
    "scores": (lambda axes: plots.scores(CODES, axes), 1),
}


@pytest.mark.parametrize("picture", OF_AXES)
def test_axes_that_are_none(picture):
    draw, most = OF_AXES[picture]
    for wrong in (Figure(), "axes", [1], 4):
        with pytest.raises(TypeError, match=r"axes has an entry of the type .*: pass axes of matplotlib"):
            draw(wrong)
    with pytest.raises(ValueError, match=f"axes has {most + 1} entries"):
        draw(Figure().subplots(1, most + 1))


REFUSED = {
    "three components on flat axes": (lambda: plots.scores(CODES, Figure().subplots(), components=(0, 1, 2)), "'3d'"),
    "components: one number": (lambda: plots.scores(CODES, components=1), "components=1 must be 2 or 3 different"),
    "components: text": (lambda: plots.biplot(model(), CODES, components="01"), "such as (0, 1)"),
    "components: one there": (lambda: plots.scores(CODES[:, :1]), "There is 1 component, and the picture needs 2 or 3"),
    "codes of another model": (lambda: plots.scores(np.ones((4, 9)), model=model()), "pass model.transform(X)"),
    "component": (lambda: plots.loadings(model(), component=3), "component=3 must be an integer >= 0 and <="),
    "n_features": (lambda: plots.loadings(model(), n_features=0), "n_features=0 must be an integer >= 1"),
    "n_named": (lambda: plots.biplot(model(), CODES, n_named=-1), "n_named=-1 must be an integer >= 0"),
    "n_images": (lambda: plots.images(model(), (2, 3), n_images=0), "n_images=0 must be an integer >= 1"),
    "names: one text": (lambda: plots.loadings(model(), names="abcdef"), "names='abcdef' must be a list of 6 names"),
    "names: a number": (lambda: plots.loadings(model(), names=6), "names=6 must be a list of 6 names"),
    "labels: a gap": (lambda: plots.scores(CODES, labels=["a", None, "b", "c"]), "labels[1]=None is no label"),
    "labels: NaN": (lambda: plots.scores(CODES, labels=[1, 2, np.nan, 3]), "labels[2]=nan is no label"),
    "labels: no order": (lambda: plots.scores(CODES, labels=[{}, {}, {}, {}]), "no order among them"),
    "labels: ragged": (lambda: plots.scores(CODES, labels=[[1], [1, 2], [1], [1]]), "labels has entries of different"),
    "shape: one number": (lambda: plots.images(model(), 6), "shape=6 must be (height, width)"),
    "shape: negative": (lambda: plots.images(model(), (-2, -3)), "shape=-2 must be an integer >= 1"),
    "shape: another": (lambda: plots.images(model(), (3, 3)), "shape=(3, 3) must be (height, width)"),
    "images: cubic": (lambda: plots.images(np.zeros((2, 2, 3)), (2, 3)), "model has shape (2, 2, 3)"),
    "images: few axes": (lambda: plots.images(model(), (2, 3), Figure().subplots(), n_images=3), "for 3 images"),
    "choices: text": (lambda: plots.scree(model(), choices="minka"), "choices has an entry of the type 'str'"),
    "deviations: NaN": (lambda: plots.correlation_circle(model(), deviations=[np.nan] * 6), "deviations[0]=nan must"),
    "history: empty": (lambda: plots.history({}), "it must hold 'iteration' and one of 'loss'"),
    "history: short": (lambda: plots.history({**HISTORY, "loss": [1.0]}), "loss of the history has shape (1,)"),
    "title of images": (lambda: plots.images(model(), (2, 3), title=3), "title=3 must be a string"),
    "title": (lambda: plots.scores(CODES, title=3), "title=3 must be a string"),
    "save: path": (lambda: plots.save(Figure().subplots(), 3), "path=3 must be the name of a file"),
    "save: axes": (lambda: plots.save(None, "a.png"), "axes has an entry of the type 'NoneType'"),
    "save: dpi": (lambda: plots.save(Figure().subplots(), "a.png", dpi=0), "dpi=0 must be a finite number > 0"),
    "save: folder": (lambda: plots.save(Figure().subplots(), "no/a.png"), "no does not exist; make it first"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError, OSError), match=re.escape(message)):
        draw()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(6, 1), (1, 6)])
def test_images_of_one_line_have_room(shape):
    width, height = plots.images(np.eye(3, 6) + 1.0, shape)[0, 0].figure.get_size_inches()
    assert 0.4 < height / 1.6 < 5 and 4.8 <= width


def test_one_choice_and_fewer_axes_are_enough():
    choice = selection.Choice("minka", 2)
    (panel,) = plots.scree(model(), choices=choice)
    assert "minka: 2" in [text.get_text() for text in panel.get_legend().get_texts()]
    assert plots.images(model(), (2, 3), Figure().subplots(1, 2)).shape == (2,)
