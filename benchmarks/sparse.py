"""The sparse benchmark: uniform and power-law columns, answers checked first, runs interleaved.

    python -m benchmarks.sparse [--smoke] [--only NAME] [--rounds N] [--budget S] [--out FILE]

Centred (PCA) and uncentred (truncated SVD) methods are judged by the residuals of what each of them computes, and every
contestant must meet the same tolerance.  Ours races as PCA; peers that do not centre solve an easier problem, and their
note says so.  The peak memory of ours and of scikit-learn's PCA is taken in processes of their own.  The exit status
is 1 when ours fails or misses the tolerance.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from benchmarks.lib import harness, machines, memory

ROOT = Path(__file__).resolve().parents[1]
OURS = "lae_fast PCA"
PACKAGES = ("lae-fast", "numpy", "scipy", "numba", "scikit-learn")
TOLERANCE = 1e-4
SEED = 0


@dataclass(frozen=True)
class Case:
    """A sparse matrix: `kind` of columns, shape, density, components."""

    name: str
    kind: str
    m: int
    d: int
    density: float
    p: int
    limit_s: float = 120.0


FULL = [
    Case("uniform", "uniform", 200_000, 20_000, 0.005, 50),
    Case("power-law", "power-law", 200_000, 20_000, 0.005, 50),
]
SMOKE = [Case("uniform", "uniform", 2000, 600, 0.01, 5), Case("power-law", "power-law", 2000, 600, 0.01, 5)]


def matrix(kind: str, m: int, d: int, density: float, seed: int = 0) -> scipy.sparse.csr_array:
    """Topics: a row has one of 200, which prefers a tenth of the columns; float32 CSR.

    kind : "uniform", columns equally likely, or "power-law", column k with probability ~ 1 / k, shuffled.
    """
    rng = np.random.default_rng(seed)
    each = max(1, round(density * d))
    likely = np.ones(d) if kind == "uniform" else 1.0 / np.arange(1, d + 1)
    cumulative = np.cumsum(rng.permutation(likely / likely.sum()))
    n_topics, width = min(200, d // 3), max(1, d // 200)
    favourites = np.searchsorted(cumulative, rng.random((n_topics, width))).clip(max=d - 1)
    columns = np.searchsorted(cumulative, rng.random((m, each))).clip(max=d - 1)
    topic = np.minimum(rng.geometric(0.03, m) - 1, n_topics - 1)
    own = rng.random((m, each)) < 0.3
    columns[own] = favourites[np.repeat(topic, own.sum(axis=1)), rng.integers(0, width, int(own.sum()))]
    values = rng.random((m, each), dtype=np.float32) + np.float32(0.5)
    indptr = np.arange(m + 1, dtype=np.int64) * each
    X = scipy.sparse.csr_array((values.ravel(), columns.ravel().astype(np.int64), indptr), shape=(m, d))
    X.sum_duplicates()
    return scipy.sparse.csr_array((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)), shape=X.shape)


@dataclass
class Answer:
    """Eigenvalues of X'X (centred or not) and components (p, d); `info` is what the fit says of itself."""

    values: np.ndarray
    components: np.ndarray
    centred: bool
    info: dict[str, Any]


def ours(X: Any, p: int) -> Answer:
    import lae_fast

    model = lae_fast.PCA(p).fit(X)
    info = {"solver": model.solver_, "n_passes": int(model.n_passes_), "workspace_bytes": int(model.workspace_bytes_)}
    return Answer(model.singular_values_.astype(np.float64) ** 2, model.components_, True, info)


def ours_uncentred(X: Any, p: int) -> Answer:
    from lae_fast import top_eigenpairs

    found = top_eigenpairs(X, p, center=False)
    return Answer(found.values, found.vectors.T, False, {"solver": found.solver, "n_passes": found.n_passes})


