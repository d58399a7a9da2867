"""Messages in the words of the command line: options as they are typed, and what the user wrote left alone."""

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lae_fast as lf
from lae_fast import cli
from lae_fast.cli import app
from lae_fast.cli import options as cli_options
from lae_fast.cli.words import translated

FLAGS = {name: cli_options.flags(options) for name, (options, _, _) in app._COMMANDS.items()}
LIBRARY = {"pca": lf.PCA, "train": lf.LinearAutoencoder}


@pytest.mark.parametrize("command", LIBRARY)
def test_every_parameter_that_is_an_option_is_known_by_its_name(command):
    """A new option cannot be forgotten: what the estimator calls it is what messages call it."""
    parameters = inspect.signature(LIBRARY[command]).parameters
    beside = {"input", "output", "plot", "image", "json"}
    beside |= {"threads", "quiet", "resume", "checkpoint", "checkpoint_every", "max_memory"}
    beside |= set(inspect.signature(lf.TableFile).parameters) | {"index_col", "decimal_comma", "reference"}
    assert set(FLAGS[command]) - beside <= set(parameters)


@pytest.mark.parametrize("command", FLAGS)
@given(
    value=st.sampled_from(["'gram'", "3", "1e-06", "12.5 MB", "True", "0.5"]), text=st.sampled_from(["raise {}", "{}."])
)
def test_no_keyword_of_python_is_left(command, value, text):
    for name, flag in FLAGS[command].items():
        found = translated(text.format(f"{name}={value}"), FLAGS[command])
        assert flag.split("/")[0] in found and f"{name}=" not in found and "'" not in found
        if "_" in name:
            assert translated(f"{name}, then {name}", FLAGS[command]) == f"{flag}, then {flag}"


@pytest.mark.parametrize(
    "path", ["max_memory.npy", "a/tol/X.npy", "X.npy", "'X'", "my-tol", "b.n_components", "X:loss"]
)
def test_names_of_files_and_columns_are_left_alone(path):
    assert path in translated(f"{path} is truncated, raise max_memory for X", FLAGS["pca"])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("worst of components 0, 4, 9, ... (counting from 0), X", "worst of components 1, 5, 10, ..., INPUT"),
        ("n_components=9 must be between 0 and min(n_samples, n_features)=8 with svd_solver='full' or 'auto'",
         "-k 9 must be at most 8, the smaller of the numbers of rows and columns"),
        ("loss 'sum_l2' needs a parameter: pass lae_fast.losses.sum_l2(lam) instead of the string",
         "loss 'sum_l2' needs a parameter: type --loss sum_l2:lam"),
        ("standardize=True does not go with missing='em'", "--standardize does not go with --missing em"),
        ("or use PCA(missing='em')", "or use lae-fast pca --missing em"),
        ("or use PCA(missing='em'), the only estimator", "or use lae-fast pca --missing em, the only command"),
        ("Input X contains NaN", "INPUT contains NaN"),
        ("is a row, say --no-header, or header=False of lae_fast.TableFile.", "is a row, say --no-header."),
        ('names them, say --index-col "it\'s", or index="it\'s" of lae_fast.TableFile.',
         'names them, say --index-col "it\'s".'),
        ("Leave it out (--drop NAME, or drop=[...] of lae_fast.TableFile), or", "Leave it out (--drop NAME), or"),
        ("header=False", "--no-header"),
        ("index: a.csv has no column 'cell'; it has 'label: x'.",
         "--index-col: a.csv has no column 'cell'; it has 'label: x'."),
        ("columns: a.csv has more than one column 'a'", "--columns: a.csv has more than one column 'a'"),
        ("drop=7: a.csv has columns 0 to 3.", "--drop 7: a.csv has columns 0 to 3."),
        ("columns=['a', 'a'] names a column twice.", "--columns a,a names a column twice."),
        ("missing='em': maximum likelihood", "--missing em: maximum likelihood"),
    ],
)  # fmt: skip
def test_phrases(message, expected):
    assert translated(message, FLAGS["pca"] | FLAGS["train"]) == expected


