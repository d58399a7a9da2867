"""Does training say "converged" only where it is: rules, losses, optimizers and couplings on data of many spectra.

    python -m benchmarks.training --truth [--smoke] [--seeds N] [--out FILE]

Every run must have reached the optimum, or have said that it has not (`converged_` False and a ConvergenceWarning, or a
DivergenceError). What was reached is measured here, from the eigenvalues of NumPy and the loss by its definition, not
with the library's own attributes. The exit status is 1 when a run has done neither.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lae_fast import LinearAutoencoder, losses
from lae_fast.errors import ConvergenceWarning, DivergenceError

D, P, M = 10, 4, 200
TOL = 1e-6
MAX_ITER = 4000
OPTIMIZERS = ("auto", "sgd", "momentum", "nesterov", "adam")
RULES = ("rag", "oja", "gha", "alpha_eigengame", "mu_eigengame")
SPECTRA = {
    "linear": np.linspace(1.0, 0.1, D),
    "graded to 1e-3": np.geomspace(1.0, 1e-3, D),
    "graded to 1e-6": np.geomspace(1.0, 1e-6, D),
    "one strong": np.r_[1.0, np.full(D - 1, 1e-3)],
    "strong pair": np.r_[1.0, 0.9, 1e-3, 9e-4, np.full(D - 4, 1e-4)],
    "ties": np.r_[np.full(P, 1.0), np.full(D - P, 0.1)],
    "of rank 2": np.r_[1.0, 0.5, np.zeros(D - 2)],
    "power law": 1.0 / np.arange(1, D + 1) ** 2,
}
# What may be left of a direction: |S u - r u| / r.
DIRECTIONS = 4.0 * np.sqrt(TOL)


@dataclass(frozen=True)
class Trial:
    """A run: what it is, and whether it was reached, told, or neither; `excess` is what was left."""

    what: str
    optimizer: str
    spectrum: str
    dtype: str
    outcome: str
    excess: float
    residual: float
    iterations: int


def data(spectrum: np.ndarray, seed: int, dtype: Any, scale: float) -> np.ndarray:
    """(M, D) samples whose covariance has these eigenvalues times `scale`, in a random basis, off the origin."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((M, D))
    z = np.linalg.qr(z - z.mean(axis=0))[0] * np.sqrt(M)
    basis = np.linalg.qr(rng.standard_normal((D, D)))[0]
    return ((z * np.sqrt(spectrum) @ basis + 1.0) * np.sqrt(scale)).astype(dtype)


def cases(largest: float) -> Iterator[tuple[str, dict[str, Any], Any, bool]]:
    """(name, arguments, the loss that is solved, whether directions are promised)."""
    for loss in (
        losses.mse(), losses.ordered(), losses.nested_dropout("uniform"), losses.sum_l2(0.01 * largest),
        losses.nonuniform_l2(list(largest * np.array([1e-3, 5e-3, 1e-2, 5e-2]))), losses.product_l2(0.01 * largest),
        losses.mixed_l2(0.02 * largest, 0.5, 0.5),
    ):  # fmt: skip
        yield f"gradient, {loss.name}", {"loss": loss}, loss, loss.breaks_rotation(P)
    for coupling in ("tied", "synchronised"):
        yield f"gradient, ordered, {coupling}", {"coupling": coupling}, losses.ordered(), True
    for rule in RULES:
        solved = losses.mse() if rule in ("oja", "rag") else losses.ordered()
        yield rule, {"rule": rule}, solved, rule != "oja"
    for loss in (losses.mse(), losses.ordered()):
        yield f"alternating, {loss.name}", {"rule": "alternating", "loss": loss}, loss, loss.breaks_rotation(P)


def measure(model: Any, s: np.ndarray, loss: Any) -> tuple[float, float, np.ndarray, np.ndarray]:
    """(excess, smallest share that is seen, residuals (P,), eigenvalues (P,)) of a model on covariance S (D, D)."""
    a, b = np.asarray(model.decoder_, np.float64), np.asarray(model.encoder_, np.float64)
    values = np.maximum(np.linalg.eigvalsh(s)[::-1][:P], 0.0)
    c = np.append(loss.prefix(P), 0.0)
    value = loss.product_penalty * np.sum((a @ b) ** 2)
    value += sum(lam * (a[:, i] @ a[:, i] + b[i] @ b[i]) for i, lam in enumerate(loss.row_penalty(P)))
    for n in range(1, P + 1):  # the error of every prefix of the latent units
        gap = np.eye(D) - a[:, :n] @ b[:n]
        value += (c[n - 1] - c[n]) * np.trace(gap @ s @ gap.T)
    shrunk = np.maximum(values - loss.row_penalty(P), 0.0)
    gains = c[:P] * shrunk**2 / np.maximum(values + loss.product_penalty, 1e-300)
    residuals = np.full(P, np.nan)
    for i in range(P):
        length = np.linalg.norm(a[:, i])
        if length > 0.0:
            u = a[:, i] / length
            quotient = u @ s @ u
            residuals[i] = np.linalg.norm(s @ u - quotient * u) / max(quotient, 1e-300)
    return (value - (c[0] * np.trace(s) - gains.sum())) / gains.sum(), gains, residuals, values


