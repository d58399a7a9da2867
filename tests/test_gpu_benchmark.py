"""The GPU benchmark's command, at toy size on the simulator: it runs, checks answers, and records no times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*arguments, **environment):
    command = [sys.executable, "-m", "benchmarks.gpu", "pca", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def times(node):
    if isinstance(node, dict):
        return [value for key, item in node.items() for value in ([item] if is_time(key) else times(item))]
    return [value for item in node for value in times(item)] if isinstance(node, list) else []


def is_time(key):
    return key == "seconds" or key.endswith(("_gbps", "gflops", "tflops"))


def test_dry_run(tmp_path):
    out = tmp_path / "gpu.json"
    ran = run("--dry-run", "--out", str(out), NUMBA_ENABLE_CUDASIM="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(out.read_text())
    assert found["dry_run"] and [case["name"] for case in found["cases"]] == [
        "toy",
        "toy bytes",
        "toy wide",
        "toy sparse",
    ]
    assert all(result["worst_residual"] < 1e-5 for case in found["cases"] for result in case["race"].values())
    assert {f"gemm_{name}_gflops" for name in ("float32", "float64", "tf32", "bf16x9")} <= found["ceilings"].keys()
    assert "gram_tf32_tflops" in found["cases"][0]["products"]
    assert "lae_fast, data on the device, tf32" in found["cases"][0]["race"]
    assert len(times(found)) > 25 and set(times(found)) == {None}


def test_the_simulator_is_not_timed():
    ran = run(NUMBA_ENABLE_CUDASIM="1")
    assert ran.returncode == 2 and "the simulator is not to be timed" in ran.stderr
