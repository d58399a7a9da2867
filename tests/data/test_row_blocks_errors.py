"""Row blocks and paths that cannot be read: clear errors, and what an exception or Ctrl-C on the way leaves."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import plan
from lae_fast.errors import DataFileError, MemoryLimitError
from tests.oracle.block_cases import cut, data

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda X: iter([]), ValueError, "X gave no rows"),
        (lambda X: iter([X[:0]]), ValueError, "X gave no rows"),
        (lambda X: iter([X, X[:, :4]]), ValueError, "Block 1 of X has 4 features, but the blocks before it have 9"),
        (lambda X: iter([X, X[0]]), ValueError, "block 1 of X has shape"),
        (lambda X: iter([X, "row"]), ValueError, "holds strings"),
        (lambda X: iter([X.astype(np.float32), X]), ValueError, "Block 1 of X has dtype float64"),
        (lambda X: iter([X, scipy.sparse.csr_array(X)]), ValueError, "Block 1 of X is sparse"),
        (lambda X: iter([X[:1]]), ValueError, "n_samples=1"),
        (lambda X: lambda: 3, TypeError, "must return an iterator over blocks"),
        (lambda X: iter([X[:40], with_nan(X[40:], 7, 3)]), ValueError, "NaN: first at row 47, column 3"),
        (lambda X: lambda: iter([X[:40], with_nan(X[40:], 7, 3)]), ValueError, "NaN: first at row 47, column 3"),
        (lambda X: iter([with_nan(X, 2, 1)]), ValueError, "NaN: first at row 2, column 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("estimator", [lf.PCA, lf.IncrementalPCA, lf.TruncatedSVD])
def test_bad_blocks(given, error, message, estimator):
    if estimator is lf.TruncatedSVD and message == "n_samples=1":
        message = "n_components=2 must be at most 1"
    with pytest.raises(error, match=message):
        estimator(2).fit(given(data("float64", 60)))


def with_nan(X, row, column):
    X = X.copy()
    X[row, column] = np.nan
    return X


def test_what_rows_that_come_once_cannot_do(monkeypatch):
    X = data("float64", 100)
    for pca in (lf.PCA(2, svd_solver="krylov"), lf.PCA(2, missing="em")):
        with pytest.raises(ValueError, match="pass a callable that returns a fresh iterator"):
            pca.fit(iter([X]))
    with pytest.raises(MemoryLimitError, match=r"needs 2\.6 kB .*pass a callable .* or use IncrementalPCA"):
        lf.PCA(2, max_memory=1000).fit(iter([X]))
    with pytest.raises(ValueError, match="read before gives nothing"):
        lf.PCA(2).fit_transform(iter([X]))
    monkeypatch.setattr(plan, "LARGEST_GRAM", 8)
    with pytest.raises(MemoryLimitError, match="at most 8 features"):
        lf.PCA(2).fit(iter([X]))
    assert lf.PCA(2).fit(lambda: iter([X])).solver_ == "krylov"


def test_a_factory_must_give_the_same_rows_again():
    X = data("float32", 100, 40)
    heights = iter([100, 100, 90])
    with pytest.raises(ValueError, match="gave 100 rows at first and 90 when it was read again"):
        lf.PCA(2, svd_solver="krylov").fit(lambda: iter([X[: next(heights)]]))
    once = iter([X])
    with pytest.raises(ValueError, match="gave 100 rows at first and 0 when"):
        lf.PCA(2, svd_solver="krylov").fit(lambda: once)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(99), "has more samples"),
        (np.ones(101), r"has shape \(101,\), but X has 100 samples"),
        (-np.ones(100), "must not be negative"),
        (np.zeros(100), "zero for every sample"),
        (2.0, "one weight per row"),
    ],
)
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_bad_weights_of_blocks(weights, message, form):
    with pytest.raises(ValueError, match=message):
        lf.PCA(2).fit((form(part) for part in cut(data("float64", 100), 30)), sample_weight=weights)


class Broken(Exception):
    pass


def breaking(X, after):
    yield from cut(X, 30)[:after]
    raise Broken("the disk is gone")


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize(
    "estimator", [lf.PCA(2), lf.IncrementalPCA(2), lf.TruncatedSVD(2), lf.LinearAutoencoder(2, max_iter=3)]
)
def test_an_exception_of_the_rows_goes_through_and_changes_nothing(after, estimator):
    X = data("float64", 100)
    estimator = pickle.loads(pickle.dumps(estimator))
    with pytest.raises(Broken, match="the disk is gone"):
        estimator.fit(breaking(X, after))
    assert not hasattr(estimator, "components_") and not hasattr(estimator, "n_features_in_")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X)
    before = pickle.dumps(estimator)
    for bad in (breaking(X[:, :5], after), lambda: breaking(X[:, :5], after), iter([with_nan(X[:, :5], 3, 1)])):
        with pytest.raises((Broken, ValueError)):
            estimator.fit(bad)
        assert pickle.dumps(estimator) == before
    if isinstance(estimator, lf.IncrementalPCA):
        with pytest.raises(Broken):
            estimator.partial_fit(breaking(X, after))
        assert pickle.dumps(estimator) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lae_fast")]


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_during_a_stream():
    """The estimator is as before, and no thread is left."""
    code = """
    import itertools, os, signal, threading, time
    import numpy as np
    import lae_fast as lf

    X = np.random.default_rng(0).standard_normal((512, 20))
    pca = lf.PCA(2).fit(X)
    before = pca.components_

    def rows():
        for number in itertools.count():
            if number == 200:
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            yield X

    try:
        pca.fit(rows())
    except KeyboardInterrupt:
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("lae_fast")]
        print("interrupted", pca.components_ is before, names)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.stdout == "interrupted True []\n", run.stderr


def test_paths_that_do_not_work(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.npy does not exist"):
        lf.PCA(2).fit(tmp_path / "missing.npy")
    with pytest.raises(ValueError, match="cannot tell how to read 'data'"):
        lf.PCA(2).fit("data")
    np.save(tmp_path / "x.npy", data())
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-5])
    with pytest.raises(DataFileError, match="is truncated"):
        lf.IncrementalPCA(2).fit(tmp_path / "x.npy")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
