"""Micro-benchmarks run in one process, on kernels of one thread; the rates they reach are printed at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lae_fast.backends.threads import serial_blas

_RATES = pytest.StashKey[list[tuple[str, str]]]()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """No processes beside this one: pytest-benchmark measures nothing in pytest-xdist's."""
    return 0


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RATES] = []


@pytest.fixture
def one_thread() -> Iterator[None]:
    """BLAS on one thread, as inside lae_fast's own threads."""
    with serial_blas():
        yield


@pytest.fixture
def rates(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Called after `benchmark` with what a run costs, by unit: notes GF/s and GB/s of the quickest run."""

    def note(flops: float = 0.0, traffic: float = 0.0) -> None:
        benchmark.extra_info.update({"flops": flops} | ({"bytes": traffic} if traffic else {}))
        if benchmark.disabled:
            return
        seconds = benchmark.stats.stats.min
        found = {unit: amount / seconds / 1e9 for unit, amount in (("GF/s", flops), ("GB/s", traffic)) if amount}
        benchmark.extra_info.update(found)
        shown = ", ".join(f"{rate:.4g} {unit}" for unit, rate in found.items())
        request.config.stash[_RATES].append((request.node.name, shown))

    return note


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """A line for each benchmark that knows what a run costs."""
    rows = config.stash[_RATES]
    if rows:
        terminalreporter.section("rates of the quickest runs")
        for name, shown in rows:
            terminalreporter.write_line(f"{name}: {shown}")
