"""What the estimators share: opening X, scores and rows back from them, and fitted attributes that change at once."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from abc import ABCMeta, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import validation
from ..data import containers, sources
from ..eigen.weighted_rows import WeightedRows
from ..errors import user_level
from ..operators import projection
from . import model_file
from ._array_api import dispatched
from ._callbacks import CallbackSupport

# What scikit-learn's `validate_data` sets.
SET_BY_VALIDATION = ("n_features_in_", "feature_names_in_")


class Estimator(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]  # scikit-learn has no types
    TransformerMixin,  # type: ignore[misc]  # the same
    BaseEstimator,  # type: ignore[misc]  # the same
    CallbackSupport,
    metaclass=ABCMeta,
):
    """Base of the estimators: a subclass has `fit`, and says which matrices map rows to scores and back.

    Every X comes in through `_opened`, whatever the method, and every fit ends in `_replace_fitted`.
    """

    backend: str
    max_memory: Any = None
    components_: np.ndarray
    n_features_in_: int

    # Whether a message about NaN may point to PCA(missing="em").
    _suggests_em = True
    # How many tasks a fit has for scikit-learn's callbacks beside itself; None: not known before.
    _max_subtasks: int | None = 0
    # Fitted attributes whose names do not end in an underscore.
    _private: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def _opened(self, X: Any, *, reset: bool = True) -> Iterator[sources.Source]:
        """The source for X, open for as long as the context lasts; its width and column names have been checked.

        reset : X is the first data; False: it must fit the data seen before, and has its columns put in their order

        When the context ends in an exception, the width and the names are as they were before.
        """
        before = {name: vars(self)[name] for name in SET_BY_VALIDATION if name in vars(self)}
        finished = False
        try:
            max_memory = validation.memory_bytes(self.max_memory)
            fitted = None if reset else before.get("feature_names_in_")
            names = None if fitted is None else tuple(fitted)
            with sources.opened(X, max_memory=max_memory, names=names) as source:
                source.read_within(max_memory)
                source.suggests_em = source.suggests_em and self._suggests_em
                yield self._matched(X, source, reset)
            finished = True
        finally:
            if not finished:
                self.__dict__.update(before)
                for name in SET_BY_VALIDATION:
                    if name not in before:
                        self.__dict__.pop(name, None)

    def _matched(self, X: Any, source: sources.Source, reset: bool) -> sources.Source:
        """The source, its columns in the order of the names that the estimator was fitted to, where both have names.

        Frames of pandas are left to `validate_data`, which refuses another order, as scikit-learn does.
        """
        if isinstance(X, np.ndarray) and "feature_names_in_" not in vars(self):
            # no names on either side, so that the width is all there is to compare
            if reset:
                self.n_features_in_ = source.n_features
                return source
            if source.n_features == getattr(self, "n_features_in_", None):
                return source
        as_it_is = containers.is_pandas(X) and X.shape[1] == source.n_features  # no column of lists
        if as_it_is or isinstance(X, np.ndarray):
            validate_data(self, X, skip_check_array=True, reset=reset)
            return source
        fitted = getattr(self, "feature_names_in_", None)
        if not reset and fitted is not None and source.names is not None:
            return source.with_names(fitted)
        if not reset and source.names is not None:
            warnings.warn(
                f"X has feature names, but {type(self).__name__} was fitted without feature names",
                stacklevel=user_level(),
            )
        validate_data(self, np.empty((0, source.n_features)), skip_check_array=True, reset=reset)
        if reset and source.names is not None:
            self.feature_names_in_ = np.array(source.names, dtype=object)
        return source

    def _set_features(self, n_features: int, names: Any) -> None:
        """What `_opened` sets, for rows that were seen elsewhere; names : of their columns, or None."""
        self.n_features_in_ = n_features
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)

    def _replace_fitted(self, fitted: dict[str, Any]) -> None:
        """Set all fitted attributes by name at once; those of an earlier fit that are not among them go.

        Parameters, scikit-learn's settings and what `_opened` has set stay.  The dictionary of attributes is exchanged
        in one step, so that an interrupt leaves either the old ones or the new ones.
        """
        private = self._private
        kept = {
            name: value
            for name, value in vars(self).items()
            if not (name[-1] == "_" or name in private) or name in SET_BY_VALIDATION
        }
        self.__dict__ = kept | fitted

    @dispatched
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file, which `lae_fast.load` and `lae-fast transform` read.

        Parameters
        ----------
        path : str or os.PathLike
            An .npz that NumPy reads without pickle; written whole or not at all.

        Raises
        ------
        NotFittedError, OSError
            Not fitted; the file cannot be written.

        Warns
        -----
        UserWarning
            A parameter, such as a callback, has no place in a file; it is named.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> svd = lf.TruncatedSVD(1).fit(np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> svd.save("svd.npz")
        >>> lf.load("svd.npz").singular_values_, sorted(np.load("svd.npz", allow_pickle=False))[:3]
        (array([3.]), ['components', 'converged', 'explained_variance'])
        """
        check_is_fitted(self)
        self._save(path)

    def _save(self, path: str | os.PathLike[str], meta: Mapping[str, Any] | None = None) -> None:
        """meta : what else the file is to say"""
        ours = next(made for made in type(self).__mro__ if made.__module__.startswith("lae_fast.estimators."))
        model_file.write(path, ours.__name__, self.get_params(deep=False), self._fitted(), meta)

    def _fitted(self) -> dict[str, Any]:
        """The fitted attributes, by name, as `_replace_fitted` takes them."""
        private = self._private
        return {name: value for name, value in vars(self).items() if name[-1] == "_" or name in private}

    @property
    def _axes(self) -> np.ndarray:
        """(p, d): one row for each score, in the compute dtype."""
        return self.components_

    @abstractmethod
    def _projection(self) -> tuple[np.ndarray, np.ndarray]:
        """(mean (d,), loadings (p, d)), float64: scores are (X - mean) loadings'."""

    @abstractmethod
    def _expansion(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None, np.dtype]:
        """(loadings (p, q), mean (q,) or None for zero, dtype to compute in): rows are scores loadings + mean.

        dtype : the compute dtype of the scores
        """

    def _as_read(self, source: sources.Source) -> sources.Source:
        """The rows that are projected."""
        return source

    @dispatched
    def transform(self, X: Any, out: np.ndarray | None = None) -> Any:
        """Scores of the rows of X, in one pass; X is not copied.

        Parameters
        ----------
        X : (n_samples, n_features)
            Whatever `fit` takes.
        out : ndarray or np.memmap of shape (n_samples, p), default=None
            Where to write the scores: of the dtype of the result, with C-ordered rows. With a memmap or a path for X
            and a memmap for `out` neither is ever in memory as a whole.

        Returns
        -------
        ndarray of shape (n_samples, p)
            `out` where it is given; on the device, in the library of X, for an X that is there; a Dask array, of which
            nothing is computed yet, for an X on Dask.

        Raises
        ------
        NotFittedError
            `fit` comes first.
        ValueError, TypeError
            NaN or inf (names the first), another width than that of `fit`, an `out` of another shape or dtype.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> out = np.empty((4, 1))
        >>> scores = lf.PCA(1).fit(X).transform(X, out=out)
        >>> scores is out, out.ravel().round(6) + 0.0
        (True, array([ 2., -2.,  0.,  0.]))
        """
        if not self.__sklearn_is_fitted__():
            check_is_fitted(self)
        with self._opened(X, reset=False) as source:
            return self._scores(source, out)

    def _scores(self, source: sources.Source, out: np.ndarray | None) -> Any:
        mean, loadings = self._projection()
        read = self._as_read(source)
        read.compute_dtype = np.result_type(read.compute_dtype, self._axes.dtype)
        return projection.scores(read, mean, loadings, out, self.backend)

    @dispatched
    def inverse_transform(self, X: Any) -> Any:
        """Rows whose scores are X.

        Parameters
        ----------
        X : array of shape (n_samples, p)
            Scores, dense; on the host or on a device.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Where X is, in its library.

        Raises
        ------
        NotFittedError, ValueError, TypeError
            As `transform`: NaN and inf are refused too.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.array([[3.0, 1.0], [-1.0, 1.0], [1.0, 2.0], [1.0, 0.0]])
        >>> pca = lf.PCA(1).fit(X)
        >>> pca.inverse_transform(pca.transform(X)).round(12)  # the second direction is gone
        array([[ 3.,  1.],
               [-1.,  1.],
               [ 1.,  1.],
               [ 1.,  1.]])
        """
        check_is_fitted(self)
        elsewhere = sources.is_on_device(X) or sources.is_dask(X)
        source = sources.as_source(X if elsewhere else containers.as_matrix(X, "X"))
        if source.n_features != self._n_features_out:
            raise ValueError(
                f"X has {source.n_features} columns, but this {type(self).__name__} has {self._n_features_out} "
                "components."
            )
        return projection.expanded(source, *self._expansion(sources.compute_dtype(source.dtype)))

    @property
    def _n_features_out(self) -> int:
        return len(self._axes)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags


