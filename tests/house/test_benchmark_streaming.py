"""The benchmark of files larger than memory: it checks answers and memory, and its tables say what it found."""

import json
import shutil
import sys

import h5py
import numpy as np
import pytest

from benchmarks import report, streaming
from benchmarks.lib import harness, stream_tables


@pytest.mark.needs_jit
@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status, which Linux has")
def test_the_streaming_benchmark_runs_and_notices_a_wrong_answer(tmp_path, monkeypatch, capsys):
    out = tmp_path / "streaming-smoke.json"
    arguments = ["--smoke", "--rounds", "1", "--out", str(out)]
    assert streaming.main(arguments) == 0
    text = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert [case["kind"] for case in result["files"]["cases"]] == ["npy", "h5"]
    for case in result["files"]["cases"]:
        assert case["accurate"] and 0 < case["peak"] < 2 * result["files"]["limit"]
        assert case["read_seconds"]["n"] == 1 and case["share_of_read"]["median"] > 0
    assert set(result["bytes"][0]["ratios"]) == {
        "lae_fast, float32",
        "lae_fast, float32 in 0..1",
        "scikit-learn, uint8",
    }
    assert "% of a plain read" in text and "scikit-learn, uint8" in text
    lines = report.content(result, "full")
    assert "| npy, 0.04 GB |" in lines and "python -m benchmarks.streaming" in lines
    monkeypatch.setattr(streaming, "apart", lambda *_, **__: {"skipped": "done before"})
    for wrong in ({"accurate": False}, {"peak": 10**9}):
        case = result["files"]["cases"][0] | wrong
        monkeypatch.setattr(streaming, "measure_files", lambda *_, case=case: result["files"] | {"cases": [case]})
        assert streaming.main(arguments) == 1


@pytest.mark.full
def test_what_is_written_has_the_variances_that_are_said(tmp_path):
    m, variances = streaming.write(tmp_path, 4e7)
    rows = np.load(tmp_path / "x.npy").astype(np.float64)
    assert rows.shape == (m, streaming.D)
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file["x"][:], rows)
    u = np.linalg.eigh(np.cov(rows.T))[1][:, -1]
    np.testing.assert_allclose(np.var(rows @ u, ddof=1), variances[0], rtol=1e-9)


def test_without_room_the_files_are_skipped(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10**9}))
    found = streaming.measure_files(4e9, 500_000_000, 3)
    assert found == {"skipped": "1.0 GB free, two files of 4.0 GB are wanted"}
    lines = stream_tables.streaming({"files": found, "bytes": [{"skipped": "no images"}]})
    assert lines[0].startswith("Files: skipped, 1.0 GB free") and lines[-1] == "Bytes: skipped, no images."


def test_the_table_of_the_incremental_benchmark():
    record = harness.Record("lae_fast", "ours", times=[1.0], rounds=[0], detail={"variance_error": 2e-7})
    failed = harness.Record("scikit-learn", status="failed", reason="ValueError: no")
    result = {
        "data": {"name": "toy", "shape": [10, 3], "dtype": "float32", "n_components": 2, "batch": 5},
        "contestants": [record.as_dict(), failed.as_dict()],
        "speedup": {"median": 12.0, "q1": 11.0, "q3": 13.0},
    }
    lines = stream_tables.incremental(result)
    assert lines[0] == "| toy 10 x 3 float32, 2 components, batches of 5 | median | worst error of a variance |"
    assert "| lae_fast | 1 s | 2e-07 |" in lines and "| scikit-learn | failed: ValueError: no |  |" in lines
    assert lines[-1] == "lae_fast is **12.0x** as fast (11.0 to 13.0; aim 10x)."


@pytest.mark.needs_jit
def test_overlap_is_measured(capsys):
    assert streaming.main(["--overlap", "--smoke"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("read ", "compute ", "both ", "% of the shorter one is hidden"))
