"""The recipes of docs/clusters.md for moments on other clusters, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lae_fast as lf
from tests.oracle import dask_cases

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")

pytestmark = [pytest.mark.full, pytest.mark.needs_jit]


def code(heading):
    return re.search(rf"### {heading}\n.*?```python\n(.*?)```", PAGE, re.DOTALL)[1]


def run(folder, heading, *launcher):
    X = dask_cases.rows(m=5300, dtype=np.float64, mean=1e3)
    np.save(folder / "x.npy", X)
    (folder / "recipe.py").write_text(code(heading))
    finished = subprocess.run(
        [*launcher, sys.executable, "recipe.py"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    found = np.fromfile(folder / "covariance").reshape(12, 12)
    np.testing.assert_allclose(found, lf.PCA(3).fit(X).get_covariance(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("heading", ["concurrent.futures", "joblib"])
def test_pools(tmp_path, heading):
    run(tmp_path, heading)


def test_mpi(tmp_path):
    launcher = shutil.which("mpiexec")
    if launcher is None:
        pytest.skip("no mpiexec")
    pytest.importorskip("mpi4py")
    run(tmp_path, "MPI", launcher, "-n", "2")


def test_regression_on_dask():
    dask, da = pytest.importorskip("dask"), pytest.importorskip("dask.array")
    X = dask_cases.rows(dtype=np.float64, mean=1e2)
    Y = X[:, :5] @ np.random.default_rng(0).standard_normal((5, 4))
    names = {"lf": lf, "dask": dask, "X": dask_cases.even(X), "Y": da.from_array(Y, chunks=(200, -1))}
    exec(re.search(r"\*\*Regression.*?```python\n(.*?)```", PAGE, re.DOTALL)[1], names)
    expected = lf.Moments.from_data(X, Y)
    np.testing.assert_allclose(names["moments"].xy, expected.xy, rtol=1e-9)
    peer = lf.LinearAutoencoder(2, rule="alternating").fit(X, targets=Y)
    found = names["model"].decoder_ @ names["model"].encoder_
    np.testing.assert_allclose(found, peer.decoder_ @ peer.encoder_, atol=1e-6)


def test_the_function_of_spark():
    """Without Spark: batches in, one batch with moments out."""
    pyarrow = pytest.importorskip("pyarrow")
    source, names = code(r"Spark \(not run\)").split("rows = frame")[0], {}
    exec(source, names)
    X = dask_cases.rows(m=90, dtype=np.float64)
    table = pyarrow.table({f"c{j}": X[:, j] for j in range(12)})
    (batch,) = names["moments"](table.to_batches(max_chunksize=20))
    found = names["pickle"].loads(batch["moments"][0].as_py())
    np.testing.assert_allclose(found.covariance(), np.cov(X.T), rtol=1e-10, atol=1e-14)
