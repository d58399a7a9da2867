"""--plot: which pictures there are of which model, with labels from a column, and what is refused before the work."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from lae_fast import cli
from lae_fast.cli import pictures
from lae_fast.data import row_labels, sources, tables

MATRIX = (np.random.default_rng(0).normal(size=(40, 6)) * [9, 5, 3, 2, 1, 0.5] + 10).astype(np.float32)


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", MATRIX)

    def run(*arguments):
        code = cli.main([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return run


def write_table(path, labels, separator=","):
    lines = [separator.join([*"abcdef", "kind"])]
    lines += [separator.join([*(f"{x:.9g}" for x in row), str(label)]) for row, label in zip(MATRIX, labels)]
    path.write_text("\n".join(lines) + "\n")


def test_pca_draws_every_picture(run, tmp_path):
    write_table(tmp_path / "x.csv", ["red", "green"] * 20)
    kinds = ["scree", "scores", "biplot", "loadings", "images", "circle"]
    plots = [word for kind in kinds for word in ("--plot", f"{kind}:{kind}.png")]
    code, out, err = run(
        "pca", "x.csv", "--label", "kind", "-k", 3, "--standardize", "--image", "2x3", "-o", "out.npz", *plots
    )
    assert (code, err) == (0, "")
    assert all((tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG") for kind in kinds)
    assert "circle.png" in out


@pytest.mark.filterwarnings("ignore:Training has not converged")
def test_train_draws_its_history(run, tmp_path):
    code, out, _ = run("train", "x.npy", "-k", 2, "--max-iter", 50, "--plot", "h.svg", "--plot", "scores:s.png")
    assert code == 0 and "h.svg, s.png" in out
    assert (tmp_path / "h.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "images:a.png"], "add --image 28x28"),
        (["--plot", "images:a.png", "--image", "big"], "--image takes HEIGHTxWIDTH"),
        (["--plot", "circle:a.png"], "add --standardize"),
        (["--plot", "history:a.png"], "there is no history of this model"),
        (["--plot", "score:a.png"], "score is no kind of picture; take one of scree, scores, biplot"),
        (["--plot", "a.png", "--plot", "scores:a.png"], "two outputs have the name a.png"),
        (["--plot", "scores:a.gif"], "end the name in one of .png, .pdf, .svg"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_work(run, tmp_path, arguments, message):
    code, _, err = run("pca", "x.npy", "-k", 2, "-o", "out.npz", *arguments)
    assert code == 2 and message in err
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_labels_of_a_table(tmp_path, separator):
    path = tmp_path / ("x.tsv" if separator == "\t" else "x.csv")
    for labels, kind in ((["a b", "c"] * 20, "U"), (list(range(40)), "i"), ([0.5, 2] * 20, "f")):
        write_table(path, labels, separator)
        found = row_labels.read(tables.TableFile(path, label="kind"))
        assert found.dtype.kind == kind and found.tolist() == labels
    assert row_labels.read(tables.TableFile(path, drop=["a"])) is None and row_labels.read("x.npy") is None
    assert row_labels.read("digits").shape == (1797,)
    with pytest.raises(ValueError, match="names no column"):
        row_labels.read(tables.TableFile(path, label="nothing"))
    with pytest.raises(ValueError, match="has no columns of labels"):
        row_labels.read(tables.TableFile(tmp_path / "x.npy", label="kind"))


def test_labels_of_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "kind": ["x", "y"]}), tmp_path / "x.parquet")
    found = row_labels.read(tables.TableFile(tmp_path / "x.parquet", label="kind"))
    assert found.tolist() == ["x", "y"]


def test_rows_that_are_drawn_are_spread_over_the_data_with_their_labels():
    m = 12_345
    rows = np.arange(m, dtype=np.float64)[:, None] * [1.0, 0.0]
    found = pictures.some_rows(sources.as_source(rows), np.array([1.0, 0.0]), np.eye(2), np.arange(m))
    assert len(found.codes) == 5000 and found.n_samples == m
    np.testing.assert_array_equal(found.codes[:, 0], found.labels - 1.0)
    assert found.labels.min() == 0 and found.labels.max() == m - 1
    with pytest.raises(ValueError, match="3 entries for 12345 rows"):
        pictures.some_rows(sources.as_source(rows), np.zeros(2), np.eye(2), np.arange(3))
