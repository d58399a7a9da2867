"""One table across the papers: how soon each method, optimizer and width gets near the directions, from one start."""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

import lae_fast
from benchmarks.papers import style
from benchmarks.papers.figure import Figure, Row, Runs, matrix_of, of_case, quietly
from lae_fast import LinearAutoencoder, Moments, losses, metrics

THRESHOLDS = {"d_align 0.3": 0.3, "d_align 0.01": 0.01, "d_align 1e-6": 1e-6}
ALL_FOUND = "RatioTP 1"
# Method, optimizer: what it is called, and whether it is to find the directions.
METHODS = {
    "mse, adam": ("squared error", False), "sum_l2, adam": ("sum loss", False),
    "oja, sgd": ("Oja's subspace rule", False),
    "ordered, adam": ("ordered loss = full-prefix Matryoshka", True), "ordered, nesterov": ("ordered loss", True),
    "ordered, sgd": ("ordered loss", True), "nested_dropout, adam": ("nested dropout, expectation", True),
    "nonuniform_l2, adam": ("non-uniform penalty", True), "vae, adam": ("linear VAE", True),
    "rag, sgd": ("RAG", True), "gha, sgd": ("GHA", True), "alpha_eigengame, sgd": ("$\\alpha$-EigenGame", True),
    "mu_eigengame, sgd": ("$\\mu$-EigenGame", True), "adaoja, none": ("AdaOja", True),
    "alternating, none": ("exact alternation, ordered loss", True), "krylov, none": ("block Krylov (passes)", True),
}  # fmt: skip


