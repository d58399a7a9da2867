"""IncrementalPCA under scikit-learn's contract: exact by moments, or by a sketch where they do not fit."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Self

import numpy as np

from .. import backends, plan, validation
from ..data import feature_names, sources
from ..data.checkpoint import Checkpoint, kept, require_file
from ..eigen.eigenpairs import Eigenpairs, held
from ..operators.frequent_directions import Sketch, sketch_size
from ..operators.moments import Moments
from . import results
from ._base import intake, replace_fitted
from .pca import PCA

# What is computed from the state on first use after a `partial_fit`.
_RESULTS = """
components_ explained_variance_ explained_variance_ratio_ singular_values_ noise_variance_ mean_ var_ scale_
n_components_ n_samples_ residuals_ converged_ solver_ route_reason_ n_passes_ workspace_bytes_ backend_ exact_
error_bound_ _exact_mean
"""
_LAZY = frozenset(_RESULTS.split())
# How far the singular values of a sketch are off by rounding, in eps of the largest.
_SVD_EPS = 32.0
# Batches of at most _FEW rows wait until there are _MANY, or this many bytes: an update of the state costs nearly the
# same for one row as for a thousand.  Rows whose squares might leave some range do not wait: errors come at once.
_FEW, _MANY, _WAITING_BYTES = 1024, 2048, 1 << 24
_ORDINARY = (1e-30, 1e30)
# Rows that come in blocks are taken so many entries at a time where they cannot be taken all at once.
_ENTRIES_AT_ONCE = 1 << 20


class IncrementalPCA(PCA):
    """Principal components of a stream: exact while the d x d moments fit, otherwise within a reported bound.

    However the rows are cut into batches, the first and ragged ones included, the result is the same to rounding as
    long as `exact_`.

    Parameters
    ----------
    n_components : int or None for min(n_samples_seen_, n_features); a number is needed where the moments do not fit
    whiten : scale the scores to unit variance
    copy : accepted for compatibility; X is never written
    batch_size : accepted for compatibility; `fit` reads in chunks of its own, and no result depends on them
    backend : "auto", "cpu" or "cuda"
    forget : in (0, 1]
        Every row counts `forget` times what the row after it counts, so batches do not matter here either; 1.0 forgets
        nothing.  A row of any weight is one step.  It is half forgotten after log(1/2) / log(forget) rows.
    max_memory : bytes or text such as "500MB", for the state: where d x d moments exceed it, or d exceeds
        `plan.LARGEST_GRAM`, the stream is kept as a sketch (Frequent Directions) that fits it; None or inf: no limit

    Attributes
    ----------
    components_, explained_variance_, explained_variance_ratio_, singular_values_, mean_, noise_variance_,
    n_components_, residuals_, converged_, solver_ ("gram" or "sketch"), ... : as of `PCA`
    var_ : (d,), variance of each feature, denominator sum of weights
    n_samples_seen_ : rows seen;  batch_size_ : int
    exact_ : False once a sketch has discarded something
    error_bound_ : float, 0.0 while exact
        explained_variance_[i] <= true variance i <= explained_variance_[i] + error_bound_, to rounding; mean_, var_ and
        the total variance are exact always.

    Warns
    -----
    UserWarning
        Once, when a sketch first discards something: the results are approximate from there on.
    """

    # PCA's parameters that a stream does not have
    svd_solver, tol, n_oversamples, iterated_power = "auto", 0.0, 10, "auto"
    power_iteration_normalizer, random_state, standardize = "auto", None, False
    missing, progress, precision = "error", False, "float32"

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

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None) -> Self:
        """Start anew with X (n_samples, n_features): whatever `PCA.fit` takes, paths and row blocks too; y is ignored.

        checkpoint : as of `PCA.fit`

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), one sample, bad parameters or weights, blocks that do not fit together.
        MemoryLimitError
            `max_memory` holds no sketch of n_components; says what is needed.
        """
        self._check_parameters()
        with intake(self, X) as source, kept(checkpoint) as checkpoint:
            if sample_weight is None:
                self._check_samples(source.n_lines(False), source.n_features)
            state = self._added(self._empty_state(source), source, sample_weight, checkpoint)
            note = "" if sample_weight is None else f" ({state.n_positive} rows of positive weight)"
            if sample_weight is None:
                self._check_samples(state.n_samples, source.n_features)
            after = f" (after forget={self.forget:g})" if self.forget < 1.0 else ""
            validation.check_weight_sum(state.weight_sum, state.n_positive, after)
            self._check_samples(state.n_counted, source.n_features, note)
            fitted = self._computed(state, self.n_components)
            self._renew(state, keep=False, fitted=fitted)
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None, check_input: bool = True) -> Self:
        """Add the rows of X, any number of them; y is ignored, X is checked whatever `check_input` says.

        Components are computed when they are first asked for, and exist once the weights sum to more than one.  After
        an error the state is what it was before.  Small batches are gathered before the state is updated, which shows
        nowhere but in the time; nor does reading attributes in between change what comes later.
        """
        self._check_parameters()
        first = self._stream is None
        with intake(self, X, reset=first) as source:
            if not first and self.n_components != self._asked_first:
                raise ValueError(
                    f"n_components has changed from {self._asked_first} to {self.n_components} between calls to "
                    "partial_fit: set it back, or start anew with fit or another estimator."
                )
            stream, waiting = self._empty_state(source) if first else self._stream, self._waiting
            if waiting and self.forget != self._waiting_forget:
                stream, waiting = self._with(stream, waiting), ()
            rows = None if sample_weight is not None else _few_rows(source)
            if rows is None or (waiting and waiting[0].dtype != rows.dtype):
                self._renew(self._added(self._with(stream, waiting), source, sample_weight), keep=True)
                return self
            waiting = (*waiting, rows)
            count = sum(map(len, waiting))
            if self._may_wait(count, count * rows[0].nbytes):
                self._renew(stream, waiting, keep=True)
            else:
                self._renew(self._added(stream, sources.as_source(np.concatenate(waiting)), None), keep=True)
        return self

    def merge(self, other: IncrementalPCA) -> Self:
        """Add what another estimator has seen, as if its rows had been passed to this one (weights as they are now).

        Where just one of the two has feature names, the order of its columns counts and a warning says so.

        Raises
        ------
        TypeError, ValueError
            `other` is no IncrementalPCA, has seen nothing, has other features or other names of them, or keeps its
            stream in the other way.
        """
        if not isinstance(other, IncrementalPCA):
            raise TypeError(f"other must be an IncrementalPCA, not {type(other).__name__}.")
        mine, theirs = self._state, other._state
        if theirs is None:
            raise ValueError("other has seen no rows: call its fit or partial_fit first.")
        self._check_parameters()
        if mine is None:
            self._check_count(theirs.n_features)
            of_features = ("n_features_in_", "feature_names_in_")
            known = {name: vars(other)[name] for name in of_features if name in vars(other)}
            self._renew(theirs, keep=False, fitted=known)
            return self
        if type(mine) is not type(theirs):
            raise ValueError(
                "other keeps exact moments and self a sketch, or the reverse: give both the same max_memory."
            )
        if self.n_features_in_ != other.n_features_in_:
            raise ValueError(f"other has {other.n_features_in_} features, but self has {self.n_features_in_}.")
        labels = [getattr(estimator, "feature_names_in_", None) for estimator in (self, other)]
        feature_names.common(*labels, "the two estimators")
        merged = mine.merged(theirs)
        feature_names.warn_of_none(*labels, "the two estimators")
        self._renew(merged, keep=True)
        return self

    @classmethod
    def from_moments(cls, moments: Moments, n_components: int | None = None, **parameters: Any) -> IncrementalPCA:
        """A fitted estimator that goes on from moments gathered elsewhere; parameters as in the constructor."""
        self = cls(n_components, **parameters)
        self._check_parameters()
        self._check_count(moments.n_features)
        self.n_features_in_ = moments.n_features
        if moments.feature_names is not None:
            self.feature_names_in_ = np.array(moments.feature_names, dtype=object)
        self._renew(copy.copy(moments), keep=False)
        return self

    # What has been seen: `_stream` without the last rows, `_waiting`, which came when `forget` was `_waiting_forget`.
    # None of it is ever written to, so that copies of an estimator may share it.
    _stream: Moments | Sketch | None = None
    _waiting: tuple[np.ndarray, ...] = ()
    _waiting_forget = 1.0
    _asked_first: int | None = None
    _warned = False
    _private = PCA._private | {"_stream", "_waiting", "_waiting_forget", "_asked_first", "_warned"}

    @property
    def _state(self) -> Moments | Sketch | None:
        return self._with(self._stream, self._waiting)

    def _with(self, stream: Moments | Sketch | None, waiting: tuple[np.ndarray, ...]) -> Moments | Sketch | None:
        if not waiting:
            return stream
        return self._added(stream, sources.as_source(np.concatenate(waiting)), None, forget=self._waiting_forget)

    def _may_wait(self, n_rows: int, n_bytes: int) -> bool:
        limit = validation.memory_bytes(self.max_memory)
        return n_rows < _MANY and n_bytes <= (_WAITING_BYTES if limit is None else min(_WAITING_BYTES, limit // 8))

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

    def _empty_state(self, source: sources.Source) -> Moments | Sketch:
        d = source.n_features
        self._check_count(d)
        limit = validation.memory_bytes(self.max_memory)
        if plan.gram_fits(d, source.compute_dtype.itemsize, backends.get_num_threads(), limit):
            return Moments(d)
        if self.n_components is None:
            raise ValueError(
                f"n_components=None needs the moments of all {d} features, which do not fit (max_memory="
                f"{self.max_memory!r}, at most {plan.LARGEST_GRAM} features): set n_components, or raise max_memory."
            )
        backends.resolve_cpu(self.backend, "The sketch that keeps a stream whose moments do not fit")
        return Sketch(d, sketch_size(d, int(self.n_components), limit))

    def _added(
        self,
        state: Moments | Sketch,
        source: sources.Source,
        sample_weight: Any,
        checkpoint: Checkpoint | None = None,
        forget: float | None = None,
    ) -> Moments | Sketch:
        """The state with the rows added; the one that was given is not changed.  forget : None for the parameter's."""
        forget = float(self.forget if forget is None else forget)
        if isinstance(state, Moments) and forget == 1.0:
            return copy.copy(state).update(
                source, sample_weight=sample_weight, checkpoint=checkpoint, backend=self.backend
            )
        if checkpoint is not None:
            require_file(source)
        if isinstance(source, sources.BlockSource):
            return self._added_in_steps(state, source, sample_weight)
        m = source.shape[0]
        weights = validation.sample_weights(sample_weight, m)
        n_positive = state.n_positive + (m if weights is None else int(np.count_nonzero(weights)))
        if forget < 1.0:
            ages = forget ** np.arange(m - 1, -1, -1.0)
            weights = ages if weights is None else weights * ages
            state = state.decayed(forget**m)
        if isinstance(state, Sketch):
            state = state.updated(source, weights, checkpoint)
        else:
            state = copy.copy(state).update(source, sample_weight=weights, checkpoint=checkpoint, backend=self.backend)
        state.n_positive = n_positive  # an old row counts, though its weight may be too small for float64
        return state

    def _added_in_steps(
        self, state: Moments | Sketch, source: sources.BlockSource, sample_weight: Any
    ) -> Moments | Sketch:
        """`_added` for rows that come in blocks, some at a time: neither sketch nor `forget` minds where they end."""
        weights = validation.sample_weights(sample_weight, None)
        step = max(1, _ENTRIES_AT_ONCE // source.n_features)
        source.blocks.start()
        while True:
            first, rows = source.position, source.blocks.take(step)
            if not len(rows):
                break
            here = None if weights is None else weights[first : source.position]
            if here is not None and here.size < len(rows):
                raise ValueError(validation.few_weights_message(weights.size))
            if here is None or here.any():
                part = sources.as_source(rows)
                part.first_row = first
                state = self._added(state, part, here)
            else:  # rows that count nothing, but are steps
                state = copy.copy(state if self.forget == 1.0 else state.decayed(float(self.forget) ** len(rows)))
                state.n_samples += len(rows)
        validation.sample_weights(weights, source.position)
        return state

    def _renew(
        self,
        state: Moments | Sketch,
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
                stacklevel=3,
            )
        replace_fitted(self, {**seen, **(fitted or {})}, self._private)

    def __getattr__(self, name: str) -> Any:
        state = self._state if name in _LAZY else None
        if state is None or not state.has_variance:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        vars(self).update(self._computed(state, self._asked_first))
        return vars(self)[name]

    def _computed(self, state: Moments | Sketch, asked: int | None) -> dict[str, Any]:
        """The fitted attributes of a state, with `asked` components."""
        if isinstance(state, Sketch):
            pairs = self._sketched(state, int(asked))
            fitted = results.of_pairs(
                pairs, pairs.values.size, state.n_samples, state.n_counted, results.Left(state.left)
            )
            squares, bound = state.squares, state.discarded
        else:
            fitted = self._results_of_moments(state, asked)
            squares, bound = state.xx.diagonal(), 0.0
        fitted["var_"] = held(squares / state.weight_sum, fitted["components_"].dtype)
        fitted["error_bound_"] = bound / (state.weight_sum - 1.0)
        fitted["exact_"] = bound == 0.0
        return fitted

    def _sketched(self, sketch: Sketch, asked: int) -> Eigenpairs:
        asked = min(asked, sketch.n_counted, sketch.n_features)
        values, vectors = sketch.eigenpairs(asked)
        dtype = sketch.dtype
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(values.size)])
        eps = float(np.finfo(dtype).eps)
        largest = float(values.max(initial=0.0))
        floor = np.maximum(values, eps * largest) if largest > 0 else np.ones_like(values)
        residuals = (sketch.discarded + _SVD_EPS * eps * largest) / floor
        return Eigenpairs(
            values=values,
            vectors=np.ascontiguousarray(vectors * signs, dtype=dtype),
            residuals=residuals,
            converged=np.full(values.size, sketch.discarded == 0.0),
            solver="sketch",
            reason=f"the moments of {sketch.n_features} features do not fit; a sketch of {sketch.size} rows does",
            n_passes=1,
            workspace_bytes=sketch.nbytes,
            trace=float(sketch.squares.sum()),
            mean=sketch.mean,
            variances=sketch.squares,
            weight_sum=sketch.weight_sum,
        )


def _few_rows(source: sources.Source) -> np.ndarray | None:
    """A copy of the rows where they are few enough to wait and nothing can be wrong with them later; else None."""
    if isinstance(source, (sources.BlockSource, sources.SparseSource, sources.DeviceSource)):
        return None
    if source.shape[0] > _FEW:
        return None
    rows = np.array(source.block(0, source.shape[0], False), order="C")
    if rows.dtype.kind == "f":
        sizes = np.abs(rows)
        if not ((sizes <= _ORDINARY[1]) & ((sizes >= _ORDINARY[0]) | (sizes == 0.0))).all():
            return None
    return rows
