"""IncrementalPCA under scikit-learn's contract: exact by moments, or by a sketch where they do not fit."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Self

import numpy as np

from .. import validation
from ..data import feature_names, sources
from ..data.checkpoint import Checkpoint, kept
from ..eigen.eigenpairs import held
from ..eigen.solve import top_eigenpairs
from ..errors import user_level
from ..operators.frequent_directions import Sketch
from ..operators.moments import Moments
from . import _array_api, _fitted_attributes, _stream_state
from ._array_api import dispatched
from ._base import SET_BY_VALIDATION, positive_note
from ._base_pca import BasePCA
from ._callbacks import with_callbacks
from ._stream_state import State

# What is computed from the state on first use after a `partial_fit`.
_RESULTS = """
components_ explained_variance_ explained_variance_ratio_ singular_values_ noise_variance_ mean_ var_ scale_
n_components_ n_samples_ residuals_ converged_ solver_ route_reason_ n_passes_ workspace_bytes_ backend_ exact_
error_bound_ _exact_mean
"""
_LAZY = frozenset(_RESULTS.split())


class IncrementalPCA(BasePCA):
    """Principal components of a stream: exact while the d x d moments fit, otherwise within a reported bound.

    However the rows are cut into batches, the first and ragged ones included, the result is the same to rounding as
    long as `exact_`.

    Parameters
    ----------
    n_components : int or None, default=None
        None for min(n_samples_seen_, n_features); a number is needed where the moments do not fit.
    whiten : bool, default=False
        Scale the scores to unit variance.
    copy : bool, default=True
        Accepted for compatibility; X is never written.
    batch_size : int or None, default=None
        Accepted for compatibility; `fit` reads in chunks of its own, and no result depends on them.
    backend : {"auto", "cpu", "cuda"}, default="auto"
        As of `PCA`.
    forget : float in (0, 1], default=1.0
        Each row multiplies the weights of all rows before it by `forget`, whatever its own weight and however rows are
        cut into batches; 1.0 forgets nothing.  A row is half forgotten after log(1/2) / log(forget) further rows.
    max_memory : int, float, str or None, default=None
        Bytes, or text such as "500MB", for the state: where d x d moments exceed it, or d exceeds `plan.LARGEST_GRAM`,
        the stream is kept as a sketch (Frequent Directions) that fits it; None or inf: no limit.

    Attributes
    ----------
    components_, explained_variance_, explained_variance_ratio_, singular_values_, mean_, noise_variance_
        As of `PCA`, and so are n_components_, n_features_in_, feature_names_in_, residuals_, converged_,
        route_reason_, n_passes_, workspace_bytes_ and backend_.
    n_samples_, n_samples_seen_ : int
        Rows seen; the first says how many the components are of.
    var_ : ndarray of shape (d,)
        Variance of each feature, denominator sum of weights.
    scale_ : None
        Nothing is standardized.
    batch_size_ : int
        `batch_size`, or 5 n_features.
    solver_ : str
        "gram" or "sketch".
    exact_ : bool
        False once a sketch has discarded something.
    error_bound_ : float
        0.0 while exact.  explained_variance_[i] <= true variance i <= explained_variance_[i] + error_bound_, to
        rounding; mean_, var_ and the total variance are exact always.

    Warns
    -----
    UserWarning
        Once, when a sketch first discards something: the results are approximate from there on.

    Notes
    -----
    The sketch is Frequent Directions (Liberty 2013; Ghashami et al. 2016); merging is Chan's formula (Chan, Golub and
    LeVeque 1983); docs/streaming.md.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.random.default_rng(0).standard_normal((300, 6)) * [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    >>> stream = lf.IncrementalPCA(2)
    >>> for rows in np.array_split(X, 7):
    ...     _ = stream.partial_fit(rows)
    >>> stream.exact_, np.allclose(stream.explained_variance_, lf.PCA(2).fit(X).explained_variance_)
    (True, True)
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        whiten: bool = False,
        copy: bool = True,
        batch_size: int | None = None,
        backend: str = "auto",
        forget: float = 1.0,
        max_memory: int | float | str | None = None,
    ) -> None:
        self.n_components = n_components
        self.whiten = whiten
        self.copy = copy
        self.batch_size = batch_size
        self.backend = backend
        self.forget = forget
        self.max_memory = max_memory

    @dispatched
    @with_callbacks
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None) -> Self:
        """Start anew with X; y is ignored.

        Parameters
        ----------
        X, sample_weight, checkpoint
            As of `PCA.fit`.

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), one sample, bad parameters or weights, blocks that do not fit together.
        MemoryLimitError
            `max_memory` holds no sketch of n_components; says what is needed.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> stream = lf.IncrementalPCA(2).fit(X[:60])
        >>> stream.partial_fit(X[60:]).n_samples_seen_, stream.fit(X[:60]).n_samples_seen_  # `fit` starts anew
        (100, 60)
        """
        self._check_parameters()
        with self._opened(X) as source, kept(checkpoint) as checkpoint:
            if sample_weight is None:
                self._check_samples(source.n_lines(False), source.n_features)
            state = self._added(self._empty_state(source), source, sample_weight, checkpoint)
            note = "" if sample_weight is None else positive_note(state.n_positive)
            if sample_weight is None:
                self._check_samples(state.n_samples, source.n_features)
            after = f" (after forget={self.forget:g})" if self.forget < 1.0 else ""
            validation.check_weight_sum(state.weight_sum, state.n_positive, after)
            self._check_samples(state.n_counted, source.n_features, note)
            fitted = self._computed(state, self.n_components)
            self._renew(state, keep=False, fitted=fitted)
        return self

    @dispatched
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None, check_input: bool = True) -> Self:
        """Add the rows of X, any number of them; y is ignored, X is checked whatever `check_input` says.

        Components are computed when they are first asked for, and exist once the weights sum to more than one.  After
        an error the state is what it was before.  Small batches are gathered before the state is updated.  That saves
        time and changes no result, and neither does reading attributes between two calls.

        Parameters
        ----------
        X, sample_weight
            As of `PCA.fit`: rows (n_samples, n_features), and their frequency weights (n_samples,).

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), another width than before, bad parameters or weights, an n_components that
            is not that of the first call.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> stream = lf.IncrementalPCA(1, forget=0.99)
        >>> for day in range(3):
        ...     _ = stream.partial_fit(np.random.default_rng(day).standard_normal((50, 2)) + day)
        >>> stream.n_samples_seen_, bool((stream.mean_ > 1.0).all())  # the last days weigh more
        (150, True)
        """
        self._check_parameters()
        first = self._stream is None
        with self._opened(X, reset=first) as source:
            if not first and self.n_components != self._asked_first:
                raise ValueError(
                    f"n_components has changed from {self._asked_first} to {self.n_components} between calls to "
                    "partial_fit: set it back, or start anew with fit or another estimator."
                )
            stream = self._empty_state(source) if self._stream is None else self._stream
            waiting = self._waiting
            if waiting and self.forget != self._waiting_forget:
                stream, waiting = self._with(stream, waiting), ()
            rows = None if sample_weight is not None else _stream_state.few_rows(source)
            if rows is None or (waiting and waiting[0].dtype != rows.dtype):
                self._renew(self._added(self._with(stream, waiting), source, sample_weight), keep=True)
                return self
            waiting = (*waiting, rows)
            count = sum(map(len, waiting))
            if _stream_state.may_wait(count, count * rows[0].nbytes, self.max_memory):
                self._renew(stream, waiting, keep=True)
            else:
                self._renew(self._added(stream, sources.as_source(np.concatenate(waiting)), None), keep=True)
        return self

    @dispatched
    def merge(self, other: IncrementalPCA) -> Self:
        """Add what another estimator has seen, as if its rows had been passed to this one (weights as they are now).

        Where just one of the two has feature names, the order of its columns counts and a warning says so.

        Raises
        ------
        TypeError, ValueError
            `other` is no IncrementalPCA, has seen nothing, has other features or other names of them, or keeps its
            stream in the other way.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> here, there = lf.IncrementalPCA(2).fit(X[:30]), lf.IncrementalPCA(2).fit(X[30:])
        >>> here.merge(there).n_samples_seen_, np.allclose(here.mean_, X.mean(axis=0))
        (100, True)
        """
        if not isinstance(other, IncrementalPCA):
            raise TypeError(f"other must be an IncrementalPCA, not {type(other).__name__}.")
        mine, theirs = self._state, other._state
        if theirs is None:
            raise ValueError("other has seen no rows: call its fit or partial_fit first.")
        self._check_parameters()
        if mine is None:
            self._check_count(theirs.n_features)
            known = {name: vars(other)[name] for name in SET_BY_VALIDATION if name in vars(other)}
            self._renew(theirs, keep=False, fitted=known)
            return self
        if self.n_features_in_ != other.n_features_in_:
            raise ValueError(f"other has {other.n_features_in_} features, but self has {self.n_features_in_}.")
        my_names, their_names = (getattr(one, "feature_names_in_", None) for one in (self, other))
        feature_names.common(my_names, their_names, "the two estimators")
        merged = _stream_state.merged(mine, theirs)
        feature_names.warn_of_none(my_names, their_names, "the two estimators")
        self._renew(merged, keep=True)
        return self

    @classmethod
    def from_moments(cls, moments: Moments, n_components: int | None = None, **parameters: Any) -> IncrementalPCA:
        """A fitted estimator that goes on from moments gathered elsewhere; parameters as in the constructor.

        Raises
        ------
        ValueError
            Bad parameters, or more components than features.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 3))
        >>> stream = lf.IncrementalPCA.from_moments(lf.Moments.from_data(X[:90]), 2)
        >>> stream.partial_fit(X[90:]).n_samples_seen_
        100
        """
        self = cls(n_components, **parameters)
        self._check_parameters()
        self._check_count(moments.n_features)
        self._set_features(moments.n_features, moments.feature_names)
        self._renew(copy.copy(moments), keep=False)
        return self

    # What has been seen: `_stream` without the last rows, `_waiting`, which came when `forget` was `_waiting_forget`.
    # None of it is ever written to, so that copies of an estimator may share it.
    _stream: State | None = None
    _waiting: tuple[np.ndarray, ...] = ()
    _waiting_forget = 1.0
    _asked_first: int | None = None
    _warned = False
    _private = BasePCA._private | {"_stream", "_waiting", "_waiting_forget", "_asked_first", "_warned"}

    @property
    def _state(self) -> State | None:
        return None if self._stream is None else self._with(self._stream, self._waiting)

    def _with(self, stream: State, waiting: tuple[np.ndarray, ...]) -> State:
        if not waiting:
            return stream
        rows = sources.as_source(np.concatenate(waiting))
        return _stream_state.added(stream, rows, forget=self._waiting_forget, backend=self.backend)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.n_components is not None:
            validation.check_integer(self.n_components, "n_components", low=1)
        if self.batch_size is not None:
            validation.check_integer(self.batch_size, "batch_size", low=1)
        validation.check_real(self.forget, "forget", above=0, high=1)  # 1 forgets nothing
        validation.memory_bytes(self.max_memory)

    def _check_count(self, n_features: int) -> None:
        if self.n_components is not None and self.n_components > n_features:
            raise ValueError(
                f"n_components={self.n_components} invalid for n_features={n_features}, need more rows than columns "
                "for IncrementalPCA processing: at most as many components as features."
            )

    def _check_samples(self, n_samples: float, n_features: int, note: str = "") -> None:
        """Rows enough to fit; inf where their number is not known yet.  note : on the rows that count"""
        if n_samples < 2:
            raise ValueError(
                f"X has n_samples={n_samples}{note}: a variance needs at least 2 samples "
                f"(shape={(n_samples, n_features)})."
            )
        if self.n_components is not None and self.n_components > min(n_samples, n_features):
            self._check_count(n_features)
            raise ValueError(
                f"n_components={self.n_components} must be at most n_samples={n_samples}{note} to fit; to start with "
                "fewer rows and add others, use partial_fit."
            )

    def _empty_state(self, source: sources.Source) -> State:
        self._check_count(source.n_features)
        return _stream_state.empty(source, self.n_components, self.max_memory, self.backend)

    def _added(
        self, state: State, source: sources.Source, sample_weight: Any, checkpoint: Checkpoint | None = None
    ) -> State:
        return _stream_state.added(
            state, source, sample_weight, forget=float(self.forget), backend=self.backend, checkpoint=checkpoint
        )

    def _renew(
        self,
        state: State,
        waiting: tuple[np.ndarray, ...] = (),
        *,
        keep: bool,
        fitted: dict[str, Any] | None = None,
    ) -> None:
        """Take a new state, and rows that are still to be added; what was computed from the old one goes.

        keep : the state goes on from the one before;  fitted : what has been computed from it already
        """
        seen = {
            "_stream": state,
            "_waiting": waiting,
            "_waiting_forget": float(self.forget),
            "_asked_first": self._asked_first if keep and self._stream is not None else self.n_components,
            "_warned": keep and self._warned,
            "n_samples_seen_": state.n_samples + sum(map(len, waiting)),
            "batch_size_": 5 * state.n_features if self.batch_size is None else int(self.batch_size),
        }
        if isinstance(state, Sketch) and state.discarded > 0 and not seen["_warned"]:
            seen["_warned"] = True
            warnings.warn(
                f"The moments of {state.n_features} features do not fit, so components are approximate from here on: "
                f"a sketch of {state.size} rows is kept, and error_bound_ says how far variances may be off. Raise "
                "max_memory for a longer sketch, or use PCA where the data can be read more than once.",
                UserWarning,
                stacklevel=user_level(),
            )
        self._replace_fitted({**seen, **(fitted or {})})

    def __getattr__(self, name: str) -> Any:
        state = self._state if name in _LAZY else None
        if state is None or not state.has_variance:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        kind = vars(self).get(_array_api.PROTOTYPE)
        self.__dict__.update(_array_api.of_kind(self._computed(state, self._asked_first), kind))
        return vars(self)[name]

    def _computed(self, state: State, asked: int | None) -> dict[str, Any]:
        """The fitted attributes of a state, with `asked` components, or with as many as there can be yet."""
        most = min(state.n_counted, state.n_features)
        p = most if asked is None else min(int(asked), most)
        if isinstance(state, Sketch):
            pairs = _stream_state.eigenpairs_of_sketch(state, p)
            left_out = _fitted_attributes.LeftOut(state.left)
            squares, bound = state.squares, state.discarded
        else:
            pairs = top_eigenpairs(state, p, max_memory=self.max_memory, backend=self.backend)
            left_out = _fitted_attributes.left_out_of_moments(state, standardize=False)
            squares, bound = state.xx.diagonal(), 0.0
        fitted = _fitted_attributes.from_eigenpairs(
            pairs, pairs.values.size, state.n_samples, state.n_counted, left_out
        )
        fitted["var_"] = held(squares / state.weight_sum, fitted["components_"].dtype)
        fitted["error_bound_"] = bound / (state.weight_sum - 1.0)
        fitted["exact_"] = bound == 0.0
        return fitted
