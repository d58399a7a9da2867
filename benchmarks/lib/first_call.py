"""What the first call in a fresh process costs, cold and from the compile cache.

`measure` is what the benchmark of PCA prints; `measure_case` is what `python -m benchmarks.first_call` does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

_CHILD = """
import json, time
started = time.perf_counter()
import numpy as np, scipy.linalg, sklearn.base
libraries = time.perf_counter()
import lae_fast
lae_fast.PCA
imported = time.perf_counter()
rng = np.random.default_rng(0)
seconds = {"libraries_s": libraries - started, "import_s": imported - libraries}
for solver in ("gram", "krylov"):
    X = rng.standard_normal((4000, 300), dtype=np.float32) * np.linspace(3, 1, 300, dtype=np.float32)
    for run in ("first", "second"):
        begin = time.perf_counter()
        lae_fast.PCA(n_components=5, svd_solver=solver).fit(X)
        seconds[f"{solver}_{run}_s"] = time.perf_counter() - begin
print(json.dumps(seconds))
"""


def measure(*, cached: bool = True, timeout_s: float = 240.0) -> dict[str, Any]:
    """What the first fit of a fresh process costs: seconds of the import, the first and the second fit on each route.

    With a warm cache a process before the measured one fills it; without (`cached=False`) everything is compiled.
    """
    environment = dict(os.environ)
    if not cached:
        environment["LAE_FAST_CACHE"] = "0"
    command = [sys.executable, "-c", _CHILD]
    output = ""
    for _ in range(2 if cached else 1):
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_s, check=True
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"longer than {timeout_s:.0f} s"}
        except subprocess.CalledProcessError as error:
            return {"failed": (error.stderr.strip().splitlines() or ["no message"])[-1][:200]}
        output = done.stdout
    seconds = json.loads(output.splitlines()[-1])
    for solver in ("gram", "krylov"):
        seconds[f"{solver}_adds_s"] = seconds[f"{solver}_first_s"] - seconds[f"{solver}_second_s"]
    return seconds


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each way to start a process."""
    lines = []
    for name, seconds in found.items():
        label = {"warm_cache": "first call, fresh process, warm cache", "no_cache": "first call, nothing cached"}[name]
        if "failed" in seconds:
            lines.append(f"{label}: failed: {seconds['failed']}")
        else:
            lines.append(
                f"{label}: import {seconds['import_s']:.2f} s, the first fit adds {seconds['gram_adds_s']:.2f} s (Gram)"
                f" and {seconds['krylov_adds_s']:.2f} s (Krylov)"
            )
    return lines


# What is called first, by a name for the table.
CASES = {
    "PCA, float32": "lae_fast.PCA(n_components=5).fit(X)",
    "PCA, float64": "lae_fast.PCA(n_components=5).fit(X.astype(np.float64))",
    "PCA, uint8": "lae_fast.PCA(n_components=5).fit((20 * X + 128).clip(0, 255).astype(np.uint8))",
    "PCA, sparse": "lae_fast.PCA(n_components=5).fit(scipy.sparse.csr_array(np.where(np.abs(X) > 4, X, 0)))",
    "LinearAutoencoder": "lae_fast.LinearAutoencoder(n_components=5, max_iter=100).fit(X)",
    "LinearAutoencoder, mini-batches": (
        "lae_fast.LinearAutoencoder(n_components=5, max_iter=100, batch_size=100).fit(X)"
    ),
}

_FIRST = """
import json, os, time, warnings
def clock():
    times = os.times()
    return times.user + times.system
began, started = time.perf_counter(), clock()
import numpy as np, scipy.linalg, scipy.sparse, sklearn.base
libraries = clock()
import lae_fast
warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((4000, 300), dtype=np.float32) * np.linspace(3, 1, 300, dtype=np.float32)
{call}
done, wall = clock(), time.perf_counter() - began
from lae_fast.backends.cpu import jit
loaded, compiled = jit.counts()
print(json.dumps({{
    "libraries_s": libraries - started, "call_s": done - libraries, "wall_s": wall, "loaded": loaded,
    "compiled": compiled,
}}))
"""


def measure_case(name: str, repeats: int = 3) -> dict[str, dict[str, Any]]:
    """The cheapest of some first calls of CASES, each in a process of its own: cold, and from the cache that it filled.

    Seconds are processor time, user and system, of all threads: a first call waits for nothing but the processor, so
    this is what it takes on an idle machine, and other programs change it less than the time that passes, `wall_s`.
    libraries_s : to import NumPy, SciPy and scikit-learn;  call_s : to import lae_fast and Numba, and to call
    loaded, compiled : how many kernels were
    """
    found: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"LAE_FAST_CACHE_DIR": cache, "LAE_FAST_CACHE": "1"}
            for kind in found:
                command = [sys.executable, "-c", _FIRST.format(call=CASES[name])]
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
                found[kind].append(json.loads(done.stdout.splitlines()[-1]))
    return {kind: min(runs, key=lambda run: run["call_s"]) for kind, runs in found.items()}


def table(result: dict[str, Any]) -> list[str]:
    """A row for each case, for `benchmarks.report`."""
    lines = [
        "| first call of a process | cold | kernels compiled | warm | kernels loaded | libraries, in both |",
        "|:--|--:|--:|--:|--:|--:|",
    ]
    for name, found in result["cases"].items():
        cold, warm = found["cold"], found["warm"]
        lines.append(
            f"| {name} | {cold['call_s']:.1f} s | {cold['compiled']} | {warm['call_s']:.2f} s | {warm['loaded']} |"
            f" {warm['libraries_s']:.2f} s |"
        )
    return [
        *lines,
        "",
        f"Processor time, the least of {result['repeats']} processes: of lae_fast and Numba, import and call together;"
        " and of NumPy, SciPy and scikit-learn, which are imported before. 4000 x 300 numbers.",
    ]


def headline(result: dict[str, Any]) -> dict[str, str]:
    """Of each case: cold, then warm."""
    return {
        name: f"{found['cold']['call_s']:.1f} s, {found['warm']['call_s']:.2f} s"
        for name, found in result["cases"].items()
    }
