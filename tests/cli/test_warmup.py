"""`lae-fast warmup`: a process after it compiles nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lae_fast.backends.cpu import jit

pytestmark = pytest.mark.needs_jit
ROOT = Path(__file__).resolve().parents[2]

# Other sizes than those of the warm-up.
TRAINING = """
lf.LinearAutoencoder(5, max_iter=30, optimizer="sgd").fit(X.astype(np.float32))
lf.LinearAutoencoder(4, max_iter=30, loss="mse").fit(X[:, :60].astype(np.float32))
"""
COMMON = """
for matrix in (X.astype(np.float32), X, (20 * X + 128).clip(0, 255).astype(np.uint8)):
    for part in (matrix, np.ascontiguousarray(matrix[:, :11])):
        for solver in ("auto", "gram", "krylov"):
            lf.PCA(4, svd_solver=solver).fit(part).transform(part)
"""
ALL = """
for kind in (np.float32, np.float64, np.int16):
    for matrix in (X.astype(kind), np.asfortranarray(X.astype(kind)), np.ascontiguousarray(X[:50].astype(kind))):
        lf.PCA(4, standardize=True).fit(matrix).transform(matrix)
        lf.PCA(4, svd_solver="krylov").fit(matrix)
for kind in (np.float32, np.float64):
    for make in (scipy.sparse.csr_array, scipy.sparse.csc_array):
        for solver in ("gram", "krylov"):
            matrix = make(np.where(np.abs(X) > 1, X, 0).astype(kind))
            lf.PCA(4, svd_solver=solver).fit(matrix).transform(matrix)
    lf.PCA(4).fit(X.astype(kind), sample_weight=np.arange(1.0, len(X) + 1))
    lf.LinearAutoencoder(4, rule="gha", max_iter=30).fit(X.astype(kind))
    for loss in ("vae", "mse"):
        lf.LinearAutoencoder(4, batch_size=32, max_iter=30, loss=loss).fit(X.astype(kind))
lf.IncrementalPCA(4).fit(X.astype(np.float32)).transform(X.astype(np.float32))
"""
PROCESS = """
import json, warnings
import numpy as np, scipy.sparse
import lae_fast as lf
warnings.simplefilter("ignore")
X = np.random.default_rng(5).standard_normal((900, 90)) @ np.diag(np.linspace(2, 0.1, 90))
CALLS
cache = lf.backend_info()["cache"]
print(json.dumps([cache["loaded"], cache["compiled"]]))
"""
# As the command does, for some of its fits.
PART = """
import sys
from lae_fast.cli import warmup
warmup.run_warmup(warmup.WarmupOptions(), only=sys.argv[1])
"""


def run(cache, *command):
    environment = os.environ | {"LAE_FAST_CACHE_DIR": str(cache), "LAE_FAST_CACHE": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (("-c", PART, "LinearAutoencoder float32"), TRAINING),
        pytest.param(("-m", "lae_fast.cli", "warmup"), TRAINING + COMMON, marks=pytest.mark.full),
        pytest.param(("-m", "lae_fast.cli", "warmup", "--all"), TRAINING + COMMON + ALL, marks=pytest.mark.full),
    ],
    ids=["part", "common", "all"],
)
def test_the_next_process_compiles_nothing(tmp_path, command, calls):
    said = run(tmp_path, *command)
    assert "kept in" in said.stdout and str(tmp_path) in said.stdout.replace("\n", "").replace(" ", "")
    assert "LinearAutoencoder float32" in said.stderr
    loaded, compiled = json.loads(run(tmp_path, "-c", PROCESS.replace("CALLS", calls)).stdout)
    assert (loaded > 5, compiled) == (True, 0)


def test_warmup_says_why_there_is_nothing_to_do(monkeypatch, capfd):
    from lae_fast import cli

    monkeypatch.setattr(jit, "cache_directory", lambda: None)
    assert cli.main(["warmup"]) == 2
    assert "nothing to warm up: compiled kernels are not kept" in " ".join(capfd.readouterr().err.split())
