"""Ordered costs MSE: one iteration of the ordered loss beside one of the squared error, for every latent width.

    python -m benchmarks.ordered [--smoke] [--pairs N] [--out FILE]

For p = 5 to 1000 at d = 1000, on moments and on batches of rows, with plain steps and with Adam. The ordered loss runs
in lae_fast's loop. It is compared with the squared error in the same loop, which shows what the mask costs, and with
`mse_kernel`, a program of its own that knows nothing but the squared error, which shows what it costs that the loop
knows other losses and rules as well. Answers are checked first. All run on one thread and are timed by that thread's
own clock, so that other work on the machine does not count; ratios are of lower quartiles over many short rounds, with
bootstrap intervals (lib/paired.py). Writes JSON and a plot, prints tables. About six minutes on an idle core; the exit
status is 1 when an answer is wrong, never because of a speed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import lae_fast
from benchmarks.lib import harness, machines, ordered_tables, paired, training_steps
from lae_fast.backends.threads import Team

PACKAGES = ("lae-fast", "numpy", "scipy", "numba")
WIDTHS = (5, 10, 20, 50, 100, 200, 500, 1000)
DIMENSION = 1000
ROWS = 4096
KINDS = tuple((regime, step) for regime in ("moments", "rows") for step in ("gradient", "adam"))
NAMES = ("kernel", "mse", "ordered")  # the last two in lae_fast's loop
_SAMPLE_S = 0.008
# Where a sample takes longer, the pairs of a width are shared out to its four kinds.
_LONG_S = 0.03
_PLACEMENTS, _LEAST_ROUNDS = 12, 6
_DRAWS = 2000


def contestants(p: int, kind: tuple[str, str], data: Any, n: int, open_teams: contextlib.ExitStack) -> dict[str, Any]:
    """The three of `NAMES`, ready for `n` iterations, in memory of their own."""
    x, moments, rows = data
    regime, step = kind
    described = moments if regime == "moments" else rows
    batch, adam = min(training_steps.BATCH, len(x)), step == "adam"
    index = np.zeros((1, 0), np.int64) if regime == "moments" else training_steps.batches(rows, n, batch)
    stack = training_steps.start(p, x.shape[1])
    made: dict[str, Any] = {
        name: training_steps.LoopStep(described, *training_steps.IN_THE_LOOP[name], stack, n, adam, batch)
        for name in ("mse", "ordered")
    }
    for loop in made.values():
        open_teams.enter_context(loop.engine)
    team = open_teams.enter_context(Team(1))
    return {"kernel": training_steps.MseStep(team, described, stack, index, x, adam), **made}


def check(p: int, kind: tuple[str, str], data: Any) -> dict[str, bool]:
    """Who moves the weights by the gradient; also compiles what the race needs."""
    x, moments, rows = data
    described = moments if kind[0] == "moments" else rows
    with contextlib.ExitStack() as open_teams:
        plain = contestants(p, (kind[0], "gradient"), data, 1, open_teams)
        index = np.zeros((1, 0), np.int64)
        if kind[0] == "rows":
            index = training_steps.batches(rows, 1, min(training_steps.BATCH, len(x)))
        sxx = training_steps.second_moments(described, x, index)
        right = {}
        for name, step in plain.items():
            rule, loss = training_steps.IN_THE_LOOP["mse" if name == "kernel" else name]
            right[name] = training_steps.is_right(step, rule, loss, sxx)
        return right


def measure(p: int, kind: tuple[str, str], data: Any, n: int, placements: int, n_rounds: int) -> np.ndarray:
    """Seconds of an iteration, (placements, rounds, contestants), less what a call without an iteration takes.

    Those calls run among the others: on their own they would find Python's objects in cache, and take a seventh. One of
    lae_fast's loop takes the same for both losses, so their mean is taken off both.
    """
    seconds = np.empty((placements, n_rounds, len(NAMES)))
    rng = np.random.default_rng(2)
    for place in range(placements):
        # Of another size each time, so that the contestants lie elsewhere.
        between = [np.empty(int(size), np.uint8) for size in rng.integers(1, 1 << 18, size=4)]
        with contextlib.ExitStack() as open_teams:
            made = contestants(p, kind, data, n, open_teams)
            work = [partial(made[name].run, count) for count in (n, 0) for name in NAMES]
            paired.rounds(work, 2, time.thread_time)
            found, idle = np.split(paired.rounds(work, n_rounds, time.thread_time), 2, axis=1)
            spent = np.percentile(idle, 25, axis=0)
            spent[1:] = spent[1:].mean()
            seconds[place] = (found - spent) / n
        del between
    return seconds


def one_case(p: int, kind: tuple[str, str], data: Any, options: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A row of the result, and the bootstrap draws of its two ratios."""
    right = check(p, kind, data)
    with contextlib.ExitStack() as open_teams:
        made = contestants(p, kind, data, 1, open_teams)
        once = float(paired.rounds([partial(made["ordered"].run, 1)], 3, time.thread_time).min())
    n = max(1, round(_SAMPLE_S / once))
    pairs = options.pairs if n * once < _LONG_S else -(-options.pairs // len(KINDS))
    n_rounds = max(_LEAST_ROUNDS, -(-pairs // _PLACEMENTS))
    placements = -(-pairs // n_rounds)
    seconds = measure(p, kind, data, n, placements, n_rounds)
    rng = np.random.default_rng(3)
    mine = seconds[:, :, NAMES.index("ordered")]
    drawn = {name: paired.draws(mine, seconds[:, :, NAMES.index(name)], _DRAWS, rng) for name in ("mse", "kernel")}
    d = data[0].shape[1]
    batch = None if kind[0] == "moments" else min(training_steps.BATCH, len(data[0]))
    return {
        "d": d, "p": p, "regime": kind[0], "step": kind[1], "iterations_per_sample": n, "correct": right,
        "pairs": placements * n_rounds, "placements": placements,
        "us": {name: 1e6 * float(np.percentile(seconds[:, :, k], 25)) for k, name in enumerate(NAMES)},
        "counts": training_steps.counts(p, d, batch, kind[1]),
        "ratio": {name: paired.ratio(values) for name, values in drawn.items()},
    }, drawn  # fmt: skip


def summary(cases: list[dict[str, Any]], drawn: dict[tuple[int, str, str], dict[str, np.ndarray]]) -> dict[str, Any]:
    """For each reference: the ratio at each width, over the kinds of iteration, and its slope over log10 p."""
    widths = sorted({case["p"] for case in cases})
    found: dict[str, Any] = {}
    for name in ("mse", "kernel"):
        pooled = np.stack([np.mean([drawn[p, *kind][name] for kind in KINDS], axis=0) for p in widths])
        found[name] = {
            "by_width": {str(p): paired.ratio(values) for p, values in zip(widths, pooled)},
            "slope": paired.slope(widths, pooled),
        }
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ordered", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny, to see that everything runs; numbers mean nothing")
    parser.add_argument("--pairs", type=int, default=300, help="rounds for each width and kind (default %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/ordered.json)")
    options = parser.parse_args(argv)
    began = time.perf_counter()
    if options.smoke:
        options.pairs = 1
    out = options.out or machines.place("ordered", options.smoke)
    payload: dict[str, Any] = {
        "schema": harness.SCHEMA, "benchmark": "ordered", "smoke": options.smoke,
        "environment": harness.environment(PACKAGES),
    }  # fmt: skip
    lae_fast.set_num_threads(1)
    cases, drawn = [], {}
    try:
        data = training_steps.prepare(96 if options.smoke else DIMENSION, 256 if options.smoke else ROWS)
        for p in (5, 20) if options.smoke else WIDTHS:
            for kind in KINDS:
                case, drawn[p, *kind] = one_case(p, kind, data, options)
                cases.append(case)
                print(ordered_tables.full(cases[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    finally:
        lae_fast.set_num_threads(None)
    payload |= {"cases": cases, "summary": summary(cases, drawn), "seconds": round(time.perf_counter() - began, 1)}
    harness.write_json(out, payload)
    print("\n".join([*ordered_tables.summary(payload), "", ordered_tables.full(cases)]))
    ordered_tables.plot(payload, out.with_suffix(".svg"))
    print(f"\n{payload['seconds']:.0f} s; results in {out.resolve()}, plot in {out.with_suffix('.svg').name}")
    return 0 if all(all(case["correct"].values()) for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
