"""Fits and transforms of small data against scikit-learn, in thousands of short interleaved rounds.

    python -m benchmarks.small [--smoke] [--threads N] [--seconds S] [--out FILE]

Where a fit takes some hundred microseconds, what counts is the work around the arithmetic.  scikit-learn is raced with
both of its solvers that are accurate for any data, and the quicker one whose answer passes is the peer.  Answers are
checked first (accuracy.py).  Rounds are short, and what is compared are lower quartiles: other work on the machine
delays some rounds, and hits all contestants alike.  With one thread the clock is that of the thread, which stands still
while others have the processor.  Imports NumPy, harness and accuracy; the contestants when they run.
"""

from __future__ import annotations

import argparse
import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .lib import accuracy, harness, machines

Clock = Callable[[], float]
SOLVERS = ("covariance_eigh", "full")
# Rows and features: of the data that most fits are of, and of those above a million entries.
FITS = ((50, 5), (200, 16), (1000, 50), (1797, 64), (20_000, 30), (5000, 100), (12_000, 100), (60_000, 64))
TRANSFORMS = ((1, 64), (50, 5), (200, 16), (1000, 50), (1797, 64), (20_000, 30), (5000, 100), (2000, 500))
SMOKE = ((50, 5), (200, 16))
MOST_COMPONENTS, FEWEST_ROWS = 10, 200
# A contestant that takes so many times as long as another one can win no race: its place is given to more rounds.
_HOPELESS = 4.0


