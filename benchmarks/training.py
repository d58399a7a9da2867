"""Speed of training: one iteration of the ordered loss by lae_fast and by PyTorch, on moments and on samples.

    python -m benchmarks.training [--smoke] [--rounds N] [--budget S] [--out FILE]
    python -m benchmarks.training --truth [--smoke] [--seeds N] [--out FILE]

Ours against PyTorch eager and torch.compile (where it runs), both with fused Adam and the ordered loss in its cheapest
form (one masked p x p matrix, not p forward passes), on the same moments, on all samples, and on mini-batches; and
against the bare GEMMs of the same products by NumPy. Gradients are checked against float64 first, runs interleaved.
The exit status is 1 when an answer is wrong, never because of a speed.  With --truth nothing is timed: see
convergence.py.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import convergence
from benchmarks.lib import harness, machines, tables
from lae_fast import datasets, losses, optimizers, rules
from lae_fast.data.sources import as_source
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from lae_fast.training.cpu_loop import CpuLoopEngine
from lae_fast.training.engine import Recipe

PACKAGES = ("lae-fast", "numpy", "scipy", "numba", "torch")
_RATE = 1e-9  # weights must not move between rounds
_SAMPLE_S = 0.03
# Threads of PyTorch and OpenBLAS spin after a call; a sample is so short that they would be there for most of it.
_SETTLE_S = 0.3


@dataclass(frozen=True)
class Case:
    """d and p; `samples` also races on all rows; `batch` is a mini-batch instead of moments."""

    title: str
    d: int
    p: int
    mnist: bool = False
    samples: bool = False
    batch: int | None = None


CASES = (
    Case("MNIST, moments", 784, 20, mnist=True, samples=True),
    Case("d = 1000", 1000, 100),
    Case("d = 1000, wide", 1000, 500),
    Case("MNIST, mini-batch", 784, 20, mnist=True, batch=256),
)


def load(case: Case, smoke: bool) -> tuple[np.ndarray, str]:
    """float32 samples, and where they come from; synthetic ones where MNIST is not at hand."""
    if case.mnist and not smoke:
        try:
            return datasets.load("mnist").astype(np.float32), "mnist"
        except (OSError, ValueError, ModuleNotFoundError) as error:
            print(f"MNIST is not at hand ({error}); synthetic data of its shape instead", file=sys.stderr)
    rng = np.random.default_rng(0)
    m = 2000 if smoke else (60_000 if case.mnist else 4000)
    d = 64 if smoke else case.d
    scale = np.linspace(2.0, 0.05, d, dtype=np.float32)
    return rng.standard_normal((m, d), dtype=np.float32) * scale + 1.0, "synthetic"


def ordered_loss_moments(torch: Any) -> Callable[..., Any]:
    """The ordered loss on moments, for autograd  (docs/math.md Eq. 5)."""

    def value(decoder: Any, encoder: Any, sxx: Any, trace: Any, prefix: Any, mask: Any) -> Any:
        product = encoder @ sxx
        cross = (product * decoder).sum(dim=1)
        fit = (mask * (decoder @ decoder.T) * (product @ encoder.T)).sum()
        return prefix[0] * trace - 2.0 * (prefix * cross).sum() + fit

    return value


def ordered_loss_samples(torch: Any) -> Callable[..., Any]:
    """The ordered loss on centred samples (m, d), mean over samples."""

    def value(decoder: Any, encoder: Any, x: Any, trace: Any, prefix: Any, mask: Any) -> Any:
        codes = x @ encoder.T
        cross = (codes * (x @ decoder.T)).sum(dim=0)
        gram = codes.T @ codes
        total = -2.0 * (prefix * cross).sum() + (mask * (decoder @ decoder.T) * gram).sum()
        return prefix[0] * trace + total / x.shape[0]

    return value


class TorchSteps:
    """Iterations of a loss by autograd and fused Adam; the decoder is stored (p, d) as ours is."""

    def __init__(self, stack: np.ndarray, loss: Any, data: Callable[[int], Any], trace: float, compiled: bool) -> None:
        import torch

        p = len(stack) // 2
        self.encoder = torch.tensor(stack[:p], requires_grad=True)
        self.decoder = torch.tensor(stack[p:], requires_grad=True)
        self.optimizer = torch.optim.Adam([self.decoder, self.encoder], lr=_RATE, fused=True)
        prefix = torch.arange(p, 0, -1, dtype=torch.float32)
        index = torch.arange(p)
        mask = prefix[torch.maximum(index[:, None], index[None, :])]
        self.fixed = (torch.tensor(trace), prefix, mask)
        value = loss(torch)
        self.value = torch.compile(value) if compiled else value
        self.data = data

    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """(dL/dA', dL/dB) of the first batch."""
        self.optimizer.zero_grad(set_to_none=True)
        self.value(self.decoder, self.encoder, self.data(0), *self.fixed).backward()
        return self.decoder.grad.numpy().copy(), self.encoder.grad.numpy().copy()

    def run(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        for t in range(n):
            self.optimizer.zero_grad(set_to_none=True)
            self.value(self.decoder, self.encoder, self.data(t), *self.fixed).backward()
            self.optimizer.step()
        return self.decoder.grad.numpy(), self.encoder.grad.numpy()


class OurSteps:
    """Iterations of lae_fast's loop with the ordered loss and Adam; batches are drawn inside the clock."""

    def __init__(self, described: Any, stack: np.ndarray, batch: int | None, adam: bool = True) -> None:
        p = len(stack) // 2
        optimizer = optimizers.adam(_RATE) if adam else optimizers.sgd(1.0)
        plan = Recipe(rules.gradient(), losses.ordered(), optimizer, "untied", "mean", -1.0)
        self.reader = None
        if batch is not None:
            self.reader = BatchReader(described, batch, np.random.default_rng(0))
        self.engine = CpuLoopEngine(described, plan, stack[:p], stack[p:], self.reader)

    def run(self, n: int) -> Any:
        return self.engine.advance(0, n, False)


def bare_products(sxx: np.ndarray, stack: np.ndarray) -> Callable[[int], Any]:
    """The GEMMs of one iteration on moments, nothing else, by NumPy's BLAS on all threads."""
    p = len(stack) // 2
    product, gram, dense = np.empty_like(stack), np.empty((p, p), stack.dtype), np.empty_like(stack[:p])

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            np.matmul(stack, sxx, out=product)
            np.matmul(stack[p:], stack[p:].T, out=gram)
            np.matmul(product[:p], stack[:p].T, out=gram)
            np.matmul(gram, product[:p], out=dense)
            np.matmul(gram, stack[p:], out=dense)
        return dense

    return run


def true_gradients(sxx: np.ndarray, stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(dL/dA', dL/dB) of the ordered loss in float64  (docs/math.md Eq. 6, 7)."""
    p = len(stack) // 2
    encoder, decoder, sxx = stack[:p].astype(np.float64), stack[p:].astype(np.float64), sxx.astype(np.float64)
    zb, za = encoder @ sxx, decoder @ sxx
    latent, outer = zb @ encoder.T, decoder @ decoder.T
    of_encoder = rules.encoder_matrices("gradient", losses.ordered(), outer, latent)
    of_decoder = rules.decoder_matrices("gradient", losses.ordered(), None, latent)
    return rules.apply(of_decoder, zb, None, decoder), rules.apply(of_encoder, zb, za, encoder)


def is_right(found: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.abs(f - e).max() <= 1e-3 * np.abs(e).max() for f, e in zip(found, expected))


def run_case(case: Case, options: Any) -> dict[str, Any]:
    """Race ours, PyTorch and the bare products on one case."""
    x, origin = load(case, options.smoke)
    began = time.perf_counter()
    moments = problem.from_moments(Moments.from_data(x), "mean")
    moments_s = time.perf_counter() - began
    d = x.shape[1]
    p = min(case.p, d // 4) if options.smoke else case.p
    rng = np.random.default_rng(1)
    stack = (rng.standard_normal((2 * p, d)) / np.sqrt(d)).astype(np.float32)
    described = moments if case.batch is None else problem.from_rows(as_source(x), None, None, "mean")
    ours = OurSteps(described, stack, case.batch)
    runs: dict[str, tuple[str, Callable[[int], Any]]] = {"lae_fast": ("ours", _in_team(ours))}
    correct = {"lae_fast": _check_ours(described, x, moments, stack, case.batch)}
    notes: dict[str, str] = {}
    _add_torch(case, x, moments, stack, runs, correct, notes)
    if case.batch is None:
        runs["bare GEMMs (NumPy)"] = ("variant", bare_products(moments.sxx, stack))
    contestants, counts = [], {}
    for name, (kind, run) in runs.items():
        counts[name] = _iterations(run, options.smoke)
        work = functools.partial(run, counts[name])
        contestants.append(harness.Contestant(name, work, kind, notes.get(name, "")))
    records = {c.name: harness.trial(c, lambda _, name=c.name: {"accurate": correct.get(name)}) for c in contestants}
    harness.race(contestants, records, rounds=options.rounds, budget_s=options.budget, settle_s=_SETTLE_S)
    result: dict[str, Any] = {
        "title": case.title, "data": origin, "m": len(x), "d": d, "p": p, "batch": case.batch,
        "moments_s": moments_s, "correct": correct, "notes": notes, "contestants": {},
    }  # fmt: skip
    mine = records["lae_fast"]
    for name, record in records.items():
        ratios = [r * counts["lae_fast"] / counts[name] for r in harness.round_ratios(record, mine)]
        summary = record.summary
        result["contestants"][name] = {
            "status": record.status,
            "reason": record.reason,
            "us": 1e6 * summary["median"] / counts[name] if summary else None,
            "iqr_us": 1e6 * summary["iqr"] / counts[name] if summary else None,
            "times_ours": harness.summarise(ratios),
        }
    return result


def _in_team(ours: OurSteps) -> Callable[[int], Any]:
    """BLAS is on one thread while a team is open, so ours opens it for each of its runs only."""

    def run(n: int) -> Any:
        with ours.engine:
            return ours.run(n)

    return run


def _iterations(run: Callable[[int], Any], smoke: bool) -> int:
    """So many that one sample takes about _SAMPLE_S; the first call compiles."""
    run(1)
    began = time.perf_counter()
    run(1)
    seconds = time.perf_counter() - began
    return 1 if smoke else int(np.clip(_SAMPLE_S / max(seconds, 1e-6), 1, 500))


def _check_ours(described: Any, x: np.ndarray, moments: Any, stack: np.ndarray, batch: int | None) -> bool:
    """A plain step with rate 1: the difference of the weights is the gradient."""
    p = len(stack) // 2
    steps = OurSteps(described, stack, batch, adam=False)
    sxx = moments.sxx
    if batch is not None:
        rows = BatchReader(described, batch, np.random.default_rng(0)).next_rows(1)[0]
        centred = x[rows].astype(np.float64) - described.mean
        sxx = centred.T @ centred / len(rows)
    with steps.engine:
        steps.run(1)
    found = stack - steps.engine.loop.state.stack
    return is_right((found[p:], found[:p]), true_gradients(sxx, stack))


def _add_torch(
    case: Case, x: np.ndarray, moments: Any, stack: np.ndarray, runs: dict, correct: dict, notes: dict
) -> None:
    """Eager and compiled PyTorch, each only where it runs and its gradients are right."""
    try:
        import torch
    except ModuleNotFoundError:
        notes["PyTorch"] = "not installed"
        return
    trace = float(moments.yy_trace)
    expected = true_gradients(moments.sxx, stack)
    sxx = torch.from_numpy(moments.sxx)
    centred = torch.from_numpy(x - moments.mean.astype(np.float32))
    shapes: dict[str, tuple[Any, Callable[[int], Any]]] = {}
    if case.batch is None:
        shapes["moments"] = (ordered_loss_moments, lambda t: sxx)
        if case.samples:
            shapes["samples"] = (ordered_loss_samples, lambda t: centred)
    else:
        orders = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        whole = len(x) // case.batch
        batches = orders[: whole * case.batch].reshape(whole, case.batch)
        shapes["mini-batch"] = (ordered_loss_samples, lambda t: centred[batches[t % whole]])
        first = centred[batches[0]].numpy().astype(np.float64)
        expected = true_gradients(first.T @ first / len(first), stack)
    for what, (loss, data) in shapes.items():
        for mode in ("eager", "compile"):
            name = f"PyTorch {mode}, {what}"
            try:
                steps = TorchSteps(stack, loss, data, trace, mode == "compile")
                correct[name] = is_right(steps.gradients(), expected)
            except harness.FAILURES as error:
                notes[name] = f"does not run: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
                continue
            runs[name] = ("peer", steps.run)


def truth(options: argparse.Namespace) -> int:
    """Train, judge, write and print; 1 where a run has neither reached the optimum nor said that it has not."""
    trials = convergence.run(1 if options.smoke else options.seeds, options.smoke)
    out = options.out or machines.place("truth", options.smoke)
    harness.write_json(
        out,
        {
            "schema": harness.SCHEMA,
            "benchmark": "truth",
            "smoke": options.smoke,
            "environment": harness.environment(PACKAGES),
            "trials": [vars(one) for one in trials],
        },
    )
    print(convergence.table(trials))
    neither = [one for one in trials if one.outcome == "neither"]
    for one in neither:
        print(f"neither: {one}", file=sys.stderr)
    return 1 if neither else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny, to see that everything runs; numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--budget", type=float, default=40.0, help="seconds of racing for each case")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--truth", action="store_true", help="whether runs that say they have converged have")
    parser.add_argument("--seeds", type=int, default=2, help="of --truth: data sets for each spectrum and dtype")
    options = parser.parse_args(argv)
    if options.truth:
        return truth(options)
    if options.smoke:
        options.rounds = 3
    out = options.out or machines.place("training", options.smoke)
    cases: list[dict[str, Any]] = []
    for case in CASES:
        cases.append(run_case(case, options))
        harness.write_json(
            out,
            {
                "schema": harness.SCHEMA,
                "benchmark": "training",
                "smoke": options.smoke,
                "environment": harness.environment(PACKAGES),
                "cases": cases,
            },
        )
        print(f"{case.title}: done", file=sys.stderr, flush=True)
    print(tables.training_full(cases))
    return 0 if all(all(case["correct"].values()) for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
