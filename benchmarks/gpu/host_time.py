"""What the host spends on the launches of an iteration, a pass and a Gram, where there is no card.

    python -m benchmarks.gpu.host_time [--rounds N]

Needs numba-cuda and its compilers, a C compiler, and no driver: null_driver.c takes its place, stand_in.py that of
CuPy, and cuBLAS is a function that returns.  So the times are the host's alone, and less than with CuPy and cuBLAS,
whose own calls are not in them; what a card needs is not known from them.  `run` gives them to tests and prints.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
M, D, P = 60_000, 784, 20


def build(folder: Path) -> Path:
    """Compile the driver into this folder, under the name that all libraries look for."""
    library = folder / "libcuda.so.1"
    command = [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", "-o", library, HERE / "null_driver.c", "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def run(rounds: int, timeout: float = 600.0) -> dict[str, Any]:
    """Build the driver and measure in a process that finds it."""
    with tempfile.TemporaryDirectory() as folder:
        build(Path(folder))
        paths = [folder, os.environ.get("LD_LIBRARY_PATH", "")]
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(filter(None, paths))}
        environment.pop("NUMBA_ENABLE_CUDASIM", None)
        command = [sys.executable, "-m", "benchmarks.gpu.host_time", "--measure", "--rounds", str(rounds)]
        done = subprocess.run(
            command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=timeout
        )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


class Cublas:
    """Counts calls.  Numbers and names are those of CuPy's binding."""

    CUBLAS_OP_N, CUBLAS_OP_T = 0, 1
    CUBLAS_POINTER_MODE_HOST, CUBLAS_DEFAULT_MATH, CUBLAS_GEMM_DEFAULT = 0, 0, -1

    def __init__(self) -> None:
        self.calls = 0

    def getVersion(self, handle: int) -> int:
        return 131_000

    def getPointerMode(self, handle: int) -> int:
        return 0

    getMathMode = getPointerMode

    def setPointerMode(self, handle: int, mode: int) -> None: ...

    setMathMode = setPointerMode

    def _called(self, *arguments: Any) -> None:
        self.calls += 1

    gemmStridedBatchedEx = gemmEx = _called


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """name -> kernels, cuBLAS calls, waits of the host, its microseconds of CPU time (the least of some rounds), and
    how many kernels Numba has launched, not cuda.core."""
    from benchmarks.gpu import stand_in
    from lae_fast.backends.cuda import target

    target.probe = lambda: target.Probe(True, "a driver that does nothing")  # type: ignore[assignment]  # numbers are wrong
    driver, cublas = ctypes.CDLL("libcuda.so.1"), Cublas()
    driver.null_launches.restype = ctypes.c_long
    found: dict[str, dict[str, float]] = {}
    dispatcher, by_numba = target.cuda.dispatcher.CUDADispatcher, [0]
    call = dispatcher.call

    def numbas(self: Any, *arguments: Any) -> Any:
        by_numba[0] += 1
        return call(self, *arguments)

    dispatcher.call = numbas

    def counted(name: str, work: Callable[[], Any], repeats: int = 1) -> None:
        """`work` makes `repeats` of what is named."""
        work()
        least, by_numba[0] = float("inf"), 0
        for _ in range(rounds):
            stand_in.counts.clear()
            launches, calls, began = driver.null_launches(), cublas.calls, time.process_time()
            work()
            least = min(least, time.process_time() - began)
        waits = stand_in.counts.waits + stand_in.counts.downloads
        found[name] = {
            "kernels": (driver.null_launches() - launches) / repeats, "cublas": (cublas.calls - calls) / repeats,
            "waits": waits / repeats, "us": 1e6 * least / repeats, "by_numba": by_numba[0],
        }  # fmt: skip

    stand_in.FREE_BYTES = 1 << 33  # so that there is room for chunks to stay
    with stand_in.install(cublas, poisons=False) as cupy:
        _passes(cupy, counted)
        _training(counted)
    return found


def _passes(cupy: Any, counted: Callable[..., None]) -> None:
    from lae_fast.backends.cuda.passes import gram, rows
    from lae_fast.data import sources
    from lae_fast.operators.pilot import pilot_view

    X = cupy.zeros((M, D), np.float32)
    source = sources.as_source(X)
    view, variance = pilot_view(source, None, backend="cuda")
    total = gram.square(D)
    # nothing is summed, so what lies in memory must not be taken for a chunk that is to be done again
    gram._out_of_range = lambda squares: False  # type: ignore[assignment]
    gram._drift = lambda *of: 0.0  # type: ignore[assignment]
    nothing = np.zeros(D)
    counted(f"Gram {M} x {D}", lambda: gram.float_gram(view, variance, lambda c: c.add_to(total, *[nothing] * 3, 0.0)))
    view, _ = pilot_view(source, None, backend="cuda", block=P + 10)
    block = cupy.zeros((D, P + 10), np.float32)
    counted(f"pass {M} x {D}, {P + 10} columns", lambda: rows.row_pass(view, block))
    known = np.zeros(D), np.zeros(D)
    counted("pass after it", lambda: rows.row_pass(view, block, known=known))


def _training(counted: Callable[..., None]) -> None:
    from benchmarks.gpu import train
    from lae_fast import losses

    described, weights, many = train.moments(D), train.start(D, P), 200
    for name, rule, loss in (
        ("ordered", "gradient", losses.ordered()),
        ("rag", "rag", losses.mse()),
        ("gha", "gha", None),
    ):
        steps = train.OurSteps(described, weights, rule, loss)
        counted(f"iteration, {name}", lambda steps=steps: steps.run(many, 1e-3), many)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.rounds)))
        return
    print("| what | kernels | cuBLAS calls | waits | CPU time of the host, us |\n|---|---|---|---|---|")
    for name, row in run(asked.rounds).items():
        print(f"| {name} | {row['kernels']:g} | {row['cublas']:g} | {row['waits']:g} | {row['us']:.0f} |")


if __name__ == "__main__":
    main()