def weighed(source: sources.Source, sample_weight: Any) -> WeightedRows:
    """The rows of a fit with their weights; rows that come in blocks are not read to count them.

    Raises
    ------
    ValueError
        Bad weights, or what `checked` refuses.
    """
    n_lines = source.n_lines(False)
    weights = validation.sample_weights(sample_weight, None if math.isinf(n_lines) else n_lines)
    if weights is None:
        return checked(WeightedRows(source, None, float(n_lines), n_lines))
    return checked(WeightedRows(source, weights, float(weights.sum()), int(np.count_nonzero(weights))))


def checked(rows: WeightedRows) -> WeightedRows:
    """The same rows, of which at least two count: else a variance has no denominator.

    Raises
    ------
    ValueError
        Fewer rows, or weights that sum to one or less.
    """
    if rows.weights is not None:
        validation.check_weight_sum(rows.weight_sum, rows.n_positive)
    if (rows.n_positive if rows.weights is None else rows.n_counted) < 2:
        n_samples, n_features = rows.source.n_lines(False), rows.source.n_features
        raise ValueError(
            f"X has n_samples={n_samples}{note(rows)}: a variance needs at least 2 samples "
            f"(shape={(n_samples, n_features)})."
        )
    return rows


def note(rows: WeightedRows) -> str:
    """For messages about numbers of rows: nothing where all of them count."""
    return "" if rows.weights is None else positive_note(rows.n_positive)


def positive_note(n_positive: int) -> str:
    """How many rows have a positive weight, for messages about numbers of rows."""
    return f" ({n_positive} rows of positive weight)"
