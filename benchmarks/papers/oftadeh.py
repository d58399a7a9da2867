"""Oftadeh et al. 2020, "Eliminating the invariance on the loss landscape of linear autoencoders": Fig. 1, 2 and 3."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.papers import style
from benchmarks.papers.bao import images
from benchmarks.papers.figure import Figure, Row, Runs, of_case, quietly, series
from lae_fast import PCA, LinearAutoencoder, Moments, optimizers

LOSSES = ("ordered", "mse")
NAMES = {"ordered": "ordered loss $L$", "mse": "squared error"}


def _both(configuration: dict[str, Any]) -> list[str]:
    return list(LOSSES)


def _adam(steps: int) -> Any:
    """Adam whose rate falls from 1e-3 to 1e-6 by a constant factor."""
    return optimizers.adam(1e-3, schedule=optimizers.exponential(1e-3, steps))


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 1: three dimensions


def _cloud(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((configuration["m"], 3)) * np.sqrt(configuration["covariance"])
    model = quietly(LinearAutoencoder(2, loss=case, random_state=seed, init_scale=0.1), x)
    columns = model.components_.T  # (3, 2)
    axes = PCA(2).fit(x).components_.T
    sines = np.sqrt(np.maximum(1.0 - np.sum(axes * columns, axis=0) ** 2, 0.0))
    return {"points": x[:200].round(2), "columns": columns, "angle": np.degrees(np.arcsin(sines.max())),
            "out": np.abs(columns[2]).max()}  # fmt: skip


def _clouds_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    angle = {case: of_case(runs, case, "angle") for case in LOSSES}
    out = [max(pair) for pair in zip(*(of_case(runs, case, "out") for case in LOSSES))]
    return [
        Row("largest angle to the true eigenvectors in degrees, ordered loss", "0", angle["ordered"],
            max(angle["ordered"]) < 1.0),
        Row("the same, squared error", "not 0", angle["mse"], min(angle["mse"]) > 2.0),
        Row("largest component out of the principal plane, both", "0", out, max(out) < 0.15),
    ]  # fmt: skip


def _draw_clouds(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure = plt.figure(figsize=(style.WIDTH, 3.3))
    for place, case in enumerate(LOSSES):
        axis = figure.add_subplot(1, 2, place + 1, projection="3d")
        run = runs[case][0]
        axis.scatter(*np.array(run["points"]).T, s=3, color="0.65", depthshade=False)
        for k, column in enumerate(np.array(run["columns"]).T):
            length = 2.5 * np.sqrt(configuration["covariance"][k])
            axis.plot(*(np.outer([-length, length], column)).T, linewidth=2.5, label=f"column {k + 1}", **_bold(k))
        axis.set(title=NAMES[case], xlabel="x", ylabel="y", zlabel="z", box_aspect=(2, 1.4, 0.8))
        axis.tick_params(labelsize=6)
        axis.legend(loc="upper left", fontsize=7)
    return figure


def _bold(place: int) -> dict[str, Any]:
    return {"color": style.COLOURS[(2, 3)[place]], "linestyle": ("-", "--")[place]}


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 2: loss ratio and the directions that are found


def _convergence(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    d, rng = configuration["d"], np.random.default_rng(seed)
    x = (rng.standard_normal((configuration["m"], d)) * np.sqrt(np.arange(d, 0, -1.0))).astype(np.float32)
    moments = Moments.from_data(x)
    truth = np.linalg.eigh(moments.xx)[1][:, ::-1][:, : configuration["p"]]
    steps = configuration["iterations"]
    model = LinearAutoencoder(
        configuration["p"], loss=case, optimizer=_adam(configuration["schedule"]), max_iter=steps, tol=0.0, scale="sum",
        init_scale=1e-7, random_state=seed, record=("ratio_tp", "ratio_total", "loss_ratio"), record_every=steps // 100,
        stop="alignment",
    )  # fmt: skip
    quietly(model, moments, reference=truth)
    history = model.history_
    return {
        "iteration": history["iteration"], "tp": history["ratio_tp"], "total": history["ratio_total"],
        "excess": history["loss_ratio"] - 1.0, "last": history["iteration"][-1], "end tp": history["ratio_tp"][-1],
        "end excess": history["loss_ratio"][-1] - 1.0, "end total": history["ratio_total"][-1],
    }  # fmt: skip


def _convergence_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    tp, last = of_case(runs, "ordered", "end tp"), of_case(runs, "ordered", "last")
    total = of_case(runs, "mse", "end total")
    excess = [max(pair) for pair in zip(*(of_case(runs, case, "end excess") for case in LOSSES))]
    return [
        Row("RatioTP at the end, ordered loss", "1", tp, min(tp) == 1.0),
        Row("iteration of RatioTP = 1", "within the schedule", last, max(last) <= configuration["schedule"]),
        Row("RatioTotal at the end, squared error", "0", total, max(total) < 0.25),
        Row("larger of L / L* - 1 at the end, both losses", "under 1e-5", excess, max(excess) < 1e-5),
    ]


def _draw_convergence(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.9))
    for place, case in enumerate(LOSSES):
        for k, run in enumerate(runs[case]):
            label = None if k else NAMES[case]
            left.plot(run["iteration"], np.maximum(series(run, "excess"), 1e-9), label=label, **style.line(3 * place))
            right.plot(run["iteration"], run["tp"], label=label, **style.line(3 * place))
    left.set(yscale="log", xlabel="iteration", ylabel="$L / L^* - 1$")
    right.set(xlabel="iteration", ylabel="RatioTP")
    right.legend()
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 3: ten columns of a hundred


def _reconstruction(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    x, few = images(configuration["data"]), configuration["columns"]
    p = configuration["p"]
    model = LinearAutoencoder(
        p, loss=case, optimizer=_adam(configuration["iterations"]), max_iter=configuration["iterations"], tol=0.0,
        init_scale=1e-4, random_state=seed, record_every=10**6,
    )  # fmt: skip
    quietly(model, x)
    centred = x.astype(np.float64) - model.mean_
    pca = PCA(p).fit(x).components_.astype(np.float64)
    with_all = centred @ model.encoder_.T @ model.decoder_.T
    with_few = centred @ model.encoder_[:few].T @ model.decoder_[:, :few].T
    best = centred @ pca[:few].T @ pca[:few]
    error = {
        name: float(np.mean(np.sum((centred - one) ** 2, axis=1)))
        for name, one in (("all", with_all), ("few", with_few), ("pca", best))
    }
    if seed == 0:
        shown = [0, 1, 2, 3]
        parts = (centred[shown], with_all[shown], with_few[shown])
        top = float(x.max())
        error["images"] = [[[int(99 * v / top) for v in row + model.mean_] for row in part] for part in parts]
    return error


def _reconstruction_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    few = {case: of_case(runs, case, "few") for case in LOSSES}
    pca, all_of = of_case(runs, "mse", "pca"), of_case(runs, "mse", "all")
    n, p = configuration["columns"], configuration["p"]
    near = all(abs(one / best - 1.0) < 0.05 for one, best in zip(few["ordered"], pca))
    return [
        Row(f"squared error by the first {n} of {p} columns, ordered loss", "far better", few["ordered"], near),
        Row("the same, squared error as the loss", "far worse", few["mse"],
            all(one > 1.3 * best for one, best in zip(few["mse"], pca))),
        Row(f"PCA with {n} components", "-", pca, True),
        Row("all columns, squared error as the loss", "-", all_of, True),
    ]  # fmt: skip


def _draw_reconstruction(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure = plt.figure(figsize=(style.WIDTH, 3.2))
    for part, case in zip(figure.subfigures(1, 2), LOSSES):
        pictures = runs[case][0]["images"]
        axes = part.subplots(len(pictures), len(pictures[0]))
        side = int(len(pictures[0][0]) ** 0.5)
        labels = ("original", "all columns", f"first {configuration['columns']}")
        for row, of_row, label in zip(axes, pictures, labels):
            style.images(row, of_row, (side, side))
            row[0].set_ylabel(label)
        part.suptitle(NAMES[case], fontsize=9.5)
    return figure


FIGURES = (
    Figure(
        "oftadeh_clouds", "Three dimensions", "Oftadeh et al. 2020, Fig. 1",
        {"m": 1000, "p": 2, "covariance": [4.0, 2.0, 0.4], "start": "normal, deviation 0.1", "optimizer": "adam, auto"},
        _cloud, _clouds_compared, _draw_clouds, cases=_both,
        notes=("The paper does not say the diagonal of the covariance, nor the optimizer.",),
    ),
    Figure(
        "oftadeh_convergence", "Directions that are found", "Oftadeh et al. 2020, Fig. 2",
        {"d": 1000, "m": 2000, "p": 100, "covariance": "diagonal, 1000 to 1", "iterations": 70_000, "schedule": 95_000,
         "optimizer": "adam, 1e-3 falling to 1e-6", "start": "normal, deviation 1e-7", "batch": "all rows"},
        _convergence, _convergence_compared, _draw_convergence, cases=_both, seeds=1,
        quick={"d": 60, "m": 300, "p": 8, "iterations": 20_000, "schedule": 20_000, "covariance": "diagonal, 60 to 1"},
        notes=("Both losses run until the ordered one has all directions; here the squared error runs for all of the "
               "iterations, and finds none in its place with more of them either.",),
    ),
    Figure(
        "oftadeh_reconstruction", "Reconstruction by ten columns of a hundred", "Oftadeh et al. 2020, Fig. 3",
        {"data": "MNIST", "p": 100, "columns": 10, "iterations": 8000, "optimizer": "adam, 1e-3 falling to 1e-6",
         "start": "normal, deviation 1e-4", "batch": "all rows"},
        _reconstruction, _reconstruction_compared, _draw_reconstruction, cases=_both, seeds=1,
        quick={"data": "digits", "p": 20, "columns": 4},
        notes=("The paper shows images and no number; errors here are per image, pixels in [0, 1].",),
    ),
)  # fmt: skip
