"""Ordered costs MSE: one iteration of the ordered loss against a kernel that knows the squared error only.

    python -m benchmarks.ordered [--smoke] [--rounds N] [--out FILE]

For every latent width p, d = 1000 and 784, on moments and on batches of rows, for the gradient (with a plain step) and
for a full Adam iteration: the ordered loss, RAG and GHA by lae_fast's loop, and the squared error by the separately
written `mse_kernel`. Answers are checked first, runs are interleaved, ratios are taken within a round. Writes JSON and
a plot, prints a table. The exit status is 1 when an answer is wrong, never because of a speed.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lib import harness, mse_kernel, tables
from lae_fast import losses, optimizers, rules
from lae_fast.backends.cpu.training import barrier, packed_gemm, state
from lae_fast.backends.threads import Team
from lae_fast.data.sources import as_source
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from lae_fast.training.cpu_loop import CpuLoopEngine
from lae_fast.training.engine import Recipe

RESULTS = Path(__file__).resolve().parent / "results"
WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
DIMENSIONS = (1000, 784)
BATCH = 512
ROWS = 4096
PACKAGES = ("lae-fast", "numpy", "scipy", "numba")
# So small that weights do not move between rounds; the work of a step does not depend on it.
_RATE = 1e-9
_SAMPLE_S = 0.02


def flops(p: int, d: int, batch: int | None) -> dict[str, float]:
    """Flops of one gradient: products, Gram matrices (lower triangles), combination; and what the ordered loss adds."""
    products = 4.0 * p * d * d if batch is None else 8.0 * batch * p * d
    return {
        "products": products,
        "grams": 2.0 * p * (p + 1) * d,
        "combine": 4.0 * p * p * d,
        # masked_rows multiplies by 2 c_i where the squared error multiplies by 2: one product per row of two matrices
        "ordered_adds": 2.0 * p,
    }


def bytes_moved(p: int, d: int, batch: int | None, states: int) -> dict[str, float]:
    """Bytes of float32 arrays touched in one iteration, each counted once per phase; and what the ordered loss adds."""
    source = d * d if batch is None else 2 * batch * d
    phases = source + 4 * p * d + 4 * p * d + 6 * p * p + (6 + 4 * states) * p * d
    return {"total": 4.0 * phases, "ordered_adds": 4.0 * 2 * p}


class MseStep:
    """Iterations of `mse_kernel` with buffers of its own."""

    def __init__(
        self, team: Team, described: Any, stack: np.ndarray, rows: np.ndarray, x: np.ndarray, adam: bool
    ) -> None:
        p2, d = stack.shape
        p, dtype = p2 // 2, stack.dtype
        self.team, self.adam = team, adam
        self.stack = stack.copy()
        self.moments = isinstance(described, problem.MomentProblem)
        x_blocks, p_blocks = state.blocks(d), state.blocks(p, 64)
        b = 0 if self.moments else rows.shape[1]
        widest = int(np.diff(x_blocks).max())
        packs = self.moments and packed_gemm.pays(p2)
        panels = packed_gemm.pack_columns(described.sxx) if packs else np.zeros((0, 0, 0), dtype)
        packed = packed_gemm.new_packed_rows(p2 if packs else 0, d, dtype)
        product = np.zeros((max(p2, len(packed) * packed_gemm.BLOCK_ROWS), d), dtype)
        self.arguments = (
            described.sxx if self.moments else np.zeros((0, 0), dtype), x, rows, described.mean.astype(dtype),
            1.0 / max(b, 1), self.stack, np.zeros((2, p2, d), dtype), panels, packed,
            product, np.zeros((p2, b), dtype), np.zeros((2, p, p), dtype),
            np.zeros((2, p, p), dtype), np.zeros((team.size, p, widest), dtype),
            np.zeros((b, d), dtype), x_blocks, p_blocks, state.blocks(b, 64), np.zeros((2, len(x_blocks) - 1, 2)),
        )  # fmt: skip

    def run(self, n: int, rate: float = _RATE) -> np.ndarray:
        shared = barrier.shared_state()

        def work(k: int) -> None:
            mse_kernel.run(k, self.team.size, shared, n, self.adam, rate, self.moments, *self.arguments)

        self.team.run(work, lambda: barrier.abort(shared))
        return self.stack


class LoopStep:
    """Iterations of lae_fast's loop, on batches that were drawn before the clock starts."""

    def __init__(self, described: Any, rule: str, loss: Any, stack: np.ndarray, n_rows: int, adam: bool) -> None:
        p = stack.shape[0] // 2
        self.rule = rules.resolve(rule)
        optimizer = optimizers.adam(_RATE) if adam else optimizers.sgd(_RATE)
        plan = Recipe(self.rule, loss, optimizer, "untied", "mean", -1.0)
        moments = isinstance(described, problem.MomentProblem)
        reader = None if moments else BatchReader(described, BATCH, np.random.default_rng(0))
        decoder = stack[p:] if self.rule.has_decoder else None
        self.engine = CpuLoopEngine(described, plan, stack[:p], decoder, reader)
        if reader is not None:
            self.engine.loop.bind(self.engine.prepared(reader, reader.next_rows(n_rows)))

    def run(self, n: int, rate: float = _RATE) -> np.ndarray:
        self.engine.loop.run(0, np.full(n, rate), False)
        return self.engine.loop.state.stack


