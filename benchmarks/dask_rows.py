"""Rows on Dask: accuracy beside formulas without a shift, overhead, memory, scaling; what a large cluster would move.

`python -m benchmarks.dask_rows [--rows 1000] [--chunks 60]` prints Markdown.  An answer is checked before it is timed.
"""

from __future__ import annotations

import argparse
import math
import time
from functools import partial
from typing import Any

import numpy as np

import lae_fast as lf
from benchmarks.lib import memory

try:
    from dask_ml.decomposition import PCA as DASK_ML
except ImportError:
    DASK_ML = None

D, P, ROUNDS = 784, 20, 3
# Of the simulation: bytes a second of a network card, flops a second of a thread, seconds of a scheduler for a task.
NETWORK, FLOPS, DISPATCH = 1.25e9, 2e10, 2e-4
THREADS, FAN_IN = 8, 4


def rows(m: int, mean: float = 0.0, seed: int = 0, d: int = D) -> np.ndarray:
    """With variances that fall from 1 to 1e-4."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((m, d), np.float32) * np.geomspace(1.0, 1e-2, d, dtype=np.float32) + mean).astype("f4")


def unshifted(X: Any) -> np.ndarray:
    """Leading variances by E[XX] - E[X]E[X] in the dtype of the data, the formula of scanpy's PCA of Dask arrays."""
    import dask

    m = X.shape[0]
    gram, total = dask.compute(X.T @ X, X.sum(axis=0))
    mean = total / m
    return np.linalg.eigvalsh(gram / m - np.multiply.outer(mean, mean))[::-1][:P] * (m / (m - 1))


def accuracy(chunk_rows: int) -> None:
    """Worst relative error of P variances, and least CPU seconds of the process, all threads."""
    import dask
    import dask.array as da

    print(
        "| mean | lae_fast | E[XX] - E[X]E[X], float32 | dask_ml PCA | its svd_solver='full' |\n|---|---|---|---|---|"
    )
    for mean in (0.0, 1e2, 1e4):
        X = rows(8 * chunk_rows, mean, d=100)
        exact = np.linalg.eigvalsh(np.cov(X.astype(np.float64).T))[::-1][:P]
        cut = da.from_array(X, chunks=(chunk_rows, -1))
        contestants = {"lae_fast": partial(variances, lf.PCA(P), cut), "formula": partial(unshifted, cut)}
        if DASK_ML is not None:
            for solver in ("auto", "full"):
                contestants[f"dask_ml {solver}"] = partial(
                    variances, DASK_ML(P, svd_solver=solver, random_state=0), cut
                )
        errors = {name: np.abs(work() / exact - 1).max() for name, work in contestants.items()}
        with dask.config.set(scheduler="threads"):
            spent = cpu_seconds(contestants)
        cells = [f"{errors[name]:.0e}, {min(cpu for cpu, _ in spent[name]):.3f} s" for name in contestants]
        print(f"| {mean:g} | {' | '.join(cells)} |" + " not installed |" * 2 * (DASK_ML is None))


def variances(pca: Any, X: Any) -> np.ndarray:
    return pca.fit(X).explained_variance_


