"""What compilers make of every CUDA kernel, where there is no card: registers, spills, loads in flight.

    python -m benchmarks.gpu.compiled [NAME ...] [--float64]

Needs the packages numba-cuda, nvidia-nvvm, nvidia-cuda-nvrtc, nvidia-cuda-nvcc and nvidia-cuda-nvdisasm, and no driver.
It is the word of ptxas for compute capability 9.0, no measurement: it does not say how fast a kernel is on a card.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import re
import subprocess
import sys
import tempfile
import types as types_
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numba import types

from lae_fast.backends.cuda.passes import byte_gram, sparse, tiles, totals
from lae_fast.backends.cuda.target import Kernel, cuda
from lae_fast.backends.cuda.training import coefficients, decisions, minibatch, step


class Compiled(NamedTuple):
    """Of one kernel: what ptxas says, and from its machine code the loads from memory that a thread has under way.

    loads, load_bytes : the most that it has asked for before it needs one of them
    """

    ptx: str
    report: str
    registers: int
    spills: tuple[int, int, int]
    loads: int | None = None
    load_bytes: int | None = None


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
    walked = (v(types.int32), *stored)
    return (
        found
        | training_signatures(i, d, b, r, v, m, c)
        | {
            "center_lines": (tiles.center_lines, (m(r), b, d, d, r, v(d), b, v(d), v(d)), True),
            "center_products": (tiles.center_products, (m(r), i, v(r), v(r), m(d)), True),
            "add_tiles": (totals.add_tiles, (m(r), b, v(d)), True),
            "add_tiles int64": (totals.add_tiles, (m(types.int64), b, v(d)), True),
            "add_triangles": (totals.add_triangles, (m(r), b, m(d), v(d)), True),
            "commit_gram": (totals.commit_gram, (m(d), v(d), v(d), v(d), d, m(d)), True),
            "commit_gram int32": (totals.commit_gram, (m(types.int32), v(d), v(d), v(d), d, m(d)), True),
            "symmetrize": (totals.symmetrize, (m(r),), False),
            "load_bytes": (byte_gram.load_bytes, (v(types.uint8), i, i, i, types.int32, m(types.int8), m(i)), False),
            "load_bytes int8": (
                byte_gram.load_bytes,
                (v(types.int8), i, i, i, types.int32, m(types.int8), m(i)),
                False,
            ),
            "gather": (sparse.gather, (*walked, r, v(r), m(r), v(r), v(r), m(r)), True),
            "gather to float64": (sparse.gather, (*walked, r, v(r), m(r), v(r), v(r), m(d)), True),
            "add_walks": (sparse.add_walks, (m(d), v(i), v(i), r, v(r), v(r), m(r)), True),
            "gram_pairs": (sparse.gram_pairs, (*stored, *stored, d, v(d), m(d)), True),
            "line_statistics": (sparse.line_statistics, (*walked, d, v(d), m(d)), True),
        }
    )


def training_signatures(i, d, b, r, v, m, c):
    """Those of the training loop: of all rules, losses and optimizers, which are arguments."""
    three, progress = c(d, 3, "C"), v(i)
    of_step = (*[r] * 5, m(d), progress, b, i, v(r), v(r), v(r), m(r), *[v(r)] * 6, three, c(d, 4, "C"))
    steps = ("sgd", "momentum", "nesterov", "adam")
    return {f"fused_step {steps[code]}": (kernel, of_step, True) for code, kernel in step.fused_steps.items()} | {
        "coefficients": (coefficients.coefficients, (i, i, b, b, v(r), r, v(d), *[m(r)] * 6, v(r), m(d)), True),
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


def compiled(kernel: Kernel, arguments: tuple[Any, ...], capability: tuple[int, int]) -> Compiled:
    """Through NVVM and ptxas; loads in flight where nvdisasm is there."""
    with _generation(capability):
        ptx, _ = cuda.compile_ptx(kernel.function, arguments, cc=capability)
    with tempfile.TemporaryDirectory() as folder:
        source, code = pathlib.Path(folder, "kernel.ptx"), pathlib.Path(folder, "kernel.cubin")
        source.write_text(ptx)
        report = _run(_tool("ptxas"), "-v", "-arch=sm_{}{}".format(*capability), source, "-o", code).stderr
        loads = in_flight(_run(tool, "-c", code).stdout) if (tool := _tool("nvdisasm")) else (None, None)
    spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    registers = re.search(r"Used (\d+) registers", report)
    if spills is None or registers is None:
        raise RuntimeError(f"ptxas said something else: {report}")
    stack, stores, loaded = map(int, spills.groups())
    return Compiled(ptx, report, int(registers[1]), (stack, stores, loaded), *loads)


def in_flight(listing: str) -> tuple[int, int]:
    """The most loads from memory, and their bytes, that a thread has asked for before it needs one of them.

    listing : machine code as nvdisasm prints it.  Instructions are taken in the order they stand in, and a load is
    over when its register is read.  So a loop counts once, and branches as if all were taken.
    """
    waiting: list[tuple[str, int]] = []
    most = most_bytes = 0
    for line in listing.splitlines():
        found = re.match(r"\s*/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);", line)
        if found is None:
            continue
        name, operands = found[2], found[3].split(",")
        is_load = name.startswith(("LDG", "LD."))
        used = {register for part in operands[1 if is_load else 0 :] for register in re.findall(r"\bR\d+", part)}
        needed = [place for place, (register, _) in enumerate(waiting) if register in used]
        if needed:
            waiting = waiting[max(needed) + 1 :]
        if is_load:
            size = next((bits // 8 for bits in (128, 64) if f".{bits}" in name), 4)
            size = 1 if re.search(r"\.[US]8", name) else 2 if re.search(r"\.[US]16", name) else size
            waiting.append((operands[0].strip(), size))
            most = max(most, len(waiting))
            most_bytes = max(most_bytes, sum(bytes_ for _, bytes_ in waiting))
    return most, most_bytes


@contextlib.contextmanager
def _generation(capability: tuple[int, int]) -> Iterator[None]:
    """Functions that kernels call ask the device which generation it is; nothing else of the compilation does."""
    home: Any = sys.modules[type(step.velocity).__module__]
    before = home.get_current_device
    home.get_current_device = lambda: types_.SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        home.get_current_device = before


def _tool(name: str) -> pathlib.Path | None:
    import nvidia

    return next((path for root in nvidia.__path__ for path in pathlib.Path(root).glob(f"*/bin/{name}")), None)


def _run(*command: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="kernels whose names begin so; all")
    parser.add_argument("--float64", action="store_true", help="of float64 data, not float32")
    asked = parser.parse_args()
    print("| kernel | registers | spills, bytes | loads in flight | their bytes |\n|---|---|---|---|---|")
    for name, (kernel, arguments, _) in signatures(np.float64 if asked.float64 else np.float32).items():
        if not asked.names or name.startswith(tuple(asked.names)):
            found = compiled(kernel, arguments, (9, 0))
            print(f"| {name} | {found.registers} | {max(found.spills)} | {found.loads} | {found.load_bytes} |")


if __name__ == "__main__":
    main()
