"""One data set of the PCA benchmark: contestants are tried, checked, tuned, and the accurate ones raced."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import ceilings
from benchmarks.lib import accuracy, harness, peers, profiling, shapes
from lae_fast import plan

OURS = "lae_fast"
BLAS = "BLAS alone"

# A predicted time is good to a factor of two, so only clear cases are not even started.
_PREDICTED_LIMIT = 1.5
# However long the trials took, contestants this quick still race.
LEAST_RACE_S = 2.0
_MOST_ITERATIONS = 200

_square_gemm = functools.cache(ceilings.square_gemm)
_parallel_read = functools.cache(ceilings.parallel_read)


def tune(
    answer_with: Callable[[int], Any],
    worst_residual: Callable[[Any], float],
    tolerance: float,
    start: int,
    *,
    limit_s: float,
    most: int = _MOST_ITERATIONS,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[int | None, str]:
    """Fewest iterations (nearly) with which a randomised method meets the tolerance.

    The residual of subspace iteration falls geometrically, so two runs give the rate, and the next try is where that
    line crosses the tolerance. When that overshoots, the crossing between the last failure and the success is tried
    too: a peer is not to be charged for iterations that it does not need. At most eight runs.

    Returns
    -------
    iterations : int or None
        None where the tolerance was not reached.
    reason : str
        Why not; empty otherwise.
    """
    failed: list[tuple[int, float]] = []
    enough: int | None = None
    iterations = start
    for _ in range(8):
        begin = clock()
        answer = answer_with(iterations)
        seconds = clock() - begin
        residual = worst_residual(answer)
        if residual <= tolerance:
            enough = iterations
            low = failed[-1][0] if failed else 0
            between = _crossing([failed[-1], (enough, residual)], tolerance) if failed else enough
        else:
            if enough is None and failed and residual > 0.95 * failed[-1][1]:
                return None, f"stagnates: residual {residual:.0e} after {iterations} iterations"
            failed.append((iterations, residual))
            low = iterations
            between = (low + enough + 1) // 2 if enough else 0
        if enough is not None:
            iterations = max(between, low + 1)
            if iterations >= enough or enough - low <= max(1, enough // 10):
                return enough, ""
            continue
        # The decay is slow at first, so its first rate may point far too far.
        proposed = min(_crossing(failed[-2:], tolerance), 3 * iterations)
        if seconds / iterations * proposed > limit_s:
            return None, f"about {proposed} iterations would take {seconds / iterations * proposed:.0f} s"
        if proposed > most:
            return None, f"more than {most} iterations needed"
        iterations = proposed
    if enough is not None:
        return enough, ""
    return None, f"residual {failed[-1][1]:.0e} after {failed[-1][0]} iterations"


def _crossing(points: list[tuple[int, float]], tolerance: float) -> int:
    """Where the geometric decay through two points reaches the tolerance; from one point, twice as many iterations."""
    before, earlier = points[0]
    last, residual = points[-1]
    if len(points) < 2 or not (math.isfinite(earlier) and residual > 0):
        return 2 * last
    rate = math.log(earlier / residual) / (last - before)
    return max(before + 1, math.ceil(before + 1.05 * math.log(earlier / tolerance) / rate))


class CaseRun:
    """One data set: prepares the contestants, judges their answers, lets them race, and describes the outcome."""

    def __init__(self, case: shapes.Case, X: np.ndarray, selection: list[peers.Peer], say: Callable[[str], None]):
        self.case, self.X, self.selection, self.say = case, X, selection, say
        self.tolerance = accuracy.tolerance_for(case.dtype)
        self.mean = accuracy.column_means(X)
        self.contestants: list[harness.Contestant] = []
        self.records: dict[str, harness.Record] = {}
        self.found: dict[str, accuracy.Accuracy] = {}
        self.profiled: dict[str, Any] | None = None

    def measure_ceilings(self, repeats: int) -> None:
        # The block is ours, of dense rows in memory.
        block = plan.narrow_block(min(self.case.n_components + peers.OVERSAMPLES, *self.X.shape), False)
        self.ceilings = ceilings.measure(
            self.X, block, repeats=repeats, square=_square_gemm(self.case.dtype), read=_parallel_read()
        )

    def try_all(self, deadline: float) -> None:
        """One checked run each; ours comes first, and what comes after the deadline is skipped."""
        for peer in self.selection:
            record = self._try(peer, deadline)
            self.records[peer.name] = record
            self.say(f"  {peer.name:36s} {_trial_line(record)}")
        self._judge()
        self._admit_best_peer()
        self._enter_ceiling()

    def _admit_best_peer(self) -> None:
        """Where the limit stopped every accurate peer, the quickest of them races all the same: there must be one."""
        accurate = [r for r in self.records.values() if r.kind in ("peer", "reference") and r.accurate]
        if accurate and not any(r.status == harness.READY for r in accurate):
            best = min(accurate, key=lambda r: r.estimate_s)
            best.status, best.reason = harness.READY, ""

    def _enter_ceiling(self) -> None:
        """Let BLAS alone race too, doing what our route is made of."""
        mine = self.records.get(OURS)
        if mine is None or mine.status != harness.READY:
            return
        if "gram" in mine.detail["solver"]:
            run, self.blas_flops = ceilings.gram_alone(self.X)
        else:
            run, self.blas_flops = ceilings.pass_alone(self.X, self.ceilings.block)
        what = "SYRK" if "gram" in mine.detail["solver"] else "one pass"
        contestant = harness.Contestant(BLAS, run, "ceiling", f"{what}, {self.blas_flops:.1e} flops")
        self.contestants.append(contestant)
        self.records[BLAS] = harness.trial(contestant)

    def _try(self, peer: peers.Peer, deadline: float) -> harness.Record:
        case = self.case
        blank = harness.Record(peer.name, peer.kind, peer.note)
        reason = self._reason_not_to_start(peer)
        if not peer.installed:
            blank.status, reason = harness.NOT_INSTALLED, f"module {peer.module} was not found"
        elif not reason and not (peer.essential or peer.kind == "ours") and time.perf_counter() > deadline:
            reason = "the time of this data set was spent before its first run"
        if reason:
            blank.reason = reason
            if blank.status == harness.READY:
                blank.status = harness.SKIPPED
            return blank
        fit = partial(peer, self.X, case.n_components)
        note = peer.note
        if peer.tune_from is not None:
            iterations, failure = self._tuned(peer, fit)
            if iterations is None:
                blank.status, blank.reason, blank.accurate = harness.SKIPPED, failure, False
                return blank
            fit = partial(fit, iterations)
            note = "; ".join(text for text in (f"{iterations} iterations", note) if text)
        compiles = peer.kind in ("ours", "variant")
        contestant = harness.Contestant(peer.name, fit, peer.kind, note, compiles=compiles)
        self.contestants.append(contestant)
        return harness.trial(contestant, partial(self._check, peer.name), limit_s=case.limit_s)

    def _tuned(self, peer: peers.Peer, fit: Callable[[int], peers.Answer]) -> tuple[int | None, str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return tune(
                    fit,
                    lambda answer: self._measure(answer).worst,
                    self.tolerance,
                    peer.tune_from,
                    limit_s=self.case.limit_s,
                )
            except harness.FAILURES as error:
                return None, f"failed while it was tuned: {type(error).__name__}"

    def _reason_not_to_start(self, peer: peers.Peer) -> str:
        question = (*self.case.shape, self.case.n_components)
        twin = peer.same_as(*question) if peer.same_as else ""
        if any(other.name == twin for other in self.selection):
            return f"runs the code of {twin} for this shape: see there"
        if peer.cost is None:
            return ""
        seconds = peer.cost(*question) / (self.ceilings.square_gflops * 1e9)
        if seconds <= _PREDICTED_LIMIT * self.case.limit_s:
            return ""
        return f"not started: one run would take about {_round(seconds)} s, the limit is {self.case.limit_s:.0f} s"

    def _measure(self, answer: peers.Answer) -> accuracy.Accuracy:
        return accuracy.measure(self.X, answer.values, answer.components, self.mean)

    def _check(self, name: str, answer: peers.Answer) -> dict[str, Any]:
        found = self.found[name] = self._measure(answer)
        detail = {
            "accurate": found.meets(self.tolerance) and len(answer.values) == self.case.n_components,
            "worst_residual": found.worst,
            "orthogonality": found.orthogonality,
            **{key: value for key, value in answer.info.items() if key != "certificate"},
        }
        certificate = answer.info.get("certificate")
        if certificate is not None:
            certificate = np.asarray(certificate, dtype=np.float64)
            # The certificate is over max(l_i, eps l_1), the measured one over l_i, so this asks no less than it says.
            # The measurement itself rounds in float64.
            detail["certificate"] = float(certificate.max(initial=0.0))
            detail["certificate_holds"] = bool((certificate + 1e-13 >= 0.999 * found.residuals).all())
        return detail

    def _judge(self) -> None:
        """Nobody is accurate who missed a larger eigenpair that another contestant has."""
        for name, mine in self.found.items():
            record = self.records[name]
            record.detail["missed"] = accuracy.missed(mine, self.found.values(), self.tolerance)
            record.accurate = bool(record.accurate and not record.detail["missed"])

    def race(self, rounds: int, budget_s: float, seed: int, settle_s: float) -> None:
        """Time those that are ready, in about `budget_s` seconds."""
        # When time is short: ours, the ceiling, the accurate peers from the quickest on, our variants, the others.
        kinds = {"ours": 0, "ceiling": 1, "variant": 3}
        ready = [r for r in self.records.values() if r.status == harness.READY]
        ready.sort(key=lambda r: (kinds.get(r.kind, 2 if r.accurate else 4), r.estimate_s))
        harness.race(
            self.contestants,
            self.records,
            rounds=rounds,
            budget_s=budget_s,
            priority=[r.name for r in ready],
            guaranteed=3,
            seed=seed,
            settle_s=settle_s,
        )

    def profile(self) -> None:
        """Where the time of our fit goes, from a run of its own, so that no timed run carries the profiler."""
        mine = next((c for c in self.contestants if c.name == OURS), None)
        if mine is not None and self.records[OURS].times:
            self.profiled = profiling.profile_fit(mine.run, repeats=3 if self.records[OURS].estimate_s < 1.0 else 1)

    def result(self) -> dict[str, Any]:
        """All of it as plain data."""
        case = self.case
        outcome: dict[str, Any] = {
            **describe(case),
            "status": "done",
            "tolerance": self.tolerance,
            "ceilings": self.ceilings.as_dict(),
            "contestants": [record.as_dict() for record in self.records.values()],
        }
        best = harness.best_accurate(self.records.values())
        outcome["best_peer"] = best.name if best else None
        mine = self.records.get(OURS)
        if mine is not None and mine.times:
            outcome["work"] = work(mine, self.records[BLAS], self.blas_flops, case, self.ceilings)
            outcome["profile"] = self.profiled
            outcome["speedup"] = {
                name: harness.summarise(harness.round_ratios(record, mine))
                for name, record in self.records.items()
                if record.times and name not in (OURS, BLAS)
            }
        return outcome


def describe(case: shapes.Case) -> dict[str, Any]:
    """The fields of a case that a table needs."""
    return {
        "name": case.name,
        "title": case.title,
        "m": case.n_samples,
        "d": case.n_features,
        "dtype": case.dtype,
        "p": case.n_components,
        "aim": case.aim,
        "limit_s": case.limit_s,
    }


def needed_flops(solver: str, n_passes: int, case: shapes.Case, block: int, long: bool = False) -> tuple[float, float]:
    """Flops of the route: of the Gram matrix, and of the products with blocks of vectors.

    The Gram route counts one SYRK of the short side, the Krylov route 4 m d b for each pass with a block of b columns.
    Passes that refine p vectors count 4 m d p; for wide data the one that carries them from the samples to the features
    is half of that.  long : the iteration was on vectors of the features themselves, so that nothing is carried
    """
    narrow = ceilings.pass_flops(*case.shape, case.n_components)
    carrying = 0.5 * narrow if case.n_samples < case.n_features and not long else 0.0
    if "gram" in solver:
        return ceilings.gram_flops(*case.shape), max(0.0, (n_passes - 1) * narrow - carrying)
    full = n_passes - 2 if carrying else n_passes
    return 0.0, full * ceilings.pass_flops(*case.shape, block) + (n_passes - full) * narrow - carrying


def work(
    mine: harness.Record, blas: harness.Record, blas_flops: float, case: shapes.Case, limits: ceilings.Ceilings
) -> dict[str, Any]:
    """What our fit had to compute, at which rate it did, and the share of the ceiling.

    The share is the time that BLAS alone would need for the same flops over the time of the fit, round by round: BLAS
    runs as a contestant (`blas`, with `blas_flops` a run), so that a drift of the machine hits both. On the Gram route
    the few flops that are not SYRK are converted with the rates in `limits`.
    """
    solver, passes = mine.detail.get("solver", ""), int(mine.detail.get("n_passes", 0))
    long = "vectors of length n_features" in mine.detail.get("route_reason", "")
    squares, products = needed_flops(solver, passes, case, limits.block, long)
    equivalent = squares + products * (limits.syrk_gflops / limits.gemm_gflops) if squares else products
    shares = [equivalent / blas_flops * ratio for ratio in harness.round_ratios(blas, mine)]
    return {
        "solver": solver,
        "n_passes": passes,
        "flops": squares + products,
        "gflops": (squares + products) / mine.summary["median"] / 1e9,
        "ceiling": "SYRK" if squares else f"GEMM with {limits.block} columns",
        "ceiling_share": harness.summarise(shares),
    }


def _trial_line(record: harness.Record) -> str:
    if record.status != harness.READY:
        return f"{record.status}: {record.reason}"
    met = "" if record.accurate else ", misses tolerance"
    return f"{record.first_s:8.3f} s, worst residual {record.detail['worst_residual']:.1e}{met}"


def _round(seconds: float) -> int:
    """Two digits: more would pretend to know."""
    digits = max(0, len(str(int(seconds))) - 2)
    return int(round(seconds, -digits))