def cpu_seconds(contestants: dict[str, Any]) -> dict[str, list[tuple[float, float]]]:
    """(CPU, wall) seconds of each, in turn, ROUNDS times.  A busy machine changes CPU time less than wall time."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, work in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            spent[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return spent


def overhead(n_chunks: int, chunk_rows: int) -> None:
    import dask
    import dask.array as da

    X = rows(n_chunks * chunk_rows)
    cut = da.from_array(X, chunks=(chunk_rows, -1))
    whole = lf.PCA(P).fit(X)
    assert np.allclose(lf.PCA(P).fit(cut).components_, whole.components_, atol=1e-4)
    contestants = {
        "plain": lambda: lf.PCA(P).fit(X),
        "Dask, threads": lambda: lf.PCA(P).fit(cut),
        "Dask's own X.T @ X": lambda: (cut.T @ cut).compute(),
    }
    with dask.config.set(scheduler="threads"):
        spent = cpu_seconds(contestants)
    print(f"{n_chunks} chunks of {chunk_rows} x {D}: least CPU and wall seconds")
    for name, times in spent.items():
        print(f"- {name}: {min(cpu for cpu, _ in times):.3f}, {min(wall for _, wall in times):.3f}")


def scheduling(sizes: tuple[int, ...]) -> None:
    """CPU time of client and scheduler, which are one process here, for chunks that cost nothing."""
    import dask.array as da

    for n in sizes:
        X = da.zeros((2 * n, 4), chunks=(2, 4))
        lf.Moments.from_data(X)
        began = time.process_time()
        lf.Moments.from_data(X)
        ours = time.process_time() - began
        began = time.process_time()
        X.sum(split_every=FAN_IN).compute()
        theirs = time.process_time() - began
        ours, theirs = 1e3 * ours / n, 1e3 * theirs / n
        print(f"{n} chunks: {ours:.2f} ms a chunk of client and scheduler; X.sum() of Dask {theirs:.2f}")


def peak(dask_worker: Any) -> float:
    return memory.peak_resident() / 1e6


def scaling(n_chunks: int, chunk_rows: int) -> None:
    import dask
    import dask.array as da
    from distributed import Client, LocalCluster

    def made(count: int) -> Any:
        parts = [
            da.from_delayed(dask.delayed(rows)(chunk_rows, 3.0, number), (chunk_rows, D), np.float32)
            for number in range(count)
        ]
        return da.concatenate(parts)

    for workers in (1, 2):
        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            empty = max(client.run(peak).values())
            for name, count in (("strong", n_chunks), ("weak", n_chunks // 2 * workers)):
                X = made(count).persist()
                lf.PCA(P, svd_solver="gram").fit(X)
                walls = []
                for _ in range(3):
                    began = time.perf_counter()
                    lf.PCA(P, svd_solver="gram").fit(X)
                    walls.append(time.perf_counter() - began)
                print(f"{workers} workers, {name}, {count} chunks: {min(walls):.2f} s")
            print(f"{workers} workers: peak of a worker {max(client.run(peak).values()):.0f} MB, {empty:.0f} before")
            if workers == 2:
                scheduling((200, 1000))


def simulated(d: int, p: int, chunk_rows: int, chunks_a_thread: int) -> None:
    """What one pass moves and takes at the constants above: a fixed number of chunks for each thread."""
    b = p + 10
    print("| workers | chunks | levels | Gram: bytes into the busiest worker, s | Krylov pass, s | scheduler, s |")
    print("|---|---|---|---|---|---|")
    for workers in (10, 100, 1000):
        chunks = workers * THREADS * chunks_a_thread
        levels = math.ceil(math.log(chunks, FAN_IN))
        # Levels within a worker move nothing if neighbours lie together; scattered, every merge moves FAN_IN - 1 parts.
        merges = sum(math.ceil(chunks / FAN_IN**level) for level in range(1, levels + 1))
        moved = merges * (FAN_IN - 1) / workers
        square, panel = 8 * d * d, 8 * d * b
        gram = chunks_a_thread * chunk_rows * d * d / FLOPS
        krylov = chunks_a_thread * 4 * chunk_rows * d * b / FLOPS
        last = levels * (FAN_IN - 1)
        print(
            f"| {workers} | {chunks} | {levels} | {moved * square:.1e}, "
            f"{gram + (moved + last) * square / NETWORK:.1f} (flops {gram:.1f}) | "
            f"{krylov + (moved + last + math.log2(workers)) * panel / NETWORK:.2f} (flops {krylov:.2f}) | "
            f"{(chunks + merges) * DISPATCH:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="of a chunk")
    parser.add_argument("--chunks", type=int, default=60)
    parser.add_argument("--only", choices=("accuracy", "overhead", "scaling", "simulated"), default=None)
    asked = parser.parse_args()
    parts = {
        "accuracy": lambda: accuracy(asked.rows),
        "overhead": lambda: overhead(asked.chunks, asked.rows),
        "scaling": lambda: scaling(asked.chunks, asked.rows),
        "simulated": lambda: simulated(2000, 50, 10_000, 4),
    }
    for name, part in parts.items():
        if asked.only in (None, name):
            print(f"\n### {name}\n")
            part()


if __name__ == "__main__":
    main()
