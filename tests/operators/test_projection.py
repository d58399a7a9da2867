"""Scores of dense rows: NaN and inf are seen in the scores themselves, or in sums where no score has them."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.backends.cpu.passes.rows import take_off


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("p", [1, 2, 7])
def test_a_bad_entry_is_named_though_its_loading_is_zero(p, bad):
    X = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
    X[:, 3] = 2.0  # a feature without variance is in no component
    pca = lf.PCA(p).fit(X)
    for column in (3, 5):
        Z = X.copy()
        Z[211, column] = bad
        with pytest.raises(ValueError, match=f"first at row 211, column {column}"):
            pca.transform(Z)


@pytest.mark.parametrize("columns", [1, 3, 300])
@pytest.mark.parametrize("order", ["C", "rows apart"])
def test_take_off_is_a_difference(columns, order):
    rng = np.random.default_rng(0)
    memory = rng.standard_normal((517, columns + 2)).astype(np.float32)
    rows = memory[:, :columns] if order == "rows apart" else np.ascontiguousarray(memory[:, :columns])
    offset = rng.standard_normal(columns).astype(np.float32)
    expected = [[x - c for x, c in zip(row, offset)] for row in rows]
    take_off(rows, offset)
    np.testing.assert_array_equal(rows, expected)
