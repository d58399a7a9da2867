"""What ``lae-fast train`` takes for figures: a reference, records, the start, an optimizer's numbers."""

from pathlib import Path

import numpy as np
import pytest

from lae_fast import cli

MATRIX = (np.random.default_rng(0).normal(size=(40, 6)) * [9, 5, 3, 2, 1, 0.5] + 10).astype(np.float32)
pytestmark = pytest.mark.needs_jit


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Run the command line beside x.npy, in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # no line is folded
    np.save("x.npy", MATRIX)

    def run(*arguments):
        return cli.main([str(argument) for argument in arguments]), *capfd.readouterr()

    return run


def test_train_records_against_a_reference(run):
    assert run("pca", "x.npy", "-k", 4, "-o", "truth.npz", "-q")[0] == 0
    with np.load("truth.npz") as truth:
        np.save("truth.npy", truth["components"][:2].T)
    found = []
    for reference in ("truth.npz", "truth.npy"):
        code, _, err = run(
            "train", "x.npy", "-k", 2, "--reference", reference, "--record", "d_sub, transpose_gap", "--init-scale",
            0.1, "--record-every", "log", "--optimizer", "adam:0.8,0.99", "--max-iter", 20, "--tol", 0, "-o", "m.npz",
            "-q",
        )  # fmt: skip
        assert code == 0, err
        with np.load("m.npz", allow_pickle=False) as model:
            found.append({name: model[name] for name in model if name.startswith("history_")})
    assert list(found[0]["history_iteration"]) == [0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20]
    assert found[0]["history_d_sub"].shape == found[0]["history_ratio_tp"].shape == (12,)
    np.testing.assert_array_equal(found[0]["history_alignment"], found[1]["history_alignment"])
    assert run("train", "x.npy", "-k", 2, "--no-center", "--tol", 0, "--max-iter", 5, "-o", "m.npz", "-q")[0] == 0
    with np.load("m.npz") as model:
        assert not model["mean"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reference", "none.npz"), "none.npz"),
        (("--reference", "x.txt"), "is truncated, or neither a .npy nor the .npz of lae-fast pca"),
        (("--reference", "x.npy"), "reference has shape"),
        (("--record", "d_align"), "needs --reference"),
        (("--record", "nothing"), "'nothing' is unknown"),
        (("--record-every", "often"), "--record-every takes a number of iterations or log"),
        (("--optimizer", "adam:fast"), "write numbers behind the name, such as momentum:0.8"),
        (("--optimizer", "sgd:0.1"), "sgd takes no number, not 1 number"),
        (("--optimizer", "newton:0.1"), "unknown optimizer 'newton'"),
    ],
)
def test_train_says_what_is_wrong_with_records(run, arguments, message):
    Path("x.txt").write_text("nothing")
    code, _, err = run("train", "x.npy", "-k", 2, "--max-iter", 5, *arguments)
    assert code and message in " ".join(err.split())
