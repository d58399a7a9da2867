"""The training half of the GPU benchmark: ordered against MSE, the fused step in GB/s, iterations against PyTorch.

    python -m benchmarks.gpu train [--dry-run] [--rounds N] [--budget S] [--out FILE]

MSE is launched without the kernel that makes coefficients: cuBLAS and the fused step alone, which is all that a loss
without masks needs; lae_fast's own stands beside it.  Every contestant's gradient is checked against float64 before it
is timed, runs are interleaved, ratios are taken within a round.  What fails is noted and the rest goes on.
No result of a card is in this repository yet: docs/cuda.md.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import training
from benchmarks.gpu import card
from benchmarks.lib import harness
from lae_fast import losses, optimizers, rules
from lae_fast.training import cpu_loop, problem

WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
ORDERED_D = 1000
# (d, p) of the race with PyTorch.
RACES = ((784, 20), (1000, 100), (1000, 500), (10_000, 200))
# Of the fused step alone: the last one's matrices are far larger than the cache of any card.
STEPS = (*RACES, (20_000, 1000))
DRY_WIDTHS, DRY_D, DRY_RACES = (1, 3), 6, ((6, 2),)
# Fused steps in the graph that is timed.
_STEPS = 50
# What must have run, launched one by one, for the answer to be right: in a row of `ordered_against_mse`, of the race.
OURS, OUR_RACER = ("mse", "lae_fast mse", "ordered", "rag", "gha"), "lae_fast"
# Iterations before the count of a row is chosen, a captured one among them, and what a sample of the quickest takes.
_WARM_UP, _SAMPLE_S = 8, 0.02


def moments(d: int) -> problem.MomentProblem:
    """A float32 problem with a decaying spectrum: a diagonal and one direction through all of it."""
    sxx = np.full((d, d), 1.0 / d, np.float32)
    sxx.flat[:: d + 1] += np.linspace(2.0, 0.05, d, dtype=np.float32)
    trace, zeros, empty = float(np.trace(sxx, dtype=np.float64)), np.zeros(d), np.zeros((0, 0), np.float32)
    return problem.MomentProblem(
        d, d, d, True, np.dtype(np.float32), zeros, zeros, trace, 1.0, float(d), 3.0, trace, sxx=sxx, sxy=empty
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
        from lae_fast.training.cuda_loop import DeviceLoopEngine

        optimizer = optimizers.adam(training._RATE) if adam else optimizers.sgd(training._RATE)
        plan = cpu_loop.Plan(rules.resolve(rule), loss, optimizer, "untied", "mean", -1.0)
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
        from lae_fast.backends.cuda.training import graphs, loop

        super().__init__(described, stack, "gradient", losses.mse(), adam, graph)
        this = self.engine._loop.state
        this.on_product[...] = -1.0
        products = [
            loop.Launch("G A'", graphs.Product(this.grams[1:2], this.tall[:1], this.both.dense[:1], False, False), 0),
            loop.Launch("A'A Z", graphs.Product(this.grams[:1], this.tall[3:], this.both.dense[1:], False, False), 0),
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


def race(runs: dict[str, Callable[[int], Any]], reference: str, clock: card.Clock, budget: float) -> dict[str, Any]:
    """Microseconds of an iteration of each, interleaved, and the ratios to the reference within a round.

    All do the same number of iterations: what a call costs once is the same part of each.
    """
    if clock.dry:
        for run in runs.values():
            run(2)
        return {name: {"us": None, "over_reference": None} for name in runs}
    from lae_fast.backends.cuda.training import state

    notes: dict[str, str] = {}
    paces = {name: card.attempt(notes, name, functools.partial(_pace, run)) for name, run in runs.items()}
    quickest = min((pace for pace in paces.values() if pace is not None), default=1.0)
    count = int(np.clip(np.ceil(_SAMPLE_S / quickest), _WARM_UP, state.MOST_STEPS))

    def go(name: str) -> None:
        if name not in notes:
            card.attempt(notes, name, lambda: runs[name](count))

    contestants = [
        harness.Contestant(name, functools.partial(go, name), "ours" if name == reference else "variant")
        for name in runs
        if name not in notes
    ]
    records = {c.name: harness.trial(c) for c in contestants}
    left = min(budget, max(1.0, clock.until - time.monotonic()))
    harness.race(contestants, records, rounds=clock.rounds, budget_s=left, settle_s=0.005)
    found: dict[str, Any] = {}
    for name in runs:
        if name in notes:
            found[name] = {"status": harness.FAILED, "reason": notes[name], "us": None, "over_reference": None}
            continue
        record = records[name]
        ratios = [] if reference in notes else harness.round_ratios(record, records[reference])
        found[name] = {
            "status": record.status, "reason": record.reason, "iterations": count,
            "us": 1e6 * record.summary["median"] / count if record.summary else None,
            "over_reference": harness.summarise(ratios) if ratios else None,
        }  # fmt: skip
    return found


def _pace(run: Callable[[int], Any]) -> float:
    """Seconds of an iteration, when everything is compiled, loaded and captured."""
    run(_WARM_UP)
    began = time.perf_counter()
    run(_WARM_UP)
    return max((time.perf_counter() - began) / _WARM_UP, 1e-7)


def add(found: dict[str, Any], runs: dict[str, Any], name: str, make: Callable[[], tuple[Any, bool]]) -> None:
    """Take a contestant into the race, or say why not."""
    made = card.attempt(found["notes"], name, make)
    if made is not None:
        steps, found["correct"][name] = made
        if found["correct"][name]:
            runs[name] = steps.run


def add_times(row: dict[str, Any], runs: dict[str, Any], reference: str, clock: card.Clock, budget: float) -> None:
    """Race those that are right, where the reference is among them."""
    if reference in runs:
        times = card.attempt(row["notes"], "race", lambda: race(runs, reference, clock, budget))
        if times is not None:
            row["times"] = times


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


def ordered_against_mse(clock: card.Clock) -> Iterator[dict[str, Any]]:
    """For every width: the ordered loss, RAG and GHA over the squared error, launched one by one and as graphs."""
    d = DRY_D if clock.dry else ORDERED_D
    described = moments(d)
    for p in DRY_WIDTHS if clock.dry else WIDTHS:
        stack = start(d, p)
        for graph in (False, True):
            row: dict[str, Any] = {"d": d, "p": p, "graph": graph, "correct": {}, "notes": {}}
            runs: dict[str, Any] = {}
            add(row, runs, "mse", lambda graph=graph, stack=stack: squared_error(described, stack, graph))
            for name, rule, loss in (
                ("lae_fast mse", "gradient", losses.mse()), ("ordered", "gradient", losses.ordered()),
                ("rag", "rag", losses.mse()), ("gha", "gha", None),
            ):  # fmt: skip
                add(row, runs, name, lambda r=rule, x=loss, g=graph, s=stack: ours(described, s, r, x, g))
            add_times(row, runs, "mse", clock, 6.0)
            print(f"p={p} graph={graph}: {row.get('times', row['notes'])}", flush=True)
            yield row


def fused_step(clock: card.Clock, copy_gbps: float | None) -> Iterator[dict[str, Any]]:
    """The fused Adam step alone, in GB/s, and its share of the measured copy.

    A graph of steps is timed: launched one by one they would show what a launch costs the host.
    """
    from lae_fast.backends.cuda.training import graphs

    for d, p in DRY_RACES if clock.dry else STEPS:
        row: dict[str, Any] = {"d": d, "p": p, "step_gbps": None, "share_of_copy": None, "notes": {}}

        def measure(d: int = d, p: int = p, row: dict[str, Any] = row) -> None:
            engine = OurSteps(moments(d), start(d, p), loss=losses.ordered()).run(1)
            step = next(one for one in engine.launches() if one.name == "step A, B")
            row["bytes"] = step.n_bytes
            run = graphs.capture([step.run] * (1 if clock.dry else _STEPS))
            row["step_gbps"] = card.rate(1e-9 * _STEPS * step.n_bytes, clock(run))
            if row["step_gbps"] and copy_gbps:
                row["share_of_copy"] = row["step_gbps"] / copy_gbps

        card.attempt(row["notes"], "a graph of steps", measure)
        print(f"step d={d} p={p}: {row['step_gbps']} GB/s {row['notes'] or ''}", flush=True)
        yield row


def against_torch(clock: card.Clock) -> Iterator[dict[str, Any]]:
    """Iterations of the ordered loss with Adam: ours, launched and as a graph, and PyTorch's three ways."""
    for d, p in DRY_RACES if clock.dry else RACES:
        described, stack = moments(d), start(d, p)
        row: dict[str, Any] = {"d": d, "p": p, "correct": {}, "notes": {}}
        runs: dict[str, Any] = {}
        for graph in (False, True):
            name = f"{OUR_RACER}, graph" if graph else OUR_RACER
            add(row, runs, name, lambda g=graph, x=described, s=stack: ours(x, s, "gradient", losses.ordered(), g))
        expected = training.true_gradients(described.sxx, stack)
        for how in ("eager", "compile", "graph"):

            def make(how: str = how, x: Any = described, s: Any = stack, e: Any = expected) -> tuple[Any, bool]:
                steps = TorchSteps(x, s, how, clock.dry)
                return steps, training.is_right(steps.gradients(), e)

            add(row, runs, f"PyTorch {how}", make)
        add_times(row, runs, OUR_RACER, clock, 25.0)
        print(f"d={d} p={p}: {row.get('times', row['notes'])}", flush=True)
        yield row


