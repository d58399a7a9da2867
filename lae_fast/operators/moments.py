"""Exact second moments: one pass over the data, pilot-shifted, weighted, mergeable, saved without pickle.

Equations: docs/pca.md, "Shifted moments" and "Merging moments" (Chan, Golub and LeVeque 1983).
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
from typing import Any

import numpy as np

from .. import plan, validation
from ..backends import check_precision, choose, get_backend
from ..backends.lines import Tick
from ..data import feature_names, sources
from ..data.checkpoint import kept, require_file
from . import means, moments_file
from .certificate import GramSums
from .counted_rows import CountedRows
from .dense import inverse_deviations
from .gather import GatheredMoments, gather, stacked
from .means import Mean


class Moments(CountedRows):
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
    drift : how far such sums were measured to be off (backends/drift.py), for the certificate too
    about_zero : the most lines whose products were summed before the mean was taken off, in float64; 0 for none
    abandoned_passes : passes in whole numbers that were given up, because not all of the data were such

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 2.0]])
    >>> moments = lf.Moments.from_data(X[:2]) + lf.Moments.from_data(X[2:])
    >>> moments.n_samples, moments.mean, moments.xx.tolist(), moments.total_variance
    (3, array([3., 2.]), [[8.0, 4.0], [4.0, 8.0]], 8.0)
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

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X, Y = np.array([[1.0, 0.0], [3.0, 4.0]]), np.array([[1.0], [2.0]])
        >>> moments = lf.Moments.from_data(X, Y, sample_weight=[1, 3])
        >>> moments.mean, moments.mean_y, moments.xy.ravel(), moments.yy, moments.yy_trace
        (array([2.5, 3. ]), array([1.75]), array([1.5, 3. ]), array([[0.75]]), 0.75)
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

        Copies made by `copy.copy` are independent: arrays are shared, but never written to.

        precision : of products of float32 on CUDA (see `PCA`), for callers that refine the result by further passes

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> moments = lf.Moments(2)
        >>> for rows in ([[1.0, 0.0]], [[3.0, 4.0], [5.0, 2.0]]):
        ...     _ = moments.update(np.array(rows))
        >>> moments
        Moments(n_samples=3, n_features=2, dtype=float64, weight_sum=3, center=True)
        """
        with sources.opened(X) as rows, _opened_targets(Y) as targets, kept(checkpoint) as checkpoint:
            check_precision(precision, backend)
            if self.feature_names is not None and rows.names is not None:
                rows = rows.with_names(self.feature_names)
            source = stacked(rows, targets, self.n_features, self.n_targets)
            if checkpoint is not None:
                require_file(source)
            n_lines, width = source.n_lines(False), source.n_features
            n_samples = None if math.isinf(n_lines) else n_lines
            weights = validation.sample_weights(sample_weight, n_samples)
            is_here = not isinstance(source, sources.DaskSource)
            pays = is_here and plan.device_pays(n_lines, width, width, source.nnz)
            used = get_backend(choose(backend, source.on_device, pays))
            if isinstance(source, sources.DaskSource):
                added = self._of_chunks(source, weights, used.name, precision)
            else:
                added = self._empty()
                for part in gather(source, weights, tick, used, checkpoint, precision):
                    added._add(part)
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
            feature_names.warn_of_none(self.feature_names, other.feature_names, "the two moments")
        return self.merged(other)

    def merged(self, other: Moments) -> Moments:
        """The sum, new moments, without a warning where just one of them has feature names.

        Raises
        ------
        ValueError
            Other numbers of features or targets, another centring, or other names of features.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> one, other = lf.Moments.from_data(np.eye(2)), lf.Moments.from_data(3 * np.eye(2))
        >>> one.merged(other).n_counted, one.n_counted
        (4, 2)
        """
        merged = self._empty()
        merged._merge(self)
        merged._merge(other)
        return merged

    def decayed(self, factor: float) -> Moments:
        """These moments with every weight times `factor` in (0, 1]; n_samples stays the number of rows seen.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> old = lf.Moments.from_data(np.eye(2)).decayed(0.5)
        >>> old.weight_sum, old.n_samples, old.has_variance
        (1.0, 2, False)
        """
        decayed = self._empty()
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
    def mean(self) -> np.ndarray:
        """(d,) float64 the mean of X; zeros for center=False."""
        return self._mean()[: self.n_features] * self.center

    @property
    def location(self) -> np.ndarray:
        """(d,) the mean of X, for center=False too."""
        return self._mean()[: self.n_features]

    @property
    def mean_y(self) -> np.ndarray | None:
        """(q,) float64 the mean of Y, zeros for center=False; None without targets."""
        return self._mean()[self.n_features :] * self.center if self.n_targets else None

    @property
    def xx(self) -> np.ndarray:
        """(d, d) float64 second moments of X, scale "sum"."""
        return self._unscaled(slice(0, self.n_features), slice(0, self.n_features))

    @property
    def xy(self) -> np.ndarray | None:
        """(d, q) float64 second moments of X and Y, scale "sum"; None without targets."""
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
        """xx / (weight_sum - ddof), (d, d) float64.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.array([[1.0, 0.0], [3.0, 4.0], [5.0, 2.0]])
        >>> lf.Moments.from_data(X).covariance(ddof=0)  # about `location`
        array([[2.66666667, 1.33333333],
               [1.33333333, 2.66666667]])
        """
        return self.xx / self._denominator(ddof)

    def scaled_xx(self) -> tuple[np.ndarray, float]:
        """(d, d) matrix M, not to be written, and the power of two s with xx = M / s^2: M never over- or underflows."""
        d = slice(0, self.n_features)
        return self._about(d, d), self._factor

    def sums(self, standardize: bool) -> GramSums:
        """How the matrix of `dense.of_moments` was summed, in its units, for the certificate."""
        matrix, scale = self.scaled_xx()
        diagonal, summed = matrix.diagonal(), matrix.diagonal()
        if self.about_zero and self.center:
            summed = diagonal + self.weight_sum * (self.location * scale) ** 2
        if standardize:
            summed = summed * inverse_deviations(diagonal, self.weight_sum) ** 2
        itemsize, lines = (4, self.float32_run) if self.float32_run else (8, self.run)
        return GramSums(itemsize, lines, self.drift, summed, self.about_zero)

    def centred_xx(self) -> tuple[np.ndarray, float]:
        """`scaled_xx`, (d, d), about the mean, for center=False too."""
        return self._scatter[: self.n_features, : self.n_features], self._factor

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz that `np.load(path, allow_pickle=False)` reads; atomically: a whole file or none.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> lf.Moments.from_data(np.eye(3)).save("moments.npz")
        >>> lf.Moments.load("moments.npz")
        Moments(n_samples=3, n_features=3, dtype=float64, weight_sum=3, center=True)
        """
        moments_file.write(path, vars(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read what `save` wrote.

        Raises
        ------
        DataFileError
            The file is truncated, not moments of this library, or of a newer version.
        """
        return cls._of_state(moments_file.read(path))

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Moments:
        """The moments (d, d) that `moments_file.to_arrays` made arrays of."""
        return cls._of_state(moments_file.from_arrays(arrays))

    @classmethod
    def _of_state(cls, state: dict[str, Any]) -> Moments:
        moments = cls(state["n_features"], state["n_targets"], center=state["center"])
        vars(moments).update(state)
        return moments

    def _empty(self) -> Moments:
        """Moments of no rows that can be merged with these."""
        return Moments(self.n_features, self.n_targets, center=self.center)

    def _of_chunks(
        self, source: sources.DaskSource, weights: np.ndarray | None, backend: str, precision: str
    ) -> Moments:
        """Moments of rows on Dask: of each chunk where it is, merged by a tree."""
        own = None if weights is None else source.split(weights)
        return source.reduced(_moments_of_chunk, Moments.merged, (self._empty(), backend, precision), own)

    def _add(self, part: GatheredMoments) -> None:
        """Merge what a pass has gathered."""
        if part.scatter is None:
            self.n_samples += part.n_samples
            return
        added = self._empty() if self.n_samples else self
        added.n_samples, added.weight_sum, added.dtype = part.n_samples, part.weight_sum, part.dtype
        added.run, added.float32_run, added.drift = part.run, part.float32_run, part.drift
        added.about_zero, added.abandoned_passes = part.about_zero, part.abandoned_passes
        added._scatter, added._scale, (added._base, added._low) = part.scatter, part.scale, part.mean
        if added is not self:
            self._merge(added)

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

    def _merge(self, other: Moments) -> None:
        if (other.n_features, other.n_targets, other.center) != (self.n_features, self.n_targets, self.center):
            raise ValueError(
                "Only moments of the same numbers of features and targets and the same centring can be added: "
                f"{self.n_features} + {self.n_targets}, center={self.center} against "
                f"{other.n_features} + {other.n_targets}, center={other.center}."
            )
        if not self.n_samples:
            # nothing is ever changed in place, so the arrays can be shared
            vars(self).update(vars(other))
            return
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
        if other.n_samples:
            merged["feature_names"] = feature_names.common(self.feature_names, other.feature_names, "the moments")
            total = self.weight_sum + other.weight_sum
            ours, other_mean = Mean(self._base, self._low), Mean(other._base, other._low)
            offset = means.distance(other_mean, ours)
            scale = means.common_scale(self._factor, other._factor, offset)
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


def _moments_of_chunk(
    source: sources.Source, weights: np.ndarray | None, empty: Moments, backend: str, precision: str
) -> Moments:
    """Moments of a chunk on Dask.  empty : of no rows, with the same features"""
    moments = copy.copy(empty)  # which other chunks are given too
    if weights is not None and not weights.any():  # rows of weight zero count as rows
        moments.n_samples = source.shape[0]
        return moments
    return moments.update(source, sample_weight=weights, backend=backend, precision=precision)


def _opened_targets(Y: Any) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if Y is None else sources.opened(Y, "Y")
