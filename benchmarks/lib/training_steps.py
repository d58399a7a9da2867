"""One iteration of training in three ways: what `ordered` races, what the micro-benchmarks of training time.

`LoopStep` is lae_fast's loop, for any rule and loss; `MseStep` is the separately written `mse_kernel`, which knows the
squared error only. `counts` says what an iteration costs on paper.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from benchmarks.lib import mse_kernel
from lae_fast import losses, optimizers, rules
from lae_fast.backends.cpu.training import barrier, packed_gemm, state
from lae_fast.backends.threads import Team
from lae_fast.data.sources import as_source
from lae_fast.operators.moments import Moments
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from lae_fast.training.cpu_loop import CpuLoopEngine
from lae_fast.training.engine import Recipe

BATCH = 512
# So small that weights do not move between rounds; the work of a step does not depend on it.
RATE = 1e-9
# Of the step of one entry of the weights: flops (direction 4, sums for the stopping rule 8, the move; a root and a
# division count as one each), and how often an array is read or written.
_STEP_FLOPS = {"gradient": 14, "adam": 25}
_STEP_ARRAYS = {"gradient": 4, "adam": 8}


def counts(p: int, d: int, batch: int | None, step: str) -> dict[str, dict[str, float]]:
    """{"mse", "ordered"} -> flops and bytes of one float32 iteration, phase by phase, as both programs do it.

    Products with S (or with the rows of a batch and back), the lower block triangles of A'A and G, their factors, the
    two p x p products, the steps. An array counts once for each phase that reads or writes it. The two losses differ in
    the factors alone: 2 c_i, made once a row, in the place of 2.
    """
    bounds = state.blocks(p, 64)
    triangle = float(sum(2 * (hi - lo) * hi for lo, hi in itertools.pairwise(bounds)))
    products = 4.0 * p * d * d if batch is None else 8.0 * batch * p * d + 2.0 * batch * d
    flops = products + 2 * d * triangle + p * (p + 1) + 4.0 * p * p * d + 2 * _STEP_FLOPS[step] * p * d
    numbers = (d * d if batch is None else 4 * batch * d + 4 * batch * p) + 4 * p * d  # products
    numbers += 3 * p * d + p * (p + 1)  # Gram matrices
    numbers += p * (p + 1) + 2 * p * p  # their factors
    numbers += 2 * p * p + 4 * p * d  # p x p products
    numbers += 2 * _STEP_ARRAYS[step] * p * d
    return {
        "mse": {"flops": flops, "bytes": 4.0 * numbers},
        "ordered": {"flops": flops + 2 * p, "bytes": 4.0 * (numbers + 2 * p)},
    }


class MseStep:
    """Iterations of `mse_kernel` with buffers of its own; one thread of `team` each."""

    def __init__(
        self, team: Team, described: Any, stack: np.ndarray, index: np.ndarray, x: np.ndarray, adam: bool
    ) -> None:
        p2, d = stack.shape
        p, dtype = p2 // 2, stack.dtype
        self.team, self.adam = team, adam
        self.stack = stack.copy()
        self.moments = isinstance(described, problem.MomentProblem)
        x_blocks, p_blocks = state.blocks(d), state.blocks(p, 64)
        b = 0 if self.moments else index.shape[1]
        widest, n_blocks = int(np.diff(x_blocks).max()), len(x_blocks) - 1
        packs = self.moments and packed_gemm.pays(p2)
        panels = packed_gemm.pack_columns(described.sxx) if packs else np.zeros((0, 0, 0), dtype)
        packed = packed_gemm.new_packed_rows(p2 if packs else 0, d, dtype)
        product = np.zeros((max(p2, len(packed) * packed_gemm.BLOCK_ROWS), d), dtype)
        self.arguments = (
            described.sxx if self.moments else np.zeros((0, 0), dtype), x, index, described.mean.astype(dtype),
            1.0 / max(b, 1), self.stack, np.zeros((2, p2, d), dtype), panels, packed,
            product, np.zeros((b, p2), dtype), np.zeros((d if b else 0, p2), dtype), np.zeros((2, p, p), dtype),
            np.zeros((2, p, p), dtype), np.zeros((team.size, p, widest), dtype),
            np.zeros((b, d), dtype), x_blocks, p_blocks, state.blocks(b, 64), np.zeros((2, n_blocks, 2)),
            np.zeros((2, n_blocks, p, 3)),
        )  # fmt: skip

    @property
    def weights(self) -> np.ndarray:
        """(2p, d), the encoder above the decoder's transpose."""
        return self.stack

    def run(self, n: int, rate: float = RATE) -> np.ndarray:
        """`n` iterations; returns the weights."""
        shared = barrier.shared_state()

        def work(k: int) -> None:
            mse_kernel.run(k, self.team.size, shared, n, self.adam, rate, self.moments, *self.arguments)

        self.team.run(work, lambda: barrier.abort(shared))
        return self.stack


