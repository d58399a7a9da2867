"""The product of few rows with a packed matrix, against NumPy in float64."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lae_fast.backends.cpu import registers
from lae_fast.backends.cpu.training import packed_gemm


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("rows", "k", "n"), [(1, 1, 1), (12, 40, 32), (13, 700, 61), (5, 3, 33), (40, 1300, 97), (24, 513, 16)]
)
def test_is_the_product(rows, k, n, dtype):
    rng = np.random.default_rng(rows + k + n)
    left, right = rng.standard_normal((rows, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
    panels, packed = packed_gemm.pack_columns(right), packed_gemm.new_packed_rows(rows, k, dtype)
    packed_gemm.pack_rows(left, 0, len(packed), packed)
    guard = np.full((len(packed) * packed_gemm.BLOCK_ROWS + 1, n), 7.0, dtype)
    out = guard[:-1]
    out[:] = np.nan  # it overwrites
    # panel by panel is the whole
    middle = len(panels) // 2
    packed_gemm.multiply(packed, panels, middle, len(panels), out)
    assert np.isnan(out[:, : middle * panels.shape[2]]).all()
    packed_gemm.multiply(packed, panels, 0, middle, out)
    exact = left.astype(np.float64) @ right.astype(np.float64)
    size = abs(left).astype(np.float64) @ abs(right).astype(np.float64)
    # at most min(k, 512) + k / 512 additions to each sum
    assert (abs(out[:rows] - exact) <= (min(k, 512) + 8) * np.finfo(dtype).eps * size).all()
    assert not out[rows:].any() and (guard[-1] == 7.0).all()


def test_rows_of_a_slice_of_columns_are_packed():
    wide = np.arange(60.0).reshape(3, 20)
    packed = packed_gemm.new_packed_rows(3, 10, wide.dtype)
    packed_gemm.pack_rows(wide[:, 5:15], 0, 1, packed)
    assert (packed[0, :, :3] == wide[:, 5:15].T).all() and not packed[0, :, 3:].any()


def test_nan_and_inf_pass_through():
    right = np.eye(40, dtype=np.float32)
    left = np.zeros((2, 40), np.float32)
    left[0, 3], left[1, 39] = np.nan, np.inf
    panels, packed = packed_gemm.pack_columns(right), packed_gemm.new_packed_rows(2, 40, right.dtype)
    packed_gemm.pack_rows(left, 0, 1, packed)
    out = np.zeros((packed_gemm.BLOCK_ROWS, 40), np.float32)
    packed_gemm.multiply(packed, panels, 0, len(panels), out)
    assert np.isnan(out[0]).all() and np.isnan(out[1, :39]).all() and out[1, 39] == np.inf


@pytest.mark.needs_jit
@pytest.mark.skipif(registers.VECTOR_BYTES < 64, reason="this processor's registers are as narrow")
@pytest.mark.full
def test_narrower_registers():
    """The products again in a process that compiles for a processor without AVX-512, and one of bytes in loops."""
    from numba.core import codegen

    features = codegen.get_host_cpu_features().replace("+avx512", "-avx512")
    code = (
        "import sys, pytest; from lae_fast.backends.cpu import registers;"
        "assert registers.VECTOR_BYTES == 32 and not registers.HAS_BYTE_PRODUCTS;"
        "sys.exit(pytest.main(['-q', *sys.argv[1:], '-k', 'is_the_product or some_entries or tile']))"
    )
    here = os.path.dirname(__file__)
    files = [os.path.join(here, name) for name in ("test_packed_gemm.py", "test_byte_gram.py", "test_products.py")]
    environment = {**os.environ, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", code, *files], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
