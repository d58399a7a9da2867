"""The real numba-cuda, on a driver that does nothing: kernels compile, are kept, and are launched with arguments that
are packed once.  `benchmarks/gpu/host_time.py` has the driver; what it measures is in docs/cuda.md.
"""

import importlib.util
import os
import shutil

import numpy as np
import pytest

from benchmarks.gpu import host_time, stand_in
from lae_fast.backends.cuda import packed
from tests.oracle import simulator

PACKAGES = ("numba_cuda", "cuda.core", "cuda.bindings.nvjitlink", "nvidia")


def there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


pytestmark = [
    pytest.mark.skipif(simulator.SIMULATED, reason="the simulator compiles nothing"),
    pytest.mark.skipif(not all(map(there, PACKAGES)), reason=f"needs {', '.join(PACKAGES)}"),
    pytest.mark.skipif(shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler"),
]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """What two processes on one cache count: the first one compiles."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAE_FAST_CACHE_DIR", str(cache))
        runs = []
        for _ in range(2):
            found = host_time.run(1)
            runs.append((found, sorted(path.name for path in cache.rglob("*.nbc"))))
        return runs


def test_what_is_launched(two_runs):
    for found, _ in two_runs:
        assert (found["iteration, ordered"]["kernels"], found["iteration, ordered"]["cublas"]) == (3, 3)
        assert (found["iteration, rag"]["cublas"], found["iteration, gha"]["cublas"]) == (4, 3)
        launched = {name.partition(" 60000")[0]: (row["kernels"], row["cublas"]) for name, row in found.items()}
        # one chunk: loaded, its statistics added, its tiles added, committed
        assert launched["Gram"] == (4, 6)
        assert launched["pass"] == (3, 2) and launched["pass after it"] == (1, 2)


def test_numba_launches_each_kernel_once(two_runs):
    """Afterwards cuda.core does, with arguments packed by us as Numba would."""
    assert {row["by_numba"] for found, _ in two_runs for row in found.values()} == {0}


def test_kernels_are_kept_for_the_next_process(two_runs):
    (_, first), (_, second) = two_runs
    assert len(first) >= 6 and first == second
    assert any(".fused_step" in name for name in first)


def test_what_is_packed():
    """An array: two null pointers, items, their size, address, shape and strides; numbers by their types."""
    there = stand_in.ndarray(np.zeros((4, 3), np.float32)[:, ::2])
    assert packed.packed([there]) == [0, 0, 8, 4, there.data.ptr, 4, 2, 12, 8]
    empty = stand_in.ndarray(np.zeros((2, 0, 3), np.float64))
    assert packed.packed([empty]) == [0, 0, 0, 8, 0, 2, 0, 3, 0, 24, 8]
    numbers = packed.packed([7, 0.5, np.float32(0.5), np.int32(3), True])
    assert [(type(one).__name__, getattr(one, "value", one)) for one in numbers] == [
        ("c_long", 7), ("c_double", 0.5), ("c_float", 0.5), ("c_int", 3), ("bool", True),
    ]  # fmt: skip
    assert packed.packed(["text"]) is None
    assert packed.kinds([there, 1, 1.0]) != packed.kinds([there, 1, np.float32(1.0)])
