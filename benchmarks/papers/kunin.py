"""Kunin et al. 2019, "Loss landscapes of regularized linear autoencoders": Fig. 3 and 5.

X is (20, 20) with singular values 1 to 20 and is not centred; p = 10; Adam at 0.05 with the decay 0.1 of Keras; 4000
epochs of the full batch; starts of deviation 0.05.  Losses are sums over samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.papers.figure import QUICK_SEEDS, SEEDS, Figure, Outcome, Row, matrix_of, quietly
from lae_fast import LinearAutoencoder, Moments, losses, optimizers

P, LAMBDA, EPOCHS = 10, 10.0, 4000
SINGULAR_VALUES = np.arange(20.0, 0.0, -1.0)
LAMBDAS = [float(k * k) for k in range(1, 22, 2)]
CONFIGURATION = {
    "X": "(20, 20), singular values 20, 19, ..., 1, not centred", "p": P, "lambda": LAMBDA, "epochs": EPOCHS,
    "optimizer": "adam, 0.05 / (1 + 0.1 t)", "start": "normal, deviation 0.05", "scale": "sum",
}  # fmt: skip


def _fit(seed: int, loss: Any, **options: Any) -> LinearAutoencoder:
    moments = Moments.from_data(matrix_of(SINGULAR_VALUES, 20, seed), center=False)
    optimizer = optimizers.adam(0.05, schedule=optimizers.harmonic(0.1))
    model = LinearAutoencoder(
        P, loss=loss, optimizer=optimizer, max_iter=EPOCHS, tol=0.0, center=False, scale="sum", init_scale=0.05,
        random_state=seed, **options,
    )  # fmt: skip
    return quietly(model, moments)


def _transpose_gap(quick: bool, report: Callable[[int, int], None]) -> Outcome:
    seeds = QUICK_SEEDS if quick else SEEDS
    kinds = {"mse": losses.mse(), "product": losses.product_l2(LAMBDA), "sum": losses.sum_l2(LAMBDA)}
    ends: dict[str, list[float]] = {name: [] for name in kinds}
    data: dict[str, Any] = {}
    for i, seed in enumerate(seeds):
        for name, loss in kinds.items():
            history = _fit(seed, loss, record="transpose_gap", record_every="log").history_
            ends[name].append(float(history["transpose_gap"][-1]))
            data.setdefault("epoch", history["iteration"].tolist())
            data.setdefault(name, []).append(history["transpose_gap"].tolist())
        report(i + 1, len(seeds))
    return Outcome(
        [
            Row("gap at the end, sum loss", "falls to 0", ends["sum"], max(ends["sum"]) < 1e-3),
            Row("gap at the end, product loss", "does not fall to 0", ends["product"], min(ends["product"]) > 1e-2),
            Row("gap at the end, mse", "does not fall to 0", ends["mse"], min(ends["mse"]) > 1e-2),
        ],
        data,
    )


def _shrinkage(quick: bool, report: Callable[[int, int], None]) -> Outcome:
    seeds, strengths = (QUICK_SEEDS, LAMBDAS[::3]) if quick else (SEEDS, LAMBDAS)
    errors: list[float] = []
    found: dict[str, Any] = {"lambda": strengths, "squared_singular_values": [], "theory": []}
    for i, seed in enumerate(seeds):
        worst, curves = 0.0, []
        for strength in strengths:
            decoder = _fit(seed, losses.sum_l2(strength)).decoder_
            squares = np.linalg.svd(decoder, compute_uv=False) ** 2
            theory = np.maximum(1.0 - strength / SINGULAR_VALUES[:P] ** 2, 0.0)
            worst = max(worst, float(np.abs(squares - theory).max()))
            curves.append(squares.tolist())
            if i == 0:
                found["theory"].append(theory.tolist())
        found["squared_singular_values"].append(curves)
        errors.append(worst)
        report(i + 1, len(seeds))
    row = Row("largest |s^2 - (1 - lambda / sigma^2)|", "0 (Theorem 4.2)", errors, max(errors) < 0.05)
    return Outcome([row], found)


FIGURES = (
    Figure("kunin_transpose_gap", "Kunin et al. 2019, Fig. 3", CONFIGURATION, _transpose_gap),
    Figure("kunin_shrinkage", "Kunin et al. 2019, Fig. 5", CONFIGURATION | {"lambda": LAMBDAS}, _shrinkage),
)
