"""Exact second moments: one pass over the data, pilot-shifted, weighted, mergeable, saved without pickle.

Equations: docs/pca.md, "Shifted moments" and "Merging moments" (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import zipfile
from typing import Any

import numpy as np
import scipy.sparse

from .. import plan, validation
from ..backends import Backend, check_precision, choose, get_backend
from ..backends.drift import MEASURED_RUNS
from ..backends.lines import NotBytesError, Tick, View
from ..data import names, sources
from ..data.checkpoint import Checkpoint, changing, fingerprint, kept, require_file, warn_none_kept
from ..data.files import atomic_write, open_archive
from ..errors import DataFileError
from . import means, sparse
from .means import Mean
from .pilot import byte_view, pilot_view
from .sparse import inverse_deviations

_FORMAT = "lae_fast moments"
_VERSION = 1
# Sparse row blocks are stacked to about this many entries, counting those that are not stored.
_STACKED_ENTRIES = 1 << 26
# Means this many powers of two apart, in scaled units, want a scale of their own.
_FAR_EXPONENT = 200


class Moments:
    """Second moments of rows X, or of pairs of rows (X, Y), about their mean.

    Exact to rounding whatever the mean: every chunk is shifted by a pilot mean before it is multiplied, sums within a
    chunk are in the compute dtype of the data, sums over chunks in float64.  `a + b` and `update` merge by Chan's
    formula, so any partition of the rows gives the same moments up to rounding.  Moments about zero (center=False) are
    kept about the mean too, and W mean mean' is added in float64 when they are read.

    Build with `Moments.from_data`, or empty with `Moments(n_features)` followed by `update`.

    Attributes
    ----------
    n_samples : int, rows seen;  weight_sum : float, sum of weights (n_samples where there are none)
    n_positive : int, rows of positive weight;  n_counted : int, max(n_positive, floor(weight_sum)), the rows that count
    mean : (d,) float64, zeros for center=False;  mean_y : (q,) float64 or None
    xx : (d, d) float64, scale "sum": sum_r w_r (x_r - mean)(x_r - mean)';  xy : (d, q) or None;  yy_trace : float
    feature_names : tuple of str, or None where some of the rows came without names
    dtype : compute dtype of the data seen so far (float32 or float64)
    run, float32_run : the most lines that were summed in it, and in float32, 0 for none, for the certificate
    drift : for the same; how far such sums were seen to be off (backends/drift.py)
    about_zero : the most lines whose products were summed before the mean was taken off, in float64; 0 for none
    abandoned_passes : how often data were read in vain, because they only began like whole numbers
    """

    def __init__(self, n_features: int, n_targets: int = 0, *, center: bool = True) -> None:
        self.n_features = validation.check_integer(n_features, "n_features", low=1)
        self.n_targets = validation.check_integer(n_targets, "n_targets", low=0)
        self.center = bool(center)
        self.n_samples, self.n_positive = 0, 0
        self.weight_sum = 0.0
        self.dtype = np.dtype(np.float32)
        self.run, self.float32_run, self.drift, self.about_zero = 0, 0, 0.0, 0
        self.feature_names: tuple[str, ...] | None = None
        self.abandoned_passes = 0
        width = self.n_features + self.n_targets
        # the mean is base + low: merging means a thousand deviations away would lose digits in one number
        self._base, self._low = np.zeros(width), np.zeros(width)
        self._scatter = np.zeros((width, width))  # scaled units: / _scale^2 is the sum of squares about the mean
        self._scale: float | None = None

    @classmethod
    def from_data(
        cls,
        X: Any,
        Y: Any = None,
        sample_weight: Any = None,
        center: bool = True,
        *,
        checkpoint: Any = None,
        backend: str = "auto",
    ) -> Moments:
        """Moments of X (m, d), or of X and Y (m, q), in one pass.

        Parameters
        ----------
        X, Y : anything `PCA.fit` takes: arrays of any real dtype, memmaps, sparse matrices, HDF5 datasets, paths; X
            without Y may be row blocks too
        sample_weight : (m,) frequency weights >= 0, or None
        center : subtract the mean; False gives moments about zero
        checkpoint : path or `Checkpoint` that keeps the state of the pass, X a path; a killed call with the same
            arguments goes on from there.  A path is removed in the end.
        backend : "auto", "cpu" or "cuda"; the moments are kept on the host

        Raises
        ------
        ValueError
            NaN or Inf (names the first row and column), wrong shapes, negative or all-zero weights, columns of other
            names than those before.
        """
        with sources.opened(X) as source, _opened_targets(Y) as targets:
            moments = cls(source.n_features, 0 if targets is None else targets.n_features, center=center)
            return moments.update(source, targets, sample_weight, checkpoint=checkpoint, backend=backend)

    def update(
        self,
        X: Any,
        Y: Any = None,
        sample_weight: Any = None,
        *,
        tick: Tick | None = None,
        checkpoint: Any = None,
        backend: str = "auto",
        precision: str = "float32",
    ) -> Moments:
        """Add rows; returns self.  On an error or interrupt the moments are what they were before.

        Copies made by `copy.copy` go on by themselves: arrays are shared and never written to.

        precision : of products of float32 on CUDA (`PCA`), where what follows makes up for them
        """
        with sources.opened(X) as rows, _opened_targets(Y) as targets, kept(checkpoint) as checkpoint:
            check_precision(precision, backend)
            if self.feature_names is not None and rows.names is not None:
                rows = rows.with_names(self.feature_names)
            source = self._stacked(rows, targets)
            if checkpoint is not None:
                require_file(source)
            n_lines, width = source.n_lines(False), source.n_features
            n_samples = None if math.isinf(n_lines) else n_lines
            weights = validation.sample_weights(sample_weight, n_samples)
            pays = plan.device_pays(n_lines, width, width, source.nnz)
            used = get_backend(choose(backend, source.on_device, pays))
            added = _gather(source, self, weights, tick, used, checkpoint, precision)
            if n_samples is None:
                validation.sample_weights(sample_weight, added.n_samples)  # their number is known by now
            if not np.isfinite(added._scatter.diagonal()).all():
                raise ValueError(validation.range_message(np.inf))
            added.feature_names = rows.names
            added.n_positive = added.n_samples if weights is None else int(np.count_nonzero(weights))
        self._merge(added)
        return self

    def __add__(self, other: Moments) -> Moments:
        if not isinstance(other, Moments):
            return NotImplemented
        if self.n_samples and other.n_samples:
            names.warn_of_none(self.feature_names, other.feature_names, "the two moments")
        return self.merged(other)

    def merged(self, other: Moments) -> Moments:
        """The sum, without a warning where just one of them has feature names."""
        merged = Moments(self.n_features, self.n_targets, center=self.center)
        merged._merge(self)
        merged._merge(other)
        return merged

    def decayed(self, factor: float) -> Moments:
        """These moments with every weight times `factor` in (0, 1]; n_samples stays the number of rows seen."""
        decayed = Moments(self.n_features, self.n_targets, center=self.center)
        decayed._merge(self)
        decayed._scatter = self._scatter * factor
        decayed.weight_sum = self.weight_sum * factor
        return decayed

    def __repr__(self) -> str:
        targets = f", n_targets={self.n_targets}" if self.n_targets else ""
        return (
            f"Moments(n_samples={self.n_samples}, n_features={self.n_features}{targets}, dtype={self.dtype}, "
            f"weight_sum={self.weight_sum:g}, center={self.center})"
        )

    @property
    def n_counted(self) -> int:
        return validation.rows_that_count(self.n_positive, self.weight_sum)

    @property
    def has_variance(self) -> bool:
        """Whether two rows count, and the weights leave a denominator sum(w) - 1."""
        return self.n_counted > 1 and validation.leaves_a_denominator(self.weight_sum)

    @property
    def mean(self) -> np.ndarray:
        return self._mean()[: self.n_features] * self.center

    @property
    def location(self) -> np.ndarray:
        """(d,) the mean of X, for center=False too."""
        return self._mean()[: self.n_features]

    @property
    def mean_y(self) -> np.ndarray | None:
        return self._mean()[self.n_features :] * self.center if self.n_targets else None

    @property
    def xx(self) -> np.ndarray:
        return self._unscaled(slice(0, self.n_features), slice(0, self.n_features))

    @property
    def xy(self) -> np.ndarray | None:
        if not self.n_targets:
            return None
        return self._unscaled(slice(0, self.n_features), slice(self.n_features, None))

    @property
    def yy(self) -> np.ndarray | None:
        """(q, q) second moments of the targets, scale "sum"; None without targets."""
        if not self.n_targets:
            return None
        return self._unscaled(slice(self.n_features, None), slice(self.n_features, None))

    @property
    def yy_trace(self) -> float:
        """Trace of the targets' moments, scale "sum"; of X's own where there are no targets."""
        diagonal = self._diagonal()
        return float(diagonal[self.n_features :].sum() if self.n_targets else diagonal.sum())

    @property
    def total_variance(self) -> float:
        """Trace of `covariance()`."""
        return float(self._diagonal()[: self.n_features].sum() / self._denominator(1))

    def covariance(self, ddof: float = 1) -> np.ndarray:
        """xx / (weight_sum - ddof), (d, d) float64."""
        return self.xx / self._denominator(ddof)

    def scaled_xx(self) -> tuple[np.ndarray, float]:
        """(d, d) matrix M, not to be written, and the power of two s with xx = M / s^2: M never over- or underflows."""
        d = slice(0, self.n_features)
        return self._about(d, d), self._factor

    @property
    def roughest_sums(self) -> tuple[np.dtype, int]:
        """The dtype of the sums that are the least exact, and the most lines in one of them; 0 where none rounds."""
        if self.float32_run:
            return np.dtype(np.float32), self.float32_run
        return np.dtype(np.float64), self.run

    def squares_summed(self, standardize: bool) -> tuple[np.ndarray, int]:
        """(d,) diagonal of what was summed, in units of `dense.of_moments`, and the longest sum in float64."""
        matrix, scale = self.scaled_xx()
        diagonal, summed = matrix.diagonal(), matrix.diagonal()
        if self.about_zero and self.center:
            summed = diagonal + self.weight_sum * (self.location * scale) ** 2
        if standardize:
            summed = summed * inverse_deviations(diagonal, self.weight_sum) ** 2
        return summed, self.about_zero

    def centred_xx(self) -> tuple[np.ndarray, float]:
        """`scaled_xx` about the mean, for center=False too."""
        return self._scatter[: self.n_features, : self.n_features], self._factor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz that `np.load(path, allow_pickle=False)` reads; atomically: a whole file or none."""
        with atomic_write(pathlib.Path(path)) as file:
            np.savez(
                file,
                format=np.array(_FORMAT),
                version=np.array(_VERSION),
                shape=np.array([self.n_features, self.n_targets, self.n_samples], dtype=np.int64),
                center=np.array(self.center),
                weight_sum=np.array(self.weight_sum),
                n_positive=np.array(self.n_positive),
                dtype=np.array(self.dtype.name),
                mean=np.stack([self._base, self._low]),
                scatter=self._scatter,
                scale=np.array(self._factor),
                run=np.array(self.run),
                float32_run=np.array(self.float32_run),
                drift=np.array(self.drift),
                about_zero=np.array(self.about_zero),
                **({} if self.feature_names is None else {"feature_names": np.array(self.feature_names)}),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read what `save` wrote.

        Raises
        ------
        DataFileError
            The file is truncated, not moments of this library, or of a newer version.
        """
        try:
            with open_archive(path) as stored:
                if str(stored["format"]) != _FORMAT:
                    raise DataFileError(f"{path} holds {str(stored['format'])!r}, not {_FORMAT!r}.")
                if int(stored["version"]) > _VERSION:
                    raise DataFileError(
                        f"{path} has version {int(stored['version'])}; this lae_fast reads up to {_VERSION}."
                    )
                d, q, m = (int(value) for value in stored["shape"])
                moments = cls(d, q, center=bool(stored["center"]))
                moments.n_samples = m
                moments.n_positive = int(stored["n_positive"]) if "n_positive" in stored else m
                moments.weight_sum = float(stored["weight_sum"])
                moments.dtype = np.dtype(str(stored["dtype"]))
                moments._base, moments._low = stored["mean"]
                moments._scatter = stored["scatter"]
                moments._scale = float(stored["scale"])
                moments.run = int(stored["run"]) if "run" in stored else MEASURED_RUNS.lines
                moments.float32_run = int(stored["float32_run"]) if "float32_run" in stored else moments.run
                moments.drift = float(stored["drift"]) if "drift" in stored else math.inf
                moments.about_zero = int(stored["about_zero"]) if "about_zero" in stored else m
                if "feature_names" in stored:
                    moments.feature_names = tuple(stored["feature_names"].tolist())
            moments._check()
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
            if isinstance(error, DataFileError):
                raise
            raise DataFileError(f"{path} is truncated or holds no lae_fast moments: {error}") from error
        return moments

    def _check(self) -> None:
        """Raise ValueError where the numbers read from a file cannot be moments."""
        width = self.n_features + self.n_targets
        if self._mean().shape != (width,) or self._scatter.shape != (width, width):
            raise ValueError(f"arrays of shape {self._mean().shape} and {self._scatter.shape} for {width} columns")
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"compute dtype {self.dtype}")
        numbers = (self._scatter, self._mean(), self.weight_sum, self._scale)
        if not all(np.isfinite(number).all() for number in numbers):
            raise ValueError("NaN or inf among the moments")
        if self.feature_names is not None and len(self.feature_names) != self.n_features:
            raise ValueError(f"{len(self.feature_names)} names for {self.n_features} features")
        if self._scale <= 0 or self.weight_sum < 0 or not 0 <= self.n_positive <= self.n_samples:
            raise ValueError("a scale, weight or number of samples out of range")

    def _mean(self) -> np.ndarray:
        return self._base + self._low

    @property
    def _factor(self) -> float:
        return 1.0 if self._scale is None else self._scale

    def _denominator(self, ddof: float) -> float:
        if not validation.leaves_a_denominator(self.weight_sum, ddof):
            if ddof == 1.0 and self.n_positive > 1:
                validation.check_weight_sum(self.weight_sum, self.n_positive)
            raise ValueError(
                f"The variance needs a weight sum above ddof={ddof:g}, but it is {self.weight_sum:g}: add samples."
            )
        return self.weight_sum - ddof

    def _about(self, rows: slice, columns: slice) -> np.ndarray:
        """Scaled second moments about the mean, or about zero for center=False; may be a view."""
        scatter = self._scatter[rows, columns]
        if self.center:
            return scatter
        mean = self._mean() * self._factor
        return scatter + self.weight_sum * np.multiply.outer(mean[rows], mean[columns])

    def _unscaled(self, rows: slice, columns: slice) -> np.ndarray:
        return self._about(rows, columns) / self._factor**2

    def _diagonal(self) -> np.ndarray:
        """(d + q,) data units, about the mean or about zero."""
        about_zero = 0.0 if self.center else self.weight_sum * self._mean() ** 2
        return self._scatter.diagonal() / self._factor**2 + about_zero

    def _stacked(self, source: sources.Source, targets: sources.Source | None) -> sources.Source:
        if source.n_features != self.n_features:
            raise ValueError(f"X has {source.n_features} features, but these moments have {self.n_features}.")
        if (targets is not None) != bool(self.n_targets):
            raise ValueError("Y is missing." if self.n_targets else "Y is given, but these moments have no targets.")
        if targets is None:
            return source
        if isinstance(source, sources.BlockSource) or isinstance(targets, sources.BlockSource):
            raise TypeError("Rows that come in blocks cannot be paired with Y: call update with one block of each.")
        if targets.shape[0] != source.shape[0]:
            raise ValueError(
                f"Y has {targets.shape[0]} rows, but X has {source.shape[0]}: pass one row of Y per row of X."
            )
        if targets.shape[1] != self.n_targets:
            raise ValueError(f"Y has {targets.shape[1]} columns, but these moments have {self.n_targets} targets.")
        return sources.StackedSource(source, targets)

    def _merge(self, other: Moments) -> None:
        if (other.n_features, other.n_targets, other.center) != (self.n_features, self.n_targets, self.center):
            raise ValueError(
                "Only moments of the same numbers of features and targets and the same centring can be added: "
                f"{self.n_features} + {self.n_targets}, center={self.center} against "
                f"{other.n_features} + {other.n_targets}, center={other.center}."
            )
        merged = {
            "dtype": np.result_type(self.dtype, other.dtype),
            "run": max(self.run, other.run),
            "float32_run": max(self.float32_run, other.float32_run),
            "drift": max(self.drift, other.drift),
            "about_zero": max(self.about_zero, other.about_zero),
            "abandoned_passes": self.abandoned_passes + other.abandoned_passes,
            "n_samples": self.n_samples + other.n_samples,
            "n_positive": self.n_positive + other.n_positive,
            "weight_sum": self.weight_sum + other.weight_sum,
        }
        if other.n_samples and self.n_samples:
            merged["feature_names"] = names.common(self.feature_names, other.feature_names, "the moments")
        elif other.n_samples:
            merged["feature_names"] = other.feature_names
        if other.n_samples and not self.n_samples:
            # nothing is ever changed in place, so the arrays can be shared
            merged |= {name: vars(other)[name] for name in ("_scale", "_base", "_low", "_scatter", "weight_sum")}
        elif other.n_samples:
            total = self.weight_sum + other.weight_sum
            ours, other_mean = Mean(self._base, self._low), Mean(other._base, other._low)
            offset = means.distance(other_mean, ours)
            scale = _common_scale(self._factor, other._factor, offset)
            # scales are powers of two, so this is exact
            theirs = other._scatter * (scale / other._factor) ** 2
            if total > 0:
                mixed = self.weight_sum * other.weight_sum / total
                theirs += mixed * np.multiply.outer(offset * scale, offset * scale)
                mean = means.joined(ours, other_mean, self.weight_sum, other.weight_sum, offset)
                merged |= {"_base": mean.high, "_low": mean.low}
            theirs += self._scatter * (scale / self._factor) ** 2
            merged |= {"_scatter": theirs, "_scale": scale}
        vars(self).update(merged)  # in one step: an interrupt finds the old moments or the new ones


def _common_scale(one: float, other: float, offset: np.ndarray) -> float:
    """The scale at which neither of two scatters nor the distance of their means overflows: a power of two."""
    scale = min(one, other)
    _, exponent = np.frexp(np.abs(offset).max(initial=0.0) * scale)
    return float(np.ldexp(scale, -int(exponent))) if exponent > _FAR_EXPONENT else scale


def _opened_targets(Y: Any) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if Y is None else sources.opened(Y, "Y")


def _gather(
    source: sources.Source,
    like: Moments,
    weights: np.ndarray | None,
    tick: Tick | None,
    used: Backend,
    checkpoint: Checkpoint | None = None,
    precision: str = "float32",
) -> Moments:
    """The moments of one source, in one pass."""
    if isinstance(source, sources.BlockSource) and source.blocks.is_sparse:
        return _gather_sparse_blocks(source, like, weights, tick, used)
    if isinstance(source, sources.SparseSource) and (found := sparse.moments_about_mean(source, weights, tick, used)):
        warn_none_kept(checkpoint, "X is sparse, and in memory")
        out = Moments(like.n_features, like.n_targets, center=like.center)
        out._scatter, out._base, out._scale = found
        out.dtype, out.n_samples = source.compute_dtype, source.shape[0]
        out.about_zero = out.n_samples
        out.weight_sum = float(out.n_samples) if weights is None else float(weights.sum())
        return out
    abandoned = 0
    may_be_bytes = weights is None and (checkpoint is None or used.gram.has_exact_byte_gram(source))
    if may_be_bytes and (view := byte_view(source, tick, used)):
        try:
            return _gather_chunks(source, like, view, None, used, checkpoint)
        except NotBytesError:  # the few lines that were looked at were not like the others
            abandoned = 1
    view, pilot_variance = pilot_view(source, weights, tick=tick, backend=used.name)
    view = dataclasses.replace(view, precision=precision)
    out = _gather_chunks(source, like, view, pilot_variance, used, checkpoint)
    out.abandoned_passes = abandoned
    return out


def _gather_chunks(
    source: sources.Source,
    like: Moments,
    view: View,
    pilot_variance: np.ndarray | None,
    used: Backend,
    checkpoint: Checkpoint | None,
) -> Moments:
    """The moments of dense rows, chunk by chunk.

    pilot_variance : see `GramPasses.float_gram`;  None: exact sums of bytes, `GramPasses.exact_byte_gram`
    """
    weights = view.weights if view.weights.size else None
    out = Moments(like.n_features, like.n_targets, center=like.center)
    out._scale = view.scale
    out.dtype = source.compute_dtype
    base = view.shift.astype(np.float64)
    total = used.gram.square(base.size)
    so_far = Mean(np.zeros_like(base), np.zeros_like(base))  # scaled units
    start = 0
    if checkpoint is not None and (state := _state(checkpoint, source, weights, view, base, used.provider())):
        total[:], so_far = used.panels.place(state["scatter"]), Mean(*state["mean"])
        out.weight_sum, out.n_samples = float(state["weight_sum"]), int(state["n_samples"])
        out.run, out.drift = int(state["run"]), float(state["drift"])
        start = int(state["chunks"])

    of = f" of {view.n_chunks}" if math.isfinite(view.n_lines) else ""

    def commit(chunk: Any) -> None:
        with changing(checkpoint):
            add(chunk)

    def add(chunk: Any) -> None:
        nonlocal so_far
        if not np.isfinite(chunk.sums).all():
            sources.raise_nonfinite(source, chunk.lines, chunk.first)
        zeros = np.zeros_like(chunk.sums)
        if chunk.weight > 0:
            mean = chunk.sums / chunk.weight
            here = means.exact_sum(chunk.shift.astype(np.float64) * view.scale, mean)
            mixed = out.weight_sum * chunk.weight / (out.weight_sum + chunk.weight)
            offset = means.distance(here, so_far)
            chunk.add_to(total, chunk.sums, mean, offset, mixed)
            so_far = means.joined(so_far, here, out.weight_sum, chunk.weight, offset)
        else:
            chunk.add_to(total, zeros, zeros, zeros, 0.0)
        out.weight_sum += chunk.weight
        out.n_samples += chunk.count
        out.run = max(out.run, chunk.run)
        if chunk.run:
            out.drift = max(out.drift, chunk.drift)
        if checkpoint is not None:
            chunks, current = chunk.number + 1, so_far
            checkpoint.offer(
                lambda: {
                    "chunks": chunks,
                    "n_samples": out.n_samples,
                    "weight_sum": out.weight_sum,
                    "run": out.run,
                    "drift": out.drift,
                    "base": base,
                    "scale": view.scale,
                    "mean": np.stack(current),
                    "scatter": used.panels.fetch(total),
                },
                f"chunk {chunks}{of}",
            )

    if pilot_variance is None:
        used.gram.exact_byte_gram(view, commit, start)
    else:
        used.gram.float_gram(view, pilot_variance, commit, start)
    out._base, out._low = so_far.high / view.scale, so_far.low / view.scale
    out._scatter = used.gram.symmetric(total)
    out.float32_run = out.run if out.dtype.itemsize == 4 else 0
    return out


def _state(
    checkpoint: Checkpoint,
    source: sources.Source,
    weights: np.ndarray | None,
    view: View,
    base: np.ndarray,
    blas: str,
) -> dict[str, np.ndarray] | None:
    """Where a killed run was, if there was one."""
    tiling = [view.tiling.chunk, view.tiling.tile]
    state = checkpoint.begin(
        fingerprint(source, "Gram of the features", weights, scale=view.scale, tiling=tiling, blas=blas)
    )
    if state is not None and not np.array_equal(state["base"], base):
        raise DataFileError(
            f"The checkpoint {checkpoint.path} was made of other numbers than the input holds now: remove it to start "
            "anew."
        )
    return state


def _gather_sparse_blocks(
    source: sources.BlockSource, like: Moments, weights: np.ndarray | None, tick: Tick | None, used: Backend
) -> Moments:
    """The moments of sparse row blocks: stacked into matrices whose heights do not depend on the blocks' own."""
    out = Moments(like.n_features, center=like.center)
    rows = int(np.clip(_STACKED_ENTRIES // source.n_features, 256, 32768))
    source.blocks.start()
    while parts := source.blocks.take_sparse(rows):
        stack = sources.as_source(scipy.sparse.vstack(parts, format="csr"))
        stack.first_row = source.position - stack.shape[0]
        here = None if weights is None else weights[stack.first_row : source.position]
        if here is not None and here.size < stack.shape[0]:
            raise ValueError(validation.few_weights_message(weights.size))
        if here is None or here.any():
            out._merge(_gather(stack, like, here, None, used))
        else:
            out.n_samples += stack.shape[0]
        if tick is not None:
            tick(source.position, None)
    return out
