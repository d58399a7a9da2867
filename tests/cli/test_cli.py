"""The command line, run as people run it: what it prints, what it writes, what it says when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_digits

import lae_fast
from lae_fast import cli
from lae_fast.cli import output
from lae_fast.cli import pca as cli_pca
from lae_fast.data import files

ROOT = Path(__file__).resolve().parents[2]

# float32, 40 x 6, columns of very different variance around a mean
MATRIX = (np.random.default_rng(0).normal(size=(40, 6)) * [9, 5, 3, 2, 1, 0.5] + 10).astype(np.float32)

BORDER = "\u2502"  # between the cells of the table


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # no line is folded
    np.save("x.npy", MATRIX)
    return tmp_path


@pytest.fixture
def run(here, capfd):
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


def eigenpairs(rows):
    rows = np.asarray(rows, dtype=np.float64)
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
    return values[::-1], vectors[:, ::-1].T


def read(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_readme_command_on_digits(run, here):
    code, out, err = run("pca", "digits", "-k", 10, "-o", "digits.npz", "--plot", "scree.png")
    assert (code, err) == (0, "")
    assert out.startswith("input  digits: 1797 x 64 float32, 460 kB, from scikit-learn")
    values, vectors = eigenpairs(load_digits().data)
    result = read("digits.npz")
    np.testing.assert_allclose(result["explained_variance"], values[:10], rtol=1e-5)
    np.testing.assert_allclose(result["explained_variance_ratio"], values[:10] / values.sum(), rtol=1e-5)
    np.testing.assert_allclose(result["singular_values"], np.sqrt(values[:10] * 1796), rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(result["components"] * vectors[:10], axis=1)), 1.0, rtol=1e-5)
    np.testing.assert_allclose(result["mean"], load_digits().data.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result["noise_variance"], values[10:].mean(), rtol=1e-4)
    assert result["residuals"].shape == (10,) and (result["residuals"] <= 1e-4).all()
    assert result["n_samples"] == 1797 and result["format_version"] == 2
    assert (here / "scree.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.split(BORDER)[1:6] for line in out.splitlines() if line.startswith(BORDER)]
    assert [int(row[0]) for row in rows] == list(range(1, 11))
    np.testing.assert_allclose([float(row[1]) for row in rows], values[:10], rtol=1e-5)
    np.testing.assert_allclose(
        [float(row[3].strip(" %")) for row in rows], 100 * np.cumsum(values / values.sum())[:10], atol=1e-3
    )
    np.testing.assert_allclose([float(row[4]) for row in rows], result["residuals"], rtol=0.06)


def test_summary_says_how_it_was_done(run):
    code, out, _ = run("pca", "x.npy", "-k", 2, "-o", "out.npz", "--solver", "gram")
    assert code == 0
    pca = lae_fast.PCA(2, svd_solver="gram").fit(MATRIX)
    fields = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in out.splitlines() if line[:1].isalpha()}
    assert list(fields) == ["input", "route", "passes", "time", "memory", "backend", "wrote"]
    assert fields["input"] == "x.npy: 40 x 6 float32, 960 B, memory-mapped"
    assert fields["route"] == f"gram: {pca.route_reason_}"
    assert fields["passes"] == f"{pca.n_passes_} over the data"
    assert fields["backend"].startswith("cpu, ")
    assert fields["wrote"] == "out.npz"
    assert "peak of the process" in fields["memory"]


def test_meta_is_json_and_complete(run):
    run("pca", "x.npy", "-k", "0.9", "-o", "out.npz", "--tol", "1e-5", "--max-memory", "1GiB", "--threads", "1", "-q")
    meta = json.loads(str(read("out.npz")["meta"]))
    assert meta["lae_fast"] == lae_fast.__version__
    assert meta["shape"] == [40, 6] and meta["dtype"] == "float32"
    assert meta["options"]["input"] == "x.npy" and meta["options"]["components"] == "0.9"
    assert meta["options"]["output"] == "out.npz" and meta["options"]["max_memory"] == "1GiB"
    assert meta["solver"] in ("gram", "krylov") and meta["route_reason"] and meta["backend"] == "cpu"
    assert meta["converged"] is True and meta["n_passes"] >= 1 and meta["workspace_bytes"] > 0
    assert meta["seconds"] > 0 and meta["peak_memory_bytes"] > 10**7 and meta["created"].endswith("+00:00")


@pytest.mark.parametrize(("components", "count"), [("3", 3), ("0.9", None), ("mle", None)])
def test_count_fraction_or_mle(run, components, count):
    code, _, err = run("pca", "x.npy", "-k", components, "-o", "out.npz")
    assert (code, err) == (0, "")
    values, _ = eigenpairs(MATRIX)
    if components == "0.9":
        count = int(np.searchsorted(np.cumsum(values / values.sum()), 0.9) + 1)
    found = read("out.npz")["explained_variance"]
    assert count is None or len(found) == count
    np.testing.assert_allclose(found, values[: len(found)], rtol=1e-5)


def test_standardize(run):
    run("pca", "x.npy", "-k", 2, "-o", "out.npz", "--standardize")
    values, _ = eigenpairs(
        (MATRIX - MATRIX.mean(axis=0, dtype=np.float64)) / MATRIX.std(axis=0, dtype=np.float64, ddof=1)
    )
    found = read("out.npz")
    np.testing.assert_allclose(found["explained_variance_ratio"], values[:2] / values.sum(), rtol=1e-5)


WRITERS = {
    "a.npz": lambda: np.savez("a.npz", x=MATRIX),
    "a.npz:x": lambda: np.savez("a.npz", x=MATRIX, y=MATRIX[::2]),
    "a.h5:g/x": lambda: write_h5("a.h5"),
    "a.csv": lambda: np.savetxt("a.csv", MATRIX, delimiter=",", fmt="%.9g"),
    "s.npz": lambda: scipy.sparse.save_npz("s.npz", scipy.sparse.csr_array(MATRIX)),
}


def write_h5(path):
    with h5py.File(path, "w") as file:
        file["g/x"] = MATRIX


@pytest.mark.parametrize("spec", WRITERS)
def test_every_format_gives_the_same_components(run, spec):
    WRITERS[spec]()
    code, out, err = run("pca", spec, "-k", 3, "-o", "out.npz")
    assert (code, err) == (0, "")
    assert out.startswith(f"input  {spec}")
    values, vectors = eigenpairs(MATRIX)
    result = read("out.npz")
    np.testing.assert_allclose(result["explained_variance"], values[:3], rtol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(result["components"] * vectors[:3], axis=1)), 1.0, rtol=1e-5)


def test_input_is_not_written_to(run, here):
    before = (here / "x.npy").read_bytes()
    run("pca", "x.npy", "-k", 2, "-o", "out.npz", "--standardize")
    assert (here / "x.npy").read_bytes() == before
    assert sorted(os.listdir(here)) == ["out.npz", "x.npy"]


def test_existing_output_is_replaced(run, here):
    (here / "out.npz").write_bytes(b"old")
    assert run("pca", "x.npy", "-k", 2, "-o", "out.npz")[0] == 0
    assert read("out.npz")["components"].shape == (2, 6)


def test_quiet_prints_nothing(run):
    assert run("pca", "x.npy", "-k", 2, "-o", "out.npz", "-q") == (0, "", "")


def test_without_an_output_it_says_so(run, here):
    code, out, _ = run("pca", "x.npy", "-k", 2)
    assert code == 0 and "nothing; keep the result with -o FILE.npz" in out
    assert os.listdir(here) == ["x.npy"]


def test_long_table_is_cut_in_the_middle(run):
    np.save("wide.npy", np.random.default_rng(1).normal(size=(80, 60)))
    _, out, _ = run("pca", "wide.npy", "-k", 60)
    cells = [line.split(BORDER)[1].strip() for line in out.splitlines() if line.startswith(BORDER)]
    assert cells == [str(i) for i in range(1, 41)] + ["..."] + [str(i) for i in range(56, 61)]


BAD = [
    (["nothing.npy", "-k", 2], "nothing.npy does not exist"),
    (["x.npy", "-k", 0], "-k takes a count from 1 up, a fraction of the variance such as 0.95, or one of mle,"),
    (["x.npy", "-k", "1.0"], "-k takes a count"),
    (["x.npy", "-k", "some"], "-k takes a count"),
    (["x.npy", "-k", 7], "-k 7 must be at most 6"),
    (["x.npy", "-k", 2, "--max-memory", "lots"], "--max-memory lots is not a size; write for example"),
    (["x.npy", "-k", 2, "-o", "nowhere/out.npz"], "nowhere does not exist; make it first"),
    (["x.npy", "-k", 2, "-o", "out.h5"], "the result is a .npz file"),
    (["x.npy", "-k", 2, "--plot", "out.txt"], "end the name in one of"),
    (["x.npy", "-k", 2, "--plot", "x.npy"], "x.npy is the input; it would be overwritten"),
    (["z.npz", "-k", 2, "-o", "./z.npz"], "z.npz is the input; it would be overwritten"),
    (["x.npy", "-k", 2, "-o", "a.npz", "--plot", "a.npz"], "-o and --plot both name a.npz"),
    (["flat.npy", "-k", 1], "2D"),
    (["empty.npy", "-k", 1], "sample"),
    (["one.npy", "-k", 1], "sample"),
    (["text.npy", "-k", 1], "text.npy cannot be read"),
    (["cut.npy", "-k", 1], "cut.npy is truncated"),
    (["string.npy", "-k", 1], "strings"),
    (["complex.npy", "-k", 1], "omplex"),
    (["nan.npy", "-k", 1], "NaN"),
    (["[red]gone[/red].npy", "-k", 1], "[red]gone[/red].npy does not exist"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(map(str, case[0])) for case in BAD])
def test_bad_input_is_one_line_and_exit_code_2(run, here, arguments, message):
    np.save("flat.npy", MATRIX[0])
    np.save("empty.npy", MATRIX[:0])
    np.save("one.npy", MATRIX[:1])
    np.save("string.npy", np.full((4, 2), "word"))
    np.save("complex.npy", MATRIX.astype(complex))
    np.save("nan.npy", np.where(MATRIX == MATRIX[3, 2], np.nan, MATRIX))
    np.savez("z.npz", x=MATRIX)
    (here / "text.npy").write_text("hello")
    (here / "cut.npy").write_bytes((here / "x.npy").read_bytes()[:-1])
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    code, out, err = run("pca", *arguments)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not out or (out.startswith("input ") and out.count("\n") == 1)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_nan_is_located(run):
    rows = MATRIX.copy()
    rows[3, 2] = np.nan
    np.save("nan.npy", rows)
    _, _, err = run("pca", "nan.npy", "-k", 1)
    assert "row 3" in err and "column 2" in err


@pytest.mark.parametrize(
    "arguments",
    [["pca"], ["pca", "x.npy"], ["pca", "x.npy", "-k", 2, "--solver", "best"], ["pca", "x.npy", "--nope"], ["no"]],
)
def test_bad_usage_is_exit_code_2_and_shows_the_usage(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and "Usage: lae-fast" in err and "Traceback" not in err


def test_cuda_that_is_absent_is_an_error_not_a_fallback(run, here):
    if lae_fast.backend_info()["cuda"]["available"]:
        pytest.skip("CUDA is here")
    code, _, err = run("pca", "x.npy", "-k", 2, "-o", "out.npz", "--backend", "cuda")
    assert code == 2 and err.startswith("error: ") and "CUDA" in err
    assert os.listdir(here) == ["x.npy"]


def test_output_is_checked_before_the_input_is_read(run, monkeypatch):
    monkeypatch.setattr(files, "open_input", lambda spec: pytest.fail("read the input first"))
    code, _, err = run("pca", "x.npy", "-k", 2, "-o", "nowhere/out.npz")
    assert code == 2 and "nowhere does not exist" in err


def test_memory_limit_reaches_the_engine(run):
    code, _, err = run("pca", "x.npy", "-k", 2, "--max-memory", "100B")
    assert code == 2 and err.count("\n") == 1


@pytest.mark.filterwarnings("default")  # as outside pytest: here ours are errors
def test_warning_is_one_line_and_not_an_error(run, monkeypatch):
    fit = lae_fast.PCA.fit

    def warn_and_fit(self, X, checkpoint):
        warnings.warn("component 2 [bold]stopped\n above the tolerance", UserWarning, stacklevel=2)
        return fit(self, X)

    monkeypatch.setattr(lae_fast.PCA, "fit", warn_and_fit)
    code, _, err = run("pca", "x.npy", "-k", 2, "-o", "out.npz", "-q")
    assert (code, err) == (0, "warning: component 2 [bold]stopped above the tolerance\n")
    assert read("out.npz")["components"].shape == (2, 6)


def test_debug_shows_the_traceback(run):
    with pytest.raises(FileNotFoundError):
        run("pca", "nothing.npy", "-k", 2, "--debug")


def test_defect_of_ours_is_not_called_bad_input(run, monkeypatch):
    def broken(self, X, checkpoint):
        raise ZeroDivisionError

    monkeypatch.setattr(lae_fast.PCA, "fit", broken)
    with pytest.raises(ZeroDivisionError):
        run("pca", "x.npy", "-k", 2)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("moment", ["lae_fast.PCA.fit = interrupt", "numpy.savez = interrupt"])
def test_ctrl_c_is_130_and_leaves_no_file(here, moment):
    script = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
import lae_fast, lae_fast.cli, numpy

def interrupt(target, *_, **__):
    if hasattr(target, "write"):
        target.write(b"half")
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

{moment}
sys.exit(lae_fast.cli.main(["pca", "x.npy", "-k", "2", "-o", "out.npz", "-q"]))
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert finished.returncode == 128 + signal.SIGINT
    assert finished.stderr.startswith("interrupted: out.npz was not written")
    assert os.listdir(here) == ["x.npy"]


def test_full_disk_keeps_the_old_result(run, here, monkeypatch):
    (here / "out.npz").write_bytes(b"old")

    def savez(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", savez)
    code, _, err = run("pca", "x.npy", "-k", 2, "-o", "out.npz")
    assert code == 2 and "out.npz was not written: No space left on device" in err
    assert (here / "out.npz").read_bytes() == b"old" and sorted(os.listdir(here)) == ["out.npz", "x.npy"]


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_missing_extra_says_how_to_get_it(run, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    code, out, err = run("--version")
    assert (code, out) == (1, "") and "pip install 'lae-fast[cli]'" in err


def test_missing_matplotlib_is_found_before_the_work(run, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(files, "open_input", lambda spec: pytest.fail("read the input first"))
    code, _, err = run("pca", "x.npy", "-k", 2, "--plot", "a.png")
    assert code == 2 and "pip install 'lae-fast[plot]'" in err


def test_version(run):
    assert run("--version") == (0, f"lae-fast {lae_fast.__version__}\n", "")


def test_help_lists_the_commands_and_options(run):
    assert all(word in run("--help")[1] for word in ("pca", "info"))
    out = run("pca", "-h")[1]
    assert all(
        option in out for option in ("--components", "--output", "--plot", "--solver", "--max-memory", "--quiet")
    )


def test_info_prints_what_backend_info_says(run):
    info = lae_fast.backend_info()
    code, out, err = run("info")
    assert (code, err) == (0, "")
    fields = dict(line.split(maxsplit=1) for line in out.splitlines() if line[:1].strip())
    assert fields["backend"].strip() == info["backend"]
    assert fields["threads"].strip() == f"{info['threads']}: {info['threading']}"
    assert fields["CUDA"].startswith("available" if info["cuda"]["available"] else "not available")
    assert info["versions"].keys() >= {"numpy", "numba"}
    flat = "".join(out.split())
    for version in info["versions"].values():
        assert version in flat
    for blas in info["blas"]:
        assert "".join(blas["name"].split()) in flat and "".join(blas["path"].split()) in flat
    assert fields["processor"].strip().endswith("as bytes" if info["processor"]["byte_products"] else "in float32")
    cache = info["cache"]
    used = cache["enabled"] and cache["jit"]
    assert fields["cache"].strip() == f"on, {cache['path']}" if used else "off" in fields["cache"]


def test_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "lae_fast.cli", "--version"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, f"lae-fast {lae_fast.__version__}\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("10", 10), ("0.95", 0.95), (".5", 0.5), ("1e-3", 1e-3), ("mle", "mle")],
)
def test_parse_components(text, value):
    parsed = cli_pca.parse_components(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize("text", ["0", "-3", "1.0", "1.5", "nan", "inf", "", "MLE", "0.0", "10%"])
def test_parse_components_refuses(text):
    with pytest.raises(ValueError, match="-k takes a count"):
        cli_pca.parse_components(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (47_040_000, "47 MB"), (5e15, "5 PB")]
)
def test_format_bytes(count, text):
    assert output.format_bytes(count) == text


def test_train_writes_a_model_that_reads_without_pickle(run, here):
    code, out, _ = run(
        "train", "x.npy", "-k", 2, "--loss", "ordered", "--optimizer", "nesterov", "-o", "model.npz", "--seed", 1
    )
    assert code == 0
    assert "converged" in out and "moments" in out
    assert "the gradient of every component is within --tol 1e-06" in out and "excess loss" in out
    model = read("model.npz")
    assert model["encoder"].shape == (2, 6) and model["decoder"].shape == (6, 2)
    _, vectors = eigenpairs(MATRIX)
    cosines = np.abs(np.sum(model["components"] * vectors[:2], axis=1))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-3)
    meta = json.loads(str(model["meta"]))
    assert meta["options"]["loss"] == "ordered" and meta["n_iter"] > 0
    assert meta["converged"] is True and abs(meta["excess_loss"]) < 1e-6 and "tol" in meta["converged_reason"]
    assert (model["alignment_residuals"] < 4e-3).all()


@pytest.mark.filterwarnings("ignore:Training has not converged")
def test_train_takes_losses_with_numbers_layers_and_batches(run, here):
    assert run("train", "x.npy", "-k", 2, "--loss", "sum_l2(0.1)", "--max-iter", 50, "-q")[0] == 0
    assert run("train", "x.npy", "-k", 2, "--hidden", "4,3", "--max-iter", 5, "-q")[0] == 0
    assert run("train", "x.npy", "-k", 2, "--batch-size", 8, "--max-iter", 5, "-q", "--learning-rate", "0.01")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "sum_l2(x)"), "write numbers behind the name"),
        (("--loss", "sum_l2(1, 2)"), "sum_l2"),
        (("--loss", "nonsense(1)"), "unknown loss"),
        (("--rule", "gha", "--loss", "mse"), "takes no loss"),
        (("--learning-rate", "fast"), "takes a number or auto"),
        (("--hidden", "a"), "widths such as"),
        (("-o", "model.txt"), "end the name in .npz"),
        (("-o", "x.npy"), "it would be overwritten"),
    ],
)
def test_train_says_what_is_wrong(run, here, arguments, message):
    code, _, err = run("train", "x.npy", "-k", 2, "--max-iter", 5, *arguments)
    assert code == 2 and message in err
