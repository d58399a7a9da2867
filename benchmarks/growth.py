"""How time grows: fits against samples, features and threads, scores against components, with fitted exponents.

    python -m benchmarks.growth [--smoke] [--out FILE]

Each answer is checked before it is timed. The sizes of a series are timed in interleaved rounds, and the least time of
each counts. Beside the exponent of the times stand those of the flops and bytes that the work needs: where they differ,
something else than arithmetic or reading takes the time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ceilings
from benchmarks.lib import accuracy, growth_tables, harness, machines, shapes

# Samples, features, components and threads (None: all) of each point of a series; one of them grows.
Point = tuple[int, int, int, int | None]
P = 10


def series(smoke: bool, cores: int) -> dict[str, tuple[str, list[Point]]]:
    """The work, "fit" or "scores", and the points of each series, by what grows."""
    m, d, wide = (2000, 32, 64) if smoke else (30_000, 128, 1024)
    steps = (1, 2, 4) if smoke else (1, 2, 4, 8, 16)
    threads = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]
    return {
        "samples": ("fit", [(m * k // 2, d, P, None) for k in steps]),
        "features": ("fit", [(m, d * k // 2, P, None) for k in steps]),
        "components": ("scores", [(m, wide, P * k, None) for k in steps]),
        "threads": ("fit", [(m, 4 * d, P, n) for n in threads]),
    }


def predicted(work: str, m: int, d: int, p: int) -> tuple[float, float]:
    """Flops and bytes of float32 data: the Gram by symmetry and its float64 total, or the product of rows and axes."""
    if work == "fit":
        return ceilings.gram_flops(m, d), 4.0 * m * d + 8.0 * d * d
    return 2.0 * m * d * p, 4.0 * m * (d + p)


def prepared(work: str, X: np.ndarray, p: int) -> tuple[Callable[[], Any], float]:
    """What is timed, and the error of its answer: the worst residual, or the largest error of a score in deviations."""
    import lae_fast

    pca = lae_fast.PCA(p, svd_solver="gram").fit(X)
    if work == "fit":
        found = accuracy.measure(X, pca.explained_variance_, pca.components_)
        return lambda: lae_fast.PCA(p, svd_solver="gram").fit(X), found.worst
    out = np.empty((len(X), p), np.float32)
    pca.transform(X, out=out)
    few = X[:200].astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    errors = np.abs(out[:200] - few @ pca.components_.T.astype(np.float64)) / np.sqrt(pca.explained_variance_)
    return lambda: pca.transform(X, out=out), float(errors.max())


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Slope of the least-squares line through the logarithms; None for fewer than two sizes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0]) if len(sizes) > 1 else None


def measured(name: str, work: str, points: list[Point], rounds: int) -> dict[str, Any]:
    """One series: the points with times and errors, and the exponents."""
    import lae_fast

    place = list(growth_tables.AXES).index(name)
    runs, errors = [], []
    for m, d, p, _ in points:
        run, error = prepared(work, shapes.synthetic(m, d), p)
        runs.append(run)
        errors.append(error)
    best = [np.inf] * len(points)
    for _ in range(rounds):
        for i, run in enumerate(runs):
            lae_fast.set_num_threads(points[i][3])
            started = time.perf_counter()
            run()
            best[i] = min(best[i], time.perf_counter() - started)
    lae_fast.set_num_threads(None)
    sizes = [float(point[place]) for point in points]
    needed = [predicted(work, *point[:3]) for point in points]
    if name == "threads":  # of each one
        needed = [(flops / n, moved / n) for (flops, moved), n in zip(needed, sizes)]
    return {
        "name": name,
        "work": work,
        "points": [
            {"m": m, "d": d, "p": p, "size": size, "seconds": least, "error": error, "flops": flops, "bytes": moved}
            for (m, d, p, _), size, least, error, (flops, moved) in zip(points, sizes, best, errors, needed)
        ],
        "exponents": {
            "seconds": exponent(sizes, best),
            "flops": exponent(sizes, [flops for flops, _ in needed]),
            "bytes": exponent(sizes, [moved for _, moved in needed]),
        },
        "accurate": max(errors) <= accuracy.tolerance_for("float32"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text.  Returns 1 where an answer misses the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--rounds", type=int, help="runs of each size, of which the least counts (default 7, smoke 2)")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/growth.json)")
    options = parser.parse_args(arguments)
    import lae_fast

    lae_fast.PCA(2, svd_solver="gram").fit(shapes.synthetic(200, 8)).transform(shapes.synthetic(200, 8))  # compiled
    found = harness.environment(("lae-fast", "numpy", "scipy", "numba"))
    rounds = options.rounds or (2 if options.smoke else 7)
    cases = []
    for name, (work, points) in series(options.smoke, found["cores_usable"]).items():
        cases.append(measured(name, work, points, rounds))
        print(growth_tables.row(cases[-1]), flush=True)
    payload = {
        "benchmark": "growth",
        "schema": harness.SCHEMA,
        "smoke": options.smoke,
        "environment": found,
        "settings": {"rounds": rounds},
        "cases": cases,
    }
    harness.write_json(options.out or machines.place("growth", options.smoke), payload)
    return 0 if all(case["accurate"] for case in cases) else 1


if __name__ == "__main__":
    raise SystemExit(main())
