"""Micro-benchmark: a fresh process until its first answer, import included, from a full and from an empty cache.

    python -m pytest benchmarks/test_first_calls.py --benchmark-only

A process of its own for each run. An empty cache means that everything is compiled; that takes long, so it is left out
where nothing is timed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
_DATA = "import numpy as np; x = np.random.default_rng(0).standard_normal((2000, 50)) * np.linspace(3, 1, 50)\n"
_FIT = "import lae_fast; model = lae_fast.PCA(5).fit({})\nassert model.residuals_.max() < 1e-4\n"
# What the process does; it must end without an error.
CODE = {
    "import": "import lae_fast; lae_fast.PCA\n",
    "float32": _DATA + _FIT.format("x.astype(np.float32)"),
    "float64": _DATA + _FIT.format("x"),
    "uint8": _DATA + _FIT.format("np.clip(20 * x + 100, 0, 255).astype(np.uint8)"),
    "sparse": _DATA + "import scipy.sparse\n" + _FIT.format("scipy.sparse.csr_array(np.where(x > 3, x, 0))"),
    "training": _DATA
    + "import lae_fast; model = lae_fast.LinearAutoencoder(5, optimizer='nesterov').fit(x.astype(np.float32))\n"
    + "assert model.converged_\n",
}


def start(code: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", CODE)
def test_full_cache(benchmark: Any, what: str) -> None:
    benchmark.group = f"first call, {what}"
    if not benchmark.disabled:
        start(CODE[what])  # fills it
    benchmark.pedantic(start, args=(CODE[what],), rounds=5)


@pytest.mark.parametrize("what", [what for what in CODE if what != "import"])
def test_empty_cache(benchmark: Any, tmp_path: Path, what: str) -> None:
    if benchmark.disabled:
        pytest.skip("compiles everything, which is worth it only where it is timed")
    benchmark.group = f"first call, {what}"
    numbers = iter(range(100))

    def new_cache() -> tuple[tuple[str], dict[str, str]]:
        return (CODE[what],), {"LAE_FAST_CACHE_DIR": str(tmp_path / str(next(numbers)))}

    benchmark.pedantic(start, setup=new_cache, rounds=2)
