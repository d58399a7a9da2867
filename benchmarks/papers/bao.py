"""Bao et al. 2020, "Regularized linear autoencoders recover the principal components, eventually": Fig. 2 and 3 on
MNIST, and what the paper leaves out: RAG on mini-batches.

Rates, prior, penalties and start are those of the public code, which squares the penalties that it is given.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks.papers import style
from benchmarks.papers.figure import Figure, Row, Runs, first_at_most, of_case, quietly, series
from lae_fast import PCA, LinearAutoencoder, Moments, datasets, losses, metrics, optimizers

MODELS = {
    "uniform": "uniform $\\ell_2$", "nonuniform": "non-uniform $\\ell_2$, published $\\lambda$",
    "feasible": "non-uniform $\\ell_2$, feasible $\\lambda$", "nd": "nested dropout, expectation",
    "stochastic nd": "nested dropout", "rag": "RAG", "vae": "linear VAE",
}  # fmt: skip
OPTIMIZERS = ("nesterov", "adam")
RATES = {
    "nesterov": {"uniform": 1e-3, "nonuniform": 3e-4, "feasible": 3e-4, "nd": 0.03, "stochastic nd": 0.03, "rag": 3e-3,
                 "vae": 1e-3},
    "adam": {"uniform": 1e-3, "nonuniform": 0.01, "feasible": 0.01, "nd": 0.01, "stochastic nd": 0.01, "rag": 1e-3,
             "vae": 1e-3},
}  # fmt: skip


@functools.cache
def images(data: str) -> np.ndarray:
    """Rows of the data set, float32: MNIST in [0, 1], digits as large as MNIST."""
    if data == "digits":
        return datasets.load("digits") / np.float32(6.0)
    return datasets.load("mnist").astype(np.float32) / np.float32(255.0)


@functools.cache
def _moments(data: str) -> Moments:
    return Moments.from_data(images(data))


@functools.cache
def truth_of(data: str, p: int, rows: int | None = None) -> np.ndarray:
    """The true directions (d, p) of the rows, or of the first of them."""
    return PCA(p).fit(images(data)[:rows]).components_.T.astype(np.float64)


def optimizer_of(name: str, rate: float) -> Any:
    """An optimizer by its name, with this rate."""
    return optimizers.nesterov(rate) if name == "nesterov" else optimizers.adam(rate)


def penalties(configuration: dict[str, Any], model: str) -> np.ndarray:
    """The lambda_i of a model, from the r_i that the public code squares."""
    low, high = configuration["r"]
    if model == "feasible":
        high = configuration["r_feasible"]
    return np.linspace(low, high, configuration["p"]) ** 2


def _options(configuration: dict[str, Any], model: str) -> dict[str, Any]:
    if model == "rag":
        return {"rule": "rag"}
    if model == "uniform":
        return {"loss": losses.sum_l2(float(np.mean(configuration["r"]) ** 2))}
    if model in ("nonuniform", "feasible"):
        return {"loss": losses.nonuniform_l2(penalties(configuration, model))}
    return {"loss": {"vae": losses.vae(), "nd": losses.nested_dropout()}.get(model, losses.stochastic_nested_dropout())}


def _learned(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    model, optimizer = case.split(", ")
    data, p = configuration["data"], configuration["p"]
    rows = configuration["rows_of_stochastic_nd"] if model == "stochastic nd" else None
    truth = truth_of(data, p, rows)
    trained = LinearAutoencoder(
        p, optimizer=optimizer_of(optimizer, RATES[optimizer][model]), max_iter=configuration["iterations"], tol=0.0,
        init_scale=1e-4, random_state=seed, record=("d_align", "d_sub"),
        record_every=configuration["iterations"] // 100, **_options(configuration, model),
    )  # fmt: skip
    quietly(trained, images(data)[:rows] if rows else _moments(data), reference=truth)
    history = trained.history_
    result = {
        "iteration": history["iteration"], "d_align": history["d_align"], "d_sub": np.abs(history["d_sub"]),
        "align": history["d_align"][-1], "sub": history["d_sub"][-1],
        "matched": metrics.matched_alignment(truth, trained.decoder_),
        "to 0.3": first_at_most(history["iteration"], history["d_align"], 0.3),
        "to 0.01": first_at_most(history["iteration"], history["d_align"], 0.01),
    }  # fmt: skip
    if seed == 0:
        unit = trained.components_.T.astype(np.float64)
        result["matrix"] = (truth.T @ unit).round(2)
        result["images"] = [[int(v) for v in np.round(60 * one / np.abs(one).max())] for one in unit.T[:4]]
    return result


def _cases(configuration: dict[str, Any]) -> list[str]:
    return [f"{model}, {optimizer}" for optimizer in OPTIMIZERS for model in MODELS]


def _compare(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    rows = []

    def row(what: str, published: str, case: str, key: str, good: Any) -> None:
        found = of_case(runs, case, key)
        if found:
            rows.append(Row(f"{what}, {case}", published, found, bool(good(found))))

    align, sub = "d_align at the end", "d_sub at the end"
    for optimizer in OPTIMIZERS:
        row(align, "fails to align", f"uniform, {optimizer}", "align", lambda found: min(found) > 0.1)
    row(align, "aligns", "rag, nesterov", "align", lambda found: max(found) < 0.01)
    row(align, "not directly applicable", "rag, adam", "align", lambda found: min(found) > 0.01)
    for model in ("nonuniform", "feasible", "nd", "stochastic nd", "vae"):
        row(align, "slower than with adam", f"{model}, nesterov", "align", lambda found: True)
    for model in ("feasible", "nd", "stochastic nd", "vae"):
        row(align, "aligns", f"{model}, adam", "align", lambda found: max(found) < 0.1)
    if configuration["data"] == "MNIST":
        case = "nonuniform, adam"
        row(sub, "(two penalties exceed their eigenvalues)", case, "sub", lambda found: min(found) > 0.04)
        row(sub, "falls to 0", "feasible, adam", "sub", lambda found: max(found) < 0.01)
    to = {case: of_case(runs, case, "to 0.01") for case in _cases(configuration)}
    rivals = ["uniform", "feasible", *(["nd", "stochastic nd"] if configuration["p"] >= 20 else [])]
    row(
        "iterations to d_align 0.01",
        "the first",
        "rag, nesterov",
        "to 0.01",
        lambda found: all(_later(to[f"{model}, nesterov"], found) for model in rivals),
    )
    return rows  # fmt: skip


def _later(others: list[float], found: list[float]) -> bool:
    return all(not other <= one for other, one in zip(others, found))


def _draw(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure = plt.figure(figsize=(style.WIDTH, 7.6))
    curves, maps = figure.subfigures(2, 1, height_ratios=(3, 2.2))
    axes = curves.subplots(2, 2, sharex=True, sharey="row")
    for column, optimizer in enumerate(OPTIMIZERS):
        for place, (model, label) in enumerate(MODELS.items()):
            for k, run in enumerate(runs.get(f"{model}, {optimizer}", [])):
                for axis, key in zip(axes[:, column], ("d_align", "d_sub")):
                    values = np.maximum(series(run, key), 1e-12)
                    axis.plot(run["iteration"], values, label=None if k else label, **style.line(place))
        axes[0, column].set_title("Nesterov 0.9" if optimizer == "nesterov" else "Adam")
        axes[1, column].set(xlabel="iteration", yscale="log")
    axes[0, 0].set_ylabel("$d_{align}$")
    axes[1, 0].set_ylabel("$d_{sub}$")
    curves.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    shown = [model for model in MODELS if f"{model}, nesterov" in runs]
    pictures = maps.subplots(2, len(shown), squeeze=False)
    for column, model in enumerate(shown):
        run = runs[f"{model}, nesterov"][0]
        pictures[0, column].imshow(np.abs(run["matrix"]), vmin=0.0, vmax=1.0, interpolation="nearest")
        pictures[0, column].set_title(MODELS[model].replace(", ", ",\n"), fontsize=7.0)
        side = int(len(run["images"][0]) ** 0.5)
        tiles = np.array(run["images"]).reshape(2, 2, side, side)
        pictures[1, column].imshow(np.block([list(row) for row in tiles]), vmin=-60, vmax=60, interpolation="nearest")
    for axis in pictures.flat:
        style.bare(axis)
    maps.suptitle("$|U^T W_2|$ of the runs with Nesterov, and the first four columns of $W_2$", fontsize=9.0)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# mini-batches


def _mini(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    """A case is "BATCH, RATE"; the distance after each epoch."""
    batch, rate = case.split(", ")
    x, p = images(configuration["data"]), configuration["p"]
    truth, size = truth_of(configuration["data"], p), len(x) if batch == "all" else int(batch)
    epoch = max(1, len(x) // size)
    steps = configuration["epochs"] * epoch if batch != "all" else configuration["full_batch_iterations"]
    decay = None if rate == "constant" else optimizers.cosine(steps)
    model = LinearAutoencoder(
        p, rule="rag", optimizer=optimizers.sgd(configuration["rate"], schedule=decay), max_iter=steps, tol=0.0,
        batch_size=None if batch == "all" else size, init="balanced", init_scale=1e-2, random_state=seed,
        record=("d_align", "ratio_tp"), record_every=epoch if batch != "all" else 20,
    )  # fmt: skip
    quietly(model, _moments(configuration["data"]) if batch == "all" else x, reference=truth)
    history = model.history_
    return {
        "passes": history["iteration"] / epoch, "d_align": history["d_align"], "align": history["d_align"][-1],
        "to 0.3": first_at_most(history["iteration"] / epoch, history["d_align"], 0.3), "tp": history["ratio_tp"][-1],
    }  # fmt: skip


def _mini_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    rows = []
    for case in configuration["cases"]:
        rows.append(Row(f"passes over the data to d_align 0.3, {case}", "-", of_case(runs, case, "to 0.3"), True))
    for rate in ("constant", "falling"):
        end = of_case(runs, f"256, {rate}", "align")
        rows.append(Row(f"d_align at the end, batches of 256, {rate} rate", "-", end, max(end) < 0.3))
    many, few = of_case(runs, "all, constant", "to 0.3"), of_case(runs, "256, constant", "to 0.3")
    saved = [b / a for a, b in zip(many, few)]
    return [*rows, Row("passes with batches of 256 over those of full batches", "-", saved, max(saved) < 0.5)]


def _draw_mini(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure, axis = plt.subplots(figsize=(0.75 * style.WIDTH, 3.0))
    for place, case in enumerate(configuration["cases"]):
        for k, run in enumerate(runs.get(case, [])):
            batch, rate = case.split(", ")
            label = f"batches of {batch}, rate {rate}" if batch != "all" else "full batch"
            axis.plot(series(run, "passes") + 1, run["d_align"], label=None if k else label, **style.line(place))
    axis.set(xscale="log", yscale="log", xlabel="passes over the data + 1", ylabel="distance to axis alignment")
    axis.legend(loc="lower left")
    return figure


FIGURES = (
    Figure(
        "bao_mnist", "Six models on MNIST", "Bao et al. 2020, Fig. 2 and 3",
        {"data": "MNIST", "p": 20, "iterations": 30_000, "batch": "all rows", "start": "normal, deviation 1e-4",
         "r": [0.1, 0.9], "r_feasible": 0.7, "prior": "geometric, 0.9", "rates": RATES, "rows_of_stochastic_nd": 6000},
        _learned, _compare, _draw, cases=_cases, costly=lambda configuration, case: case.startswith("stochastic"),
        quick={"data": "digits", "p": 5, "rows_of_stochastic_nd": 500, "iterations": 20_000},
        notes=(
            "lambda_i = r_i^2 with r from 0.1 to 0.9, as in the public code. The last two exceed their eigenvalues on "
            "MNIST, so the optimum has rank 18 and no run can bring d_sub under 0.1, or 0.05 where a column that is"
            " nearly gone still has its direction; *feasible* has r up to 0.7.",
            "Nested dropout with a draw for each image runs on the first 6000 images, since a pass over all rows at "
            "each iteration would take ten times as long; the other models run on the moments of all 60 000.",
            "RAG with Adam: the paper says that Adam is not directly applicable to RAG, and shows no number. It finds "
            "the subspace and not the directions.",
        ),
    ),
    Figure(
        "bao_minibatch", "RAG on mini-batches", "not in the paper (its appendix I.2 has mini-batches of other models)",
        {"data": "MNIST", "p": 20, "epochs": 20, "rate": 0.03, "full_batch_iterations": 6000,
         "start": "balanced, deviation 0.01", "optimizer": "sgd",
         "cases": ["all, constant", "64, constant", "256, constant", "256, falling"]},
        _mini, _mini_compared, _draw_mini, cases=lambda configuration: list(configuration["cases"]),
        quick={"data": "digits", "p": 5, "epochs": 200},
        notes=(
            "A falling rate goes from 0.03 to 0 by half a cosine. At a constant rate the noise of the batches stays.",
        ),
    ),
)  # fmt: skip
