"""Losses and gradients at given weights, on moments or samples.

Everything is computed in float64: this is what training is checked against, and where a user asks what a model is
worth.  Where A, B or data lie on a device everything of length d does; what is p x p is the host's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import backends, losses, plan, rules, validation
from ..data import containers, sources
from ..errors import UnsupportedOnBackendError
from ..losses import _family
from ..operators.moments import Moments
from . import problem


class _Place(NamedTuple):
    """Where a call computes, and in whose arrays it answers."""

    backend: str  # "cpu" | "cuda"
    panels: Any
    like: sources.DeviceSource | None  # the first array that was given on a device

    def returned(self, array: Any) -> Any:
        """An array in the library of what was given."""
        return array if self.like is None else self.like.returned(self.panels.place(array))


def _place(*given: Any) -> _Place:
    """On the device if anything is there, else on the CPU."""
    opened = [sources.as_source(part) for part in given if sources.is_on_device(part)]
    there = [source for source in opened if isinstance(source, sources.DeviceSource)]
    name = backends.choose("auto", bool(there))
    return _Place(name, backends.get_backend(name).panels, there[0] if there else None)


def _matrix(part: Any, name: str, place: _Place) -> Any:
    """A matrix as float64, where the call computes."""
    if sources.is_on_device(part):
        return place.panels.place(_on_device(part, name), np.float64)
    return place.panels.place(containers.as_matrix(part, name), np.float64)


def _on_device(part: Any, name: str) -> Any:
    """What was given on a device, as an array of CuPy; it shares its memory."""
    source = sources.DeviceSource(part, name)
    return source.device_block(0, source.shape[0], False)


def _weights(A: Any, B: Any, place: _Place) -> tuple[Any, Any]:
    """Decoder (q, p) and encoder (p, d) as float64 matrices."""
    decoder, encoder = (_matrix(part, name, place) for part, name in ((A, "A"), (B, "B")))
    if decoder.shape[1] != encoder.shape[0]:
        raise ValueError(
            f"A has shape {decoder.shape} and B {encoder.shape}: A is (q, p) and B is (p, d) with the same p."
        )
    for part, name in ((decoder, "A"), (encoder, "B")):
        if not place.panels.is_finite(part):
            raise ValueError(f"{name} holds NaN or inf.")
    return decoder, encoder


def _split(data: Any) -> tuple[Any, Any]:
    """(X, Y or None) of X or a pair of arrays."""
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ValueError(f"data must be Moments, X or a pair (X, Y), got a tuple of {len(data)}.")
        return data
    return data, None


class _OfMoments(NamedTuple):
    """Moments at a scale, and the products that a loss needs; nothing else is made of them, least of all a spectrum."""

    moments: Moments
    factor: float
    place: _Place

    @property
    def d(self) -> int:
        return self.moments.n_features

    @property
    def q(self) -> int:
        return self.moments.n_targets or self.moments.n_features

    @property
    def same(self) -> bool:
        return not self.moments.n_targets

    @property
    def yy_trace(self) -> float:
        return self.moments.yy_trace * self.factor

    def products(self, encoder: Any, decoder: Any) -> tuple[Any, Any, Any]:
        """See `problem.Problem.products`.  decoder : None where A'Syx is not wanted; then it is None too"""
        scaled, scale = self.moments.scaled_xx()
        sxx, unit = self.place.panels.place(scaled), self.factor / scale**2
        zb = (encoder @ sxx) * unit
        if self.same:
            return zb, None if decoder is None else (decoder @ sxx) * unit, zb
        sxy = self.place.panels.place(self.moments.xy)
        za = None if decoder is None else (decoder @ sxy.T) * self.factor
        return zb, za, (encoder @ sxy) * self.factor


def _problem(data: Any, scale: str, place: _Place) -> _OfMoments | problem.RowProblem:
    """Moments, X or (X, Y) at a scale; moments unless d x d would not fit."""
    validation.check_choice(scale, ("mean", "sum"), "scale")
    if not isinstance(data, Moments):
        X, Y = _split(data)
        source = sources.as_source(X)
        if source.shape[1] > plan.LARGEST_GRAM:
            targets = None if Y is None else sources.as_source(Y, "Y")
            return problem.from_rows(source, targets, None, scale, place.backend, with_largest=False)
        data = Moments.from_data(source, Y, backend=place.backend if place.like is not None else "auto")
    return _OfMoments(data, 1.0 / data.weight_sum if scale == "mean" else 1.0, place)


