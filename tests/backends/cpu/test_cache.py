"""The compile cache: hit by the next process, missed when a callee changes, filled by two processes at once.

Every test starts fresh interpreters on a cache directory of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lae_fast
from tests.oracle import cases

pytestmark = pytest.mark.needs_jit

PACKAGE = Path(lae_fast.__file__).parent

# Compiles two small kernels, one a callee in another file of the other, and says what the cache did.
_PROBE = """
import json
import numpy as np
from lae_fast.backends.cpu import blas, jit
from lae_fast.backends.cpu.passes import totals

a = np.arange(6.0).reshape(3, 2)
c = np.ones((2, 2))
blas.syrk(a, 0.0, c)
matrix = np.array([[1.0, 9.0], [2.0, 3.0]])
totals.symmetrize(matrix)
hits = sum(sum(d.stats.cache_hits.values()) for d in (blas.syrk, totals.symmetrize) if hasattr(d, "stats"))
misses = sum(sum(d.stats.cache_misses.values()) for d in (blas.syrk, totals.symmetrize) if hasattr(d, "stats"))
directory = jit.cache_directory()
print(json.dumps({
    "hits": hits, "misses": misses, "directory": None if directory is None else str(directory),
    "result": [c[0, 0], c[1, 0], c[1, 1], c[0, 1]], "symmetric": matrix.tolist(), "package": jit.__file__,
}))
"""
# `moments` of callers.py, added to a copy of the package, calls `syrk` of blas.py: a callee in another file.
_CALLER = """
from .blas import syrk
from .jit import kernel


@kernel
def moments(a, c):
    syrk(a, 0.0, c)
"""
_MOMENTS = """
import json
import numpy as np
from lae_fast.backends.cpu.callers import moments

c = np.zeros((2, 2))
moments(np.arange(6.0).reshape(3, 2), c)
print(json.dumps({"moments": [c[0, 0], c[1, 0], c[1, 1]], "hits": sum(moments.stats.cache_hits.values())}))
"""


def start(code, path=None, **environment):
    """A fresh interpreter running `code`, with the package from `path` where given."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("LAE_FAST_CACHE", "NUMBA_"))}
    if path is not None:
        base["PYTHONPATH"] = str(path)
    base.update({name: str(value) for name, value in environment.items()})
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=path, env=base, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return json.loads(out)


def run(code, path=None, **environment):
    return finish(start(code, path, **environment))


def entries(directory):
    return sorted(path.name for path in Path(directory).rglob("*.nb[ic]"))


def test_the_second_process_hits(tmp_path):
    first = run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)
    assert (first["hits"], first["misses"]) == (0, 2)
    assert first["result"] == [20.0, 26.0, 35.0, 1.0]
    assert first["symmetric"] == [[1.0, 2.0], [2.0, 3.0]]
    assert Path(first["directory"]).is_relative_to(tmp_path)
    files = entries(tmp_path)
    assert files
    second = run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)
    assert (second["hits"], second["misses"]) == (2, 0)
    assert second["result"] == first["result"]
    assert entries(tmp_path) == files


def test_a_changed_callee_is_noticed(tmp_path):
    """Numba's own cache looks at the file of the caller only (numba#1833)."""
    copy, cache = tmp_path / "copy", tmp_path / "cache"
    shutil.copytree(PACKAGE, copy / "lae_fast", ignore=shutil.ignore_patterns("__pycache__"))
    kernels = copy / "lae_fast" / "backends" / "cpu"
    (kernels / "callers.py").write_text(_CALLER)
    before = {"moments": [20.0, 26.0, 35.0], "hits": 0}
    assert run(_MOMENTS, copy, LAE_FAST_CACHE_DIR=cache) == before
    assert run(_MOMENTS, copy, LAE_FAST_CACHE_DIR=cache) == {**before, "hits": 1}
    text = (kernels / "blas.py").read_text()
    call = "    _syrk(a, beta, c)\n"
    assert text.count(call) == 1
    (kernels / "blas.py").write_text(text.replace(call, call + "    c[0, 0] += 1000.0\n"))
    assert run(_MOMENTS, copy, LAE_FAST_CACHE_DIR=cache) == {"moments": [1020.0, 26.0, 35.0], "hits": 0}
    (kernels / "blas.py").write_text(text)
    assert run(_MOMENTS, copy, LAE_FAST_CACHE_DIR=cache) == {**before, "hits": 1}