class LoopStep:
    """Iterations of lae_fast's loop, on batches that were drawn before the clock starts; `engine` must be entered."""

    def __init__(
        self, described: Any, rule: str, loss: Any, stack: np.ndarray, n_rows: int, adam: bool, batch: int = BATCH
    ) -> None:
        p = stack.shape[0] // 2
        self.rule = rules.resolve(rule)
        optimizer = optimizers.adam(RATE) if adam else optimizers.sgd(RATE)
        recipe = Recipe(self.rule, loss, optimizer, "untied", "mean", -1.0)
        moments = isinstance(described, problem.MomentProblem)
        reader = None if moments else BatchReader(described, batch, np.random.default_rng(0))
        decoder = stack[p:] if self.rule.has_decoder else None
        self.engine = CpuLoopEngine(described, recipe, stack[:p], decoder, reader)
        if reader is not None:
            self.engine.loop.bind(self.engine.prepared(reader, reader.next_rows(n_rows)))

    @property
    def weights(self) -> np.ndarray:
        """(2p, d), the encoder above the decoder's transpose; (p, d) for a rule without one."""
        return self.engine.loop.state.stack

    def run(self, n: int, rate: float = RATE) -> np.ndarray:
        """`n` iterations; returns the weights."""
        self.engine.loop.run(0, np.full(n, rate), False)
        return self.weights


def prepare(d: int, n_samples: int) -> tuple[np.ndarray, Any, Any]:
    """Samples (n_samples, d) in float32 with a decaying spectrum; their moments, and they themselves, as problems."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_samples, d), dtype=np.float32) * np.linspace(2.0, 0.1, d, dtype=np.float32)
    rows = problem.from_rows(as_source(x), None, None, "mean")
    return x, problem.from_moments(Moments.from_data(x), "mean"), rows


def start(p: int, d: int) -> np.ndarray:
    """Small random weights (2p, d), float32."""
    rng = np.random.default_rng(1)
    return (0.1 * rng.standard_normal((2 * p, d)) / np.sqrt(d)).astype(np.float32)


def batches(described: Any, n: int, batch: int = BATCH) -> np.ndarray:
    """The rows (n, batch) that a `LoopStep` of so many iterations draws."""
    return BatchReader(described, batch, np.random.default_rng(0)).next_rows(n)


def second_moments(described: Any, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """S of the first iteration in float64: of the moments, or of the first batch."""
    if isinstance(described, problem.MomentProblem):
        return described.sxx.astype(np.float64)
    centred = x[index[0]].astype(np.float64) - described.mean
    return centred.T @ centred / len(centred)


def is_right(step: MseStep | LoopStep, rule: str, loss: Any, sxx: np.ndarray) -> bool:
    """Whether one plain step moves both sides by the gradient of NumPy in float64, to 1e-4 of its largest entry.

    `step` takes plain steps, for one of Adam would hide the gradient; its weights are as before afterwards.
    """
    before = step.weights.copy()
    stack = before.astype(np.float64)
    has_decoder = rules.resolve(rule).has_decoder
    p = len(stack) // 2 if has_decoder else len(stack)
    encoder = stack[:p]
    decoder = stack[p:] if has_decoder else encoder
    zb, za = encoder @ sxx, decoder @ sxx
    latent = zb @ encoder.T
    of_encoder = rules.encoder_matrices(rule, loss, decoder @ decoder.T, latent)
    expected = rules.apply(of_encoder, zb, za, encoder)
    if has_decoder:
        of_decoder = rules.decoder_matrices(rule, loss, encoder @ encoder.T, latent)
        expected = np.concatenate([expected, rules.apply(of_decoder, zb, None, decoder)])
    # a rate of the size of the weights over the gradient, so that float32 shows the step
    rate = float(np.abs(stack).max() / np.abs(expected).max())
    found = (before - step.run(1, rate).astype(np.float64)) / rate
    step.weights[...] = before
    return bool(np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max())


# The contestants that run in lae_fast's loop: name -> rule and loss.
IN_THE_LOOP = {
    "mse": ("gradient", losses.mse()),
    "ordered": ("gradient", losses.ordered()),
    "rag": ("rag", losses.mse()),
    "gha": ("gha", None),
}
