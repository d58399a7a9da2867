"""Files larger than the memory allowed: peak memory, and throughput against a plain read of the same file.

    python -m benchmarks.streaming [--smoke] [--gigabytes G] [--limit BYTES] [--rounds N] [--out FILE]
    python -m benchmarks.streaming --overlap [--gigabytes G] [--rounds N]

`--overlap` asks whether reading overlaps computing, prints it and writes nothing: seconds to read an HDF5 file chunk by
chunk, to compute with the same rows in memory, and of a fit of the file, which does both.  Without overlap that would
take the sum, with all that there can be the longer of the two.

The benchmark has two parts.  `files`: PCA of float32 rows in a .npy (memory-mapped) and in an HDF5 file under
max_memory, each fit in a process of its own that watches its anonymous memory, and beside every fit a plain read of the
same file, before or after it in turns, so that both find the file in the same state (how much of it was in the page
cache is said).
`bytes`: images as uint8 against the same numbers as float32, against float32 between 0 and 1, which are no bytes, and
against scikit-learn from uint8, interleaved, for each BLAS that is there (SciPy's, and MKL with the extra).  Answers
are checked first.
The files are written to a temporary directory and removed; without room for them that part is skipped, with the reason.
Imports NumPy, h5py, harness, memory, ceilings and shapes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import ceilings
from .lib import harness, machines, memory, shapes

D, P, BLOCK = 1000, 10, 10_000
# What a variance may be off by, relative to itself.
TOLERANCE = 1e-5
# Room that must be left on the disk beside the two files.
_SPARE = 2 * 10**9
_READ_AT_ONCE = 1 << 24


def spread() -> np.ndarray:
    """Standard deviations of the columns, float32."""
    return (0.995 ** np.arange(D)).astype(np.float32)


def write(directory: Path, n_bytes: float, seed: int = 0) -> tuple[int, np.ndarray]:
    """x.npy and x.h5 with the same rows; their number, and the largest variances of what was written.

    Rows are drawn once and then repeated with other signs for every block, which is quick; the covariance is summed
    block by block in float64.
    """
    import h5py

    m = max(BLOCK, int(n_bytes / (4 * D)) // BLOCK * BLOCK)
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((BLOCK, D), dtype=np.float32) * spread()
    rows = np.lib.format.open_memmap(directory / "x.npy", "w+", np.float32, (m, D))
    gram, total = np.zeros((D, D)), np.zeros(D)
    with h5py.File(directory / "x.h5", "w") as file:
        data = file.create_dataset("x", (m, D), np.float32, chunks=(250, D))
        for first in range(0, m, BLOCK):
            signs = random.choice(np.array([-1, 1], np.float32), D)
            block = drawn * signs + np.float32(3)
            rows[first : first + BLOCK] = block
            data[first : first + BLOCK] = block
            exact = block.astype(np.float64)
            gram += exact.T @ exact
            total += exact.sum(axis=0)
    rows.flush()
    covariance = (gram - np.outer(total, total) / m) / (m - 1)
    return m, np.linalg.eigvalsh(covariance)[::-1][:P]


def child(path: str, limit: int) -> None:
    """Fit one file and print seconds, peak memory and variances as JSON: runs in a process of its own."""
    import lae_fast
    from lae_fast.backends.cpu import blas
    from lae_fast.data import files

    warm = np.random.default_rng(0).standard_normal((4000, 40)).astype(np.float32)
    lae_fast.PCA(P, max_memory=limit).fit(warm)  # kernels are compiled or loaded here
    with memory.Peak() as peak:
        start = time.perf_counter()
        with files.open_input(path) as source:
            pca = lae_fast.PCA(P, max_memory=limit).fit(source.data)
        seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak": peak.above,
                "peak_with_libraries": peak.total,
                "stated": pca.workspace_bytes_,
                "n_passes": pca.n_passes_,
                "solver": pca.solver_,
                "blas": blas.PROVIDER,
                "values": pca.explained_variance_.tolist(),
            }
        )
    )


def plain_read(path: Path) -> float:
    """Seconds to read the file from its beginning to its end into one buffer."""
    buffer = bytearray(_READ_AT_ONCE)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def cached_share(path: Path) -> float | None:
    """Part of the file that is in the page cache; None where the system does not tell."""
    import ctypes

    mincore = getattr(ctypes.CDLL(None, use_errno=True), "mincore", None)
    if mincore is None:
        return None
    mapped = np.memmap(path, np.uint8, "r")
    page = os.sysconf("SC_PAGE_SIZE")
    marks = np.zeros(-(-mapped.size // page), np.uint8)
    failed = mincore(
        ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(mapped.size), ctypes.c_void_p(marks.ctypes.data)
    )
    return None if failed else float((marks & 1).mean())


def apart(*arguments: str, **variables: str) -> dict[str, Any]:
    """What this command prints as JSON in a process of its own."""
    return json.loads(memory.run("-m", "benchmarks.streaming", *arguments, **variables))


def measure_files(n_bytes: float, limit: int, rounds: int) -> dict[str, Any]:
    """The part `files`; a dict with "skipped" where there is no room."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        free = shutil.disk_usage(directory).free
        if free < 2 * n_bytes + _SPARE:
            return {"skipped": f"{free / 1e9:.1f} GB free, two files of {n_bytes / 1e9:.1f} GB are wanted"}
        if not memory.measurable():
            return {"skipped": "memory is read from /proc/self/status, which Linux has"}
        m, truth = write(directory, n_bytes)
        copy = ceilings.parallel_read()
        found = []
        for kind in ("npy", "h5"):
            found.append(_measure_file(directory / f"x.{kind}", truth, limit, rounds) | {"kind": kind})
        return {"m": m, "d": D, "p": P, "limit": limit, "copy_gbps": copy, "cases": found}


