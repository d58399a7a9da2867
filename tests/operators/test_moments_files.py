"""Moments are saved without pickle, and files that are foreign, damaged or inconsistent are refused."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from lae_fast.errors import DataFileError
from lae_fast.operators.moments import Moments

REAL = [np.float32, np.float64]


@pytest.mark.parametrize("targets", [0, 2])
@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
def test_save_and_load(rng, tmp_path, targets, dtype):
    X = ((rng.standard_normal((100, 4)) + 1e4) * 1e-20).astype(dtype)
    Y = rng.standard_normal((100, targets)).astype(dtype) if targets else None
    saved = Moments.from_data(X, Y, rng.random(100))
    saved.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:  # readable without pickle
        assert all(file[key].dtype.kind != "O" for key in file)
    loaded = Moments.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(loaded.xx, saved.xx)
    np.testing.assert_array_equal(loaded.mean, saved.mean)
    assert (loaded.xy is None) == (not targets)
    for name in ("n_samples", "weight_sum", "center", "dtype", "yy_trace", "n_features", "n_targets"):
        assert getattr(loaded, name) == getattr(saved, name), name
    np.testing.assert_array_equal((loaded + saved).xx, (saved + saved).xx)  # still mergeable
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]  # no temporary file stays


def test_empty_moments_can_be_saved(tmp_path, rng):
    X = rng.standard_normal((50, 2)) * 1e-9
    Moments(2).save(tmp_path / "m.npz")
    np.testing.assert_allclose(Moments.load(tmp_path / "m.npz").update(X).xx, Moments.from_data(X).xx, rtol=1e-13)


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.5, 0.9, 0.99])
def test_truncated_file(rng, tmp_path, keep):
    path = tmp_path / "m.npz"
    Moments.from_data(rng.standard_normal((50, 12))).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataFileError, match=r"m\.npz"):
        Moments.load(path)


def _foreign_text(path):
    path.write_text("no archive at all")


def _foreign_npy(path):
    with open(path, "wb") as file:
        np.save(file, np.arange(4.0))


def _foreign_npz(path):
    np.savez(path, a=np.arange(3))


def _other_format(path):
    np.savez(path, format=np.array("something else"), version=np.array(1))


def _foreign_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("format", "text")


def _with_pickle(path):
    np.savez(path, format=np.array({"a": 1}, dtype=object))


def _damaged_member(path):
    Moments.from_data(np.random.default_rng(0).standard_normal((50, 12))).save(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"scatter.npy") + 300
    data[at] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "write",
    [_foreign_text, _foreign_npy, _foreign_npz, _other_format, _foreign_zip, _with_pickle, _damaged_member],
    ids=lambda f: f.__name__,
)
def test_foreign_and_damaged_files(tmp_path, write):
    path = tmp_path / "m.npz"
    write(path)
    with pytest.raises(DataFileError, match=r"m\.npz"):
        Moments.load(path)


def _stored(path, **changes):
    Moments.from_data(np.random.default_rng(0).standard_normal((50, 3))).save(path)
    with np.load(path) as file:
        members = dict(file)
    np.savez(path, **(members | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"scatter": np.eye(2)},
        {"mean": np.zeros((2, 7))},
        {"mean": np.zeros(3)},
        {"shape": np.array([0, 0, 5])},
        {"dtype": np.array("complex64")},
        {"scatter": np.full((3, 3), np.nan)},
        {"scale": np.array(0.0)},
        {"weight_sum": np.array(-1.0)},
    ],
    ids=lambda c: "-".join(f"{k}{v.shape}" for k, v in c.items()),
)
def test_inconsistent_members(tmp_path, changes):
    """What cannot be moments is refused when it is read, not when it is used."""
    _stored(tmp_path / "m.npz", **changes)
    with pytest.raises(DataFileError, match=r"m\.npz"):
        Moments.load(tmp_path / "m.npz")


def test_newer_version_says_so(tmp_path):
    _stored(tmp_path / "m.npz", version=np.array(99))
    with pytest.raises(DataFileError, match="version 99"):
        Moments.load(tmp_path / "m.npz")


def test_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError):
        Moments.load(tmp_path / "none.npz")
