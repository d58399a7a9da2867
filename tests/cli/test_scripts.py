"""What scripts use: reconstruct, --json, python -m lae_fast, completion, examples of the help."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import cli
from lae_fast.cli import app

MATRIX = (np.random.default_rng(0).normal(size=(700, 6)) * [9, 5, 3, 2, 1, 0.5] + 900).astype(np.float32)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    np.save("x.npy", MATRIX)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("standardize", [False, True])
def test_reconstruct_is_the_inverse_transform(run, standardize):
    flags = ["--standardize"] if standardize else []
    assert run("pca", "x.npy", "-k", 4, "-o", "model.npz", "-q", *flags)[0] == 0
    assert run("transform", "model.npz", "x.npy", "-o", "codes.npy", "-q")[0] == 0
    code, out, err = run("reconstruct", "model.npz", "codes.npy", "-o", "rows.npy")
    assert (code, err) == (0, "") and "rows.npy: 700 x 6 float32" in out
    pca = lf.PCA(4, standardize=standardize).fit(MATRIX)
    expected = pca.inverse_transform(pca.transform(MATRIX))
    np.testing.assert_allclose(np.load("rows.npy"), expected, atol=5e-4)


@pytest.mark.filterwarnings("ignore:Training has not converged")
def test_reconstruct_by_an_autoencoder_and_back_of_all_components(run):
    assert run("train", "x.npy", "-k", 2, "--max-iter", 30, "-o", "model.npz", "-q")[0] == 0
    assert run("transform", "model.npz", "x.npy", "-o", "codes.npy", "-q")[0] == 0
    assert run("reconstruct", "model.npz", "codes.npy", "-o", "rows.npy", "-q")[0] == 0
    with np.load("model.npz") as held:
        expected = np.load("codes.npy") @ held["decoder"].T + held["mean"]
    np.testing.assert_allclose(np.load("rows.npy"), expected, atol=5e-4)
    run("pca", "x.npy", "-k", 6, "-o", "all.npz", "-q")
    run("transform", "all.npz", "x.npy", "-o", "codes.npy", "-q")
    run("reconstruct", "all.npz", "codes.npy", "-o", "rows.npy", "-q")
    np.testing.assert_allclose(np.load("rows.npy"), MATRIX, atol=5e-4)


def test_reconstruct_refuses_what_are_no_codes(run):
    run("pca", "x.npy", "-k", 4, "-o", "model.npz", "-q")
    code, _, err = run("reconstruct", "model.npz", "x.npy", "-o", "rows.npy")
    assert code == 2 and "makes 4 codes of a row; 6 is its number of columns: did you mean lae-fast transform?" in err


@pytest.mark.filterwarnings("ignore:Training has not converged")
def test_json_is_all_that_is_printed(run):
    code, out, _ = run("pca", "x.npy", "-k", "gavish-donoho", "-o", "model.npz", "--json")
    found = json.loads(out)
    with np.load("model.npz") as held:
        assert found["explained_variance"] == held["explained_variance"].tolist()
    assert code == 0 and found["choice"] == "gavish-donoho" and found["solver"] == "gram"
    assert found["options"]["output"] == "model.npz" and "components" not in found
    out = run("transform", "model.npz", "x.npy", "-o", "codes.npy", "--json")[1]
    assert json.loads(out)["shape"][0] == 700 and json.loads(out)["output"] == "codes.npy"
    out = run("train", "x.npy", "-k", 2, "--max-iter", 20, "--json")[1]
    assert json.loads(out)["n_iter"] == 20 and len(json.loads(out)["history"]["loss"]) >= 2
    assert json.loads(run("info", "--json")[1])["lae_fast"] == lf.__version__


def test_json_has_no_nan():
    from lae_fast.cli.output import _plain

    plain = _plain({"a": np.array([1.0, np.nan]), "b": (np.float32(2.0), float("inf")), "c": np.True_})
    assert plain == {"a": [1.0, None], "b": [2.0, None], "c": True}


def ended(command, **environment):
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=os.environ | environment
    )


def test_python_m_lae_fast_is_the_command_line():
    found = ended([sys.executable, "-m", "lae_fast", "--version"])
    assert (found.returncode, found.stdout) == (0, f"lae-fast {lf.__version__}\n")


def test_a_shell_completes_commands():
    code = "import sys; from lae_fast.cli import main; sys.exit(main())"
    found = ended(
        [sys.executable, "-c", code],
        _LAE_FAST_COMPLETE="complete_bash", COMP_WORDS="lae-fast re", COMP_CWORD="1",
    )  # fmt: skip
    assert found.stdout.split() == ["reconstruct", "report"]


@pytest.mark.parametrize("name", app._COMMANDS)
def test_examples_of_the_help_can_be_typed(name):
    import typer

    group = typer.main.get_command(app._build_app())
    command = group.commands[name]
    examples = app._EXAMPLES[name]
    assert all(example in command.epilog for example in examples)
    for example in examples:
        program, typed, *arguments = shlex.split(example)
        assert (program, typed) == ("lae-fast", name)
        command.make_context(name, arguments)  # an unknown or missing option is an error


def test_exit_codes_are_in_the_help(run):
    assert "Exit codes: 0 done" in run("--help")[1]
