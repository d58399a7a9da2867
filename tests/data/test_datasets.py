"""Data sets by name. The large ones are stood in for by small files and a fake download: no test needs the network."""

import types

import numpy as np
import pytest
import sklearn.datasets

from lae_fast import datasets
from lae_fast.errors import DataFileError


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """A LAE_FAST_DATA with a small mnist.npz, and an OpenML that nobody may ask."""
    images = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3)
    np.savez(tmp_path / "mnist.npz", x_train=images[:3], x_test=images[3:])
    monkeypatch.setenv("LAE_FAST_DATA", str(tmp_path))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *_, **__: pytest.fail("asked OpenML"))
    return tmp_path


def offline(*_args, **_kwargs):
    raise OSError("no route to host")


def test_digits_are_scikit_learns_in_float32():
    rows = datasets.load("digits")
    assert rows.dtype == np.float32 and rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, sklearn.datasets.load_digits().data)
    np.testing.assert_array_equal(rows, datasets.load("digits", subset="all"))


def test_digits_have_no_test_rows():
    with pytest.raises(ValueError, match="no published test rows"):
        datasets.load("digits", subset="test")


@pytest.mark.parametrize(
    ("subset", "values"), [("train", slice(0, 18)), ("test", slice(18, 30)), ("all", slice(0, 30))]
)
def test_file_in_the_data_directory(directory, subset, values):
    rows = datasets.load("mnist", subset=subset)
    assert rows.dtype == np.uint8 and rows.flags.c_contiguous
    np.testing.assert_array_equal(rows, np.arange(30, dtype=np.uint8)[values].reshape(-1, 6))


def test_train_rows_are_the_default(directory):
    np.testing.assert_array_equal(datasets.load("mnist"), datasets.load("mnist", subset="train"))


def test_truncated_file(directory):
    path = directory / "mnist.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataFileError, match=r"mnist\.npz cannot be read, it may be truncated"):
        datasets.load("mnist")


def test_file_without_the_array(directory):
    np.savez(directory / "mnist.npz", images=np.zeros((2, 2)))
    with pytest.raises(DataFileError, match="no array 'x_train'"):
        datasets.load("mnist")


@pytest.mark.parametrize(("subset", "first", "count"), [("train", 0, 60_000), ("test", 60_000, 10_000)])
def test_openml_is_asked_when_there_is_no_file(directory, monkeypatch, subset, first, count):
    def fetch(name, *, version, **_):
        assert (name, version) == ("Fashion-MNIST", 1)
        pixels = (np.arange(70_000) % 251).astype(np.float64)
        return types.SimpleNamespace(data=np.broadcast_to(pixels[:, None], (70_000, 784)))

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetch)
    rows = datasets.load("fashion_mnist", subset=subset)
    assert rows.shape == (count, 784) and rows.dtype == np.uint8
    np.testing.assert_array_equal(rows[:, 783], np.arange(first, first + count) % 251)


def test_openml_with_another_shape_is_refused(directory, monkeypatch):
    answer = types.SimpleNamespace(data=np.zeros((3, 784)))
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", lambda *_, **__: answer)
    with pytest.raises(DataFileError, match=r"shape \(3, 784\), expected \(70000, 784\)"):
        datasets.load("fashion_mnist")


@pytest.mark.parametrize("variable_set", [True, False])
def test_error_names_both_ways_out(directory, monkeypatch, variable_set):
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    if not variable_set:
        monkeypatch.delenv("LAE_FAST_DATA")
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("fashion_mnist")
    message = str(caught.value)
    looked_for = directory / "fashion_mnist.npz"
    assert (f"{looked_for} does not exist" if variable_set else "LAE_FAST_DATA is not set") in message
    assert "no route to host" in message
    assert "point LAE_FAST_DATA at a directory that holds fashion_mnist.npz" in message
    assert "with network access" in message


def test_unknown_name_and_subset_list_the_known():
    with pytest.raises(ValueError, match="name='iris' is unknown; choose one of 'digits', 'mnist', 'fashion_mnist'"):
        datasets.load("iris")
    with pytest.raises(ValueError, match="subset='half' is unknown; choose one of 'train', 'test', 'all'"):
        datasets.load("digits", subset="half")