def _measure_file(path: Path, truth: np.ndarray, limit: int, rounds: int) -> dict[str, Any]:
    size = path.stat().st_size
    reads, fits, cached = [], [], []
    for index in range(rounds):
        cached.append(cached_share(path))
        for step in ("read", "fit") if index % 2 == 0 else ("fit", "read"):
            if step == "read":
                reads.append(plain_read(path))
            else:
                fits.append(apart("--child", str(path), "--limit", str(limit), **memory.RETURNED))
    error = max(float(np.max(np.abs(np.array(fit["values"]) - truth) / truth)) for fit in fits)
    return {
        "bytes": size,
        "error": error,
        "accurate": error <= TOLERANCE,
        "peak": max(fit["peak"] for fit in fits),
        "peak_with_libraries": max(fit["peak_with_libraries"] for fit in fits),
        "stated": fits[0]["stated"],
        "solver": fits[0]["solver"],
        "blas": fits[0]["blas"],
        "n_passes": fits[0]["n_passes"],
        "seconds": harness.summarise([fit["seconds"] for fit in fits]),
        "read_seconds": harness.summarise(reads),
        "share_of_read": harness.summarise([read / fit["seconds"] for read, fit in zip(reads, fits)]),
        "gbps": harness.summarise([size * fit["n_passes"] / fit["seconds"] / 1e9 for fit in fits]),
        "cached": cached,
    }