def _check_widths(decoder: np.ndarray, encoder: np.ndarray, d: int, q: int) -> None:
    if encoder.shape[1] != d or decoder.shape[0] != q:
        raise ValueError(
            f"A has shape {decoder.shape} and B {encoder.shape}, but the data ask for ({q}, p) and (p, {d})."
        )


class _Pieces(NamedTuple):
    """Products and Gram matrices at the weights, float64; A' and B by rows; Gram matrices on the host."""

    zb: np.ndarray
    za: Any
    zxy: np.ndarray
    gram_decoder: np.ndarray
    gram_latent: np.ndarray
    gram_encoder: np.ndarray


def _pieces(
    described: _OfMoments | problem.RowProblem, decoder: Any, encoder: Any, place: _Place, with_za: bool = True
) -> _Pieces:
    """The pieces; za is None where it is not wanted and would cost something."""
    _check_widths(decoder, encoder, described.d, described.q)
    if with_za or not isinstance(described, _OfMoments):
        zb, za, zxy = described.products(encoder, place.panels.place(decoder.T))
    else:
        zb, za, zxy = described.products(encoder, None)
    latent = zb @ encoder.T
    grams = decoder.T @ decoder, (latent + latent.T) * 0.5, encoder @ encoder.T
    return _Pieces(zb, za, zxy, *(place.panels.fetch(gram) for gram in grams))


def loss(A: Any, B: Any, data: Any, loss: Any = "ordered", scale: str = "mean", *, random_state: Any = None) -> float:
    """Value of a loss  (docs/math.md Eq. 3 and 5).

    Parameters
    ----------
    A : array (q, p)
        Decoder.
    B : array (p, d)
        Encoder.
    data : Moments, X (m, d), or a pair (X, Y) with Y (m, q)
        Arrays are centred first.  A, B, X and Y may lie on a CUDA device (CuPy, PyTorch, Numba): then it is done there.
    loss : str or object of `lae_fast.losses`, default="ordered"
        For vae see `vae_loss`.
    scale : {"mean", "sum"}, default="mean"
        Of the squared errors over samples; penalties are not scaled.
    random_state : int or numpy.random.Generator, default=None
        For a loss that draws masks.

    Returns
    -------
    float
        Computed in float64.

    Raises
    ------
    ValueError
        Shapes that do not fit, NaN or Inf, an unknown loss or scale, a drawn loss on moments or without random_state.
    TypeError
        For vae, which has parameters of its own.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])  # second moments 2 and 0.5
    >>> A = B = np.eye(2)
    >>> lf.loss(A, B, X, "mse"), lf.loss(A, B, X), lf.loss(A, B, X, scale="sum")  # the prefix of one unit misses 0.5
    (0.0, 0.5, 2.0)
    >>> lf.loss(A, B, X, lf.losses.sum_l2(0.1)) == 0.1 * (2 + 2)
    True
    """
    place = _place(A, B, *_split(data))
    decoder, encoder = _weights(A, B, place)
    described_loss = _family_or_drawn(loss)
    if described_loss.needs_samples:
        return _drawn(decoder, encoder, data, described_loss, scale, random_state, place)[0]
    described = _problem(data, scale, place)
    pieces = _pieces(described, decoder, encoder, place, with_za=False)
    return _family.family_value(
        described_loss,
        yy_trace=described.yy_trace,
        cross=place.panels.fetch((pieces.zxy * decoder.T).sum(axis=1)),
        gram_decoder=pieces.gram_decoder,
        gram_latent=pieces.gram_latent,
        gram_encoder=pieces.gram_encoder,
    )


