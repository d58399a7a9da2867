"""The PCA benchmark: every contestant on every data set, answers checked first, runs interleaved.

    python -m benchmarks.pca [--smoke] [--only NAME] [--peers TEXT] [--routes] [--rounds N] [--budget S] [--out FILE]

Writes JSON (after every data set, so that a killed run keeps what it has) and prints a table for each. The exit status
is 1 when ours fails or misses the tolerance anywhere, 0 otherwise: speed never decides it.
"""

from __future__ import annotations

import argparse
import importlib
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.lib import first_call, harness, machines, peers, race, shapes

PACKAGES = (
    "lae-fast", "numpy", "scipy", "numba", "scikit-learn", "scikit-learn-intelex", "daal", "torch", "fbpca",
)  # fmt: skip


def run_case(
    case: shapes.Case,
    selection: list[peers.Peer],
    settings: dict[str, Any],
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Everything for one data set within about `seconds`."""
    started = time.perf_counter()
    say(f"\n{case.name}: {case.title}, {case.n_samples} x {case.n_features} {case.dtype}, p = {case.n_components}")
    try:
        X = case.load()
    except shapes.DataUnavailableError as error:
        say(f"  not run: {error}")
        return {**race.describe(case), "status": "not run", "reason": str(error), "contestants": []}
    if X.shape != case.shape or X.dtype != case.dtype:
        raise RuntimeError(f"{case.name} should be {case.shape} {case.dtype}, not {X.shape} {X.dtype}")
    X.flags.writeable = False  # a contestant that writes to its input is found out, not raced against
    run = race.CaseRun(case, X, selection, say)
    run.measure_ceilings(repeats=3)
    # Two thirds for the trials: the large shapes need that, the small ones leave it over for the rounds.
    run.try_all(deadline=started + 0.67 * seconds)
    left = max(started + seconds - time.perf_counter(), race.LEAST_RACE_S)
    run.race(settings["rounds"], left, settings["seed"], settings["settle_s"])
    run.profile()
    outcome = run.result()
    say("\n".join(table(outcome)))
    return outcome


def table(outcome: dict[str, Any]) -> list[str]:
    """A data set's contestants as aligned text, quickest first, the untimed ones below."""
    records = sorted(outcome["contestants"], key=lambda r: r["summary"].get("median", math.inf))
    lines = [
        "",
        f"{'contestant':36s} {'median s':>9s} {'min s':>9s} {'IQR s':>9s} {'n':>3s} {'residual':>9s} {'ours is':>9s}",
    ]
    for record in records:
        summary, residual = record["summary"], record["detail"].get("worst_residual")
        shown = f"{residual:9.1e}" if residual is not None else f"{'':9s}"
        if not summary:
            lines.append(f"{record['name']:36s} {record['status']}: {record['reason']}  {shown.strip()}".rstrip())
            continue
        ratio = outcome.get("speedup", {}).get(record["name"], {}).get("median")
        versus = f"{ratio:8.2f}x" if ratio else f"{'':9s}"
        remark = "" if record["accurate"] is not False else "  misses tolerance"
        lines.append(
            f"{record['name']:36s} {summary['median']:9.4f} {summary['min']:9.4f} {summary['iqr']:9.4f}"
            f" {summary['n']:3d} {shown} {versus}{remark}{'  ' + record['note'] if record['note'] else ''}"
        )
    if outcome.get("work"):
        done, best = outcome["work"], outcome["best_peer"]
        ratio = outcome["speedup"].get(best)
        lines.append(
            f"ours: {done['solver']}, {done['n_passes']} passes, {done['gflops']:.0f} GF/s,"
            f" {100 * done['ceiling_share']['median']:.0f} % of the {done['ceiling']} ceiling"
        )
        if ratio:
            lines.append(f"best accurate peer: {best}; ours is {ratio['median']:.2f}x as fast (IQR {ratio['iqr']:.2f})")
        profile = outcome["profile"]
        largest = ", ".join(f"{name} {100 * own / profile['seconds']:.0f} %" for name, own in profile["own"][:5])
        lines.append(f"certificate: {100 * profile['certificate_share']:.1f} % of a profiled fit; own times: {largest}")
    return lines


def select(cases: Iterable[shapes.Case], only: list[str] | None) -> list[shapes.Case]:
    """The cases whose name contains one of the given texts, all for none."""
    chosen = [case for case in cases if not only or any(text in case.name for text in only)]
    if not chosen:
        raise SystemExit(f"no data set is called {', '.join(only or [])}; known: {', '.join(c.name for c in cases)}")
    return chosen


def select_peers(names: list[str] | None, *, routes: bool = False) -> list[peers.Peer]:
    """Ours and the peers whose name contains one of the given texts, all for none."""
    found = peers.contestants(routes=routes)
    return [p for p in found if not names or p.kind in ("ours", "variant") or any(text in p.name for text in names)]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pca", description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny shapes: does everything run? Says nothing of speed")
    parser.add_argument("--only", action="append", metavar="NAME", help="data sets whose name holds NAME; repeatable")
    parser.add_argument("--peers", action="append", metavar="TEXT", help="peers whose name contains TEXT; repeatable")
    parser.add_argument("--routes", action="store_true", help="also force each of our routes")
    parser.add_argument("--rounds", type=int, help="most rounds a contestant gets (default 15, smoke 3)")
    parser.add_argument("--budget", type=float, help="seconds for all data sets (default 660, smoke 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the order within rounds")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/MACHINE/pca.json)")
    parser.add_argument("--list", action="store_true", help="print data sets and contestants, run nothing")
    options = parser.parse_args(arguments)
    cases = select(shapes.SMOKE if options.smoke else shapes.FULL, options.only)
    selection = select_peers(options.peers, routes=options.routes)
    if options.list:
        print("\n".join([*(c.name for c in cases), "", *(p.name for p in selection)]))
        return 0
    out = options.out or machines.place("pca", options.smoke)
    settings = {
        "rounds": options.rounds or (3 if options.smoke else 15),
        "budget_s": options.budget or (25.0 if options.smoke else 660.0),
        "seed": options.seed,
        "settle_s": 0.002 if options.smoke else 0.04,
        "oversamples": peers.OVERSAMPLES,
    }
    started = time.perf_counter()
    for module in {peer.module for peer in selection if peer.installed}:
        importlib.import_module(module)  # so that thread pools are recorded, and no import falls into a trial
    payload: dict[str, Any] = {
        "benchmark": "pca",
        "schema": harness.SCHEMA,
        "smoke": options.smoke,
        "environment": harness.environment(PACKAGES),
        "settings": settings,
        "cases": [],
    }
    if harness.is_busy(payload["environment"]):
        print(f"The machine is busy (load {payload['environment']['load_at_start']}): these times will say little.")
    if any(p.name == race.OURS and p.installed for p in selection):
        payload["first_call"] = {"warm_cache": first_call.measure()}
        if not options.smoke:
            payload["first_call"]["no_cache"] = first_call.measure(cached=False)
        print("\n".join(first_call.lines(payload["first_call"])))
    for index, case in enumerate(cases):
        weight = case.weight / sum(c.weight for c in cases[index:])
        # Imports, or compiling in the first case, must not leave the last one with nothing.
        seconds = max(8.0 if options.smoke else 6.0, weight * (settings["budget_s"] - (time.perf_counter() - started)))
        payload["cases"].append(run_case(case, selection, settings, seconds, say=partial(print, flush=True)))
        payload["seconds"] = round(time.perf_counter() - started, 1)
        harness.write_json(out, payload)
    print(f"\n{payload['seconds']:.0f} s; results in {out.resolve()}")
    return 1 if _ours_failed(payload["cases"]) else 0


def _ours_failed(outcomes: list[dict[str, Any]]) -> bool:
    mine = [r for outcome in outcomes for r in outcome["contestants"] if r["name"] == race.OURS]
    return any(r["status"] == harness.FAILED or r["accurate"] is False for r in mine)


if __name__ == "__main__":
    raise SystemExit(main())
