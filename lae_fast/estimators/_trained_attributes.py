"""The fitted attributes of LinearAutoencoder, from a training run."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..eigen.eigenpairs import held
from ..training.chain import ChainEngine
from ..training.run import Run


def of_run(run: Run) -> dict[str, Any]:
    """All of them by name, as far as the run has come."""
    excess, residuals = np.nan, np.full(len(run.encoder), np.nan)
    if run.reason and run.assessment is not None:
        excess, residuals = run.assessment.excess, run.assessment.residuals
    fitted: dict[str, Any] = {
        **of_weights(run, run.encoder, run.decoder),
        "explained_variance_": held(run.variances(_unit_columns(run.decoder)), run.problem.dtype),
        "history_": run.history.arrays(),
        "n_iter_": run.iteration,
        "converged_": run.converged,
        "excess_loss_": excess,
        "alignment_residuals_": residuals,
        "converged_reason_": run.reason or "not measured: partial_fit, or a run that was interrupted or diverged",
        "backend_": run.backend,
        "regime_": run.regime,
        "regime_reason_": run.regime_reason,
        "learning_rate_": run.learning_rate,
    }
    if run.loss is not None and run.loss.name == "vae":
        extra = run.engine.extra[0]
        fitted["latent_variances_"], fitted["noise_variance_"] = np.exp(extra[:-1]), float(np.exp(extra[-1]))
    if isinstance(run.engine, ChainEngine):
        fitted["layers_"] = [np.array(layer) for layer in run.engine.layers]
    return fitted


def of_weights(run: Run, encoder: np.ndarray, decoder: np.ndarray) -> dict[str, Any]:
    """Those that map rows to codes and back, for weights (p, d) and (q, p) of the run."""
    dtype, mean, target_mean = run.problem.dtype, run.problem.mean, run.problem.mean_y
    return {
        "encoder_": encoder,
        "decoder_": decoder,
        "components_": np.ascontiguousarray(_unit_columns(decoder).T, dtype=dtype),
        "_exact_mean": mean,
        "_exact_target_mean": target_mean,
        "mean_": mean.astype(dtype),
        "target_mean_": target_mean.astype(dtype),
    }


def _unit_columns(decoder: np.ndarray) -> np.ndarray:
    """The columns at length 1, float64; a zero column stays zero."""
    columns = decoder.astype(np.float64)
    lengths = np.sqrt(np.sum(columns**2, axis=0))
    return columns / np.where(lengths > 0, lengths, 1.0)
