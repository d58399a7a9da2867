"""Micro-benchmark: an iteration of training as the latent width grows, ordered beside mse, RAG and GHA.

    python -m pytest benchmarks/test_training_steps.py --benchmark-only -k "moments and adam"

A group is one kind of iteration at one width; `kernel` is the separately written program that knows the squared error
only. Runs of a group follow each other, so differences of a few per cent are `python -m benchmarks.ordered`'s to see.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import numpy as np
import pytest

from benchmarks.lib import training_steps
from lae_fast.backends.cpu.training.nested_dropout import MaskedProducts, WholeRows
from lae_fast.backends.threads import Team, get_num_threads

D, ROWS = 1000, 4096
WIDTHS = (5, 20, 100, 500)
# So that a run takes about as long at each width.
ITERATIONS = {5: 20, 20: 8, 100: 2, 500: 1}
_NO_ROWS = np.zeros((1, 0), np.int64)


@functools.cache
def data() -> tuple[np.ndarray, Any, Any]:
    return training_steps.prepare(D, ROWS)


@functools.cache
def moments_of(regime: str) -> np.ndarray:
    """S of the first iteration, float64."""
    x, moments, rows = data()
    on_rows = regime == "rows"
    index = training_steps.batches(rows, 1) if on_rows else _NO_ROWS
    return training_steps.second_moments(rows if on_rows else moments, x, index)


@pytest.mark.parametrize("who", ["kernel", *training_steps.IN_THE_LOOP])
@pytest.mark.parametrize("p", WIDTHS)
@pytest.mark.parametrize("step", ["gradient", "adam"])
@pytest.mark.parametrize("regime", ["moments", "rows"])
def test_iteration(benchmark: Any, rates: Any, regime: str, step: str, p: int, who: str) -> None:
    benchmark.group = f"iterations, {regime}, {step}, p = {p}"
    x, moments, rows = data()
    described = moments if regime == "moments" else rows
    n = 1 if benchmark.disabled else ITERATIONS[p]
    start = training_steps.start(p, D)
    rule, loss = training_steps.IN_THE_LOOP["mse" if who == "kernel" else who]
    with contextlib.ExitStack() as open_teams:

        def made(adam: bool) -> Any:
            if who == "kernel":
                index = training_steps.batches(rows, n) if regime == "rows" else _NO_ROWS
                team = open_teams.enter_context(Team(min(get_num_threads(), 4)))
                return training_steps.MseStep(team, described, start, index, x, adam)
            loop = training_steps.LoopStep(described, rule, loss, start, n, adam)
            open_teams.enter_context(loop.engine)
            return loop

        assert training_steps.is_right(made(adam=False), rule, loss, moments_of(regime))
        benchmark(made(adam=step == "adam").run, n)
    if who in ("kernel", "mse", "ordered"):
        batch = None if regime == "moments" else training_steps.BATCH
        cost = training_steps.counts(p, D, batch, step)["ordered" if who == "ordered" else "mse"]
        rates(n * cost["flops"], n * cost["bytes"])
    benchmark.extra_info["iterations"] = n


def test_stochastic_nested_dropout_on_all_rows(benchmark: Any, rates: Any) -> None:
    """The products of an iteration on rows of MNIST's width, 20 units that are kept with Bao's prior of 0.9."""
    benchmark.group = "iterations, stochastic nested dropout, all rows"
    m, d, p = (1000 if benchmark.disabled else 60_000), 784, 20
    rng = np.random.default_rng(0)
    x = rng.standard_normal((m, d), dtype=np.float32)
    encoder, decoder = 0.1 * rng.standard_normal((2, p, d), dtype=np.float32)
    kept = np.minimum(rng.geometric(0.1, m), p)
    rows = WholeRows(x.reshape(-1), (d, 1), np.zeros(d, np.float32), np.empty(0), m)
    made = MaskedProducts(rows, 1.0 / m, (x.T @ x) / np.float32(m), 0.9 ** np.arange(p))
    with Team(min(get_num_threads(), 4)) as team:
        masked, _ = made.products(team, encoder, decoder, kept)
        for i in (0, 6, 7, 19):  # on both sides of the switch
            seen = x[kept > i]
            np.testing.assert_allclose(masked[i], encoder[i] @ seen.T @ seen / m, atol=1e-4)
        benchmark(made.products, team, encoder, decoder, kept)
    units = np.where(kept < made.switch, made.switch - kept, kept - made.switch)  # that each row is multiplied by
    rates(8.0 * d * units.sum(), x.nbytes)
