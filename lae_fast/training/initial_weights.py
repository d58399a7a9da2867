"""Where a run starts: the first weights of each layer, and the learning rate that "auto" means from there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .. import losses, optimizers, validation
from ..backends.threads import serial_blas
from . import rates
from .chain import chain
from .problem import Problem
from .run import Settings


def initial_weights(problem: Problem, settings: Settings, rng: np.random.Generator) -> list[np.ndarray]:
    """[B (p, d), A' (p, q)]; or, with hidden layers, those of the encoder and as many of the decoder, in order."""
    if settings.hidden:
        return _initial_chain(problem, settings, rng)
    return _initial_pair(problem, settings, rng)


def _initial_pair(problem: Problem, settings: Settings, rng: np.random.Generator) -> list[np.ndarray]:
    """[B (p, d), A' (p, q)]: as given, normal with the deviations of init_scale, or balanced."""
    p, d, q = settings.n_components, problem.d, problem.q
    of_decoder, of_encoder = settings.deviations()
    if settings.init is None:
        return [of_encoder * rng.standard_normal((p, d)), of_decoder * rng.standard_normal((p, q))]
    if isinstance(settings.init, str):
        validation.check_choice(settings.init, ("balanced",), "init")
        if of_decoder != of_encoder:
            raise ValueError("init='balanced' draws one matrix: init_scale must be one number.")
        return _balanced(of_encoder * rng.standard_normal((p, d)), problem, rng)
    if not isinstance(settings.init, (tuple, list)) or len(settings.init) != 2:
        raise ValueError("init must be None, 'balanced' or a pair (decoder (q, p), encoder (p, d)).")
    decoder, encoder = (np.asarray(part, dtype=np.float64) for part in settings.init)
    for name, part, shape in (("decoder", decoder, (q, p)), ("encoder", encoder, (p, d))):
        if part.shape != shape:
            raise ValueError(f"init: the {name} has shape {part.shape}, expected {shape}.")
        if not np.isfinite(part).all():
            raise ValueError(f"init: the {name} holds NaN or inf.")
    return [encoder, decoder.T]


def _balanced(encoder: np.ndarray, problem: Problem, rng: np.random.Generator) -> list[np.ndarray]:
    """[B, A'] with A'A = BB', which plain descent conserves to the first order of its rate.

    A = B' where Y is X.  Otherwise A = Q (BB')^(1/2) with random orthonormal columns Q (q, p).
    """
    if problem.same:
        return [encoder, encoder.copy()]
    p, q = len(encoder), problem.q
    with serial_blas():
        basis = np.linalg.qr(rng.standard_normal((q, p)))[0]
        values, vectors = np.linalg.eigh(encoder @ encoder.T)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        return [encoder, root @ basis.T]


def _initial_chain(problem: Problem, settings: Settings, rng: np.random.Generator) -> list[np.ndarray]:
    """Layers d -> h_1 -> ... -> p and p -> ... -> h_1 -> q.

    Each layer is a scaled orthogonal matrix.  A product of layers of deviation init_scale would grow very slowly;
    `rates.chain_size` makes them grow as fast as two layers of that deviation do.
    """
    widths = [problem.d, *settings.hidden, settings.n_components]
    back = [settings.n_components, *reversed(settings.hidden), problem.q]
    shapes = [(b, a) for path in (widths, back) for a, b in itertools.pairwise(path)]
    if isinstance(settings.init, str):
        raise ValueError(
            "init='balanced' is for one encoder and one decoder; the layers of a chain start alike anyway."
        )
    of_decoder, of_encoder = settings.deviations()
    if of_decoder != of_encoder:
        raise ValueError("with hidden layers init_scale must be one number: it says how long the start takes.")
    if settings.init is not None:
        layers = [np.asarray(layer, dtype=np.float64) for layer in settings.init]
        if [layer.shape for layer in layers] != shapes:
            raise ValueError(f"init: layers have shapes {[layer.shape for layer in layers]}, expected {shapes}.")
        return layers
    size = rates.chain_size(of_encoder * float(np.sqrt(problem.d)), len(widths) - 1)
    layers = []
    for rows, columns in shapes:
        with serial_blas():
            basis = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))[0]
        layers.append(size * (basis if rows >= columns else basis.T))
    return layers


def with_rate(
    optimizer: optimizers.Optimizer,
    settings: Settings,
    problem: Problem,
    loss: losses.Loss | None,
    weights: list[np.ndarray],
    batch: int | None,
    last: int,
) -> Any:
    """The optimizer with its learning rate: the one given, or that of `rates.auto_optimizer` from these weights.

    batch : rows of a mini-batch, or None for full batch;  last : the last iteration, where schedules end that are
        given by name
    """
    rate, schedule = settings.learning_rate, None
    if settings.schedule is not None:
        schedule = optimizers.resolve_schedule(settings.schedule, last)
    if not isinstance(rate, str):
        return optimizer.with_rate(float(rate) if isinstance(rate, (int, float, np.number)) else rate, schedule)
    if rate != "auto":
        raise ValueError(f"learning_rate={rate!r} must be a number > 0, or 'auto'.")
    p = settings.n_components
    return rates.auto_optimizer(
        optimizer, loss, p, _region(problem, loss, p, weights, batch), last, schedule, len(weights) // 2
    )


def _region(
    problem: Problem, loss: losses.Loss | None, p: int, weights: list[np.ndarray], batch: int | None
) -> rates.Region:
    """What decides the curvature: the spectrum of the data, what a batch adds to it, and the start."""
    noise = problem.trace / batch if batch is not None and batch < problem.n_samples else 0.0
    n_encoder = len(weights) // 2
    with serial_blas():
        sides = [chain(weights[:n_encoder]), chain(weights[n_encoder:])]
        start = max(float(np.linalg.norm(side, 2)) for side in sides) ** 2
        tail = problem.tail(p) if loss is not None and loss.name == "vae" else 0.0
    map_size = 1.0
    if not problem.same and problem.largest > 0.0:
        map_size = max(1.0, float(np.sqrt(problem.yy_trace / problem.largest)))
    return rates.Region(problem.largest, problem.trace, tail, problem.d, noise, start, map_size)