def is_reached(model: Any, s: np.ndarray, loss: Any, aligned: bool, eps: float) -> tuple[bool, float, float]:
    """(whether the model is at the optimum as far as tol and rounding ask, its excess, its worst residual)."""
    excess, gains, residuals, values = measure(model, s, loss)
    rounding = np.minimum(8 * eps * values[0] / np.maximum(values, 1e-300), 1.0)
    seen = (gains > 8 * eps * gains.max()) & (rounding < 0.5)
    allowed = TOL * gains[seen].min() + np.sum(loss.prefix(P) * (rounding**2 + eps) * values)
    allowed += 1e-13 * loss.prefix(P)[0] * np.trace(s)
    reached = excess * gains.sum() <= 2.0 * allowed
    worst = float(np.max(residuals[seen])) if aligned else np.nan
    if aligned:
        reached = reached and bool((residuals[seen] <= np.maximum(DIRECTIONS, 2.0 * rounding[seen])).all())
    return reached, float(excess), worst


def trial(
    x: np.ndarray, what: str, arguments: dict[str, Any], loss: Any, aligned: bool, optimizer: str, spectrum: str
) -> Trial:
    """Train and judge."""
    s = np.cov(x.astype(np.float64), rowvar=False, ddof=0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            model = LinearAutoencoder(P, optimizer=optimizer, max_iter=MAX_ITER, tol=TOL, **arguments).fit(x)
        except DivergenceError:
            return Trial(what, optimizer, spectrum, x.dtype.name, "diverged, and told", np.nan, np.nan, 0)
    warned = any(issubclass(one.category, ConvergenceWarning) for one in seen)
    reached, excess, residual = is_reached(model, s, loss, aligned, float(np.finfo(x.dtype).eps))
    outcome = "neither"
    if model.converged_ and reached:
        outcome = "reached"
    elif not model.converged_ and warned:
        outcome = "told"
    return Trial(what, optimizer, spectrum, x.dtype.name, outcome, excess, residual, model.n_iter_)


def run(seeds: int, smoke: bool) -> list[Trial]:
    """All trials."""
    found = []
    spectra = dict(list(SPECTRA.items())[:2]) if smoke else SPECTRA
    for seed in range(seeds):
        for number, (name, spectrum) in enumerate(spectra.items()):
            for dtype in (np.float32, np.float64):
                scale = (1.0, 1e5, 1e-5)[(seed + number) % 3]
                x = data(spectrum, seed, dtype, scale)
                for what, arguments, loss, aligned in cases(scale):
                    optimizers = ("auto",) if arguments.get("rule") == "alternating" else OPTIMIZERS
                    if smoke:
                        optimizers = optimizers[:1]
                    for optimizer in optimizers:
                        found.append(trial(x, what, arguments, loss, aligned, optimizer, name))
    return found


def table(trials: list[Trial]) -> str:
    """Markdown, a row for each rule with its loss and for each optimizer: how many runs reached, told, neither."""
    lines = [
        "| | runs | reached | told | neither | largest excess of those that reached | their worst direction |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = [(t.what, "what") for t in trials] + [(t.optimizer, "optimizer") for t in trials]
    for value, name in dict.fromkeys(groups):
        group = [t for t in trials if getattr(t, name) == value]
        reached = [t for t in group if t.outcome == "reached"]
        told = sum("told" in t.outcome for t in group)
        residuals = [t.residual for t in reached if np.isfinite(t.residual)]
        shown = f"{max(t.excess for t in reached):.0e}" if reached else ""
        shown += f" | {max(residuals):.0e}" if residuals else " | "
        neither = sum(t.outcome == "neither" for t in group)
        label = f"optimizer {value}" if name == "optimizer" else value
        lines.append(f"| {label} | {len(group)} | {len(reached)} | {told} | {neither} | {shown} |")
    return "\n".join(lines)