@pytest.mark.full
@pytest.mark.parametrize("repetition", range(2))
def test_processes_that_start_at_once_on_a_cold_cache(tmp_path, repetition):
    """Numba picks a file name from an index it read earlier (numba#4807): without a lock, one gets the other's code."""
    together = [start(_PROBE, LAE_FAST_CACHE_DIR=tmp_path) for _ in range(3)]
    for result in [finish(process) for process in together]:
        assert result["result"] == [20.0, 26.0, 35.0, 1.0]
        assert result["symmetric"] == [[1.0, 2.0], [2.0, 3.0]]
    after = run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)
    assert (after["hits"], after["misses"]) == (2, 0)
    assert after["result"] == [20.0, 26.0, 35.0, 1.0]


# Two processes in step, saving two signatures of one kernel into one index.
_SIGNATURES = """
import json, pathlib, time
import numpy as np
from lae_fast.backends.cpu.passes import totals

mine, other = pathlib.Path(MINE), pathlib.Path(OTHER)
mine.touch()
while not other.exists():
    time.sleep(0.001)
matrix = np.array([[1, 9], [2, 3]], dtype=DTYPE)
totals.symmetrize(matrix)
print(json.dumps(matrix.tolist()))
"""


@pytest.mark.full
@pytest.mark.parametrize("repetition", range(2))
def test_two_signatures_saved_at_once_are_both_kept(tmp_path, repetition):
    marks, processes = [tmp_path / "a", tmp_path / "b"], []
    for i, dtype in enumerate(("float32", "float64")):
        head = f"DTYPE, MINE, OTHER = {dtype!r}, {str(marks[i])!r}, {str(marks[1 - i])!r}\n"
        processes.append(start(head + _SIGNATURES, LAE_FAST_CACHE_DIR=tmp_path / "cache"))
    for process in processes:
        assert finish(process) == [[1, 2], [2, 3]]
    code = """
import json
import numpy as np
from lae_fast.backends.cpu.passes import totals
results = []
for dtype in ("float32", "float64"):
    matrix = np.array([[1, 9], [2, 3]], dtype=dtype)
    totals.symmetrize(matrix)
    results.append(matrix.tolist())
print(json.dumps([results, sum(totals.symmetrize.stats.cache_hits.values())]))
"""
    assert run(code, LAE_FAST_CACHE_DIR=tmp_path / "cache") == [[[[1, 2], [2, 3]]] * 2, 2]


@pytest.mark.parametrize("value", ["0", *cases.only_full("off", "False")])
def test_switched_off(tmp_path, value):
    result = run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path, LAE_FAST_CACHE=value)
    assert result["directory"] is None
    assert result["result"] == [20.0, 26.0, 35.0, 1.0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full
def test_a_directory_that_cannot_be_written(tmp_path):
    """A file stands where the directory should be: that stops even root, whom permissions do not."""
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    process = start(_PROBE, LAE_FAST_CACHE_DIR=blocked)
    out, errors = process.communicate(timeout=300)
    assert json.loads(out)["directory"] is None
    assert json.loads(out)["result"] == [20.0, 26.0, 35.0, 1.0]
    assert errors.count("every process compiles them again") == 1  # once, for many kernels
    assert "LAE_FAST_CACHE_DIR" in errors and str(blocked) in errors


@pytest.mark.skipif(os.name == "nt" or (hasattr(os, "geteuid") and os.geteuid() == 0), reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)["directory"] is None
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.full
def test_damaged_entries_are_compiled_again(tmp_path):
    run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)
    for path in tmp_path.rglob("*.nbi"):
        path.write_bytes(b"")
    assert run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)["result"] == [20.0, 26.0, 35.0, 1.0]


