"""Seconds of the first call in a fresh process, cold and from the compile cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
