"""The training half of the GPU benchmark: ordered against MSE, the fused step in GB/s, iterations against PyTorch.

    python -m benchmarks.gpu train [--dry-run] [--rounds N] [--budget S] [--out FILE]

MSE is launched without the kernel that makes coefficients: cuBLAS and the fused step alone, which is all that a loss
without masks needs.  Every contestant's gradient is checked against float64 before it is timed, runs are interleaved,
ratios are taken within a round.  May import benchmarks.gpu and benchmarks.training.
No result of a card is in this repository yet: docs/cuda.md.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import gpu, harness, training
from lae_fast import engines, losses, optimizers, problem, rules

WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
ORDERED_D = 1000
# (d, p) of the race with PyTorch.
RACES = ((784, 20), (1000, 100), (1000, 500), (10_000, 200))
DRY_WIDTHS, DRY_D, DRY_RACES = (1, 3), 6, ((6, 2),)
# Launches of the fused step in one sample.
_STEPS = 50


def moments(d: int) -> problem.MomentProblem:
    """A float32 problem with a decaying spectrum: a diagonal and one direction through all of it."""
    values = np.linspace(2.0, 0.05, d)
    direction = np.full(d, 1.0 / np.sqrt(d))
    sxx = (np.diag(values) + np.outer(direction, direction)).astype(np.float32)
    trace, zeros, empty = float(np.trace(sxx)), np.zeros(d), np.zeros((0, 0), np.float32)
    return problem.MomentProblem(
        d, d, d, True, np.dtype(np.float32), zeros, zeros, trace, 1.0, float(d), 3.0, sxx=sxx, sxy=empty
    )


def start(d: int, p: int) -> np.ndarray:
    """(2p, d) float32: B over A'."""
    return (np.random.default_rng(1).standard_normal((2 * p, d)) / np.sqrt(d)).astype(np.float32)


class OurSteps:
    """Iterations of lae_fast's loop on the device, launch by launch or as a graph.

    factor : of the rate with which a plain step is one along the gradient
    """

    factor = 1.0

    def __init__(
        self,
        described: Any,
        stack: np.ndarray,
        rule: str = "gradient",
        loss: Any = None,
        adam: bool = True,
        graph: bool = False,
    ) -> None:
        from lae_fast.device_loop import DeviceLoopEngine

        optimizer = optimizers.adam(training._RATE) if adam else optimizers.sgd(training._RATE)
        plan = engines.Plan(rules.resolve(rule), loss, optimizer, "untied", "mean", -1.0)
        p = len(stack) // 2
        self.engine = DeviceLoopEngine(described, plan, stack[:p], stack[p:] if plan.rule.has_decoder else None)
        self.graph = "1" if graph else "0"

    def run(self, n: int, rate: float | None = None) -> Any:
        os.environ["LAE_FAST_CUDA_GRAPHS"] = self.graph
        if rate is not None:
            return self.engine._loop.run(0, np.full(n, rate), False)
        for first in range(0, n, self.engine.most):
            self.engine.advance(first, min(n - first, self.engine.most), False)
        return self.engine


class MseSteps(OurSteps):
    """The squared error by a loop that knows nothing else: the Gram matrices themselves are the coefficients.

    The direction is half the gradient, which Adam does not see, and a plain step makes up for with twice the rate.
    """

    factor = 2.0

    def __init__(self, described: Any, stack: np.ndarray, adam: bool = True, graph: bool = False) -> None:
        from lae_fast.backends.cuda import graphs, iterate

        super().__init__(described, stack, "gradient", losses.mse(), adam, graph)
        this = self.engine._loop.state
        this.on_product[...] = -1.0
        products = [
            iterate.Launch(
                "G A'", graphs.Product(this.grams[1:2], this.tall[:1], this.both.dense[:1], False, False), 0
            ),
            iterate.Launch(
                "A'A Z", graphs.Product(this.grams[:1], this.tall[3:], this.both.dense[1:], False, False), 0
            ),
        ]
        kept = self.engine.launches()
        self.engine._loop._lists[False] = [*kept[:2], *products, *kept[4:]]


