"""Kunin et al. 2019, "Loss landscapes of regularized linear autoencoders": the scalar landscapes of Fig. 1, and on
synthetic data the transpose gap of Fig. 3, the heat maps of Fig. 4 and the shrinkage of Fig. 5.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import lae_fast
from benchmarks.papers import style
from benchmarks.papers.figure import Figure, Row, Runs, matrix_of, of_case, quietly, series
from lae_fast import LinearAutoencoder, Moments, losses, optimizers

LAMBDAS = [float(k * k) for k in range(1, 22, 2)]
SYNTHETIC = {
    "rows": 20, "singular_values": [float(s) for s in range(20, 0, -1)], "center": "no", "p": 10, "lambda": 10.0,
    "epochs": 4000, "batch": "all rows", "optimizer": "adam 0.05 / (1 + 0.1 t)", "start": "normal, deviation 0.05",
}  # fmt: skip
KINDS = ("mse", "product", "sum")
TITLES = {"mse": "unregularised", "product": "product loss", "sum": "sum loss", "mixed": "mixed loss"}


def loss_of(kind: str, strength: float) -> Any:
    """The loss called `kind`, with this lambda."""
    return {
        "mse": losses.mse(), "product": losses.product_l2(strength), "sum": losses.sum_l2(strength),
        "mixed": losses.mixed_l2(strength, 0.5, 0.5),
    }[kind]  # fmt: skip


def kinds(configuration: dict[str, Any]) -> list[str]:
    """The cases of a figure that compares the losses."""
    return list(KINDS)


def _fit(configuration: dict[str, Any], seed: int, loss: Any, **options: Any) -> tuple[LinearAutoencoder, np.ndarray]:
    """The model, and the true directions in columns."""
    x = matrix_of(configuration["singular_values"], configuration["rows"], seed)
    model = LinearAutoencoder(
        configuration["p"], loss=loss, optimizer=optimizers.adam(0.05, schedule=optimizers.harmonic(0.1)),
        max_iter=configuration["epochs"], tol=0.0, center=False, scale="sum", init_scale=0.05, random_state=seed,
        record_every="log", **options,
    )  # fmt: skip
    return quietly(model, Moments.from_data(x, center=False)), np.linalg.svd(x)[2][: configuration["p"]].T


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 1: two weights


def _landscape(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    """The loss of scalar weights on a grid, and where training ends."""
    kind, strength = case.split()[0], float(case.split()[1])
    x = np.full((2, 1), np.sqrt(configuration["x_squared"] / 2.0))
    loss, moments = loss_of(kind, strength), Moments.from_data(x, center=False)
    axis = np.linspace(-2.0, 2.0, 41)
    values = [[lae_fast.loss(np.array([[a]]), np.array([[b]]), moments, loss, "sum") for b in axis] for a in axis]
    model = LinearAutoencoder(
        1, loss=loss, max_iter=4000, tol=0.0, center=False, scale="sum", init=(np.array([[0.3]]), np.array([[0.6]]))
    )
    quietly(model, moments)
    decoder, encoder = float(model.decoder_[0, 0]), float(model.encoder_[0, 0])
    return {"values": np.round(values, 2), "decoder": decoder, "encoder": encoder, "product": decoder * encoder}


def _landscapes_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    expected = {"mse 0": 1.0, "product 2": 4.0 / 6.0, "sum 2": 1.0 - 2.0 / 4.0, "sum 4": 0.0}
    formula = {"mse 0": "1", "product 2": "(1 + 2/4)^-1", "sum 2": "1 - 2/4", "sum 4": "0: all is lost"}
    rows = []
    for case, product in expected.items():
        found = of_case(runs, case, "product")
        holds = max(abs(value - product) for value in found) < 2e-3
        rows.append(Row(f"w2 w1 at the minimum, {case.split()[0]}, lambda = {case.split()[1]}",
                        f"{product:.3g} ({formula[case]})", found, holds))  # fmt: skip
    return rows


def _draw_landscapes(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure, axes = plt.subplots(1, len(runs), figsize=(style.WIDTH, 2.4), sharey=True)
    axis = np.linspace(-2.0, 2.0, 41)
    for place, (case, of_seeds) in zip(axes, runs.items()):
        run = of_seeds[0]
        values = np.array(run["values"])
        place.imshow(np.log1p(values), origin="lower", extent=(-2.0, 2.0, -2.0, 2.0), interpolation="bilinear")
        place.contour(axis, axis, values, levels=[values.min() + 0.02], colors=[style.COLOURS[3]])
        place.plot(0.0, 0.0, "o", markeredgecolor="black", color="white", label="origin")
        place.plot(
            run["encoder"], run["decoder"], "^", color=style.COLOURS[4], markeredgecolor="black", label="trained"
        )
        kind, strength = case.split()
        place.set_title(TITLES[kind] + (f", $\\lambda$ = {strength}" if kind != "mse" else ""))
        place.set_xlabel("$w_1$")
        place.grid(False)
    axes[0].set_ylabel("$w_2$")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 3: the transpose gap


def _gap(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    model, _ = _fit(configuration, seed, loss_of(case, configuration["lambda"]), record="transpose_gap")
    gap = model.history_["transpose_gap"]
    return {"epoch": model.history_["iteration"], "gap": gap, "end": gap[-1]}


def _gaps_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    ends = {kind: of_case(runs, kind, "end") for kind in KINDS}
    return [
        Row("gap after 4000 epochs, sum loss", "falls to 0", ends["sum"], max(ends["sum"]) < 1e-3),
        Row("product loss", "stays", ends["product"], min(ends["product"]) > 1e-2),
        Row("unregularised", "stays", ends["mse"], min(ends["mse"]) > 1e-2),
    ]


def _draw_gaps(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure, axis = plt.subplots(figsize=(0.7 * style.WIDTH, 2.8))
    for place, kind in enumerate(KINDS):
        for k, run in enumerate(runs[kind]):
            axis.plot(run["epoch"], series(run, "gap"), label=None if k else TITLES[kind], **style.line(2 * place))
    axis.set(xscale="symlog", yscale="log", xlabel="epoch", ylabel="$|W_1 - W_2^T|_F^2$")
    axis.legend()
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 4: heat maps


def heat_map(model: LinearAutoencoder, truth: np.ndarray) -> dict[str, Any]:
    """[U V*]' [U U*] for W* = A B = U* S* V*', and how far its blocks are from what the theorem says.

    product : largest | |U'U*| - I |, the left singular vectors of W* against the true directions
    symmetric : largest | U*'V* - I |
    """
    p = truth.shape[1]
    left, _, right = np.linalg.svd(model.decoder_ @ model.encoder_)
    left, right = left[:, :p], right[:p].T
    eye = np.eye(p)
    return {
        "map": np.hstack([truth, right]).T @ np.hstack([truth, left]),
        "symmetric": np.abs(right.T @ left - eye).max(),
        "aligned": np.abs(np.abs(truth.T @ left) - eye).max(),
    }


def _heat(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    return heat_map(*_fit(configuration, seed, loss_of(case, configuration["lambda"])))


def _heat_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    aligned = {kind: of_case(runs, kind, "aligned") for kind in KINDS}
    symmetric = [max(values) for values in zip(*(of_case(runs, kind, "symmetric") for kind in KINDS))]
    return [
        Row("lower right block: largest deviation of V*'U* from I, three losses", "0", symmetric, max(symmetric) < 0.1),
        Row("off blocks: largest deviation of |U'U*| from I, sum", "0", aligned["sum"], max(aligned["sum"]) < 0.1),
        Row("the same, product", "0", aligned["product"], max(aligned["product"]) < 0.1),
        Row("the same, unregularised", "not near 0", aligned["mse"], min(aligned["mse"]) > 0.3),
    ]


def draw_heat(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    """One map for each case, of the first seed."""
    figure, axes = plt.subplots(1, len(runs), figsize=(style.WIDTH, 0.36 * style.WIDTH if len(runs) < 4 else 2.1))
    for axis, (case, of_seeds) in zip(axes, runs.items()):
        shown = axis.imshow(of_seeds[0]["map"], vmin=-1.0, vmax=1.0, interpolation="nearest")
        axis.set_title(TITLES.get(case, case))
        style.bare(axis)
    figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[-1, 0, 1])
    return figure


# ---------------------------------------------------------------------------------------------------------------------
# Fig. 5: shrinkage


def _shrinkage(configuration: dict[str, Any], case: str, seed: int) -> dict[str, Any]:
    """Singular values of W* for each lambda, and what the theorem says of them."""
    eigenvalues = np.array(configuration["singular_values"][: configuration["p"]]) ** 2
    found, theory = [], []
    for strength in configuration["lambdas"]:
        loss = loss_of(case, strength)
        model, _ = _fit(configuration, seed, loss)
        values = np.linalg.svd(model.decoder_ @ model.encoder_, compute_uv=False)
        found.append(values[: configuration["p"]].tolist())
        theory.append(lae_fast.theory.shrinkage(eigenvalues, loss).tolist())
    error = np.abs(np.array(found) - np.sort(np.array(theory))[:, ::-1]).max()
    return {"eigenvalues": eigenvalues, "found": found, "theory": theory, "error": error}


def _shrinkage_compared(configuration: dict[str, Any], runs: Runs) -> list[Row]:
    rows = []
    for kind in KINDS:
        errors = of_case(runs, kind, "error")
        what = f"largest distance of a singular value of W* from the line of the theorem, {TITLES[kind]}"
        rows.append(Row(what, "0 to the eye", errors, max(errors) < 0.05))
    return rows


def _draw_shrinkage(configuration: dict[str, Any], runs: Runs, plt: Any) -> Any:
    figure, axes = plt.subplots(1, len(runs), figsize=(style.WIDTH, 2.7), sharey=True)
    shades = np.linspace(0.0, 0.8, len(configuration["lambdas"]))
    for axis, (kind, of_seeds) in zip(axes, runs.items()):
        run = of_seeds[0]
        for k, (found, theory) in enumerate(zip(run["found"], run["theory"])):
            axis.plot(run["eigenvalues"], theory, "-", color=str(shades[k]), linewidth=1.0)
            label = f"{configuration['lambdas'][k]:.0f}" if k % 2 == 0 else None
            axis.plot(run["eigenvalues"], found, "o", color=str(shades[k]), markersize=3.0, label=label)
        axis.set_title(TITLES[kind])
        axis.set_xlabel("eigenvalue of $X X^T$")
    axes[0].set_ylabel("singular value of $W_*$")
    figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", title="$\\lambda$")
    return figure


FIGURES = (
    Figure(
        "kunin_landscapes", "Landscapes of two weights", "Kunin et al. 2019, Fig. 1",
        {"x_squared": 4.0, "start": "(0.6, 0.3)", "optimizer": "adam, rate auto", "iterations": 4000},
        _landscape, _landscapes_compared, _draw_landscapes,
        cases=lambda configuration: ["mse 0", "product 2", "sum 2", "sum 4"], seeds=1,
    ),
    Figure(
        "kunin_transpose_gap", "Encoder and decoder become transposes", "Kunin et al. 2019, Fig. 3",
        SYNTHETIC, _gap, _gaps_compared, _draw_gaps, kinds, seeds=5,
    ),
    Figure(
        "kunin_heat_maps", "Singular vectors of the trained map", "Kunin et al. 2019, Fig. 4",
        SYNTHETIC, _heat, _heat_compared, draw_heat, kinds, seeds=5,
    ),
    Figure(
        "kunin_shrinkage", "Shrinkage", "Kunin et al. 2019, Fig. 5",
        SYNTHETIC | {"lambdas": LAMBDAS}, _shrinkage, _shrinkage_compared, _draw_shrinkage, kinds,
        quick={"lambdas": LAMBDAS[::5]},
        notes=("Published for all three losses with the formula of each; the sum loss removes what is under lambda.",),
    ),
)  # fmt: skip