@pytest.mark.full
def test_the_package_directory_stays_clean(tmp_path):
    run(_PROBE, LAE_FAST_CACHE_DIR=tmp_path)
    assert entries(PACKAGE) == []


_PARTS = """
import json
import numpy as np
from lae_fast.backends.cpu import jit
from lae_fast.backends.cpu.callers import middle, moments
from lae_fast.backends.cpu.blas import syrk

c = np.zeros((2, 2))
moments(np.arange(6.0).reshape(3, 2), c)
before = jit.counts()
syrk(np.arange(6.0).reshape(3, 2), 1.0, c)
print(json.dumps({"moments": [c[0, 0], c[1, 0], c[1, 1]], "after": jit.counts(), "before": before}))
"""


def test_what_a_kernel_calls_is_a_part_of_it(tmp_path):
    """No kernel of its own: it is neither counted nor kept, until Python calls it."""
    copy, cache = tmp_path / "copy", tmp_path / "cache"
    shutil.copytree(PACKAGE, copy / "lae_fast", ignore=shutil.ignore_patterns("__pycache__"))
    calls = _CALLER.replace("def moments", "def middle") + "\n\n@kernel\ndef moments(a, c):\n    middle(a, c)\n"
    (copy / "lae_fast" / "backends" / "cpu" / "callers.py").write_text(calls)
    found = {"moments": [40.0, 52.0, 70.0], "before": [0, 1], "after": [0, 2]}
    assert run(_PARTS, copy, LAE_FAST_CACHE_DIR=cache) == found
    assert {name.split(".")[1].split("-")[0] for name in entries(cache) if name.endswith(".nbi")} == {"moments", "syrk"}
    assert run(_PARTS, copy, LAE_FAST_CACHE_DIR=cache) == found | {"before": [1, 0], "after": [2, 0]}


_BITS = """
import hashlib, json, sys, warnings
import numpy as np, scipy.sparse
import lae_fast as lf

warnings.simplefilter("ignore")
X = np.random.default_rng(0).standard_normal((900, 80)) @ np.diag(np.linspace(2, 0.1, 80))
found = {}


def note(name, *arrays):
    found[name] = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


x = X.astype(np.float32)
for optimizer in ("sgd", "momentum", "nesterov", "adam"):
    for settings in ({}, {"loss": "vae"}, {"batch_size": 32}):
        model = lf.LinearAutoencoder(5, optimizer=optimizer, max_iter=40, **settings).fit(x)
        note(f"{optimizer} {settings}", model.encoder_, model.decoder_, model.history_["loss"])
for solver in ("gram", "krylov"):
    for kind, matrix in (("dense", x), ("sparse", scipy.sparse.csr_array(np.where(np.abs(x) > 1, x, 0)))):
        pca = lf.PCA(5, svd_solver=solver).fit(matrix)
        found_by = pca.components_, pca.explained_variance_, pca.residuals_, pca.transform(matrix)
        note(f"{solver} {kind}", *found_by)
pca = lf.PCA(5).fit((X * 20 + 128).clip(0, 255).astype(np.uint8))
note("bytes", pca.components_, pca.explained_variance_, pca.residuals_)

from lae_fast.backends.cpu import jit

print(json.dumps([found, *jit.counts()]))
"""


@pytest.mark.full
def test_fits_compile_nothing_the_second_time_and_have_the_same_bits(tmp_path):
    """A kernel must not call another kernel's code in one process and its own copy of it in the next."""
    cold, _, misses = run(_BITS, LAE_FAST_CACHE_DIR=tmp_path)
    assert misses > 0
    warm, hits, misses = run(_BITS, LAE_FAST_CACHE_DIR=tmp_path)
    assert hits > 0 and misses == 0
    assert {name for name in cold if cold[name] != warm[name]} == set()
