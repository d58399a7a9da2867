"""Bao et al. 2020, Fig. 4: iterations to a distance of 0.3, by the width; with exact alternation, the EigenGames and
block Krylov as further lines.

Data, rates and penalties are those of the public code: 5000 Gaussian rows of 1000 features whose covariance has the
eigenvalues 100 to 1 in a random basis; reference are the directions of the sample.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import lae_fast
from benchmarks.papers import style
from benchmarks.papers.bao import optimizer_of
from benchmarks.papers.figure import Figure, Row, Runs, first_at_most, of_case, quietly
from lae_fast import LinearAutoencoder, Moments, losses, metrics, stopping

# Read off the plot: RAG with Nesterov.
PUBLISHED = {
    2: 850,
    5: 3100,
    10: 3400,
    20: 3700,
    50: 4100,
    100: 7000,
    200: 12_000,
    300: 16_000,
    400: 18_000,
    500: 16_500,
}
MODELS = {
    "rag, nesterov": "RAG, Nesterov", "rag, adam": "RAG, Adam", "nd, nesterov": "nested dropout, Nesterov",
    "nd, adam": "nested dropout, Adam", "nonuniform, nesterov": "non-uniform, Nesterov",
    "nonuniform, adam": "non-uniform, Adam", "feasible, adam": "non-uniform, feasible $\\lambda$, Adam",
    "vae, adam": "linear VAE, Adam", "alternating": "exact alternation, ordered loss",
    "mu_eigengame": "$\\mu$-EigenGame", "alpha_eigengame": "$\\alpha$-EigenGame", "krylov": "block Krylov (passes)",
}  # fmt: skip
WIDE = ("rag, nesterov", "alternating", "mu_eigengame", "krylov")


@functools.cache
def _data(d: int, m: int, seed: int) -> tuple[np.ndarray, Moments, np.ndarray, np.ndarray]:
    """Rows (m, d), their moments, eigenvalues at the mean and eigenvectors in columns, descending."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = ((rng.standard_normal((m, d)) * np.sqrt(np.linspace(100.0, 1.0, d))) @ basis.T).astype(np.float32)
    moments = Moments.from_data(x, center=False)
    values, vectors = np.linalg.eigh(moments.xx / m)
    return x, moments, values[::-1], vectors[:, ::-1]


def _rate(configuration: dict[str, Any], model: str, optimizer: str, p: int) -> float:
    if optimizer == "nesterov":
        return 1e-4 if model == "rag" else 1e-3
    if model == "vae":
        return 3e-3 if p <= 20 else 1e-3
    return {"rag": 3e-4, "nd": 3e-3 if p <= 50 else 1e-2}.get(model, 3e-3)


def _penalties(d: int, p: int, values: np.ndarray, feasible: bool) -> np.ndarray:
    """As published r_i^2, r from 0.1 to 10 at d = 1000; feasible: up to half the p-th eigenvalue."""
    high = min(0.1 * (d - p - 1), 0.01 * d)
    return np.linspace(0.1, np.sqrt(0.5 * values[p - 1]) if feasible else high, p) ** 2


def _options(configuration: dict[str, Any], case: str, p: int, values: np.ndarray) -> dict[str, Any]:
    model, *optimizer = case.split(", ")
    if not optimizer:
        return {"rule": model}
    options: dict[str, Any] = {"optimizer": optimizer_of(optimizer[0], _rate(configuration, model, optimizer[0], p))}
    if model == "rag":
        return options | {"rule": "rag"}
    if model == "nd":
        return options | {"loss": losses.nested_dropout()}
    if model == "vae":
        return options | {"loss": losses.vae()}
    return options | {"loss": losses.nonuniform_l2(_penalties(configuration["d"], p, values, model == "feasible"))}


