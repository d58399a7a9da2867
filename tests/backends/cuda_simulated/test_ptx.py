"""Every CUDA kernel compiled to PTX and through ptxas, for two generations of cards, without a driver.

Needs the packages numba-cuda, nvidia-nvvm, nvidia-cuda-nvrtc and nvidia-cuda-nvcc; `.ci/run` installs them.
What is asked: it compiles; nothing spills; it fits a register budget; float32 kernels use float64 only where their
docstrings say so, and never for division or square roots of entries.
"""

import importlib.metadata
import pathlib
import re
import subprocess
import sys
import types as types_

import numpy as np
import pytest

from tests.oracle import simulator

PACKAGES = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvrtc", "nvidia-cuda-nvcc")
# Registers per thread: with blocks of 256 threads, three of them fit a multiprocessor.
MOST_REGISTERS = 80
CAPABILITIES = ((8, 0), (9, 0))


def missing():
    absent = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            absent.append(name)
    return absent


if simulator.SIMULATED:
    pytest.skip("the simulator compiles nothing", allow_module_level=True)
if missing():
    pytest.skip(f"PTX needs {', '.join(missing())}", allow_module_level=True)

from numba import types  # noqa: E402

from lae_fast.backends.cuda.passes import byte_gram, sparse, tiles, totals  # noqa: E402
from lae_fast.backends.cuda.target import Kernel, cuda  # noqa: E402
from lae_fast.backends.cuda.training import coefficients, decisions, minibatch, step  # noqa: E402


def signatures(real):
    """name -> (kernel, argument types, whether float64 is listed for it in float32)."""
    i, d, b, r = types.int64, types.float64, types.boolean, getattr(types, np.dtype(real).name)
    v, m, c = (lambda t: types.Array(t, 1, "C")), (lambda t: types.Array(t, 2, "C")), types.Array
    flat = [types.float32, types.float64, types.float16, types.uint8, types.int8, types.int16]
    found = {
        f"load {source}": (tiles.load, (v(source), i, i, i, v(r), r, v(r), b, m(r), c(d, 3, "C")), True)
        for source in flat
    }
    stored = (v(types.int32), v(types.int32), v(r))
    return (
        found
        | training_signatures(i, d, b, r, v, m, c)
        | {
            "center_lines": (tiles.center_lines, (m(r), b, d, d, r, v(d), b, v(d), v(d)), True),
            "center_products": (tiles.center_products, (m(r), i, v(r), v(r), m(d)), True),
            "add_tiles": (totals.add_tiles, (m(r), v(d)), True),
            "add_tiles int64": (totals.add_tiles, (m(types.int64), v(d)), True),
            "commit_gram": (totals.commit_gram, (m(r), v(d), v(d), v(d), d, m(d)), True),
            "commit_gram int32": (totals.commit_gram, (m(types.int32), v(d), v(d), v(d), d, m(d)), True),
            "symmetrize": (totals.symmetrize, (m(r),), False),
            "load_bytes": (byte_gram.load_bytes, (v(types.uint8), i, i, i, types.int32, m(types.int8), m(i)), False),
            "load_bytes int8": (
                byte_gram.load_bytes,
                (v(types.int8), i, i, i, types.int32, m(types.int8), m(i)),
                False,
            ),
            "gather": (sparse.gather, (*stored, r, v(r), m(r), v(r), v(r), m(r)), True),
            "gather to float64": (sparse.gather, (*stored, r, v(r), m(r), v(r), v(r), m(d)), True),
            "gram_pairs": (sparse.gram_pairs, (*stored, *stored, d, v(d), m(d)), True),
            "line_statistics": (sparse.line_statistics, (*stored, d, v(d), m(d)), True),
        }
    )