def measure(payload: dict[str, Any], clock: card.Clock, save: Callable[[], None]) -> bool:
    """Fill the payload, saved after every row; whether every answer is right.  What fails is named in its notes."""
    notes = payload["notes"] = {}
    ceilings = payload["ceilings"] = card.attempt(notes, "ceilings", lambda: card.ceilings(clock, clock.dry))
    copy_gbps = None if ceilings is None else ceilings["copy_gbps"]
    for name, rows in (
        ("fused_step", fused_step(clock, copy_gbps)), ("against_torch", against_torch(clock)),
        ("ordered_against_mse", ordered_against_mse(clock)),
    ):  # fmt: skip
        payload[name] = []

        def fill(found: list[Any] = payload[name], rows: Iterator[dict[str, Any]] = rows) -> None:
            for row in rows:
                found.append(row)
                save()

        card.attempt(notes, name, fill)
        save()
    return is_all_right(payload)


def is_all_right(payload: dict[str, Any]) -> bool:
    """Whether all of ours ran launch by launch, in every row, and were right.

    A graph that cannot be captured is noted, not wrong, and neither is a PyTorch that does not run.
    """
    launched = [(row, OURS) for row in payload["ordered_against_mse"] if not row["graph"]]
    launched += [(row, (OUR_RACER,)) for row in payload["against_torch"]]
    captured = [row["correct"].get(f"{OUR_RACER}, graph", True) for row in payload["against_torch"]]
    captured += [right for row in payload["ordered_against_mse"] for right in row["correct"].values()]
    return (
        not {"against_torch", "ordered_against_mse"} & payload["notes"].keys()
        and bool(payload["against_torch"] and payload["ordered_against_mse"])
        and all("times" in row and all(row["correct"].get(name) for name in names) for row, names in launched)
        and all(captured)
    )
