"""IncrementalPCA on a stream of images against scikit-learn's, interleaved, each answer checked first.

    python -m benchmarks.incremental [--smoke] [--batch N] [--rounds N] [--budget S] [--seed N] [--out FILE]

Every contestant calls `partial_fit` once a batch and reads its components at the end (ours computes them then; the
variant reads them after every batch).  The error is the worst |l_i - true l_i| / true l_i over the components, the
truth being float64 LAPACK on all rows.  Theirs is approximate by design, so it is raced whatever its error, and the
ratio stands beside both errors.  Imports NumPy, harness and shapes; the contestants' libraries when they run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .lib import harness, machines, shapes

OURS, PEER = "lae_fast", "scikit-learn"
# What ours must meet; theirs has no tolerance to meet.
TOLERANCE = 1e-4


def true_variances(X: np.ndarray, p: int) -> np.ndarray:
    """The p largest eigenvalues of the covariance, float64."""
    return np.linalg.eigvalsh(np.cov(X.astype(np.float64).T))[::-1][:p]


def contestants(X: np.ndarray, p: int, batch: int) -> list[harness.Contestant]:
    """Ours, ours with components after every batch, and scikit-learn's."""
    import sklearn.decomposition

    import lae_fast

    def stream(make: Callable[[], Any], read: bool = False) -> Callable[[], Any]:
        def run() -> Any:
            model = make()
            # as scikit-learn does: a last batch of fewer rows than components joins the one before
            starts = [start for start in range(0, len(X), batch) if not start or len(X) - start >= p]
            for start, stop in zip(starts, [*starts[1:], len(X)]):
                model.partial_fit(X[start:stop])
                if read:
                    _ = model.components_
            _ = model.components_
            return model

        return run

    def ours() -> Any:
        return lae_fast.IncrementalPCA(p)

    return [
        harness.Contestant(OURS, stream(ours), "ours", compiles=True),
        harness.Contestant("lae_fast, components after every batch", stream(ours, True), "variant", compiles=True),
        harness.Contestant(PEER, stream(lambda: sklearn.decomposition.IncrementalPCA(p)), note="approximate"),
    ]


def run(X: np.ndarray, p: int, batch: int, settings: dict[str, Any]) -> list[harness.Record]:
    """Trial with the check of the answer, then the race."""
    truth = true_variances(X, p)

    def check(model: Any) -> dict[str, Any]:
        error = float(np.max(np.abs(model.explained_variance_.astype(np.float64) - truth) / truth))
        return {"accurate": error <= TOLERANCE, "variance_error": error}

    chosen = contestants(X, p, batch)
    records = {c.name: harness.trial(c, check) for c in chosen}
    # the comparison before the variant, which a small budget may leave out
    harness.race(chosen, records, priority=sorted(records, key=lambda name: name not in (OURS, PEER)), **settings)
    return list(records.values())


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text.  Returns 1 where ours failed or misses the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="digits in batches of 100: does everything run?")
    parser.add_argument("--batch", type=int, help="rows a batch (default 500, smoke 100)")
    parser.add_argument("--rounds", type=int, help="most rounds a contestant gets (default 9, smoke 3)")
    parser.add_argument("--budget", type=float, help="seconds for the race (default 400, smoke 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/incremental.json)")
    options = parser.parse_args(arguments)
    name, p = ("digits", 10) if options.smoke else ("MNIST", 20)
    try:
        X = shapes.digits() if options.smoke else shapes.images("mnist")
    except shapes.DataUnavailableError as error:
        print(error)
        return 1
    batch = options.batch or (100 if options.smoke else 500)
    settings = {
        "rounds": options.rounds or (3 if options.smoke else 9),
        "budget_s": options.budget or (20.0 if options.smoke else 400.0),
        "seed": options.seed,
        "settle_s": 0.002 if options.smoke else 0.04,
    }
    found = harness.environment(("lae-fast", "numpy", "scipy", "numba", "scikit-learn"))
    if harness.is_busy(found):
        print(f"The machine is busy (load {found['load_at_start']}): these times will say little.")
    records = run(X, p, batch, settings)
    by_name = {record.name: record for record in records}
    ratios = harness.round_ratios(by_name[PEER], by_name[OURS])
    payload = {
        "benchmark": "incremental",
        "schema": harness.SCHEMA,
        "smoke": options.smoke,
        "environment": found,
        "settings": settings,
        "data": {"name": name, "shape": list(X.shape), "dtype": X.dtype.name, "n_components": p, "batch": batch},
        "contestants": [record.as_dict() for record in records],
        "speedup": harness.summarise(ratios),
    }
    out = options.out or machines.place("incremental", options.smoke)
    harness.write_json(out, payload)
    print(f"{name} {X.shape[0]} x {X.shape[1]} {X.dtype}, {p} components, batches of {batch}")
    for record in records:
        seconds = f"{record.summary['median']:8.3f} s" if record.times else f"{record.status}: {record.reason}"
        print(
            f"{record.name:42s} {seconds}  worst error of a variance {record.detail.get('variance_error', np.nan):.1e}"
        )
    if ratios:
        print(f"{OURS} is {payload['speedup']['median']:.2f}x as fast as {PEER} (median of the ratios in a round)")
    return 0 if by_name[OURS].accurate else 1


if __name__ == "__main__":
    raise SystemExit(main())