def measure_bytes(smoke: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """The part `bytes`: ours on uint8, on the same numbers in float32, and on float32 that is none; scikit-learn."""
    import sklearn.decomposition

    import lae_fast
    from lae_fast import datasets

    name, p = ("digits", 10) if smoke else ("mnist", 20)
    try:
        images = datasets.load(name).astype(np.uint8)
    except (FileNotFoundError, shapes.DataUnavailableError) as error:
        return {"skipped": str(error)}
    floats = images.astype(np.float32)
    scaled = floats / np.float32(255)
    values = np.linalg.eigvalsh(np.cov(images.astype(np.float64).T))[::-1]
    truth = values[:p] / values.sum()

    def check(model: Any) -> dict[str, Any]:
        error = float(np.max(np.abs(model.explained_variance_ratio_ - truth) / truth))
        return {"accurate": error <= 1e-4, "variance_error": error}

    chosen = [
        harness.Contestant("lae_fast, uint8", lambda: lae_fast.PCA(p).fit(images), "ours", compiles=True),
        harness.Contestant("lae_fast, float32", lambda: lae_fast.PCA(p).fit(floats), "variant", compiles=True),
        harness.Contestant("lae_fast, float32 in 0..1", lambda: lae_fast.PCA(p).fit(scaled), "variant", compiles=True),
        harness.Contestant("scikit-learn, uint8", lambda: sklearn.decomposition.PCA(p).fit(images)),
    ]
    records = {c.name: harness.trial(c, check) for c in chosen}
    harness.race(chosen, records, **settings)
    ours = records["lae_fast, uint8"]
    return {
        "name": name,
        "shape": list(images.shape),
        "p": p,
        "blas": next(info["name"] for info in lae_fast.backend_info()["blas"] if "tile kernels" in info["role"]),
        "contestants": [record.as_dict() for record in records.values()],
        "ratios": {
            other.name: harness.summarise(harness.round_ratios(other, ours))
            for other in records.values()
            if other is not ours
        },
    }


def measure_overlap(n_bytes: float, rounds: int) -> dict[str, Any]:
    """Seconds to read, to compute and to do both, in turns, and the share of the shorter one that was hidden."""
    import lae_fast
    from lae_fast import plan
    from lae_fast.data import sources

    found: dict[str, list[float]] = {"read": [], "compute": [], "both": []}

    def read(path: Path) -> None:
        with sources.opened(path) as source:
            chunk = plan.tiling(*source.shape, source.compute_dtype.itemsize, 2.0 * D * D).chunk
            for first in range(0, source.shape[0], chunk):
                source.chunk(first, min(first + chunk, source.shape[0]))

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.h5"
        write(Path(name), n_bytes)
        held = np.load(Path(name) / "x.npy")
        pca = lae_fast.PCA(P, svd_solver="gram")
        pca.fit(held[:5000])
        todo = {"read": lambda: read(path), "compute": lambda: pca.fit(held), "both": lambda: pca.fit(path)}
        for index in range(rounds):
            for step in list(todo)[:: 1 if index % 2 == 0 else -1]:
                start = time.perf_counter()
                todo[step]()
                found[step].append(time.perf_counter() - start)
        passes = pca.n_passes_
    hidden = [
        (passes * a + b - both) / min(passes * a, b)
        for a, b, both in zip(found["read"], found["compute"], found["both"])
    ]
    return {name: harness.summarise(times) for name, times in found.items()} | {
        "n_passes": passes,
        "threads": lae_fast.get_num_threads(),
        "hidden": harness.summarise(hidden),
    }


def _print_overlap(found: dict[str, Any]) -> None:
    for name in ("read", "compute", "both"):
        print(f"{name:8s} {found[name]['median']:.3f} s")
    print(f"{100 * found['hidden']['median']:.0f} % of the shorter one is hidden, {found['threads']} threads")


def _print(payload: dict[str, Any]) -> None:
    found = payload["files"]
    if "skipped" in found:
        print(f"files skipped: {found['skipped']}")
    for case in found.get("cases", ()):
        share, rate = case["share_of_read"]["median"], case["gbps"]["median"]
        print(
            f"{case['kind']:4s} {case['bytes'] / 1e9:.2f} GB: {case['seconds']['median']:.2f} s, {rate:.2f} GB/s, "
            f"{100 * share:.0f} % of a plain read and {100 * rate / found['copy_gbps']:.0f} % of reading memory; peak "
            f"{case['peak_with_libraries'] / 1e6:.0f} MB with libraries, {found['limit'] / 1e6:.0f} MB allowed, worst "
            f"error {case['error']:.0e}"
        )
    for images in payload["bytes"]:
        print(f"bytes skipped: {images['skipped']}" if "skipped" in images else images["blas"])
        for record in images.get("contestants", ()):
            seconds = f"{record['summary']['median']:.4f} s" if record["times"] else f"{record['status']}"
            ratio = images["ratios"].get(record["name"])
            faster = f"  uint8 is {ratio['median']:.2f}x as fast" if ratio else ""
            print(f"  {record['name']:22s} {seconds}{faster}")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text.  Returns 1 where ours is wrong or holds twice the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="files of 40 MB and the digits: does everything run?")
    parser.add_argument("--gigabytes", type=float, help="size of each file (default 4, smoke 0.04)")
    parser.add_argument("--limit", type=int, help="max_memory in bytes (default 500 MB, smoke 60 MB)")
    parser.add_argument("--rounds", type=int, help="fits of each file, and most of the images (default 3 and 9)")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/streaming.json)")
    parser.add_argument("--overlap", action="store_true", help="does reading overlap computing?")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--bytes", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    limit = options.limit or (60_000_000 if options.smoke else 500_000_000)
    if options.child:
        child(options.child, limit)
        return 0
    settings = {
        "rounds": options.rounds or (3 if options.smoke else 9),
        "budget_s": 20.0 if options.smoke else 60.0,
        "settle_s": 0.002 if options.smoke else 0.04,
    }
    if options.bytes:
        print(json.dumps(measure_bytes(options.smoke, settings)))
        return 0
    n_bytes = 1e9 * (options.gigabytes or (0.04 if options.smoke else 4.0))
    if options.overlap:
        _print_overlap(measure_overlap(n_bytes, options.rounds or (1 if options.smoke else 5)))
        return 0
    import h5py  # noqa: F401
    import sklearn.decomposition  # noqa: F401

    import lae_fast
    from lae_fast.backends.cpu import blas

    lae_fast.backend_info()
    found = harness.environment(("lae-fast", "numpy", "scipy", "numba", "scikit-learn", "h5py", "mkl"))
    if harness.is_busy(found):
        print(f"The machine is busy (load {found['load_at_start']}): these times will say little.")
    passed = [*(["--smoke"] if options.smoke else []), *(["--rounds", str(options.rounds)] if options.rounds else [])]
    payload = {
        "benchmark": "streaming",
        "schema": harness.SCHEMA,
        "smoke": options.smoke,
        "environment": found,
        "settings": settings,
        "files": measure_files(n_bytes, limit, options.rounds or (2 if options.smoke else 3)),
        "bytes": [
            apart("--bytes", *passed, LAE_FAST_BLAS=provider) for provider in dict.fromkeys(("scipy", blas.PROVIDER))
        ],
    }
    out = options.out or machines.place("streaming", options.smoke)
    harness.write_json(out, payload)
    _print(payload)
    cases = payload["files"].get("cases", ())
    return 0 if all(case["accurate"] and case["peak"] < 2 * limit for case in cases) else 1


if __name__ == "__main__":
    raise SystemExit(main())