def training_signatures(i, d, b, r, v, m, c):
    """Those of the training loop: of all rules, losses and optimizers, which are arguments."""
    numbers, three, progress = (v(r), c(r, 3, "C")), c(d, 3, "C"), v(i)
    return {
        "coefficients": (coefficients.coefficients, (i, i, b, b, v(r), r, v(d), *[m(r)] * 6, v(r), m(d)), True),
        "fused_step": (
            step.fused_step,
            (
                i,
                r,
                r,
                r,
                r,
                r,
                m(d),
                progress,
                b,
                *[numbers[1]] * 2,
                numbers[0],
                m(r),
                *[numbers[0]] * 2,
                *[numbers[1]] * 3,
                m(r),
                three,
                c(d, 4, "C"),
            ),
            True,
        ),
        "normalise": (step.normalise_rows, (progress, m(r)), True),
        "couple": (step.couple, (progress, m(r), m(r)), False),
        "decide": (
            decisions.decide,
            (
                *(i, i, b, b, i, v(d), m(d), d, v(d), i, d, d, b),
                *(m(d), m(d), three, three, m(d), v(d), v(r), v(r), m(r), m(r), m(d)),
                *(v(d), progress, v(i), v(d)),
            ),
            True,
        ),
        "batch gather": (minibatch.gather, (v(r), i, i, m(i), v(r), m(r), progress, m(r), v(d)), True),
        "batch gather uint8": (minibatch.gather, (v(types.uint8), i, i, m(i), v(r), m(r), progress, m(r), v(d)), True),
        "drop_units": (minibatch.drop_units, (m(i), m(r), progress, m(r)), False),
    }


# In float32, the float64 instructions that may be there: sums, their way to and from memory, and conversions.
PLAIN = re.compile(r"^(ld|st|mov|add|sub|mul|fma|neg|cvt|selp|setp|div|sqrt|abs)\b")
# Divisions and square roots in float64 belong to one number of a line or of an iteration: a mean, a deviation, a
# length, a weight's root, the decision.
COSTLY = {"center_lines", "normalise", "decide"}


def ptxas(ptx, capability, folder):
    import nvidia

    tool = next(path for root in nvidia.__path__ for path in pathlib.Path(root).glob("*/bin/ptxas"))
    (folder / "kernel.ptx").write_text(ptx)
    architecture = "sm_{}{}".format(*capability)
    command = [tool, "-v", f"-arch={architecture}", folder / "kernel.ptx", "-o", folder / "kernel.cubin"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stderr


@pytest.fixture
def without_a_device(monkeypatch):
    """Functions that kernels call ask the device which generation it is; nothing else of the compilation does."""
    home = sys.modules[type(step.velocity).__module__]
    monkeypatch.setattr(home, "get_current_device", lambda: types_.SimpleNamespace(compute_capability=CAPABILITIES[0]))


def double_instructions(ptx):
    lines = (line.strip() for line in ptx.splitlines())
    return [line for line in lines if ".f64" in line and not line.startswith((".", "//"))]


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("real", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(signatures(np.float32)))
@pytest.mark.usefixtures("without_a_device")
def test_kernel_compiles_without_spills_and_within_its_budget(name, real, capability, tmp_path):
    kernel, arguments, may_double = signatures(real)[name]
    ptx, _ = cuda.compile_ptx(kernel.function, arguments, cc=capability)
    report = ptxas(ptx, capability, tmp_path)
    spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert spills and spills.groups() == ("0", "0", "0"), report
    registers = int(re.search(r"Used (\d+) registers", report)[1])
    assert registers <= MOST_REGISTERS, report
    if real is np.float32:
        double = double_instructions(ptx)
        assert may_double or not double, double
        if name in COSTLY:
            return
        assert all(PLAIN.match(line.split()[-1] if line.startswith("@") else line) for line in double), double
        costly = [line for line in double if line.startswith(("div", "sqrt"))]
        assert not costly, costly


def test_every_kernel_is_in_the_list():
    listed = {kernel for kernel, _, _ in signatures(np.float32).values()}
    there = {
        value
        for module in (tiles, totals, byte_gram, sparse, coefficients, step, minibatch, decisions)
        for value in vars(module).values()
        if isinstance(value, Kernel)
    }
    assert there == listed


def test_the_check_for_float64_sees_it():
    """A constant without a type would be float64, and so would everything it meets."""

    def tenth(out):
        k = cuda.grid(1)
        if k < out.shape[0]:
            out[k] = 0.1 * out[k]

    ptx, _ = cuda.compile_ptx(tenth, (types.Array(types.float32, 1, "C"),), cc=(9, 0))
    assert double_instructions(ptx)