def gradients(
    A: Any,
    B: Any,
    data: Any,
    loss: Any = "ordered",
    scale: str = "mean",
    out: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    random_state: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of a loss  (docs/math.md Eq. 6 and 7).

    Parameters
    ----------
    A, B, data, loss, scale, random_state
        As in `loss`.
    out : pair of arrays (q, p) and (p, d), default=None
        Where to write to.

    Returns
    -------
    dA : ndarray (q, p), float64
    dB : ndarray (p, d), float64
        Or `out`; if anything was given on a device, in the library of the first of those.

    Raises
    ------
    ValueError, TypeError
        As `loss`; or `out` has the wrong shapes.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> moments = lf.Moments.from_data(np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    >>> A, B = lf.theory.optimum(moments, 1)
    >>> dA, dB = lf.gradients(A, B, moments)
    >>> dA.shape, dB.shape, bool(abs(dA).max() < 1e-12 and abs(dB).max() < 1e-12)
    ((2, 1), (1, 2), True)
    >>> dA, dB = lf.gradients([[2.0], [0.0]], [[1.0, 0.0]], moments)
    >>> dA.T, dB  # 2 (b S b' a - S b') and 2 (|a|^2 b S - a'S), S = diag(2, 0.5)
    (array([[4., 0.]]), array([[8., 0.]]))
    """
    place = _place(A, B, *_split(data))
    decoder, encoder = _weights(A, B, place)
    described_loss = _family_or_drawn(loss)
    if described_loss.needs_samples:
        _, da, db = _drawn(decoder, encoder, data, described_loss, scale, random_state, place)
    else:
        pieces = _pieces(_problem(data, scale, place), decoder, encoder, place)
        of_encoder = rules.encoder_matrices("gradient", described_loss, pieces.gram_decoder, pieces.gram_latent)
        of_decoder = rules.decoder_matrices("gradient", described_loss, pieces.gram_encoder, pieces.gram_latent)
        of_encoder, of_decoder = (_placed(matrices, place) for matrices in (of_encoder, of_decoder))
        db = rules.apply(of_encoder, pieces.zb, pieces.za, encoder)
        da = rules.apply(of_decoder, pieces.zxy, None, place.panels.place(decoder.T)).T
    if out is None:
        return place.returned(place.panels.place(da)), place.returned(db)
    for given, value, name in zip(out, (da, db), ("out[0]", "out[1]")):
        if tuple(given.shape) != value.shape:
            raise ValueError(f"{name} has shape {tuple(given.shape)}, expected {value.shape}.")
        if sources.is_on_device(given):
            _on_device(given, name)[...] = place.panels.place(value)
        else:
            given[...] = place.panels.fetch(value)
    return out


def _placed(matrices: rules.Matrices, place: _Place) -> rules.Matrices:
    """Coefficients of the host, where the products are."""
    return rules.Matrices(*(None if part is None else place.panels.place(part) for part in matrices))


def _family_or_drawn(loss: Any) -> losses.Loss:
    resolved = losses.resolve(loss)
    if resolved.name == "vae":
        raise TypeError("vae has latent and noise variances of its own: use lae_fast.vae_loss and vae_gradients.")
    return resolved


def _drawn(
    decoder: Any, encoder: Any, data: Any, drawn: Any, scale: str, random_state: Any, place: _Place
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss and gradients of per-sample nested dropout, one draw for each sample, on the host  (docs/math.md Eq. 9)."""
    decoder, encoder = place.panels.fetch(decoder), place.panels.fetch(encoder)
    validation.check_choice(scale, ("mean", "sum"), "scale")
    if isinstance(data, Moments):
        raise ValueError(
            f"{drawn.name} draws a mask for every sample, and moments have none; pass X, or use its expectation: "
            "losses.nested_dropout with the same prior."
        )
    if random_state is None:
        raise ValueError(f"{drawn.name} draws masks: give random_state, a seed or a numpy.random.Generator.")
    X, Y = _split(data)
    source = sources.as_source(X)
    centred = _centred(source)
    target = centred if Y is None else _centred(sources.as_source(Y, "Y"))
    if len(target) != len(centred):
        raise ValueError(f"Y has {len(target)} rows, but X has {len(centred)}.")
    _check_widths(decoder, encoder, centred.shape[1], target.shape[1])
    p = len(encoder)
    kept = drawn.sample(len(centred), p, np.random.default_rng(random_state))
    mask = np.arange(p) < kept[:, None]
    codes = (centred @ encoder.T) * mask
    error = codes @ decoder.T - target
    factor = 1.0 / len(centred) if scale == "mean" else 1.0
    value = factor * float(np.sum(error**2))
    return value, 2.0 * factor * error.T @ codes, 2.0 * factor * ((error @ decoder) * mask).T @ centred


def _centred(source: sources.Source) -> np.ndarray:
    rows = np.asarray(source.block(0, source.shape[0], False), dtype=np.float64)
    if not np.isfinite(rows).all():
        sources.raise_nonfinite(source)
    return rows - rows.mean(axis=0)


class VaeGradients(NamedTuple):
    """Derivatives of -ELBO by W (d, p), V (p, d), the LOGS of the latent variances (p,) and of the noise variance.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> found = lf.vae_gradients(np.ones((2, 1)), np.ones((1, 2)), 1.0, 1.0, X)
    >>> found.decoder.shape, found.encoder.shape, found.log_latent.shape, type(found.log_noise).__name__
    ((2, 1), (1, 2), (1,), 'float')
    """

    decoder: np.ndarray
    encoder: np.ndarray
    log_latent: np.ndarray
    log_noise: float


def _vae_pieces(W: Any, V: Any, latent: Any, noise: Any, data: Any) -> tuple[Any, ...]:
    place = _place(W, V, *_split(data))
    if place.like is not None:
        raise UnsupportedOnBackendError(
            "vae_loss and vae_gradients have no CUDA code yet: copy W, V and the data to the host first."
        )
    decoder, encoder = _weights(W, V, place)
    latent = np.broadcast_to(np.asarray(latent, dtype=np.float64), (len(encoder),))
    if not (np.isfinite(latent).all() and (latent > 0).all()):
        raise ValueError("latent_variances must be positive and finite.")
    validation.check_real(noise, "noise_variance", above=0, below=np.inf)
    if isinstance(data, tuple) or (isinstance(data, Moments) and data.n_targets):
        raise ValueError("the evidence lower bound is that of X itself; pass X or moments without targets.")
    described = _problem(data, "mean", place)
    pieces = _pieces(described, decoder, encoder, place)
    error = float(
        latent @ np.diagonal(pieces.gram_decoder)
        + np.sum(pieces.gram_decoder * pieces.gram_latent)
        - 2.0 * np.einsum("ij,ji->", pieces.zb, decoder)
        + described.yy_trace
    )
    return decoder, encoder, latent, float(noise), pieces, error


def vae_loss(W: Any, V: Any, latent_variances: Any, noise_variance: float, data: Any) -> float:
    """-ELBO per sample of the linear VAE  (docs/math.md Eq. 11; Lucas et al. 2019).

    Parameters
    ----------
    W : array (d, p)
        Decoder.
    V : array (p, d)
        Encoder.
    latent_variances : array (p,) or float
        exp(e_i) > 0.
    noise_variance : float
        s^2 > 0.
    data : Moments or X (m, d)
        X is centred first.

    Returns
    -------
    float
        In nats, computed in float64.

    Raises
    ------
    ValueError
        Shapes that do not fit, variances that are not positive, targets.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> best = lf.theory.vae_optimum(lf.Moments.from_data(X), 1)
    >>> variances = np.exp(best.log_latent_variances), np.exp(best.log_noise_variance)
    >>> round(lf.vae_loss(best.decoder, best.encoder, *variances, X), 6)
    2.837877
    >>> round(lf.theory.minimum(np.diag([2.0, 0.5]), 1, "vae"), 6)
    2.837877
    """
    decoder, _, latent, noise, pieces, error = _vae_pieces(W, V, latent_variances, noise_variance, data)
    fit = error / (2.0 * noise) + 0.5 * decoder.shape[0] * np.log(2.0 * np.pi * noise)
    return float(fit + 0.5 * np.sum(np.diagonal(pieces.gram_latent) - np.log(latent) - 1.0 + latent))


def vae_gradients(W: Any, V: Any, latent_variances: Any, noise_variance: float, data: Any) -> VaeGradients:
    """Gradients of `vae_loss`  (docs/math.md Eq. 12).  Parameters and errors as there.

    Returns
    -------
    VaeGradients
        By W, V, log latent variances and log noise variance.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> best = lf.theory.vae_optimum(lf.Moments.from_data(X), 1)
    >>> variances = np.exp(best.log_latent_variances), np.exp(best.log_noise_variance)
    >>> all(np.allclose(part, 0.0) for part in lf.vae_gradients(best.decoder, best.encoder, *variances, X))
    True
    """
    decoder, _, latent, noise, pieces, error = _vae_pieces(W, V, latent_variances, noise_variance, data)
    dw = (decoder * latent + decoder @ pieces.gram_latent - pieces.zb.T) / noise
    dv = (pieces.gram_decoder @ pieces.zb - pieces.za) / noise + pieces.zb
    de = 0.5 * (latent * np.diagonal(pieces.gram_decoder) / noise - 1.0 + latent)
    return VaeGradients(dw, dv, de, 0.5 * decoder.shape[0] - error / (2.0 * noise))


__all__ = ["VaeGradients", "gradients", "loss", "vae_gradients", "vae_loss"]
