"""Named tuples that kernels take by reference: every kind of field is read as it is, and arrays are written to."""

from typing import NamedTuple

import numpy as np
import pytest

from lae_fast.backends.cpu import jit
from lae_fast.backends.cpu.structs import by_reference
from tests.oracle.tile_cases import column_slice, read_only


class Fields(NamedTuple):
    vector: np.ndarray
    matrix: np.ndarray
    cube: np.ndarray
    fixed: np.ndarray
    whole: int
    real: float
    on: bool
    off: np.bool_
    pair: tuple[float, float]
    strides: tuple[int, int]


def fields(dtype=np.float64):
    rng = np.random.default_rng(0)
    matrix = column_slice(rng.standard_normal((4, 6)).astype(dtype))
    fixed = read_only(np.arange(5))
    return Fields(
        rng.standard_normal(3), matrix, rng.standard_normal((2, 3, 4)).astype(dtype), fixed, -7, 0.1, True,
        np.bool_(False), (0.25, -3.0), (5, 1),
    )  # fmt: skip


@jit.lean_kernel
def _inner(given, out):
    for i in range(given.matrix.shape[0]):
        for j in range(given.matrix.shape[1]):
            out[0] += given.matrix[i, j] * (10 * i + j)


@jit.lean_kernel
def read_all(given, out):
    _inner(given, out)
    for i in range(given.cube.shape[0]):
        for j in range(given.cube.shape[1]):
            for k in range(given.cube.shape[2]):
                out[1] += given.cube[i, j, k] * (100 * i + 10 * j + k)
    out[2] = given.fixed[given.fixed.shape[0] - 1] + given.whole
    out[3] = given.real
    out[4] = (2.0 if given.on else 0.0) + (1.0 if given.off else 0.0)
    out[5], out[6] = given.pair[0], given.pair[1]
    out[7] = given.strides[0] * 10 + given.strides[1]
    for i in range(given.vector.shape[0]):
        given.vector[i] *= 2.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fields_are_read_and_written(dtype):
    given = fields(dtype)
    vector, out = given.vector.copy(), np.zeros(8)
    read_all(by_reference(given), out)
    rows, columns = np.indices(given.matrix.shape)
    first, second, third = np.indices(given.cube.shape)
    expected = [
        np.sum(given.matrix.astype(float) * (10 * rows + columns)),
        np.sum(given.cube.astype(float) * (100 * first + 10 * second + third)),
        4 - 7, 0.1, 2.0, 0.25, -3.0, 51,
    ]  # fmt: skip
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    np.testing.assert_array_equal(given.vector, 2 * vector)


@pytest.mark.needs_jit
def test_values_do_not_compile_anew_and_types_do():
    @jit.lean_kernel
    def add(given, out):
        out[0] = given.whole + given.matrix[0, 0]

    for given in (fields(), fields()._replace(whole=9, on=False)):
        add(by_reference(given), np.zeros(1))
    assert len(add.overloads) == 1
    add(by_reference(fields(np.float32)), np.zeros(1))
    assert len(add.overloads) == 2


@jit.lean_kernel
def _only_for_seven(given):
    """Does not compile for a fixed 7: there is no such field."""
    if given.whole != 7:
        return given.there_is_none
    return 1.5


@jit.lean_kernel
def chooses(given, out):
    out[0] = _only_for_seven(given)
    if given.on and given.whole == 7:
        out[1] = given.real
    elif not given.on:
        out[1] = given.matrix[given.whole, 0, 0]  # the matrix has two dimensions


@pytest.mark.needs_jit
def test_what_fixed_fields_rule_out_is_not_compiled():
    given, out = fields()._replace(whole=7), np.zeros(2)
    chooses(by_reference(given, fixed=("whole", "on")), out)
    assert out.tolist() == [1.5, given.real]
    for fixed in ((), ("on",), ("whole",)):
        with pytest.raises(Exception, match=r"there_is_none|index"):
            chooses(by_reference(given, fixed=fixed), out)


@pytest.mark.needs_jit
def test_each_value_of_a_fixed_field_is_another_kernel():
    @jit.lean_kernel
    def read(given, out):
        out[0] = given.whole + given.real

    for whole, real in ((3, 0.5), (4, 0.5), (3, 1.5)):
        out = np.zeros(1)
        read(by_reference(fields()._replace(whole=whole, real=real), fixed=("whole",)), out)
        assert out[0] == whole + real
    assert len(read.overloads) == 2


@pytest.mark.needs_jit
def test_a_field_that_is_not_there_is_refused_and_a_read_only_array_is_not_written():
    @jit.lean_kernel
    def misspelled(given):
        return given.vektor[0]

    @jit.lean_kernel
    def overwrites(given):
        given.fixed[0] = 1

    for kernel in (misspelled, overwrites):
        with pytest.raises(Exception, match=r"vektor|read-?only|[Cc]annot"):
            kernel(by_reference(fields()))
