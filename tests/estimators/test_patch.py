"""scikit-learn's classes replaced by ours: where, until when, and what is told of it."""

import pickle
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest
import sklearn.decomposition
import sklearn.manifold._t_sne as inside
from sklearn.base import clone

import lae_fast as lf
from lae_fast.patch import PatchWarning

pytestmark = pytest.mark.needs_jit
THEIRS = {name: getattr(sklearn.decomposition, name) for name in ("PCA", "IncrementalPCA", "TruncatedSVD")}


@pytest.fixture
def patched():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PatchWarning)  # of this file, and other tests that have imported them
        lf.patch_sklearn()
    yield
    lf.unpatch_sklearn()


def rows():
    return np.random.default_rng(0).standard_normal((40, 6)) * [6, 5, 4, 3, 2, 1]


def told(fit):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    assert all(found.filename == __file__ for found in caught)
    return [str(found.message) for found in caught if found.category is PatchWarning]


@pytest.mark.parametrize("name", THEIRS)
def test_classes_are_ours_until_they_are_given_back(name, patched):
    ours = getattr(sklearn.decomposition, name)
    assert issubclass(ours, getattr(lf, name)) and ours.__name__ == name
    X = rows()
    found = ours(n_components=2).fit(X)
    np.testing.assert_array_equal(found.components_, getattr(lf, name)(n_components=2).fit(X).components_)
    for again in (pickle.loads(pickle.dumps(found)), clone(found).fit(X)):
        np.testing.assert_array_equal(again.transform(X), found.transform(X))
    lf.unpatch_sklearn()
    assert getattr(sklearn.decomposition, name) is THEIRS[name]
    np.testing.assert_array_equal(found.transform(X), again.transform(X))


def test_scikit_learn_uses_ours_within(patched):
    assert inside.PCA is sklearn.decomposition.PCA is not THEIRS["PCA"]
    lf.unpatch_sklearn()
    assert inside.PCA is THEIRS["PCA"]


def test_some_classes_only_and_twice():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PatchWarning)
        lf.patch_sklearn("PCA")
        lf.patch_sklearn(["PCA"])
    try:
        assert sklearn.decomposition.PCA is not THEIRS["PCA"]
        assert sklearn.decomposition.TruncatedSVD is THEIRS["TruncatedSVD"]
    finally:
        lf.unpatch_sklearn()
        lf.unpatch_sklearn()
    assert sklearn.decomposition.PCA is THEIRS["PCA"]
    with pytest.raises(ValueError, match="'NMF' is unknown"):
        lf.patch_sklearn(["NMF"])


def test_defaults_are_not_worth_a_word(patched):
    for name in THEIRS:
        assert told(lambda name=name: getattr(sklearn.decomposition, name)(n_components=2).fit(rows())) == []


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("PCA", {"svd_solver": "randomized"}, "svd_solver='randomized' is mapped to the route 'krylov'"),
        ("PCA", {"svd_solver": "full"}, "svd_solver='full' is mapped to the route 'gram'"),
        ("PCA", {"iterated_power": 7}, "iterated_power=7 is no option"),
        ("PCA", {"tol": 1e-3}, "tol=0.001 is the largest relative residual"),
        ("PCA", {"power_iteration_normalizer": "LU"}, "power_iteration_normalizer='LU' has no effect"),
        ("IncrementalPCA", {"batch_size": 20}, "batch_size=20 has no effect"),
        ("TruncatedSVD", {"n_iter": 9}, "n_iter=9 is no option"),
        ("TruncatedSVD", {"algorithm": "arpack"}, "algorithm='arpack' is mapped to the route 'krylov'"),
    ],
)
def test_what_an_option_does_not_do_is_told_once(name, options, words, patched):
    def fit():
        getattr(sklearn.decomposition, name)(n_components=2, **options).fit(rows())

    messages = told(fit)
    assert len(messages) == 1 and words in messages[0] and name in messages[0]
    assert told(fit) == []


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_pickles_of_scikit_learns_own_go_on(name, patched):
    theirs = THEIRS[name](2).fit(rows())
    again = pickle.loads(pickle.dumps(theirs))
    assert type(again) is THEIRS[name]
    for key, value in vars(theirs).items():
        np.testing.assert_array_equal(getattr(again, key), value)
    # Not to the bit: pickle lays a slice of components out anew, and BLAS sums otherwise on some processors.
    np.testing.assert_allclose(again.transform(rows()), theirs.transform(rows()), rtol=1e-12, atol=1e-12)


def test_modules_that_keep_scikit_learns_class_are_named(monkeypatch):
    early = types.ModuleType("early")
    early.Decomposition = THEIRS["TruncatedSVD"]
    monkeypatch.setitem(sys.modules, "early", early)
    try:
        with pytest.warns(PatchWarning, match=r"early\.Decomposition.*before patch_sklearn"):
            lf.patch_sklearn("TruncatedSVD")
        assert early.Decomposition is THEIRS["TruncatedSVD"]
    finally:
        lf.unpatch_sklearn()


SCRIPT = """
import sys
from sklearn.decomposition import PCA
from sklearn.datasets import load_iris
found = PCA(2, svd_solver="full").fit(load_iris().data)
print(type(found).__mro__[2].__module__, found.solver_, sys.argv[1:], __name__)
"""


def test_the_command(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for arguments, where in (([str(script)], None), (["-m", "script"], tmp_path)):
        run = subprocess.run(
            [sys.executable, "-m", "lae_fast.patch", *arguments, "-k", "5"], cwd=where, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert run.stdout == "lae_fast.estimators.pca gram ['-k', '5'] __main__\n", run.stderr
        assert run.stderr.count("Told once") == 1
    for arguments, words in (([], "usage:"), (["nothing.py"], "there is no script 'nothing.py'"), (["-m"], "usage:")):
        run = subprocess.run(
            [sys.executable, "-m", "lae_fast.patch", *arguments], capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 1 and words in run.stderr
