"""The GPU benchmark's command, at toy size on the simulator: it runs, checks answers, and records no times."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
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
        assert row["correct"] == dict.fromkeys(("mse", "lae_fast mse", "ordered", "rag", "gha"), True)
        assert not row["notes"]
    assert [row["p"] for row in found["ordered_against_mse"]] == [1, 1, 3, 3]
    assert all(row["correct"]["lae_fast"] and row["correct"]["lae_fast, graph"] for row in found["against_torch"])
    assert len(times(found)) > 40 and set(times(found)) == {None}


def run_with(before, out):
    """The dry run of training after these lines of Python."""
    code = f"import sys\n{before}\nfrom benchmarks.gpu import __main__ as gpu\nraise SystemExit(gpu.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", code, "train", "--dry-run", "--out", str(out)],
        cwd=ROOT, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


def test_with_a_broken_pytorch_the_rest_runs_and_is_right(tmp_path):
    out = tmp_path / "gpu.json"
    # not None in sys.modules, which SciPy would stumble over
    before = (
        "class Blocked:\n    def find_spec(self, name, *_):\n        if name == 'torch':\n"
        "            raise OSError('libtorch.so: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Blocked())"
    )
    ran = run_with(before, out)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for row in json.loads(out.read_text())["against_torch"]:
        assert row["correct"] == {"lae_fast": True, "lae_fast, graph": True}
        assert {name: note.split(":")[1] for name, note in row["notes"].items()} == dict.fromkeys(
            ("PyTorch eager", "PyTorch compile", "PyTorch graph"), " OSError"
        )


def test_one_of_ours_that_fails_is_noted_and_the_rest_runs(tmp_path):
    out = tmp_path / "gpu.json"
    before = (
        "from benchmarks.gpu import train as gpu_train\nours = gpu_train.ours\n"
        "def fail(described, stack, rule, loss, graph):\n"
        "    if rule == 'rag':\n        raise OSError('libcublas.so.12 is gone')\n"
        "    return ours(described, stack, rule, loss, graph)\n"
        "gpu_train.ours = fail"
    )
    ran = run_with(before, out)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    rows = json.loads(out.read_text())["ordered_against_mse"]
    assert len(rows) == 4
    for row in rows:
        assert row["notes"] == {"rag": "does not run: OSError: libcublas.so.12 is gone"}
        assert row["correct"].keys() == row["times"].keys() == {"mse", "lae_fast mse", "ordered", "gha"}


def test_what_must_have_run_for_training_to_be_right():
    from benchmarks.gpu import train as gpu_train

    def payload():
        rows = [{"graph": g, "correct": dict.fromkeys(gpu_train.OURS, True), "times": {}} for g in (False, True)]
        raced = [{"correct": {"lae_fast": True, "PyTorch eager": False}, "times": {}}]
        return {"notes": {}, "fused_step": [], "ordered_against_mse": rows, "against_torch": raced}

    assert gpu_train.is_all_right(payload())
    without = payload()
    without["ordered_against_mse"][1] = {"graph": True, "correct": {}, "notes": {"mse": "no graphs here"}}
    assert gpu_train.is_all_right(without)
    for name in gpu_train.OURS:
        for wrong in (False, None):
            bad = payload()
            bad["ordered_against_mse"][0]["correct"][name] = wrong
            assert not gpu_train.is_all_right(bad)
    for bad, spoil in ((payload(), lambda b: b["against_torch"][0]["correct"].pop("lae_fast")),
                       (payload(), lambda b: b["ordered_against_mse"][0].pop("times")),
                       (payload(), lambda b: b["ordered_against_mse"].clear()),
                       (payload(), lambda b: b["notes"].update(against_torch="does not run")),
                       (payload(), lambda b: b["ordered_against_mse"][1]["correct"].update(mse=False))):  # fmt: skip
        spoil(bad)
        assert not gpu_train.is_all_right(bad)


def test_a_contestant_that_fails_in_the_race_does_not_end_it():
    from benchmarks.gpu import card
    from benchmarks.gpu import train as gpu_train

    calls = []

    def fail_later(n):
        calls.append(n)
        if len(calls) > 3:
            raise OSError("gone")

    def fail(n):
        raise AttributeError("no such symbol")

    runs = {"one": lambda n: sum(range(2000 * n)), "later": fail_later, "never": fail}
    found = gpu_train.race(runs, "one", card.Clock(5, float("inf"), False), 2.0)
    assert found["one"]["status"] == "raced" and found["never"]["reason"].startswith("does not run: AttributeError")
    assert found["later"]["status"] == "failed" and "gone" in found["later"]["reason"]


def test_the_race_itself_which_a_dry_run_leaves_out():
    from benchmarks.gpu import card
    from benchmarks.gpu import train as gpu_train

    def work(n):
        total = 0.0
        for k in range(2000 * n):
            total += k
        return total

    runs = {"one": work, "two": lambda n: work(2 * n)}
    found = gpu_train.race(runs, "one", card.Clock(5, float("inf"), False), 2.0)
    assert found["one"]["over_reference"]["median"] == 1.0
    assert all(row["status"] == "raced" and row["us"] > 0 and row["over_reference"]["n"] >= 3 for row in found.values())


def test_the_simulator_is_not_timed():
    ran = run("train", NUMBA_ENABLE_CUDASIM="1")
    assert ran.returncode == 2 and "the simulator is not to be timed" in ran.stderr
