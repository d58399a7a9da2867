"""Do the bounds bound?  Hostile fits, their `residuals`, and the truth in extended precision.

    python -m benchmarks.certificate [--fits N] [--seed N] [--kinds NAME ...] [--out FILE]

Every fit draws data (benchmarks/lib/hostile.py), a shape, a dtype, weights, options, a route and a way in (an array, a
sparse matrix, `Moments` that were gathered in blocks, merged or saved), and compares each residual bound with the true
residual. Prints a table by kind, and what exceeded its bound with the number that draws it again (`--seed S --first N
--fits 1`). The exit status is 1 when a bound was exceeded.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from benchmarks.lib import harness, hostile
from lae_fast.data import sources
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.moments import Moments

# Where extended precision is no longer than float64, only float32 fits can be judged.
HAS_LONG = np.finfo(np.longdouble).nmant > 60
_WIDEST_MOMENTS = 400
# A bound is judged in extended precision where the truth in float64 may be off by this share of it.
_NEAR = 0.1
_DTYPES = ("float32", "float32", "float32", "float64", "float64", "int16", "uint8")


@dataclass
class Trial:
    """One fit: what was drawn, and how its bounds compare.  What the truth itself may be off by is taken off it.

    ratio : the largest true residual over its bound;  tightness : bound over truth, median over components
    refused : the message, where the library refused the data
    """

    number: int
    kind: str
    shape: tuple[int, int]
    dtype: str
    storage: str
    options: dict[str, Any]
    route: str = ""
    ratio: float = 0.0
    tightness: float = float("nan")
    converged: bool = True
    refused: str = ""

    @property
    def exceeded(self) -> bool:
        return not self.ratio <= 1.0

    def __str__(self) -> str:
        weighted = "weighted " if self.options.get("sample_weight") is not None else ""
        rest = {key: value for key, value in self.options.items() if key != "sample_weight"}
        return (
            f"{self.number}: {self.kind} {self.shape[0]}x{self.shape[1]} {self.dtype} {self.storage} {weighted}{rest} "
            f"by {self.route}: {self.ratio:.3g} of the bound"
        )


def draw(seed: int, number: int, kinds: tuple[str, ...] = ()) -> tuple[Trial, Any, np.ndarray]:
    """What is fitted: the trial, the data as they are handed in, and as an array."""
    rng = np.random.default_rng((seed, number))
    names = kinds or (*hostile.KINDS, "mixture", "mixture", "mixture")
    kind = str(rng.choice(names))
    m, d = _shape(rng)
    X = hostile.mixture(rng, m, d) if kind == "mixture" else hostile.KINDS[kind](rng, m, d)
    dtype = str(rng.choice(_DTYPES if HAS_LONG else [name for name in _DTYPES if name != "float64"]))
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.startswith("float"):
            X = X.astype(dtype)
        else:
            limits = np.iinfo(dtype)
            X = np.clip(np.round(X * rng.choice([1.0, 1.0, 30.0])), limits.min, limits.max).astype(dtype)
    options: dict[str, Any] = {"center": bool(rng.random() < 0.85)}
    if rng.random() < 0.3:
        options["sample_weight"] = hostile.weights(rng, m)
    if rng.random() < 0.2:
        options["standardize"] = True
    storage = str(rng.choice(["array", "array", "columns", "sparse", "blocks", "merged"]))
    if d > _WIDEST_MOMENTS and storage in ("blocks", "merged"):
        storage = "array"  # a d x d Gram would take minutes
    rank = min(m, d)
    options["p"] = int(rng.integers(1, rank + 1)) if rng.random() < 0.2 else int(min(rank, rng.integers(1, 12)))
    options["solver"] = "gram" if storage in ("blocks", "merged") else str(rng.choice(["auto", "gram", "krylov"]))
    data: Any = X
    if storage == "columns":
        data = np.asfortranarray(X)
    elif storage == "sparse":
        data = scipy.sparse.csr_matrix(X) if X.dtype.kind == "f" else scipy.sparse.csr_matrix(X.astype(np.float32))
    return Trial(number, kind, (m, d), dtype, storage, options), data, X


def _shape(rng: np.random.Generator) -> tuple[int, int]:
    """(m, d): from 2 x 1 to some thousand, tall, wide and nearly square."""
    low, high = np.log(2), np.log(8000)
    m = int(np.exp(rng.uniform(low, high)))
    widest = min(400, 600_000 // m)
    d = int(np.exp(rng.uniform(0, np.log(widest))))
    if rng.random() < 0.15:
        d = max(1, min(widest, m + int(rng.integers(-2, 3))))
    return (max(2, d), m) if rng.random() < 0.2 else (m, d)


def run(trial: Trial, data: Any, X: np.ndarray) -> Trial:
    """The trial, fitted and judged."""
    options = dict(trial.options)
    p, solver = options.pop("p"), options.pop("solver")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a residual is large is no fault: that it is larger than said would be
        try:
            if trial.storage in ("blocks", "merged"):
                moments = _moments(X, trial, options)
                pairs = top_eigenpairs(moments, p, standardize=options.get("standardize", False))
            else:
                pairs = top_eigenpairs(data, p, solver=solver, **options)
        except ValueError as error:
            trial.refused = str(error)
            return trial
    eps = float(np.finfo(sources.compute_dtype(data.dtype)).eps)
    truth, own = hostile.true_residuals(X, pairs.values, pairs.vectors, eps, **options)
    if HAS_LONG and (own > _NEAR * pairs.residuals).any():  # bytes are summed exactly, some float32 data in float64
        truth, own = hostile.true_residuals(X, pairs.values, pairs.vectors, eps, **options, exact=True)
    trial.route, trial.converged = pairs.solver, bool(pairs.converged.all())
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(truth > own, (truth - own) / pairs.residuals, 0.0)
        trial.tightness = float(np.median(pairs.residuals[truth > 0] / truth[truth > 0])) if (truth > 0).any() else 1.0
    trial.ratio = float(ratios.max(initial=0.0)) if np.isfinite(pairs.residuals).all() else float("inf")
    return trial


def _moments(X: np.ndarray, trial: Trial, options: dict[str, Any]) -> Moments:
    """Moments of the rows, block by block into one, or merged from two."""
    rng = np.random.default_rng(trial.number)
    weights = options.get("sample_weight")
    cuts = np.sort(rng.integers(0, len(X) + 1, rng.integers(1, 5)))
    parts = [part for part in np.split(np.arange(len(X)), cuts) if part.size]
    found = [Moments(X.shape[1], center=options["center"]) for _ in range(2 if trial.storage == "merged" else 1)]
    for part in parts:
        own = None if weights is None else weights[part]
        if own is None or own.any():
            found[rng.integers(len(found))].update(X[part], sample_weight=own)
    return found[0] if len(found) == 1 else found[0] + found[1]


def table(trials: list[Trial]) -> str:
    """Fits, refusals, exceeded bounds and tightness by kind."""
    groups: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[trial.kind].append(trial)
    lines = [f"{'kind':20} {'fits':>6} {'refused':>8} {'exceeded':>9} {'largest':>8} {'bound/truth':>12}"]
    groups["ordinary kinds"] = [trial for kind in hostile.ORDINARY for trial in groups[kind]]
    for kind in (*sorted(kind for kind in groups if groups[kind]), "all"):
        group = trials if kind == "all" else groups[kind]
        done = [trial for trial in group if not trial.refused]
        tight = np.median([trial.tightness for trial in done]) if done else float("nan")
        lines.append(
            f"{kind:20} {len(group):6} {len(group) - len(done):8} {sum(t.exceeded for t in done):9} "
            f"{max((t.ratio for t in done), default=0.0):8.3f} {tight:12.1f}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.certificate", description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=1000, help="how many fits (default 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first fit: to draw one again")
    parser.add_argument(
        "--kinds", nargs="+", default=(), choices=(*hostile.KINDS, "mixture"), help="data of these only"
    )
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args(arguments)
    trials: list[Trial] = []
    started = said = time.monotonic()
    for number in range(given.first, given.first + given.fits):
        trials.append(trial := run(*draw(given.seed, number, tuple(given.kinds))))
        if trial.exceeded:
            print(f"\nexceeded: {trial}", flush=True)
        if (now := time.monotonic()) - said > 5.0:
            said = now
            rate = len(trials) / (now - started)
            left = (given.fits - len(trials)) / rate
            print(f"\r{len(trials)} of {given.fits} fits, {rate:.0f}/s, {left:.0f} s left", end="", flush=True)
    print("\n" + table(trials))
    if given.out:
        rows = [
            {**vars(trial), "options": {k: v for k, v in trial.options.items() if k != "sample_weight"}}
            for trial in trials
        ]
        harness.write_json(given.out, {"seed": given.seed, "environment": harness.environment(), "fits": rows})
    return int(any(trial.exceeded for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
