"""`lae_fast.kernels.c`: every function pointer against the oracle; a C program that calls by the header."""

import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lae_fast import kernels
from lae_fast.kernels import c
from tests.oracle import cases, naive, naive_autoencoder

pytestmark = pytest.mark.needs_jit
ROOT = Path(__file__).resolve().parents[3]
# Each dtype is a compilation of everything.
suffixes = pytest.mark.parametrize("suffix", ["f32", *cases.only_full("f64")])


def call(name, *arguments):
    given = (part.ctypes.data if isinstance(part, np.ndarray) else part for part in arguments)
    c.ctypes_function(name)(*given)


def real(suffix):
    return np.dtype({"f32": np.float32, "f64": np.float64}[suffix])


@suffixes
def test_masks(suffix):
    rng, p = np.random.default_rng(0), 5
    half = rng.standard_normal((p, p + 2)).astype(real(suffix))
    gram, prefix = half @ half.T, np.arange(p, 0, -1).astype(real(suffix))
    out = np.full((p, p), np.nan, real(suffix))
    call(f"masked_gram_{suffix}", p, gram, prefix, out)
    np.testing.assert_allclose(out, naive_autoencoder.masked_gram(gram, prefix), rtol=1e-5)
    call(f"rotation_{suffix}", p, gram, out)
    np.testing.assert_allclose(out, naive_autoencoder.rotation(gram), rtol=1e-5)
    for diagonal, k in ((1, 0), (0, -1)):
        call(f"tril_{suffix}", p, gram, diagonal, out)
        np.testing.assert_array_equal(out, np.tril(gram, k))
    call(f"quotients_{suffix}", p, gram, out)
    np.testing.assert_allclose(out, np.tril(gram / np.diagonal(gram), -1), rtol=1e-6)
    rows = rng.standard_normal((3, 7)).astype(real(suffix))
    expected = naive_autoencoder.normalise_rows(rows.astype(np.float64))
    call(f"normalise_rows_{suffix}", 3, 7, rows)
    np.testing.assert_allclose(rows, expected, rtol=1e-6)


@suffixes
@pytest.mark.parametrize("weighted", [False, True])
def test_passes(suffix, weighted):
    rng, (m, d, b) = np.random.default_rng(1), (10, 6, 2)
    rows, shift = rng.standard_normal((m, d)).astype(real(suffix)), rng.standard_normal(d).astype(real(suffix))
    weights = rng.uniform(0.5, 2.0, m)
    block = rng.standard_normal((d, b)).astype(real(suffix))
    tile, codes = np.empty((4, d), real(suffix)), np.empty((4, b), real(suffix))
    gram, image = np.full((d, d), np.nan, real(suffix)), np.full((d, b), np.nan, real(suffix))
    given = (weights, m) if weighted else (None, 0)
    call(f"gram_{suffix}", m, d, rows, shift, *given, tile, 4, gram)
    call(f"row_pass_{suffix}", m, d, b, rows, shift, *given, block, tile, codes, 4, image)
    root = np.sqrt(weights if weighted else np.ones(m))
    centred = (rows.astype(np.float64) - shift) * root[:, None]
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if suffix == "f32" else {"rtol": 1e-12, "atol": 1e-11}
    np.testing.assert_allclose(gram, naive.gram(centred), **tolerance)
    np.testing.assert_allclose(image, naive.row_pass(centred, block.astype(np.float64))[0], **tolerance)


@suffixes
@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_blas(suffix, transposed):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((3, 4)).astype(real(suffix)), rng.standard_normal((4, 5)).astype(real(suffix))
    out = np.ones((3, 5), real(suffix))
    stored = [np.ascontiguousarray(x.T) if turned else x for x, turned in zip((a, b), transposed)]
    call(f"gemm_{suffix}", 3, 5, 4, 0.5, stored[0], transposed[0], stored[1], transposed[1], 2.0, out)
    np.testing.assert_allclose(out, 0.5 * a.astype(np.float64) @ b + 2.0, rtol=1e-5, atol=1e-5)
    square = np.ones((4, 4), real(suffix))
    call(f"syrk_{suffix}", 3, 4, a, 1.0, square)
    np.testing.assert_allclose(np.tril(square), np.tril(a.T.astype(np.float64) @ a + 1.0), rtol=1e-5, atol=1e-5)