def _measure(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    case, width = case.rsplit(", ", 1)
    p = int(width)
    x, moments, values, vectors = _data(configuration["d"], configuration["m"], seed)
    truth, threshold = vectors[:, :p], configuration["distance"]
    if case == "krylov":
        found = lae_fast.top_eigenpairs(x, p, center=False, solver="krylov")
        return {"iterations": found.n_passes, "end": metrics.axis_alignment_distance(truth, found.vectors)}
    every = 1 if case == "alternating" else configuration["record_every"]
    model = LinearAutoencoder(
        p, center=False, init_scale=1e-4, random_state=seed, max_iter=configuration["iterations"], record="d_align",
        record_every=every, stop=stopping.below("d_align", threshold), **_options(configuration, case, p, values),
    )  # fmt: skip
    quietly(model, moments, reference=truth)
    history = model.history_
    reached = first_at_most(history["iteration"], history["d_align"], threshold)
    return {"iterations": reached, "end": history["d_align"][-1], "last": history["iteration"][-1]}


def _costly(configuration: dict[str, Any], case: str) -> bool:
    """Wide ones, and those that take tens of thousands of iterations, or do not arrive."""
    wide = int(case.rsplit(", ", 1)[1]) > 10 and not case.startswith("krylov")
    return wide or case.startswith(("rag, adam", "vae"))


def _cases(configuration: dict[str, Any]) -> list[str]:
    """Model by model, RAG first, of the wide ones the widest: what takes longest is not begun last."""
    found = []
    for case in MODELS:
        widest = configuration["widest"].get(case.split(", ")[0], 10**6)
        widths = [*configuration["widths"], *(configuration["wide"] if case in WIDE else [])]
        found += [f"{case}, {p}" for p in reversed(widths) if p <= widest]
    return found


def _compare(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    rows, published = [], configuration["d"] == FIGURES[0].configuration["d"]
    for p in (*configuration["widths"], *configuration["wide"]):
        found = of_case(runs, f"rag, nesterov, {p}", "iterations")
        if found:
            number = PUBLISHED.get(p, 0)
            factor = 3.0 if p <= 5 else 1.6
            near = not published or number / factor <= np.median(found) <= factor * number
            rows.append(
                Row(f"iterations of RAG with Nesterov, p = {p}", str(number) if published else "-", found, near)
            )
    measured = [p for p in configuration["widths"] if f"nd, nesterov, {p}" in runs]
    largest = max(measured, default=0)
    rag = of_case(runs, f"rag, nesterov, {largest}", "iterations")
    for case in MODELS:
        found = of_case(runs, f"{case}, {largest}", "iterations")
        if found and case != "rag, nesterov":
            slow = "nesterov" in case and (published or "nonuniform" in case)
            holds = not slow or all(not other <= one for other, one in zip(found, rag))
            said = "slower than RAG" if slow else "-"
            rows.append(Row(f"iterations of {case}, p = {largest}", said, found, holds))
    return rows


def _draw(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 3.9), sharex=True, sharey=True)
    widths = [*configuration["widths"], *configuration["wide"]]
    if configuration["d"] == FIGURES[0].configuration["d"]:
        left.plot(list(PUBLISHED), list(PUBLISHED.values()), "x", color="gray", label="RAG, published", zorder=3)
    for k, (case, label) in enumerate(MODELS.items()):
        axis, place = (left, k) if k < 6 else (right, k - 6)
        there = [(p, np.median(of_case(runs, f"{case}, {p}", "iterations"))) for p in widths if f"{case}, {p}" in runs]
        there = [(p, value) for p, value in there if not np.isnan(value)]
        if there:
            marker = style.MARKERS[place]
            axis.plot(*zip(*there), marker=marker, label=label, **style.line(place))
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="latent width p")
        axis.set_xticks(widths, [str(p) for p in widths])
        axis.minorticks_off()
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1 if axis is right else 2, fontsize=7.0)
    left.set_ylabel("iterations to a distance of 0.3")
    return figure


FIGURES = (
    Figure(
        "bao_scaling", "Iterations by the width", "Bao et al. 2020, Fig. 4",
        {"d": 1000, "m": 5000, "eigenvalues": "100 to 1, evenly", "distance": 0.3, "iterations": 50_000,
         "record_every": 20, "start": "normal, deviation 1e-4", "widths": [2, 5, 10, 20, 50], "wide": [100, 200, 500],
         "widest": {"vae": 20, "feasible": 20, "alternating": 100}},
        _measure, _compare, _draw, cases=_cases, costly=_costly,
        quick={"d": 60, "m": 400, "widths": [2, 5, 10], "wide": [], "iterations": 20_000},
        notes=(
            "The published numbers are read off the plot, from one drawn sample. The median of ours must be within a "
            "factor of 1.6, and for p = 2 and 5 of 3: there a few gaps between the largest eigenvalues of the sample "
            "decide, and from sample to sample ours differ by nearly as much.",
            "Models that do not reach the distance in the iterations have no point. Rates are those of the public code "
            "for RAG, nested dropout, the non-uniform penalty and the VAE; the others take learning_rate='auto'.",
            "The published penalties go up to 100 at every width, over the eigenvalues of wide models; *feasible* "
            "ends at half the last eigenvalue.",
            "Block Krylov counts passes over the rows, and its pairs are exact to rounding, not to 0.3.",
            "At widths of 100 and more stand RAG, the mu-EigenGame, block Krylov, and up to 100 exact alternation, "
            "which takes 14 000 iterations there and more for each wider one. The other models fail there in the paper "
            "too, after 50 000 iterations, which would take hours here.",
            "Models beside RAG, widths over 10 and those that need tens of thousands of iterations have one seed.",
        ),
    ),
)  # fmt: skip