def prepare(d: int, smoke: bool) -> tuple[np.ndarray, Any, Any]:
    """Samples (float32) with a decaying spectrum, their moments and themselves as problems."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256 if smoke else ROWS, d), dtype=np.float32) * np.linspace(2.0, 0.1, d, dtype=np.float32)
    rows = problem.from_rows(as_source(x), None, None, "mean")
    return x, problem.from_moments(Moments.from_data(x), "mean"), rows


def check_answers(steps: dict[str, Any], described: Any, stack: np.ndarray, x: np.ndarray) -> dict[str, bool]:
    """One plain step of each contestant against NumPy in float64, relative to the largest gradient."""
    p = stack.shape[0] // 2
    first = steps["mse"].arguments[2]
    sxx = described.sxx if isinstance(described, problem.MomentProblem) else None
    if sxx is None:
        batch = x[first[0]].astype(np.float64) - described.mean
        sxx = batch.T @ batch / len(batch)
    sxx = sxx.astype(np.float64)
    encoder, decoder = stack[:p].astype(np.float64), stack[p:].astype(np.float64)
    zb, za = encoder @ sxx, decoder @ sxx
    latent = zb @ encoder.T
    verdict = {}
    for name, step in steps.items():
        rule = name if name in rules.names() else "gradient"
        loss = {"mse": losses.mse(), "ordered": losses.ordered()}.get(name)
        of_encoder = rules.encoder_matrices(rule, loss, decoder @ decoder.T, latent)
        expected = rules.apply(of_encoder, zb, za, encoder)
        # a rate of the size of the weights over the gradient, so that float32 shows the step
        rate = float(np.abs(encoder).max() / np.abs(expected).max())
        found = (stack[:p] - step.run(1, rate)[:p].astype(np.float64)) / rate
        verdict[name] = bool(np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max())
        (step.stack if name == "mse" else step.engine.loop.state.stack)[...] = stack[: len(step.run(0))]
    return verdict


def one_case(d: int, p: int, regime: str, adam: bool, data: Any, options: Any) -> dict[str, Any]:
    """Race the four contestants; one row of the result."""
    x, moments, rows = data
    described = moments if regime == "moments" else rows
    batch = None if regime == "moments" else min(BATCH, len(x))
    rng = np.random.default_rng(1)
    stack = (0.1 * rng.standard_normal((2 * p, d)) / np.sqrt(d)).astype(np.float32)
    seconds = max(
        sum(flops(p, d, batch).values()) / 1e11, bytes_moved(p, d, batch, 2 if adam else 0)["total"] / 2e10, 3e-5
    )
    n = 1 if options.smoke else max(1, int(_SAMPLE_S / seconds))
    index = np.zeros((1, 0), np.int64)
    if batch is not None:
        reader = BatchReader(rows, BATCH, np.random.default_rng(0))
        index = reader.next_rows(n)
    loops = {
        "ordered": LoopStep(described, "gradient", losses.ordered(), stack, n, adam),
        "rag": LoopStep(described, "rag", losses.mse(), stack, n, adam),
        "gha": LoopStep(described, "gha", None, stack, n, adam),
    }
    with contextlib.ExitStack() as open_teams:
        for loop in loops.values():
            open_teams.enter_context(loop.engine)
        team = open_teams.enter_context(Team(loops["ordered"].engine.loop.n_threads))
        steps = {"mse": MseStep(team, described, stack, index, x, adam), **loops}
        checker = steps
        if adam:  # the answer is checked on plain steps, which a step of Adam would hide
            checker = {
                "mse": MseStep(team, described, stack, index, x, False),
                **{
                    name: LoopStep(described, step.rule, step.engine.recipe.loss, stack, n, False)
                    for name, step in loops.items()
                },
            }
            for name in loops:
                checker[name].engine.loop.team = team
        verdict = check_answers(checker, described, stack, x)
        kinds = {"mse": "peer", "ordered": "ours"}
        contestants = [
            harness.Contestant(name, lambda step=step: step.run(n), kinds.get(name, "variant"))
            for name, step in steps.items()
        ]
        records = {c.name: harness.trial(c, lambda _, name=c.name: {"accurate": verdict[name]}) for c in contestants}
        harness.race(contestants, records, rounds=options.rounds, budget_s=options.budget, settle_s=0.005)
    result = {
        "d": d, "p": p, "regime": regime, "step": "adam" if adam else "gradient", "iterations_per_sample": n,
        "flops": flops(p, d, batch), "bytes": bytes_moved(p, d, batch, 2 if adam else 0), "correct": verdict,
    }  # fmt: skip
    for name in steps:
        summary = records[name].summary
        result[name] = {"us": 1e6 * summary["median"] / n, "iqr_us": 1e6 * summary["iqr"] / n}
        if name != "mse":
            result[name]["ratio"] = harness.summarise(harness.round_ratios(records[name], records["mse"]))
    return result


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Median ratio with quartiles over p, a panel for each regime and step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = sorted({(case["regime"], case["step"]) for case in cases})
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.2), sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels):
        for d in sorted({case["d"] for case in cases}):
            chosen = [c for c in cases if (c["regime"], c["step"]) == panel and c["d"] == d]
            ratios = [c["ordered"]["ratio"] for c in chosen]
            axis.errorbar(
                [c["p"] for c in chosen], [r["median"] for r in ratios],
                [[r["median"] - r["q1"] for r in ratios], [r["q3"] - r["median"] for r in ratios]],
                marker="o", capsize=2, label=f"d = {d}",
            )  # fmt: skip
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.axhline(1.02, color="black", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        axis.set_xlabel("latent width p")
        axis.set_title(f"{panel[0]}, {panel[1]}")
        axis.legend(frameon=False)
    axes[0][0].set_ylabel("time of ordered / time of mse")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny, to see that everything runs; numbers mean nothing")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--budget", type=float, default=12.0, help="seconds of racing for each case")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    if options.smoke:
        options.rounds = 3
    name = "ordered-smoke" if options.smoke else "ordered"
    out = options.out or RESULTS / f"{name}.json"
    cases: list[dict[str, Any]] = []
    for d in (96,) if options.smoke else DIMENSIONS:
        data = prepare(d, options.smoke)
        for p in (1, 20) if options.smoke else (width for width in WIDTHS if width <= d):
            for regime in ("moments", "rows"):
                for adam in (False, True):
                    cases.append(one_case(d, p, regime, adam, data, options))
                    print(tables.ordered_full(cases[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
                    harness.write_json(
                        out,
                        {
                            "schema": harness.SCHEMA,
                            "benchmark": "ordered",
                            "smoke": options.smoke,
                            "environment": harness.environment(PACKAGES),
                            "cases": cases,
                        },
                    )
    print(tables.ordered_full(cases))
    plot(cases, out.with_suffix(".png"))
    return 0 if all(all(case["correct"].values()) for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
