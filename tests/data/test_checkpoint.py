"""Checkpoints: a run that was killed goes on with the same bits, and only over the same data."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import cli
from lae_fast.data import atomic
from lae_fast.data import checkpoint as checkpoints
from lae_fast.errors import DataFileError
from tests.oracle import cases

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((60_000, 20)) * 0.8 ** np.arange(20) + 3).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "wide.npy", np.ascontiguousarray(X.T))
    return tmp_path


def in_process(folder, code):
    """Run Python in the folder; its exit code, negative for a signal, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode in (0, -signal.SIGKILL), run.stderr
    return run.returncode, run.stdout


KILLED = """
    import os, signal
    import lae_fast as lf

    def report(stage, done, total):
        if stage.startswith("Gram") and done == {chunk}:
            os.kill(os.getpid(), signal.SIGKILL)

    lf.set_num_threads({threads})
    lf.PCA(3, svd_solver="gram", progress=report).fit({name!r}, checkpoint=lf.Checkpoint("state", seconds=0))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
@pytest.mark.parametrize("name", ["x.npy", *cases.only_full("x.h5", "wide.npy")])
def test_a_killed_fit_goes_on_with_the_same_bits(folder, name):
    """Killed, once or twice, with another number of threads each time."""
    if name == "x.h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(folder / name, "w") as file:
            file["x"] = np.load(folder / "x.npy")
    whole = lf.PCA(3, svd_solver="gram").fit(folder / name)
    for chunk, threads in ((3, 1), (9, 2))[name != "x.npy" :]:
        code, _ = in_process(folder, KILLED.format(chunk=chunk, threads=threads, name=name))
        assert code == -signal.SIGKILL
        with np.load(folder / "state", allow_pickle=False) as state:
            assert state["chunks"] == chunk
    seen = []
    kept = lf.Checkpoint(folder / "state")
    pca = lf.PCA(3, svd_solver="gram", progress=lambda stage, done, total: seen.append((stage[:4], done)))
    pca.fit(folder / name, checkpoint=kept)
    assert kept.resumed and seen[0] == ("Gram", 10) and pca.solver_ == "gram"
    for attribute in ("components_", "explained_variance_", "mean_", "residuals_"):
        np.testing.assert_array_equal(getattr(pca, attribute), getattr(whole, attribute))
    kept.remove()
    assert sorted(path.name for path in folder.iterdir() if "state" in path.name) == []


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_killed_while_the_checkpoint_is_written(folder):
    """The one before is whole, and what lies beside it is cleared away by the next run."""
    code = """
    import os, signal
    import lae_fast as lf

    replace, count = os.replace, []

    def killing(*paths):
        if str(paths[1]).endswith("state"):
            count.append(1)
        if len(count) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    os.replace = killing
    lf.Moments.from_data("x.npy", checkpoint=lf.Checkpoint("state", seconds=0))
    """
    assert in_process(folder, code)[0] == -signal.SIGKILL
    assert len(atomic.unfinished(folder / "state")) == 1
    assert np.load(folder / "state")["chunks"] == 3
    found = lf.Moments.from_data(folder / "x.npy", checkpoint=folder / "state")
    np.testing.assert_array_equal(found.xx, lf.Moments.from_data(folder / "x.npy").xx)
    assert not (folder / "state").exists() and not atomic.unfinished(folder / "state")


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_the_command_line_resumes(folder):
    """Killed from outside, whenever that happens to be."""
    np.save(folder / "x.npy", np.tile(np.load(folder / "x.npy"), (8, 1)))
    command = [sys.executable, "-m", "lae_fast.cli", "pca", "x.npy", "-k", "3", "--solver", "gram", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*more):
        return subprocess.Popen([*command, *more], cwd=folder, env=environment)

    assert run("-o", "whole.npz").wait(120) == 0
    resumable = ("-o", "out.npz", "--resume", "--checkpoint-every", "0")
    process = run(*resumable, "--threads", "1")
    while not (folder / "out.npz.checkpoint").exists() and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL and not (folder / "out.npz").exists()
    assert run(*resumable, "--threads", "2").wait(120) == 0
    with np.load(folder / "whole.npz") as whole, np.load(folder / "out.npz") as out:
        for name in set(whole) - {"meta"}:
            np.testing.assert_array_equal(out[name], whole[name])
        assert json.loads(str(out["meta"]))["options"]["resume"] is True
    assert sorted(path.name for path in folder.iterdir()) == ["out.npz", "whole.npz", "wide.npy", "x.npy"]


class Stopped(Exception):
    pass


def stop_at(chunk):
    def tick(done, total):
        if done == chunk:
            raise Stopped

    return tick


def half_done(folder, **arguments):
    """A checkpoint of a pass over x.npy that was stopped after 4 chunks."""
    kept = lf.Checkpoint(folder / "state", seconds=0)
    with pytest.raises(Stopped):
        lf.Moments(20).update(folder / "x.npy", tick=stop_at(4), checkpoint=kept, **arguments)
    return folder / "state"


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_and_incremental_pca_go_on(folder, weighted):
    weights = np.arange(60_000) % 3 if weighted else None
    half_done(folder, sample_weight=weights)
    X = np.load(folder / "x.npy")
    pca = lf.IncrementalPCA(3).fit(folder / "x.npy", sample_weight=weights, checkpoint=folder / "state")
    whole = lf.IncrementalPCA(3).fit(X, sample_weight=weights)
    np.testing.assert_array_equal(pca.components_, whole.components_)
    assert pca.n_samples_seen_ == 60_000 and not (folder / "state").exists()


def test_the_number_of_components_and_threads_may_change(folder):
    half_done(folder)
    kept = lf.Checkpoint(folder / "state")
    try:
        lf.set_num_threads(3)
        found = lf.PCA(7, svd_solver="gram", standardize=True).fit(folder / "x.npy", checkpoint=kept)
    finally:
        lf.set_num_threads(None)
    assert kept.resumed
    whole = lf.PCA(7, svd_solver="gram", standardize=True).fit(folder / "x.npy")
    np.testing.assert_array_equal(found.components_, whole.components_)


def touch(folder):
    os.utime(folder / "x.npy", ns=(1, 1))


def rewrite(folder):
    """Other numbers, the size and times of before."""
    stat = (folder / "x.npy").stat()
    np.save(folder / "x.npy", np.load(folder / "x.npy") + 1)
    os.utime(folder / "x.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def shorten(folder):
    np.save(folder / "x.npy", np.load(folder / "x.npy")[:-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (touch, r"mtime_ns was \d+ and is 1\."),
        (rewrite, "made of other numbers than the input holds now"),
        (shorten, r"shape was \[60000, 20\] and is \[59999, 20\]"),
    ],
)
def test_changed_data_are_refused(folder, change, message):
    state = half_done(folder)
    change(folder)
    before = state.read_bytes()
    with pytest.raises(DataFileError, match=message):
        lf.Moments.from_data(folder / "x.npy", checkpoint=state)
    assert state.read_bytes() == before


def test_other_runs_are_refused(folder, monkeypatch):
    state = half_done(folder)
    with pytest.raises(DataFileError, match="sample_weight was '' and is"):
        lf.Moments.from_data(folder / "x.npy", sample_weight=2.0, checkpoint=state)
    with pytest.raises(DataFileError, match="pass was 'Gram of the features' and is 'Gram of the samples'"):
        lf.PCA(2, svd_solver="gram").fit(folder / "wide.npy", checkpoint=state)
    monkeypatch.setattr(checkpoints, "__version__", "99")
    with pytest.raises(DataFileError, match=r"lae_fast was .* and is '99'"):
        lf.Moments.from_data(folder / "x.npy", checkpoint=state)


@pytest.mark.parametrize("length", [0, 10, 500, -200, -1])
def test_truncated_checkpoints(folder, length):
    state = half_done(folder)
    state.write_bytes(state.read_bytes()[:length])
    with pytest.raises(DataFileError, match=r"state is truncated or holds no lae_fast checkpoint .*: remove it"):
        lf.Moments.from_data(folder / "x.npy", checkpoint=state)


def test_a_flipped_byte_is_noticed(folder):
    state = half_done(folder)
    whole = state.read_bytes()
    refused = 0
    for place in range(0, len(whole), 97):
        state.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            found = lf.Moments.from_data(folder / "x.npy", checkpoint=lf.Checkpoint(state))
        except DataFileError:
            refused += 1
        else:  # a byte that nothing depends on, such as a time in the archive's directory
            np.testing.assert_array_equal(found.xx, lf.Moments.from_data(folder / "x.npy").xx)
    assert refused > 10


@pytest.mark.parametrize("arrays", [{"a": 1}, {"format": "lae_fast checkpoint", "version": 2, "fingerprint": "{}"}])
def test_other_files_are_no_checkpoints(folder, arrays):
    with (folder / "state").open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(DataFileError, match=r"holds no lae_fast checkpoint|version 2; this lae_fast reads up to 1"):
        lf.Moments.from_data(folder / "x.npy", checkpoint=folder / "state")


def test_what_cannot_be_told_apart_keeps_none(folder):
    X = np.load(folder / "x.npy")
    path, built_in = "needs X as a path to a file", "'digits' is a built-in data set, .* cannot be resumed"
    for make, message in (
        (lambda: X, path),
        (lambda: [X], path),
        (lambda: iter([X]), path),
        (lambda: "digits", built_in),
    ):
        for fit in (lf.PCA(2).fit, lf.IncrementalPCA(2).fit, lf.Moments.from_data):
            with pytest.raises(ValueError, match=message):
                fit(make(), checkpoint=folder / "state")
    with pytest.raises(OSError, match="does not exist"):
        lf.Moments.from_data(folder / "x.npy", checkpoint=folder / "none" / "state")


def test_a_sparse_gram_says_that_it_keeps_none(folder):
    scipy.sparse.save_npz(folder / "x.npz", scipy.sparse.random(500, 80, 0.01, format="csr", random_state=0))
    scipy.sparse.save_npz(folder / "wide.npz", scipy.sparse.random(80, 5000, 0.01, format="csr", random_state=0))
    for name in ("x.npz", "wide.npz"):
        with pytest.warns(UserWarning, match="No checkpoint is kept at .*sparse.* starts again"):
            lf.PCA(2, svd_solver="gram").fit(folder / name, checkpoint=folder / "state")


def test_writing_is_as_rare_as_asked(folder):
    kept = lf.Checkpoint(folder / "state", seconds=3600)
    with pytest.raises(Stopped):
        lf.Moments(20).update(folder / "x.npy", tick=stop_at(4), checkpoint=kept)
    assert not (folder / "state").exists()


def test_command_line_options(folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments):
        return cli.main(["pca", "x.npy", "-k", "2", *arguments]), *capfd.readouterr()

    code, _, err = run("--resume")
    assert code == 2 and "name it with -o" in err
    for name in ("x.npy", "out.npz"):
        code, _, err = run("-o", "out.npz", "--checkpoint", name)
        assert code == 2 and "is the input or an output" in err
    half_done(folder)
    code, out, err = run("-o", "out.npz", "--checkpoint", "state", "--solver", "gram")
    assert code == 0 and "resumed from a checkpoint" in out
    assert err == "resumed: going on after chunk 4 of 16, from state\n"
    assert not (folder / "state").exists()
    (folder / "out.npz.checkpoint").write_bytes(b"nothing")
    code, _, err = run("-o", "out.npz", "--resume", "--solver", "gram")
    assert code == 2 and "is truncated or holds no lae_fast checkpoint" in err


def test_it_stays_until_the_result_is_safe(folder, monkeypatch):
    monkeypatch.chdir(folder)
    half_done(folder)
    monkeypatch.setattr("lae_fast.cli.pca._save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (
            cli.main(["pca", "x.npy", "-k", "2", "--solver", "gram", "-o", "o.npz", "--checkpoint", "state", "-q"]) == 2
        )
    assert (folder / "state").exists()