class TorchSteps(training.TorchSteps):
    """PyTorch on the card: eager, compiled, or a captured graph of the eager iteration; on the CPU in a dry run."""

    def __init__(self, described: Any, stack: np.ndarray, how: str, dry: bool) -> None:
        import torch

        if dry and how != "eager":
            raise RuntimeError("a dry run shows the eager iteration only, on the CPU")
        if not (dry or torch.cuda.is_available()):
            raise RuntimeError("PyTorch sees no CUDA device")
        torch.backends.cuda.matmul.allow_tf32 = False
        with torch.device("cpu" if dry else "cuda"):
            sxx = torch.tensor(described.sxx)
            super().__init__(stack, training.ordered_loss_moments, lambda t: sxx, described.yy_trace, how == "compile")
        self.torch, self.graph, self.dry = torch, None, dry
        if how == "graph":
            self.optimizer = torch.optim.Adam(
                [self.decoder, self.encoder], lr=training._RATE, fused=True, capturable=True
            )
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._iterate()
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._iterate()

    def _iterate(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.value(self.decoder, self.encoder, self.data(0), *self.fixed).backward()
        self.optimizer.step()

    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """(dL/dA', dL/dB) of the iteration that is timed."""
        self.run(1)
        return self.decoder.grad.cpu().numpy().copy(), self.encoder.grad.cpu().numpy().copy()

    def run(self, n: int) -> None:
        for _ in range(n):
            if self.graph is None:
                self._iterate()
            else:
                self.graph.replay()
        if not self.dry:
            self.torch.cuda.synchronize()


def is_right(steps: OurSteps, stack: np.ndarray, expected: np.ndarray) -> bool:
    """One plain step against the encoder's direction in float64, of a size that float32 shows."""
    p = len(stack) // 2
    rate = float(np.abs(stack).max() / np.abs(expected).max())
    if steps.graph == "1":
        steps.run(3, 0.0)  # the third iteration is captured, and what follows replays it
    steps.run(1, rate * steps.factor)
    found = (stack[:p].astype(np.float64) - steps.engine.encoder) / rate
    return bool(np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max())


def direction(rule: str, loss: Any, described: Any, stack: np.ndarray) -> np.ndarray:
    """The encoder's direction in float64  (docs/math.md Eq. 21)."""
    p = len(stack) // 2
    encoder, decoder = stack[:p].astype(np.float64), stack[p:].astype(np.float64)
    sxx = described.sxx.astype(np.float64)
    zb, za = encoder @ sxx, decoder @ sxx
    return rules.apply(rules.encoder_matrices(rule, loss, decoder @ decoder.T, zb @ encoder.T), zb, za, encoder)


def race(runs: dict[str, Callable[[int], Any]], reference: str, clock: gpu.Clock, budget: float) -> dict[str, Any]:
    """Microseconds of an iteration of each, interleaved, and the ratios to the reference within a round."""
    if clock.dry:
        for run in runs.values():
            run(2)
        return {name: {"us": None, "over_reference": None} for name in runs}
    counts = {name: training._iterations(run, False) for name, run in runs.items()}
    contestants = [
        harness.Contestant(name, functools.partial(run, counts[name]), "ours" if name == reference else "variant")
        for name, run in runs.items()
    ]
    records = {c.name: harness.trial(c) for c in contestants}
    left = min(budget, max(1.0, clock.until - time.monotonic()))
    harness.race(contestants, records, rounds=clock.rounds, budget_s=left, settle_s=0.005)
    found: dict[str, Any] = {}
    for name, record in records.items():
        share = counts[reference] / counts[name]
        ratios = [share * ratio for ratio in harness.round_ratios(record, records[reference])]
        found[name] = {
            "status": record.status, "reason": record.reason,
            "us": 1e6 * record.summary["median"] / counts[name] if record.summary else None,
            "over_reference": harness.summarise(ratios) if ratios else None,
        }  # fmt: skip
    return found


def add(found: dict[str, Any], runs: dict[str, Any], name: str, make: Callable[[], tuple[Any, bool]]) -> None:
    """Take a contestant into the race, or say why not."""
    try:
        steps, correct = make()
    except (*harness.FAILURES, RuntimeError) as error:
        found["notes"][name] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return
    found["correct"][name] = correct
    if correct:
        runs[name] = steps.run


def ours(described: Any, stack: np.ndarray, rule: str, loss: Any, graph: bool) -> tuple[OurSteps, bool]:
    """Adam iterations, and whether a plain step of the same launches is right."""
    plain = OurSteps(described, stack, rule, loss, adam=False, graph=graph)
    return (
        OurSteps(described, stack, rule, loss, graph=graph),
        is_right(plain, stack, direction(rule, loss, described, stack)),
    )


def squared_error(described: Any, stack: np.ndarray, graph: bool) -> tuple[OurSteps, bool]:
    """`MseSteps`, and whether they are right."""
    plain = MseSteps(described, stack, adam=False, graph=graph)
    return MseSteps(described, stack, graph=graph), is_right(
        plain, stack, direction("gradient", losses.mse(), described, stack)
    )


def ordered_against_mse(clock: gpu.Clock) -> list[dict[str, Any]]:
    """For every width: the ordered loss, RAG and GHA over the squared error, launched one by one and as graphs."""
    rows = []
    d = DRY_D if clock.dry else ORDERED_D
    described = moments(d)
    for p in DRY_WIDTHS if clock.dry else WIDTHS:
        stack = start(d, p)
        for graph in (False, True):
            row: dict[str, Any] = {"d": d, "p": p, "graph": graph, "correct": {}, "notes": {}}
            runs: dict[str, Any] = {}
            add(row, runs, "mse", lambda graph=graph, stack=stack: squared_error(described, stack, graph))
            for name, rule, loss in (
                ("ordered", "gradient", losses.ordered()), ("rag", "rag", losses.mse()), ("gha", "gha", None),
            ):  # fmt: skip
                add(row, runs, name, lambda r=rule, x=loss, g=graph, s=stack: ours(described, s, r, x, g))
            if "mse" in runs:
                row["times"] = race(runs, "mse", clock, 6.0)
            rows.append(row)
            print(f"p={p} graph={graph}: {row.get('times', row['notes'])}", flush=True)
    return rows


def fused_step(clock: gpu.Clock, copy_gbps: float | None) -> list[dict[str, Any]]:
    """The fused Adam step alone, in GB/s, and its share of the measured copy."""
    rows = []
    for d, p in DRY_RACES if clock.dry else RACES:
        engine = OurSteps(moments(d), start(d, p), loss=losses.ordered()).run(1)
        step = next(one for one in engine.launches() if one.name == "step A, B")

        def run(step: Any = step) -> None:
            for _ in range(1 if clock.dry else _STEPS):
                step.run(0)

        gbps = gpu.rate(1e-9 * _STEPS * step.n_bytes, clock(run))
        share = gbps / copy_gbps if gbps and copy_gbps else None
        rows.append({"d": d, "p": p, "bytes": step.n_bytes, "step_gbps": gbps, "share_of_copy": share})
    return rows


def against_torch(clock: gpu.Clock) -> list[dict[str, Any]]:
    """Iterations of the ordered loss with Adam: ours, launched and as a graph, and PyTorch's three ways."""
    rows = []
    for d, p in DRY_RACES if clock.dry else RACES:
        described, stack = moments(d), start(d, p)
        row: dict[str, Any] = {"d": d, "p": p, "correct": {}, "notes": {}}
        runs: dict[str, Any] = {}
        for graph in (False, True):
            name = "lae_fast, graph" if graph else "lae_fast"
            add(row, runs, name, lambda g=graph, x=described, s=stack: ours(x, s, "gradient", losses.ordered(), g))
        expected = training.true_gradients(described.sxx, stack)
        for how in ("eager", "compile", "graph"):

            def make(how: str = how, x: Any = described, s: Any = stack, e: Any = expected) -> tuple[Any, bool]:
                steps = TorchSteps(x, s, how, clock.dry)
                return steps, training.is_right(steps.gradients(), e)

            add(row, runs, f"PyTorch {how}", make)
        if "lae_fast" in runs:
            row["times"] = race(runs, "lae_fast", clock, 25.0)
        rows.append(row)
        print(f"d={d} p={p}: {row.get('times', row['notes'])}", flush=True)
    return rows


def measure(clock: gpu.Clock) -> dict[str, Any]:
    """Everything, as the payload of the JSON file."""
    ceilings = gpu.ceilings(clock, clock.dry)
    return {
        "ceilings": ceilings, "fused_step": fused_step(clock, ceilings["copy_gbps"]),
        "against_torch": against_torch(clock), "ordered_against_mse": ordered_against_mse(clock),
    }  # fmt: skip


def is_all_right(payload: dict[str, Any]) -> bool:
    """Whether every contestant of ours ran and was right; a graph that cannot be captured is noted, not wrong."""
    rows = payload["against_torch"] + payload["ordered_against_mse"]
    return all(all(row["correct"].values()) and "times" in row for row in rows)