@suffixes
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_step(suffix, optimizer):
    rng, (p, w) = np.random.default_rng(3), (3, 7)
    dense, z, weights, v, u = (rng.standard_normal((p, w)).astype(real(suffix)) for _ in range(5))
    u[:] = np.abs(u)
    on_z, penalty, prefix = (rng.uniform(0.1, 1.0, p).astype(real(suffix)) for _ in range(3))
    g = (dense + on_z[:, None] * z + 2 * penalty[:, None] * weights).astype(np.float64)
    old, state = weights.astype(np.float64), [v.astype(np.float64), u.astype(np.float64)]
    expected = naive_autoencoder.optimizer_step(optimizer, old, g, state, 0.01, 3)
    sums, row_sums, squares = np.zeros(kernels.N_SUMS), np.zeros((p, kernels.N_ROW_SUMS)), np.zeros(p)
    code, scalars = {"sgd": (kernels.SGD, [0, 0, 0]), "adam": (kernels.ADAM, [0.9, 0.999, 1e-8])}[optimizer]
    scalars, on_w = np.array(scalars, float), np.zeros(p, real(suffix))
    call(
        f"fused_step_{suffix}", code, p, w, scalars, 0.01, 3, dense, z, on_z, on_w, penalty, prefix, 1,
        weights, v, u, sums, row_sums, squares, p,
    )  # fmt: skip
    np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums, [np.sum(g**2), np.sum(old**2), penalty @ np.sum(old**2, axis=1),
                                      prefix @ np.sum(z * old, axis=1)], rtol=1e-4)  # fmt: skip
    np.testing.assert_allclose(row_sums[:, 0], np.sum(g**2, axis=1), rtol=1e-4)
    np.testing.assert_allclose(squares, np.sum(expected**2, axis=1), rtol=1e-4)
    again = expected.astype(real(suffix))
    call(
        f"fused_step_{suffix}", code, p, w, scalars, 0.0, 3, dense, z, on_z, on_w, penalty, prefix, 0,
        again, v, u, sums, None, None, 0,
    )  # fmt: skip
    np.testing.assert_array_equal(again, expected.astype(real(suffix)))  # at the rate 0, and without row by row sums
    assert sums[3] == 0.0


PROGRAM = """
#include "lae_fast_kernels.h"
/* Sanger's mask of the Gram of four rows, by two kernels. */
void masked(lae_gram_f32 gram, lae_tril_f32 tril, const float *rows, float *out) {
    float shift[3] = {0, 0, 0}, tile[2 * 3], square[9] = {0};
    gram(4, 3, rows, shift, 0, 0, tile, 2, square);
    tril(3, square, 1, out);
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path_factory.mktemp("c")
    (folder / "lae_fast_kernels.h").write_text(c.header())
    (folder / "program.c").write_text(PROGRAM)
    library = folder / "program.so"
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", str(library), str(folder / "program.c")], check=True, timeout=120)
    return library


def test_a_c_program_calls_through_the_header(compiled):
    rows, out = np.arange(12, dtype=np.float32), np.empty((3, 3), np.float32)
    program = ctypes.CDLL(str(compiled))
    addresses = (ctypes.c_void_p(c.address(name)) for name in ("gram_f32", "tril_f32"))
    program.masked(*addresses, ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(out.ctypes.data))
    square = rows.reshape(4, 3)
    np.testing.assert_array_equal(out, np.tril(square.T @ square))


def test_cffi_reads_the_types(compiled):
    cffi = pytest.importorskip("cffi", reason="cffi is not installed")
    ffi = cffi.FFI()
    types = re.sub(r"^#.*$|^extern .*|^}$", "", c.header(), flags=re.MULTILINE)
    ffi.cdef(types)
    tril = ffi.cast("lae_tril_f32", c.address("tril_f32"))
    gram, out = np.full((2, 2), 3, np.float32), np.empty((2, 2), np.float32)
    tril(2, ffi.from_buffer("float[]", gram), 0, ffi.from_buffer("float[]", out))
    np.testing.assert_array_equal(out, [[0, 0], [3, 0]])


def test_names_and_addresses():
    assert len(c.names()) == 2 * len(c._KERNELS)
    lower = {name for name in kernels.__all__ if name.islower()}
    assert lower == set(c._KERNELS)
    assert c.address("tril_f32") == c.address("tril_f32") != 0
    with pytest.raises(ValueError, match="'gram_f32'"):
        c.address("gram")


def test_the_command_writes_the_header(tmp_path):
    pytest.importorskip("typer")
    path = tmp_path / "kernels.h"
    run = [sys.executable, "-m", "lae_fast.cli", "kernels"]
    subprocess.run([*run, "--header", str(path)], check=True, cwd=ROOT, timeout=120)
    assert path.read_text() == c.header()
    printed = subprocess.run(run, check=True, cwd=ROOT, timeout=120, capture_output=True, text=True).stdout
    assert printed == c.header()


@pytest.mark.full
def test_the_example_runs():
    example = ROOT / "docs" / "examples" / "c_kernels_ctypes.py"
    subprocess.run([sys.executable, str(example)], check=True, cwd=ROOT, timeout=600)
