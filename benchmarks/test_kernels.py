"""Micro-benchmark: each kernel of the CPU that says what it costs, and the rate it reaches, on one thread.

    python -m pytest benchmarks/test_kernels.py --benchmark-only -k fused_step

GF/s and GB/s are the cost line of the kernel's docstring over the time of the quickest run.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import numpy as np
import pytest

import lae_fast.backends.cpu
import lae_fast.kernels
from benchmarks.lib import costs
from benchmarks.lib.kernel_cases import CASES, WITHIN, KernelCase

# Of the largest entry that is expected: sums of a thousand products of the dtype.
TOLERANCE = {"float32": 1e-4, "float64": 1e-12}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("case", "dtype"), [pytest.param(c, d, id=f"{c.name}-{d}") for c in CASES for d in c.dtypes])
def test_kernel(benchmark: Any, rates: Any, case: KernelCase, dtype: str) -> None:
    sizes = case.sizes | {"itemsize": np.dtype(dtype).itemsize}
    benchmark.group = f"kernel {case.name}"
    call = case.make(np.dtype(dtype))
    call.run()  # compiles
    found = call.answer()
    assert np.abs(found - call.expected).max() <= TOLERANCE[dtype] * np.abs(call.expected).max()
    benchmark(call.run)
    traffic = case.times * costs.cost(case.kernel, case.traffic, sizes) if case.traffic else 0.0
    rates(case.times * costs.cost(case.kernel, case.flops, sizes), traffic)


_LOOP = ("training.iteration", "training.products", "training.nested_dropout")


def test_every_kernel_with_a_cost_line_has_a_benchmark() -> None:
    """The loop of training and what only it calls are timed by test_training_steps.py."""
    modules = [lae_fast.kernels]
    for found in pkgutil.walk_packages(lae_fast.backends.cpu.__path__, "lae_fast.backends.cpu."):
        modules.append(importlib.import_module(found.name))
    here = {case.name.partition(",")[0] for case in CASES} | set(WITHIN) | {"iteration.iterate"}
    missing = []
    for module in modules:
        for name, kernel in vars(module).items():
            own = getattr(getattr(kernel, "py_func", None), "__module__", "") == module.__name__
            if not own or name.startswith("_") or module.__name__.endswith(_LOOP):
                continue
            label = f"{module.__name__.rpartition('.')[2]}.{name}"
            if costs.SAYS_COST.search(costs.text_of(kernel)) and label not in here:
                missing.append(label)
    assert missing == []
