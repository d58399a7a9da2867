"""Every CUDA kernel compiled to PTX and through ptxas, for two generations of cards, without a driver.

Needs the packages numba-cuda, nvidia-nvvm, nvidia-cuda-nvrtc and nvidia-cuda-nvcc; `.ci/run` installs them.
What is asked: it compiles; nothing spills; it fits a register budget; float32 kernels use float64 only where their
docstrings say so, and never for division or square roots of entries.
"""

import importlib.metadata
import re

import numpy as np
import pytest

from tests.oracle import simulator

PACKAGES = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvrtc", "nvidia-cuda-nvcc")
# Registers per thread: with blocks of 256 threads, three of them fit a multiprocessor.
MOST_REGISTERS = 80
# What reads or writes a whole chunk: five blocks, and the loads that a thread must have in flight.
OF_LOAD, LOADS = 48, 4
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

from benchmarks.gpu import compiled  # noqa: E402
from lae_fast.backends.cuda.passes import byte_gram, sparse, tiles, totals  # noqa: E402
from lae_fast.backends.cuda.target import Kernel, cuda  # noqa: E402
from lae_fast.backends.cuda.training import coefficients, decisions, minibatch, step  # noqa: E402

# In float32, the float64 instructions that may be there: sums, their way to and from memory, and conversions.
PLAIN = re.compile(r"^(ld|st|mov|add|sub|mul|fma|neg|cvt|selp|setp|div|sqrt|abs)\b")
# Divisions and square roots in float64 belong to one number of a line or of an iteration: a mean, a deviation, a
# length, a weight's root, the decision.
COSTLY = {"center_lines", "normalise", "decide"}


def double_instructions(ptx):
    lines = (line.strip() for line in ptx.splitlines())
    return [line for line in lines if ".f64" in line and not line.startswith((".", "//"))]


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("real", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", sorted(compiled.signatures(np.float32)))
def test_kernel_compiles_without_spills_and_within_its_budget(name, real, capability):
    kernel, arguments, may_double = compiled.signatures(real)[name]
    found = compiled.compiled(kernel, arguments, capability)
    assert found.spills == (0, 0, 0), found.report
    is_load = name.startswith("load ")
    assert found.registers <= (OF_LOAD if is_load else MOST_REGISTERS), found.report
    if is_load and found.loads is not None:
        assert found.loads >= LOADS
    if real is np.float32:
        double = double_instructions(found.ptx)
        assert may_double or not double, double
        if name in COSTLY:
            return
        assert all(PLAIN.match(line.split()[-1] if line.startswith("@") else line) for line in double), double
        costly = [line for line in double if line.startswith(("div", "sqrt"))]
        assert not costly, costly


def test_every_kernel_is_in_the_list():
    listed = {kernel for kernel, _, _ in compiled.signatures(np.float32).values()}
    there = {
        value
        for module in (tiles, totals, byte_gram, sparse, coefficients, step, minibatch, decisions)
        for value in (*vars(module).values(), *step.fused_steps.values())
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


def test_loads_in_flight_are_counted_until_one_is_needed():
    listing = """
        /*0010*/                   LDG.E R2, desc[UR4][R8.64] ;
        /*0020*/              @!P0 LDG.E.64 R4, desc[UR4][R8.64+0x20] ;
        /*0030*/                   LDG.E.U8 R6, desc[UR4][R8.64+0x40] ;
        /*0040*/                   FADD R3, R4, R3 ;
        /*0050*/                   LDG.E R7, desc[UR4][R8.64+0x60] ;
        /*0060*/                   STG.E desc[UR4][R10.64], R7 ;
    """
    assert compiled.in_flight(listing) == (3, 13)
    assert compiled.in_flight(listing.replace("R8.64+0x20", "R2.64+0x20")) == (2, 9)  # the second needs the first
