"""Bi-cross-validation against blocks that are predicted one by one, and on planted components."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import selection
from lae_fast.errors import MemoryLimitError
from lae_fast.selection import _cross_validation


def naive(X, folds, columns, most):
    """Owen and Perry's B D_k^+ C for every block, by singular value decompositions."""
    errors = np.zeros(most + 1)
    for i in np.unique(folds):
        mean = X[folds != i].mean(axis=0)
        centred = X - mean
        for j in np.unique(columns):
            held = np.ix_(folds == i, columns == j)
            B, C = centred[np.ix_(folds == i, columns != j)], centred[np.ix_(folds != i, columns == j)]
            u, s, vt = np.linalg.svd(centred[np.ix_(folds != i, columns != j)], full_matrices=False)
            for k in range(most + 1):
                predicted = B @ (vt[:k].T / s[:k]) @ (u[:, :k].T @ C)
                errors[k] += ((centred[held] - predicted) ** 2).sum()
    return errors / X.size


def test_errors_are_those_of_blocks_predicted_one_by_one(planted):
    X = planted(61, 14, 3, 1.0, deviations=np.linspace(0.5, 2.0, 14))
    found = selection.cross_validated(X, 6, n_folds=4, n_column_folds=3)
    random = np.random.default_rng(0)
    folds = random.permutation(61) % 4
    columns = random.permutation(14) % 3
    np.testing.assert_allclose(found.errors, naive(X, folds, columns, 6), rtol=1e-9)
    assert found.n_components == found.errors.argmin() and found.thresholds is None


@pytest.mark.parametrize("signal", [0, 1, 5])
@pytest.mark.parametrize("shape", [(500, 40), (50, 120)])
def test_planted_components_are_counted(planted, shape, signal):
    X = planted(*shape, max(signal, 1), 3.0 if signal else 0.0)
    assert selection.cross_validated(X).n_components == signal
    assert selection.cross_validated(X, standardize=True).n_components == signal


def test_any_source_gives_the_same(planted, tmp_path, monkeypatch):
    X = np.abs(planted(300, 12, 2, 3.0))
    np.save(tmp_path / "x.npy", X)
    expected = selection.cross_validated(X).errors
    monkeypatch.setattr(_cross_validation, "_BLOCK_BYTES", 8 * 12 * 70)  # so that rows are read in several blocks
    blocks = [X[:100], X[100:]]
    for data in (tmp_path / "x.npy", scipy.sparse.csr_array(X), np.asfortranarray(X), blocks):
        np.testing.assert_allclose(selection.cross_validated(data).errors, expected, rtol=1e-9)


def test_refusals_name_the_way_out():
    X = np.random.default_rng(0).standard_normal((30, 8))
    for parameters, message in (
        ({"n_folds": 40}, "exceeds the 30 rows"),
        ({"n_column_folds": 9}, "exceeds the 8 features"),
        ({"n_folds": 1}, "n_folds=1 must be an integer >= 2"),
    ):
        with pytest.raises(ValueError, match=message):
            selection.cross_validated(X, **parameters)
    with pytest.raises(MemoryLimitError, match=r"selection\.gavish_donoho"):
        selection.cross_validated(X, max_memory=1000)
    X[17, 3] = np.nan
    with pytest.raises(ValueError, match="NaN: first at row 17, column 3"):
        selection.cross_validated(X)
    dask = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match="pass a file"):
        selection.cross_validated(dask.from_array(np.ones((30, 8)), chunks=(10, 8)))
    assert lf.selection is selection
