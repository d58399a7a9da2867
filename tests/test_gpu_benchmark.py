"""The GPU benchmark's command, at toy size on the simulator: it runs, checks answers, and records no times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(what, *arguments, **environment):
    command = [sys.executable, "-m", "benchmarks.gpu", what, *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )


def times(node):
    if isinstance(node, dict):
        return [value for key, item in node.items() for value in ([item] if is_time(key) else times(item))]
    return [value for item in node for value in times(item)] if isinstance(node, list) else []


def is_time(key):
    return key in ("seconds", "us", "over_reference", "share_of_copy") or key.endswith(("_gbps", "gflops", "tflops"))


def test_dry_run(tmp_path):
    out = tmp_path / "gpu.json"
    ran = run("pca", "--dry-run", "--out", str(out), NUMBA_ENABLE_CUDASIM="1")
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


def test_dry_run_of_training(tmp_path):
    out = tmp_path / "gpu.json"
    ran = run("train", "--dry-run", "--out", str(out), NUMBA_ENABLE_CUDASIM="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(out.read_text())
    assert found["dry_run"] and found["environment"]["cuda"]["available"]
    for row in found["ordered_against_mse"]:
        assert row["correct"] == dict.fromkeys(("mse", "ordered", "rag", "gha"), True) and not row["notes"]
    assert [row["p"] for row in found["ordered_against_mse"]] == [1, 1, 3, 3]
    assert all(row["correct"]["lae_fast"] and row["correct"]["lae_fast, graph"] for row in found["against_torch"])
    assert len(times(found)) > 40 and set(times(found)) == {None}


def test_the_race_itself_which_a_dry_run_leaves_out():
    from benchmarks import gpu, gpu_train

    def work(n):
        total = 0.0
        for k in range(2000 * n):
            total += k
        return total

    runs = {"one": work, "two": lambda n: work(2 * n)}
    found = gpu_train.race(runs, "one", gpu.Clock(5, float("inf"), False), 2.0)
    assert found["one"]["over_reference"]["median"] == 1.0
    assert all(row["status"] == "raced" and row["us"] > 0 and row["over_reference"]["n"] >= 3 for row in found.values())


def test_the_simulator_is_not_timed():
    ran = run("train", NUMBA_ENABLE_CUDASIM="1")
    assert ran.returncode == 2 and "the simulator is not to be timed" in ran.stderr