@functools.cache
def _data(d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose second moments have the eigenvalues d to 1, and their eigenvectors in columns."""
    x = matrix_of(np.sqrt(2.0 * d * np.arange(d, 0, -1.0)), 2 * d, seed)
    return x, np.linalg.svd(x, full_matrices=False)[2].T


def _options(method: str, optimizer: str, p: int, d: int) -> dict[str, Any]:
    if method in ("adaoja", "alternating"):
        return {"rule": method}
    if method in ("oja", "rag", "gha", "alpha_eigengame", "mu_eigengame"):
        return {"rule": method, "optimizer": optimizer}
    least = float(d - p + 1)
    loss = {"nonuniform_l2": losses.nonuniform_l2(np.linspace(0.05, 0.5, p) * least),
            "sum_l2": losses.sum_l2(0.2 * least), "mse": losses.mse(), "ordered": losses.ordered(),
            "nested_dropout": losses.nested_dropout(), "vae": losses.vae()}[method]  # fmt: skip
    return {"loss": loss, "optimizer": optimizer}


def _measure(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    method, optimizer, width = case.split(", ")
    p, d = int(width), configuration["d"]
    x, vectors = _data(d, seed)
    truth = vectors[:, :p]
    if method == "krylov":
        lae_fast.top_eigenpairs(x, p, center=False, solver="krylov")  # compiles
        began = time.perf_counter()
        found = lae_fast.top_eigenpairs(x, p, center=False, solver="krylov")
        seconds = time.perf_counter() - began
        return {name: [found.n_passes, seconds] for name in (*THRESHOLDS, ALL_FOUND)} | {
            "end": metrics.axis_alignment_distance(truth, found.vectors)}  # fmt: skip

    def arrived(state: Any) -> bool:
        recorded = state.history.recorded
        return recorded["d_align"][-1] <= 1e-6 and recorded["ratio_tp"][-1] == 1.0

    model = LinearAutoencoder(
        p, center=False, max_iter=configuration["iterations"], tol=0.0, random_state=seed,
        record=("d_align", "ratio_tp"), record_every=10, callback=arrived, init_scale=configuration["init_scale"],
        **_options(method, optimizer, p, d),
    )  # fmt: skip
    quietly(model, Moments.from_data(x, center=False), reference=truth)
    history = model.history_
    result: dict[str, Any] = {"end": history["d_align"][-1]}
    reached = {name: history["d_align"] <= threshold for name, threshold in THRESHOLDS.items()}
    reached[ALL_FOUND] = history["ratio_tp"] == 1.0
    for name, holds in reached.items():
        first = int(np.argmax(holds))
        result[name] = [history["iteration"][first], history["seconds"][first]] if holds.any() else [np.nan, np.nan]
    return result


def _cases(configuration: dict[str, Any]) -> list[str]:
    return [f"{method}, {p}" for p in configuration["widths"] for method in METHODS]


def _found(runs: Runs, case: str, name: str, place: int) -> list[float]:
    values = [run[name][place] for run in runs.get(case, [])]
    return [np.nan if value is None else float(value) for value in values]


def _compare(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    rows = []
    for p in configuration["widths"]:
        ends = {method: of_case(runs, f"{method}, {p}", "end") for method in METHODS}
        blind = [min(values) for values in zip(*(ends[m] for m, (_, finds) in METHODS.items() if not finds))]
        text = f"least d_align at the end of squared error, sum loss and Oja's rule, p = {p}"
        rows.append(Row(text, "no directions", blind, min(blind) > 0.05))
        sure = ("ordered, adam", "rag, sgd", "gha, sgd", "mu_eigengame, sgd", "alternating, none")
        worst = [max(values) for values in zip(*(ends[m] for m in sure))]
        text = f"largest d_align of ordered loss with Adam, RAG, GHA, mu-EigenGame and alternation, p = {p}"
        rows.append(Row(text, "0", worst, max(worst) < 0.02))
        ada = ends["adaoja, none"]
        rows.append(Row(f"d_align of AdaOja, p = {p}", "towards 0", ada, max(ada) < 0.3))
        exact, adam = (_found(runs, f"{m}, {p}", "d_align 0.3", 0) for m in ("alternating, none", "ordered, adam"))
        ratios = [b / a for a, b in zip(adam, exact)]
        text = f"iterations to d_align 0.3 of alternation over those of Adam, ordered loss, p = {p}"
        rows.append(Row(text, "fewer", ratios, max(ratios) < 1))
    return rows


def _table(configuration: dict[str, Any], runs: Runs) -> list[str]:
    """Medians over the seeds: iterations and seconds to each threshold."""
    names = (*THRESHOLDS, ALL_FOUND)
    lines = ["| method | optimizer | p | " + " | ".join(f"to {name}" for name in names) + " |",
             "|---|---|--:|" + "--:|" * len(names)]  # fmt: skip
    for p in configuration["widths"]:
        for case, (label, _) in METHODS.items():
            cells = []
            for name in names:
                of_seeds = [_found(runs, f"{case}, {p}", name, place) for place in (0, 1)]
                cells.append(_cell(*(float(np.median(values)) for values in of_seeds)))
            label = label.replace("$\\alpha$", "alpha").replace("$\\mu$", "mu")
            lines.append(f"| {label} | {case.split(', ')[1]} | {p} | " + " | ".join(cells) + " |")
    return lines


def _cell(iterations: float, seconds: float) -> str:
    return "-" if np.isnan(iterations) else f"{iterations:.0f} ({seconds:.2g} s)"


def _draw(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    widths = configuration["widths"]
    figure, axes = plt.subplots(1, len(widths), figsize=(style.WIDTH, 4.4), sharey=True, squeeze=False)
    labels = [f"{label}, {case.split(', ')[1]}".removesuffix(", none") for case, (label, _) in METHODS.items()]
    for axis, p in zip(axes[0], widths):
        for place, name in enumerate((*THRESHOLDS, ALL_FOUND)):
            values = [float(np.median(_found(runs, f"{case}, {p}", name, 0))) for case in METHODS]
            axis.plot(values, -np.arange(len(values)), linestyle="", label=name, **style.points(2 * place))
        axis.set(xscale="log", xlabel="iterations", title=f"p = {p}", ylim=(0.6 - len(labels), 0.6))
        axis.set_yticks(-np.arange(len(labels)), labels, fontsize=7.5)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


FIGURES = (
    Figure(
        "across", "All methods in one table", "across the papers; AdaOja: Henriksen and Ward 2019",
        {"d": 100, "eigenvalues": "100 to 1, evenly", "widths": [5, 20], "iterations": 20_000, "init_scale": 1e-3,
         "rates": "auto", "recorded": "every 10 iterations"},
        _measure, _compare, _draw, cases=_cases, table=_table,
        quick={"d": 40, "eigenvalues": "40 to 1, evenly", "widths": [4], "iterations": 4000},
        notes=(
            "A dash: not within the iterations. Seconds include the measuring at every tenth iteration.",
            "The linear VAE is slow with these rates, for its largest curvature goes with the square of the largest "
            "eigenvalue, 100 here; with the published rate it gets to 0.3, in the figure of iterations by the width.",
            "AdaOja's steps shorten with the root of their number, and on a spectrum as flat as this it takes long.",
            "The rates are those that lae_fast chooses, not tuned for each method: another one may be quicker.",
            "The full-prefix objective of Matryoshka autoencoders (Bussmann et al. 2025) is, for linear layers, the "
            "ordered loss: the sum of the squared errors of all prefixes. A test holds the two against each other.",
            "Block Krylov counts passes over the rows, and its pairs are exact to rounding.",
        ),
    ),
)  # fmt: skip
