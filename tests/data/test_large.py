"""More than 2^31 elements: files with holes, so that they take no room on the disk, and planted rows at both ends."""

import os

import numpy as np
import pytest

import lae_fast as lf

pytestmark = [pytest.mark.full, pytest.mark.needs_jit]

ROWS, COLUMNS = (1 << 25) + 4099, 65


def sparse_file(path, fortran):
    """A .npy of zeros with a few rows planted before and behind element 2^31; returns the rows."""
    places = np.array([0, 1, 1 << 24, (1 << 25) - 1, 1 << 25, ROWS - 2, ROWS - 1])
    planted = np.random.default_rng(0).integers(1, 256, (places.size, COLUMNS)).astype(np.uint8)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": fortran, "shape": (ROWS, COLUMNS)})
        offset = file.tell()
    os.truncate(path, offset + ROWS * COLUMNS)
    array = np.load(path, mmap_mode="r+")
    array[places] = planted
    array.flush()
    return planted


@pytest.mark.parametrize("fortran", [False, True], ids=["C", "F"])
def test_moments_of_more_than_2_31_elements(tmp_path, fortran):
    assert ROWS * COLUMNS > 1 << 31
    planted = sparse_file(tmp_path / "x.npy", fortran)
    moments = lf.Moments.from_data(tmp_path / "x.npy")
    rows = planted.astype(np.float64)
    mean = rows.sum(axis=0) / ROWS
    assert moments.n_samples == ROWS
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(moments.xx, rows.T @ rows - ROWS * np.outer(mean, mean), rtol=1e-5, atol=1e-3)