def scikit_learn_pca(X: Any, p: int) -> Answer:
    from sklearn.decomposition import PCA

    model = PCA(p, svd_solver="arpack", random_state=SEED).fit(X)
    return Answer(model.singular_values_.astype(np.float64) ** 2, model.components_, True, {})


def truncated_svd(X: Any, p: int, *, algorithm: str, n_iter: int = 5) -> Answer:
    from sklearn.decomposition import TruncatedSVD

    model = TruncatedSVD(p, algorithm=algorithm, n_iter=n_iter, random_state=SEED).fit(X)
    return Answer(model.singular_values_.astype(np.float64) ** 2, model.components_, False, {})


def svds(X: Any, p: int, *, solver: str) -> Answer:
    from scipy.sparse.linalg import svds as scipy_svds

    _, singular, right = scipy_svds(X, k=p, solver=solver, random_state=SEED)
    order = np.argsort(singular)[::-1]
    return Answer(singular[order].astype(np.float64) ** 2, right[order], False, {})


CONTESTANTS: dict[str, tuple[Callable[..., Answer], str, str]] = {
    OURS: (ours, "ours", ""),
    "lae_fast, uncentred": (ours_uncentred, "variant", "not centred"),
    "scikit-learn PCA arpack": (scikit_learn_pca, "peer", ""),
    "scikit-learn TruncatedSVD arpack": (partial(truncated_svd, algorithm="arpack"), "peer", "not centred"),
    "scikit-learn TruncatedSVD randomized": (
        partial(truncated_svd, algorithm="randomized"), "peer", "not centred; n_iter=5, its default: more take longer",
    ),
    "scipy svds arpack": (partial(svds, solver="arpack"), "peer", "not centred"),
    "scipy svds propack": (partial(svds, solver="propack"), "peer", "not centred"),
}  # fmt: skip


def worst_residual(X: Any, answer: Answer) -> float:
    """max_i |S u_i - l_i u_i| / l_i in float64."""
    V = answer.components.T.astype(np.float64)
    double = X.astype(np.float64)
    mean = np.asarray(double.mean(axis=0)).ravel() if answer.centred else np.zeros(X.shape[1])
    Y = double @ V - mean @ V
    image = double.T @ Y - np.multiply.outer(mean, Y.sum(axis=0))
    return float((np.linalg.norm(image - V * answer.values, axis=0) / answer.values).max())


_CHILD = """
import json, sys
from benchmarks import sparse
from benchmarks.lib import memory
case = sparse.Case(**json.loads(sys.argv[2]))
X = sparse.matrix(case.kind, case.m, case.d, case.density)
fit = sparse.CONTESTANTS[sys.argv[1]][0]
fit(sparse.matrix(case.kind, 600, 200, 0.02), 3)
with memory.Peak() as peak:
    fit(X, case.p)
print(json.dumps({"peak_bytes": peak.above, "x_bytes": X.data.nbytes + X.indices.nbytes}))
"""


