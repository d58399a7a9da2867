"""Wrong kinds of input to the choices of p: an error that names the argument and the way out."""

from __future__ import annotations

import re

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import selection

ROWS = np.random.default_rng(0).standard_normal((20, 4))
SPECTRUM = selection.Spectrum(np.array([4.0, 3.0, 2.0, 1.0]), 20.0, np.full(4, 2.5))


@pytest.mark.parametrize("choose", [selection.minka, selection.parallel_analysis, selection.gavish_donoho])
@pytest.mark.parametrize("wrong", [ROWS, [4.0, 3.0], None, lf.PCA(2)], ids=["rows", "list", "nothing", "model"])
def test_what_is_no_spectrum(choose, wrong):
    with pytest.raises(TypeError, match=r"spectrum is of the type .*: pass selection\.spectrum\(X\)"):
        choose(wrong)


REFUSED = {
    "method": (lambda: selection.chosen("minka", SPECTRUM), "method='minka' is unknown; choose one of 'mle'"),
    "no spectrum": (lambda: selection.chosen("mle", ROWS), "pass selection.spectrum(X)"),
    "random_state": (lambda: selection.parallel_analysis(SPECTRUM, random_state="a"), "random_state='a' must be None"),
    "ragged": (lambda: selection.Spectrum([[1], [1, 2]], 9, [1, 2]), "variances cannot be made into an array"),
    "more than d": (lambda: selection.Spectrum([3, 2, 1], 9, [1, 2]), "at most as many variances as features"),
    "flag": (lambda: selection.Spectrum([2, 1], 9, [1, 2], "yes"), "standardize='yes' must be True or False"),
    "flag of data": (lambda: selection.spectrum(ROWS, standardize="yes"), "standardize='yes' must be True or False"),
    "one row": (lambda: selection.spectrum(ROWS[:1]), "Variances need a weight sum above 1, but it is 1: add samples"),
    "flag of folds": (lambda: selection.cross_validated(ROWS, standardize=2), "standardize=2 must be True or False"),
    "seed of folds": (lambda: selection.cross_validated(ROWS, random_state=0.5), "random_state=0.5 must be None"),
    "a vector": (lambda: selection.cross_validated(ROWS[0]), "X has shape (4,)"),
    "a model": (lambda: selection.cross_validated(lf.PCA(2)), "X is an object of the type 'PCA'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    choose, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        choose()