BAD = [
    "pca x.npy -k 9", "pca nan.npy -k 2", "pca x.npy -k 2 --max-memory 1KB", "pca x.npy -k mle --solver krylov",
    "pca nan.npy -k 7 --missing em", "pca nan.npy -k 2 --missing em --standardize", "train x.npy -k 9",
    "train x.npy -k 2 --loss sum_l2", "train x.npy -k 2 --loss nothing", "train x.npy -k 2 --loss mixed_l2:1",
    "train x.npy -k 2 --rule oja --loss mse", "train x.npy -k 2 --learning-rate -1", "train x.npy -k 2 --hidden 1",
    "train x.npy -k 2 --rule oja --batch-size 4 --regime moments", "train x.npy -k 2 --schedule harmonic",
    "train nan.npy -k 2", "pca t.csv -k 2 --index-col cell", "pca t.csv -k 2 --drop z", "pca t.csv -k 2 --label z",
    "pca t.csv -k 2 --columns a,z", "pca t.csv -k 2 --columns a,a", "pca t.csv -k 2 --separator ,, --decimal-comma",
    "pca t.csv -k 2 --separator , --decimal-comma", "pca t.csv -k 2 --columns 9", "pca text.csv -k 2",
    "pca t.csv -k 2 --columns a --drop a", "pca t.csv -k 2 --columns a --index-col a",
    "pca t.csv -k 2 --columns a --label a", "pca t.csv -k 2 --checkpoint-every 3",
    "pca t.csv -k 2 --plot s.gif", "transform x.npy x.npy -o c.npy",
]  # fmt: skip


def test_options_that_contradict_each_other_are_both_named(tmp_path, capfd):
    (tmp_path / "t.csv").write_text("a,b,c\n1.5,2.5,4\n3.5,1,5\n")
    for other in ("--drop", "--index-col", "--label"):
        assert cli.main(["pca", str(tmp_path / "t.csv"), "-k", "2", "--columns", "b,a", other, "a"]) == 2
        assert re.search(f"error: --columns and {other} both name column 'a'", capfd.readouterr().err)
    assert cli.main(["pca", str(tmp_path / "t.csv"), "-k", "2", "--checkpoint-every", "3"]) == 2
    assert "--checkpoint-every 3 needs a checkpoint: add --resume or --checkpoint" in capfd.readouterr().err


@pytest.mark.needs_jit
@pytest.mark.parametrize("typed", BAD)
def test_a_message_of_a_command_holds_no_python(typed, tmp_path, monkeypatch, capfd):
    import numpy as np

    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).standard_normal((50, 6))
    np.save("x.npy", X)
    X[3, 2] = np.nan
    np.save("nan.npy", X)
    Path("t.csv").write_text("a,b,c\n" + "1.5,2.5,4\n3.5,1,5\n0.5,2,1\n9.5,2,7\n")
    Path("text.csv").write_text("a,b,c\n" + "1.5,x,4\n3.5,1,5\n0.5,2,1\n9.5,2,7\n")
    cli.main([*typed.split(), *([] if "-o" in typed else ["-q"])])
    said = capfd.readouterr().err
    assert said.startswith(("error: ", "warning: ")) and said.count("\n") == 1
    assert not re.search(r"\w=['\w]|\bX\b|\blosses\.|lae_fast|(?<![\w-])(index|columns|drop|label): ", said), said
    assert not re.search(r"n_components|svd_solver|max_memory|learning_rate|n_samples|n_features", said), said


def test_one_component_is_numbered_as_in_the_tables():
    said = "the worst is component 2 (counting from 0) with alignment_residuals_[2] = 0.27, where tol allows 0.004"
    assert translated(said, {"tol": "--tol"}) == (
        "the worst is component 3, whose alignment residual is 0.27, where --tol allows 0.004"
    )