def peak_memory(name: str, case: Case, timeout_s: float = 600.0) -> dict[str, Any]:
    """Largest anonymous memory of a fit above what the process held before it; Linux only."""
    if not memory.measurable():
        return {"failed": "needs /proc"}
    try:
        printed = memory.run(name, json.dumps(vars(case)), code=_CHILD, timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {timeout_s:.0f} s"}
    except RuntimeError as error:
        return {"failed": str(error).splitlines()[-1][:200]}
    return json.loads(printed.splitlines()[-1])


def run_case(case: Case, settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Trials, the race and the memory of one matrix."""
    started = time.perf_counter()
    X = matrix(case.kind, case.m, case.d, case.density)
    print(f"\n{case.name}: {case.m} x {case.d}, {X.nnz} stored entries, p = {case.p}", flush=True)
    contestants, records = [], {}
    for name, (fit, kind, note) in CONTESTANTS.items():
        contestant = harness.Contestant(name, partial(fit, X, case.p), kind, note, compiles=kind != "peer")

        def check(answer: Answer) -> dict[str, Any]:
            residual = worst_residual(X, answer)
            return {"accurate": residual <= TOLERANCE, "worst_residual": residual, **answer.info}

        contestants.append(contestant)
        records[name] = record = harness.trial(contestant, check, limit_s=case.limit_s)
        shown = record.reason or f"{record.first_s:.3f} s, worst residual {record.detail['worst_residual']:.1e}"
        print(f"  {name:52s} {shown}{'' if record.accurate else '  misses tolerance'}", flush=True)
    ready = sorted(
        (r for r in records.values() if r.status == harness.READY),
        key=lambda r: (r.kind != "ours", not r.accurate, r.estimate_s),
    )
    left = max(2.0, started + seconds - time.perf_counter())
    harness.race(
        contestants, records, rounds=settings["rounds"], budget_s=left, priority=[r.name for r in ready],
        guaranteed=2, seed=settings["seed"],
    )  # fmt: skip
    memory = {name: peak_memory(name, case) for name in settings["memory"]}
    best, mine = harness.best_accurate(records.values()), records[OURS]
    ratios = {
        name: harness.summarise(harness.round_ratios(record, mine))
        for name, record in records.items()
        if record.times and name != OURS
    }
    for name, record in sorted(records.items(), key=lambda item: item[1].summary.get("median", np.inf)):
        if record.times:
            ratio = f"{ratios[name]['median']:7.2f}x" if ratios.get(name) else ""
            used = memory.get(name, {}).get("peak_bytes")
            held = f"{used / 1e6:8.0f} MB" if used is not None else ""
            if used is not None and "workspace_bytes" in record.detail:
                held += f", {used / record.detail['workspace_bytes']:.2f} of the stated workspace"
            print(f"  {name:52s} {record.summary['median']:9.3f} s {ratio:9s}{held} {record.note}")
    return {
        **vars(case), "nnz": int(X.nnz), "tolerance": TOLERANCE, "best_peer": best.name if best else None,
        "contestants": [record.as_dict() for record in records.values()], "speedup": ratios, "memory": memory,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny shapes: does everything run? Says nothing of speed")
    parser.add_argument("--only", action="append", metavar="NAME", help="cases whose name holds NAME; repeatable")
    parser.add_argument("--rounds", type=int, help="most rounds a contestant gets (default 7, smoke 3)")
    parser.add_argument("--budget", type=float, help="seconds for trials and rounds of all cases (default 1200)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/sparse.json)")
    options = parser.parse_args(arguments)
    cases = [
        c for c in (SMOKE if options.smoke else FULL) if not options.only or any(t in c.name for t in options.only)
    ]
    if not cases:
        raise SystemExit("no case has that name; known: uniform, power-law")
    out = options.out or machines.place("sparse", options.smoke)
    settings = {
        "rounds": options.rounds or (3 if options.smoke else 7),
        "budget_s": options.budget or (20.0 if options.smoke else 1200.0),
        "seed": options.seed,
        "memory": [OURS] if options.smoke else [OURS, "scikit-learn PCA arpack"],
    }
    import sklearn.decomposition  # noqa: F401 - so that thread pools are recorded

    import lae_fast.estimators.pca  # noqa: F401

    payload: dict[str, Any] = {
        "benchmark": "sparse", "schema": harness.SCHEMA, "smoke": options.smoke,
        "environment": harness.environment(PACKAGES), "settings": settings, "cases": [],
    }  # fmt: skip
    for case in cases:
        payload["cases"].append(run_case(case, settings, settings["budget_s"] / len(cases)))
        harness.write_json(out, payload)
    mine = [r for case in payload["cases"] for r in case["contestants"] if r["name"] == OURS]
    return 1 if any(r["status"] == harness.FAILED or not r["accurate"] for r in mine) else 0


if __name__ == "__main__":
    raise SystemExit(main())
