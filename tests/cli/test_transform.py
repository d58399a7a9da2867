"""lae-fast transform: the codes are those of the estimator, from any input, and nothing is half-written."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import cli, plan
from lae_fast.data import sources
from lae_fast.errors import MemoryLimitError

ROOT = Path(__file__).resolve().parents[2]
# a mean of a thousand deviations: rounded to float32 it would show in every code
MATRIX = (np.random.default_rng(0).normal(size=(700, 6)) * [9, 5, 3, 2, 1, 0.5] + 9000).astype(np.float32)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("x.npy", MATRIX)
    assert cli.main(["pca", "x.npy", "-k", "3", "-o", "model.npz", "-q"]) == 0
    return tmp_path


@pytest.fixture
def run(here, capfd):
    def run(*arguments):
        code = cli.main(["transform", *map(str, arguments)])
        return code, *capfd.readouterr()

    return run


def write_h5(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("g/x", data=MATRIX, chunks=(100, 6))


def write_parquet(path):
    table = pyarrow.table({f"c{j}": MATRIX[:, j] for j in range(6)})
    pyarrow.parquet.write_table(table, path, row_group_size=130)


WRITERS = {
    "x.npy": lambda: None,
    "f.npy": lambda: np.save("f.npy", np.asfortranarray(MATRIX)),
    "a.npz:y": lambda: np.savez("a.npz", x=MATRIX[:3], y=MATRIX),
    "a.h5": lambda: write_h5("a.h5"),
    "a.csv": lambda: np.savetxt("a.csv", MATRIX, delimiter=",", fmt="%.9g"),
    "a.parquet": lambda: write_parquet("a.parquet"),
    "dense.npz": lambda: scipy.sparse.save_npz("dense.npz", scipy.sparse.csr_array(MATRIX)),
}


@pytest.mark.filterwarnings("ignore:INPUT .* has names of columns, but model.npz has none")
@pytest.mark.parametrize("spec", WRITERS)
def test_codes_are_those_of_the_estimator_for_every_format(run, here, spec):
    WRITERS[spec]()
    code, out, err = run("model.npz", spec, "-o", "codes.npy")
    assert (code, err) == (0, "")
    expected = lf.PCA(3).fit(MATRIX).transform(MATRIX)
    codes = np.load("codes.npy", allow_pickle=False)
    assert codes.dtype == (np.float64 if spec == "a.csv" else np.float32) and codes.flags.c_contiguous
    np.testing.assert_allclose(codes, expected, atol=2e-3 if spec == "dense.npz" else 1e-5)
    assert "model.npz: 3 principal components, 6 columns" in out
    assert f"codes.npy: 700 x 3 {codes.dtype}" in out
    assert not [name for name in os.listdir(here) if name.endswith(".tmp")]


@pytest.mark.filterwarnings("ignore:Training has not converged")
def test_a_model_of_train_and_one_that_standardizes(run, here):
    assert cli.main(["pca", "x.npy", "-k", "2", "--standardize", "-o", "scaled.npz", "-q"]) == 0
    arguments = ["train", "x.npy", "-k", "2", "--optimizer", "nesterov", "-o", "lae.npz", "-q", "--max-iter", "50"]
    assert cli.main(arguments) == 0
    assert run("scaled.npz", "x.npy", "-o", "scaled.npy", "-q") == (0, "", "")
    expected = lf.PCA(2, standardize=True).fit_transform(MATRIX)
    np.testing.assert_allclose(np.load("scaled.npy"), expected, rtol=1e-5, atol=1e-5)
    code, out, _ = run("lae.npz", "x.npy", "-o", "lae.npy")
    assert code == 0 and "2 units of a linear autoencoder" in out
    with np.load("lae.npz", allow_pickle=False) as model:
        exact = (MATRIX - model["mean"]) @ model["encoder"].astype(np.float64).T
    np.testing.assert_allclose(np.load("lae.npy"), exact, rtol=1e-4, atol=1e-4)


def test_other_rows_and_other_dtypes(run):
    rows = np.random.default_rng(1).integers(0, 255, (5000, 6)).astype(np.uint8)
    np.save("bytes.npy", rows)
    assert run("model.npz", "bytes.npy", "-o", "codes.npy", "-q", "--threads", 3) == (0, "", "")
    lf.set_num_threads(None)
    with np.load("model.npz") as model:
        exact = (rows - model["mean"]) @ model["components"].astype(np.float64).T
    np.testing.assert_allclose(np.load("codes.npy"), exact, rtol=1e-5)


def test_sparse_rows_are_not_made_dense(run, monkeypatch):
    rows = scipy.sparse.random(40_000, 400, 0.01, format="csr", dtype=np.float32, random_state=0)
    scipy.sparse.save_npz("s.npz", rows)
    assert cli.main(["pca", "s.npz", "-k", "4", "-o", "sparse.npz", "-q"]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(sources.SparseSource, "block", lambda *_: pytest.fail("made dense"))
        assert run("sparse.npz", "s.npz", "-o", "codes.npy", "-q") == (0, "", "")
    np.testing.assert_allclose(np.load("codes.npy"), lf.PCA(4).fit(rows).transform(rows), atol=1e-5)
    rows.data[rows.indptr[30_000]] = np.nan
    scipy.sparse.save_npz("s.npz", rows)
    code, _, err = run("sparse.npz", "s.npz", "-o", "codes.npy", "-q")
    assert code == 2 and "first at row 30000" in err


def model_with(**changes):
    with np.load("model.npz") as model:
        np.savez("bad.npz", **{**model, **changes})


def without(name):
    with np.load("model.npz") as model:
        np.savez("bad.npz", **{key: model[key] for key in model.files if key != name})


BAD = {
    "no such model": (lambda: None, ["bad.npz", "x.npy"], "MODEL bad.npz does not exist; write one with"),
    "no archive": (
        lambda: Path("bad.npz").write_text("hello"),
        ["bad.npz", "x.npy"],
        "MODEL bad.npz is no .npz of lae-fast",
    ),
    "cut": (
        lambda: Path("bad.npz").write_bytes(Path("model.npz").read_bytes()[:-200]),
        ["bad.npz", "x.npy"],
        "MODEL bad.npz cannot be read",
    ),
    "an array": (lambda: None, ["x.npy", "x.npy"], "make one of data with lae-fast pca x.npy -k 10 -o model.npz"),
    "another archive": (lambda: np.savez("bad.npz", x=MATRIX), ["bad.npz", "x.npy"], "it has no array 'components'"),
    "no mean": (lambda: without("mean"), ["bad.npz", "x.npy"], "it has no array 'mean'"),
    "newer": (lambda: model_with(format_version=3), ["bad.npz", "x.npy"], "has format version 3, and this lae_fast"),
    "no version": (lambda: model_with(format_version=0), ["bad.npz", "x.npy"], "format_version is 0"),
    "odd mean": (lambda: model_with(mean=np.zeros(5)), ["bad.npz", "x.npy"], "do not fit together"),
    "nan": (lambda: model_with(components=np.full((3, 6), np.nan)), ["bad.npz", "x.npy"], "no finite numbers"),
    "width": (
        lambda: np.save("w.npy", MATRIX[:, :5]),
        ["model.npz", "w.npy"],
        "INPUT w.npy has 5 columns, but model.npz is for 6",
    ),
    "no input": (lambda: None, ["model.npz", "gone.npy"], "gone.npy does not exist"),
    "nan in the input": (
        lambda: np.save("n.npy", np.where(MATRIX == MATRIX[600, 2], np.nan, MATRIX)),
        ["model.npz", "n.npy"],
        "first at row 600, column 2",
    ),
    "memory": (lambda: None, ["model.npz", "x.npy", "--max-memory", "20B"], "--max-memory 20 B is too small: a row"),
    "suffix": (lambda: None, ["model.npz", "x.npy", "-o", "codes.npz"], "end the name in .npy"),
    "itself": (lambda: None, ["model.npz", "x.npy", "-o", "x.npy"], "x.npy is the input; it would be overwritten"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_the_old_file(run, here, case):
    make, arguments, message = BAD[case]
    make()
    Path("old.npy").write_bytes(b"old")
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    code, _, err = run(*arguments, *([] if "-o" in arguments else ["-o", "old.npy"]))
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_cuda_that_is_absent_is_an_error_not_a_fallback(run, here):
    if lf.backend_info()["cuda"]["available"]:
        pytest.skip("CUDA is here")
    code, _, err = run("model.npz", "x.npy", "-o", "codes.npy", "--backend", "cuda")
    assert code == 2 and err.startswith("error: ") and "CUDA" in err
    assert "codes.npy" not in {path.name for path in here.iterdir()}


def test_help_and_usage(run):
    out = run("-h")[1]
    assert all(word in out for word in ("MODEL", "INPUT", "--output", "--max-memory", "--backend", "--quiet"))
    assert run("model.npz", "x.npy")[0] == 2  # -o is required


def test_a_small_limit_gives_the_same_codes(run):
    assert run("model.npz", "x.npy", "-o", "wide.npy", "-q")[0] == 0
    assert run("model.npz", "x.npy", "-o", "narrow.npy", "-q", "--max-memory", "2kB", "--threads", 2)[0] == 0
    lf.set_num_threads(None)
    np.testing.assert_allclose(np.load("narrow.npy"), np.load("wide.npy"), atol=1e-6)


@pytest.mark.parametrize("copied", [0, 4])
@pytest.mark.parametrize("limit", [100_000, 200_000, 10**9])
def test_a_tiling_within_a_limit(copied, limit):
    whole = plan.tiling(100_000, 500, 4, 1000.0)
    for width in (0, 20):
        cut = plan.within(whole, 500, width, 4, 2, copied, limit)
        assert 1 <= cut.tile <= cut.chunk and cut.tile <= whole.tile and cut.chunk <= whole.chunk
        assert plan.tile_bytes(cut, 500, 4, 2, copied) + 2 * width * 4 * cut.chunk * bool(width) <= limit
    with pytest.raises(MemoryLimitError, match="a row for each of 2 threads needs"):
        plan.within(whole, 500, 20, 4, 2, copied, 4000)


def test_progress_is_reported(here, monkeypatch):
    from lae_fast import progress

    seen = []
    monkeypatch.setattr(progress, "resolve", lambda wanted: progress._Callback(lambda *report: seen.append(report)))
    assert cli.main(["transform", "model.npz", "x.npy", "-o", "codes.npy"]) == 0
    assert seen[-1][0] == "codes" and seen[-1][1] == seen[-1][2]


FAULTY = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
import numpy as np
import lae_fast.cli
from lae_fast.backends.lines import View

read = View.read
def slow(self, piece):
    if piece.number == 1:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    return read(self, piece)

View.read = slow
sys.exit(lae_fast.cli.main(["transform", "model.npz", "long.npy", "-o", "codes.npy", "-q", "--threads", "1"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_ctrl_c_while_rows_are_written(here):
    np.save("long.npy", np.tile(MATRIX, (20, 1)))
    Path("codes.npy").write_bytes(b"old")
    before = sorted(os.listdir(here))
    done = subprocess.run(
        [sys.executable, "-c", FAULTY.format(root=str(ROOT))], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr == "interrupted: codes.npy was not written; the one from before is untouched\n"
    assert sorted(os.listdir(here)) == before and Path("codes.npy").read_bytes() == b"old"


LIMITED = """
import resource, sys
sys.path.insert(0, {root!r})
import lae_fast.cli
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.exit(lae_fast.cli.main({arguments!r}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE")
@pytest.mark.parametrize(
    ("arguments", "old"),
    [
        (["transform", "model.npz", "long.npy", "-o", "codes.npy"], "codes.npy"),
        (["pca", "long.npy", "-k", "6", "-o", "out.npz"], "out.npz"),
        (["train", "long.npy", "-k", "6", "-o", "out.npz", "--max-iter", "3", "-q"], "out.npz"),
    ],
    ids=["transform", "pca", "train"],
)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(here, arguments, old):
    """The file may not grow beyond the limit: what a full disk does, in the middle of the writing."""
    np.save("long.npy", np.tile(MATRIX, (20, 1)))
    Path(old).write_bytes(b"old")
    before = sorted(os.listdir(here))
    script = LIMITED.format(root=str(ROOT), limit=1000 if old == "out.npz" else 100_000, arguments=arguments)
    # kernels are not compiled anew, whose cache would be under the limit too
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: ")
    assert f"{old} was not written: File too large. Free some space" in lines[0]
    assert sorted(os.listdir(here)) == before and Path(old).read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("arguments", [["--version"], ["kernels"]])
def test_a_closed_pipe_has_an_exit_code_of_its_own(arguments):
    """What is printed is in a buffer until the end, and Python's own last words would be noise."""
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "lae_fast", *arguments],
            env=environment, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=100, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("command", ["pca x.npy -k 3 -o new.npz", "transform model.npz x.npy -o new.npy"])
def test_a_closed_pipe_ends_quietly_and_quiet_ones_do_not_notice(here, command):
    """`lae-fast ... | head -0`: nobody reads what is printed first."""
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from lae_fast import cli; sys.exit(cli.main(sys.argv[1:]))"
    )

    def run(*more):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            return subprocess.run(
                [sys.executable, "-c", script, *command.split(), *more],
                stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=100, check=False,
            )  # fmt: skip

    before = sorted(os.listdir(here))
    loud = run()
    assert (loud.returncode, loud.stderr) == (141, "")
    assert set(os.listdir(here)) <= {*before, command.split()[-1]}
    quiet = run("-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert sorted(os.listdir(here)) == sorted([*before, command.split()[-1]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_model_of_missing_entries_fills_them(here, run, dtype):
    rng = np.random.default_rng(8)
    X = (rng.normal(size=(300, 2)) @ rng.normal(size=(2, 6)) * 3 + 0.3 * rng.normal(size=(300, 6)) + 50).astype(dtype)
    X[rng.random(X.shape) < 0.2] = np.nan
    np.save("holes.npy", X)
    assert cli.main(["pca", "holes.npy", "-k", "2", "--missing", "em", "-o", "em.npz", "-q"]) == 0
    code, _, err = run("em.npz", "holes.npy", "-o", "codes.npy")
    assert code == 0, err
    expected = lf.PCA(2, missing="em").fit(X).transform(X)
    np.testing.assert_allclose(np.load("codes.npy"), expected, atol=1e-10 if dtype == np.float64 else 1e-3)
    code, _, err = run("model.npz", "holes.npy", "-o", "other.npy")
    assert code != 0
    assert "lae-fast pca --missing em" in err


@pytest.mark.filterwarnings("default")
def test_names_on_one_side_are_told_of(run):
    np.savetxt("x.csv", MATRIX, header="a,b,c,d,e,f", delimiter=",", comments="")
    assert cli.main(["pca", "x.csv", "-k", "3", "-o", "named.npz", "-q"]) == 0
    for model, rows, message in (
        ("named.npz", "x.npy", "warning: named.npz has names of columns, but INPUT x.npy has none"),
        ("model.npz", "x.csv", "warning: INPUT x.csv has names of columns, but model.npz has none"),
        ("named.npz", "x.csv", None),
        ("model.npz", "x.npy", None),
    ):
        code, _, said = run(model, rows, "-o", "codes.npy", "-q")
        assert code == 0 and (said == "" if message is None else said.startswith(message) and said.count("\n") == 1)


def test_the_model_is_no_input(run, here):
    for spec in ("model.npz", here / "model.npz", "model.npz:components"):
        code, _, said = run("model.npz", spec, "-o", "codes.npy")
        assert code == 2 and f"INPUT {spec} is the model itself" in said and not (here / "codes.npy").exists()


def test_a_model_without_components_has_codes_without_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("noise.npy", np.random.default_rng(0).standard_normal((200, 12)))
    assert cli.main(["pca", "noise.npy", "-k", "parallel", "-o", "none.npz", "-q"]) == 0
    assert cli.main(["transform", "none.npz", "noise.npy", "-o", "codes.npy", "-q"]) == 0
    assert np.load("codes.npy").shape == (200, 0)
