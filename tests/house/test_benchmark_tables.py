"""The tables of the training and sparse benchmarks, from results whose answer is known; nothing is timed."""

from benchmarks import report
from benchmarks.lib import tables


def ratio(median):
    return {"median": median, "q1": median - 0.01, "q3": median + 0.01, "min": median, "iqr": 0.02, "n": 5}


def training_case(**peers):
    raced = {"lae_fast": 1.0, "bare GEMMs (NumPy)": 0.8, **peers}
    return {
        "title": "tiny", "d": 20, "p": 2, "m": 50, "moments_s": 0.002, "notes": {"PyTorch compile": "does not run"},
        "correct": {"lae_fast": True, **dict.fromkeys(peers, True)},
        "contestants": {
            name: {"status": "raced", "reason": "", "us": 100.0 * times, "times_ours": ratio(times)}
            for name, times in raced.items()
        },
    }  # fmt: skip


def machine():
    return {
        "cpu": "a CPU", "cores_usable": 2, "memory_gb": 1, "system": "Linux", "python": "3", "packages": {"numpy": "2"},
        "date": "2026-01-01T00:00", "load_at_start": 0.0, "cores": 2,
    }  # fmt: skip


def sparse_record(name, median, residual, **more):
    detail = {"worst_residual": residual, "workspace_bytes": 100e6}
    summary = {} if median is None else ratio(median)
    return {"name": name, "summary": summary, "detail": detail, "accurate": residual <= 1e-4, "note": "", **more}


def test_sparse_says_what_is_short_of_the_aim():
    ours = sparse_record("lae_fast PCA", 2.0, 1e-6)
    peers = [sparse_record("good", 7.0, 1e-5), sparse_record("bad", 1.0, 1e-2, note="not centred")]
    peers.append(sparse_record("slow", None, 1e-5, status="skipped", reason="no time"))
    case = {
        "name": "uniform", "m": 200, "d": 20, "nnz": 3_000_000, "p": 5, "best_peer": "good",
        "contestants": [ours, *peers], "speedup": {"good": ratio(3.5), "bad": ratio(0.5)},
        "memory": {"lae_fast PCA": {"peak_bytes": 150e6}},
    }  # fmt: skip
    text = "\n".join(tables.sparse_summary([case]))
    assert "| 2 s (1e-06) | good, 7 s (1e-05) | **3.50x as fast (3.49 to 3.51)** | 150 MB | 1.5x |" in text
    assert "Short of the aim, 4x: uniform (3.50x)." in text
    case["speedup"]["good"] = ratio(4.5)
    assert "4x: none." in "\n".join(tables.sparse_summary([case]))
    full = tables.sparse_full([case])
    assert "| bad | 1 s | 1e-02 | 0.50x as fast (0.49 to 0.51) |  | not centred; misses the tolerance |" in full
    assert "skipped: no time" in full


def test_training_takes_the_quickest_peer():
    case = training_case(**{"PyTorch eager, moments": 5.0, "PyTorch compile, moments": 4.0})
    text = "\n".join(tables.training_summary([case]))
    assert (
        "| tiny (50 samples) | 20 | 2 | 100 us | PyTorch compile, moments | **4x** as long | 0.80x as long | 2 ms |"
        in text
    )
    assert "Wrong" not in text
    case["correct"]["lae_fast"] = False
    assert "Wrong gradients: lae_fast (tiny)." in "\n".join(tables.training_summary([case]))
    full = tables.training_full([case])
    assert "does not run" in full and "forming the moments of 50 samples" in full


def test_results_go_between_their_markers(tmp_path):
    (tmp_path / "README.md").write_text("<!-- benchmark:training -->\n<!-- /benchmark:training -->\n")
    cases = [training_case(**{"PyTorch eager, moments": 5.0})]
    result = {"benchmark": "training", "smoke": False, "environment": machine(), "cases": cases}
    assert report.regenerate([result], tmp_path, None) == ["README.md"]
    assert report.regenerate([result], tmp_path, None) == []
    assert "Reproduce: `python -m benchmarks.training`." in (tmp_path / "README.md").read_text()