def data(m: int, d: int) -> np.ndarray:
    """(m, d) float32: features of different sizes, with means of about a deviation."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((m, d)) * np.linspace(3.0, 0.5, d) + rng.standard_normal(d)).astype(np.float32)


def race(runs: Sequence[Callable[[], Any]], seconds: float, clock: Clock) -> list[list[float]]:
    """Times of each, one after the other in every round, until the time is over."""
    times: list[list[float]] = [[] for _ in runs]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not times[0]:
        for run, mine in zip(runs, times):
            began = clock()
            run()
            mine.append(clock() - began)
    return times


def fits(m: int, d: int, seconds: float, clock: Clock) -> dict[str, Any]:
    """Our fit against both of theirs: times, errors, and the ratio to the quicker accurate one."""
    import sklearn.decomposition

    import lae_fast

    X, p = data(m, d), min(MOST_COMPONENTS, d)
    models = {"lae_fast": lae_fast.PCA(p)} | {name: sklearn.decomposition.PCA(p, svd_solver=name) for name in SOLVERS}
    errors = {
        name: accuracy.measure(X, model.fit(X).explained_variance_, model.components_).worst
        for name, model in models.items()
    }
    limit = accuracy.tolerance_for(X.dtype)
    trial = {name: min(race([lambda model=model: model.fit(X)], 0.0, clock)[0]) for name, model in models.items()}
    least = min(seconds for name, seconds in trial.items() if name != "lae_fast" and errors[name] <= limit)
    raced = {
        name: model
        for name, model in models.items()
        if name == "lae_fast" or (errors[name] <= limit and trial[name] <= _HOPELESS * least)
    }
    found = race([lambda model=model: model.fit(X) for model in raced.values()], seconds, clock)
    return _case("fit", (m, d), p, dict(zip(raced, found))) | {
        "errors": errors,
        "accurate": errors["lae_fast"] <= limit,
    }


def transforms(m: int, d: int, seconds: float, clock: Clock) -> dict[str, Any]:
    """Our scores against theirs."""
    import sklearn.decomposition

    import lae_fast

    train, p = data(max(m, FEWEST_ROWS, 2 * d), d), min(MOST_COMPONENTS, d)
    X = train[:m]
    ours, theirs = lae_fast.PCA(p).fit(train), sklearn.decomposition.PCA(p, svd_solver="covariance_eigh").fit(train)
    exact = (X.astype(np.float64) - train.mean(axis=0, dtype=np.float64)) @ ours.components_.T.astype(np.float64)
    error = float(np.abs(ours.transform(X) - exact).max() / np.abs(exact).max())
    found = race([lambda: ours.transform(X), lambda: theirs.transform(X)], seconds, clock)
    times = dict(zip(("lae_fast", "covariance_eigh"), found))
    return _case("transform", (m, d), p, times) | {"errors": {"lae_fast": error}, "accurate": error <= 1e-5}


def _case(work: str, shape: tuple[int, int], p: int, times: dict[str, list[float]]) -> dict[str, Any]:
    quartiles = {name: float(np.quantile(mine, 0.25)) for name, mine in times.items()}
    peer = min((name for name in quartiles if name != "lae_fast"), key=quartiles.__getitem__)
    return {
        "work": work,
        "shape": list(shape),
        "n_components": p,
        "rounds": len(times["lae_fast"]),
        "lower_quartile_s": quartiles,
        "peer": peer,
        "ratio": quartiles[peer] / quartiles["lae_fast"],
    }


def crossover(cases: Sequence[dict[str, Any]], work: str) -> int | None:
    """Entries of the smallest data from which on no case of this work is lost; None where the largest is."""
    found = None
    for case in sorted((case for case in cases if case["work"] == work), key=lambda case: -np.prod(case["shape"])):
        if case["ratio"] < 1.0:
            break
        found = int(np.prod(case["shape"]))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text.  Returns 1 where an answer of ours misses the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.small", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two small shapes: does everything run?")
    parser.add_argument("--threads", type=int, help="threads of both libraries (default: what they take by themselves)")
    parser.add_argument("--seconds", type=float, help="for each race (default 5, smoke 0.2)")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/small.json)")
    options = parser.parse_args(arguments)
    from threadpoolctl import threadpool_limits

    import lae_fast

    seconds = options.seconds or (0.2 if options.smoke else 5.0)
    limits = contextlib.nullcontext() if options.threads is None else threadpool_limits(options.threads)
    lae_fast.PCA(2).fit(data(50, 5))  # compiled before the clock runs
    before = lae_fast.backend_info()["threads"]
    cases = []
    with limits, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if options.threads is not None:
            lae_fast.set_num_threads(options.threads)
        found = harness.environment(("lae-fast", "numpy", "scipy", "numba", "scikit-learn"))
        for run, shapes in ((fits, FITS), (transforms, TRANSFORMS)):
            for m, d in SMOKE if options.smoke else shapes:
                cases.append(run(m, d, seconds, time.thread_time if options.threads == 1 else time.perf_counter))
                print(_line(cases[-1]), flush=True)
        lae_fast.set_num_threads(None)
    if harness.is_busy(found):
        print(f"The machine is busy (load {found['load_at_start']}).")
    lost = [case for case in cases if case["ratio"] < 1.0]
    print("Lost: " + ("; ".join(map(_name, lost)) if lost else "none") + ".")
    payload = {
        "benchmark": "small",
        "schema": harness.SCHEMA,
        "smoke": options.smoke,
        "environment": found,
        "settings": {"threads": options.threads or before, "seconds": seconds},
        "cases": cases,
        "crossover": {work: crossover(cases, work) for work in ("fit", "transform")},
    }
    harness.write_json(options.out or machines.place("small", options.smoke), payload)
    return 0 if all(case["accurate"] for case in cases) else 1


def _name(case: dict[str, Any]) -> str:
    return f"{case['work']} {case['shape'][0]} x {case['shape'][1]} ({case['ratio']:.2f}x)"


def _line(case: dict[str, Any]) -> str:
    ours, theirs = (case["lower_quartile_s"][name] * 1e6 for name in ("lae_fast", case["peer"]))
    return (
        f"{_name(case):36s} {ours:9.0f} us against {theirs:9.0f} us ({case['peer']}, {case['rounds']} rounds, "
        f"error {case['errors']['lae_fast']:.0e})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
