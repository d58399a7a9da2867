"""Parquet files: rows of every type, by whole row groups and by batches, within a limit."""

import re
import subprocess
import sys

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.data import parquet
from lae_fast.data.parquet import ParquetRows
from lae_fast.errors import MemoryLimitError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def columns(rng=None):
    rng = np.random.default_rng(0)
    return {
        "single": rng.standard_normal(1000).astype(np.float32),
        "half": rng.standard_normal(1000).astype(np.float16),
        "whole": rng.integers(-5, 5, 1000),
        "byte": rng.integers(0, 9, 1000).astype(np.uint8),
        "truth": rng.random(1000) < 0.5,
        "single.part": rng.standard_normal(1000),  # a name that begins as another one does
        "gaps": [None if k % 7 == 0 else float(k) for k in range(1000)],
        "truth, gaps": [None if k % 7 == 0 else k % 2 == 0 for k in range(1000)],
    }


@pytest.fixture
def path(tmp_path, columns):
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=130)
    return tmp_path / "x.parquet"


@pytest.mark.parametrize("whole", [True, False])
def test_every_type_in_every_slice(path, columns, whole, monkeypatch):
    monkeypatch.setattr(parquet, "_COLUMNS_AT_ONCE", 3)
    expected = np.array([[np.nan if v is None else float(v) for v in column] for column in columns.values()]).T
    rows = ParquetRows(path)
    rows._whole = whole
    for key in np.s_[:, 0:1000, 100:700, 5:70, 129:131, 999:1000, 0:1]:
        np.testing.assert_array_equal(rows[key], expected[key])
    for key in np.s_[0:1, 1:4, 5:6, 0:8]:
        np.testing.assert_array_equal(rows[:, key], expected[:, key])
    rows.close()


def test_a_row_group_is_decoded_once(path, monkeypatch):
    rows = ParquetRows(path)
    read, seen = rows._file.read_row_group, []
    monkeypatch.setattr(rows._file, "read_row_group", lambda group, **k: seen.append(group) or read(group, **k))
    for first in range(0, 1000, 50):
        rows[first : first + 50]
    assert seen == list(range(8))


def write(path, m, d, group):
    X = np.random.default_rng(0).standard_normal((m, d)).astype(np.float32)
    table = pa.table({f"c{j}": X[:, j] for j in range(d)})
    pq.write_table(table, path, row_group_size=group, use_dictionary=False)
    return X


def test_the_limit_decides_how_it_is_read(tmp_path):
    """A row group of 8 MB; batches of 20 columns take some 20 MB."""
    write(tmp_path / "x.parquet", 100_000, 20, 100_000)
    rows = ParquetRows(tmp_path / "x.parquet")
    assert 8e6 < rows.read_within(40_000_000) <= 40e6 and rows._whole
    with pytest.raises(MemoryLimitError) as error:
        rows.read_within(5_000_000)
    need = float(re.search(r"takes ([\d.]+) MB, and half of max_memory is 5 MB", str(error.value))[1])
    assert rows.read_within(int(1.01e6 * need)) <= 1.01e6 * need
    write(tmp_path / "x.parquet", 1_000_000, 10, 1_000_000)
    rows = ParquetRows(tmp_path / "x.parquet")
    rows.read_within(35_000_000)
    assert not rows._whole


def test_max_memory_reaches_the_reader(tmp_path):
    X = write(tmp_path / "x.parquet", 30_000, 200, 30_000)
    whole = lf.PCA(2).fit(tmp_path / "x.parquet")
    small = {"max_memory": "20MB"}
    for call in (
        lambda: lf.PCA(2, **small).fit(tmp_path / "x.parquet"),
        lambda: lf.IncrementalPCA(2, **small).fit(tmp_path / "x.parquet"),
        lambda: lf.top_eigenpairs(tmp_path / "x.parquet", 2, **small),
        lambda: lf.PCA(2, **small).fit(X).transform(tmp_path / "x.parquet"),
    ):
        with pytest.raises(MemoryLimitError, match="row groups of fewer rows"):
            call()
    write(tmp_path / "x.parquet", 30_000, 200, 3000)
    found = lf.PCA(2, **small).fit(tmp_path / "x.parquet")
    np.testing.assert_array_equal(found.components_, whole.components_)


def test_it_does_without_pandas(path):
    """Arrow's conversion to NumPy would import it: time and memory for nothing."""
    code = f"""
import sys
from pathlib import Path
from lae_fast.data.parquet import ParquetRows
ParquetRows(Path({str(path)!r}))[:, 0:6]
sys.exit("pandas" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
