"""LinearAutoencoder under scikit-learn's contract: parameters, validation, attributes; the arithmetic is elsewhere."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .. import backends, progress, validation
from .._moved import EarlierState
from ..data import containers, sources
from ..eigen.eigenpairs import held
from ..errors import DivergenceError
from ..training import conclusion, train
from ..training.chain import ChainEngine
from ..training.run import Run, Settings
from ..training.start import start
from ._base import Estimator, weighed

# Rows whose errors are added up at once.
_ROWS_AT_ONCE = 1024


class LinearAutoencoder(Estimator):
    """A linear autoencoder trained by any loss, rule and optimizer of the literature, in compiled kernels.

    Minimises |Y - X B' A'|^2 and its relatives for a decoder A (q, p) and an encoder B (p, d), X and Y centred;
    Y = X unless `targets` are given.  docs/autoencoders.md leads from each loss to the kernel that computes it.

    Parameters
    ----------
    n_components : int
        The latent width p.
    loss : str or object of `lae_fast.losses`, default="auto"
        "auto", "mse", "ordered", "nested_dropout", "stochastic_nested_dropout" or "vae". "auto" is ordered for the
        rules gradient and alternating, mse for rag, none for the others.
    rule : str or object of `lae_fast.rules`, default="gradient"
        "gradient", "rag", "oja", "gha", "alpha_eigengame", "mu_eigengame" or "alternating".
    optimizer : str or object of `lae_fast.optimizers`, default="auto"
        "auto", "sgd", "momentum", "nesterov" or "adam". "auto" is what is known to reach the solution of the rule: adam
        for gradient, sgd for rag, oja, gha and the EigenGames.  rag with another one ends at minima of the squared
        error with wrong directions.
    learning_rate : float or "auto", default="auto"
        "auto" follows the largest curvature of the loss, which each loss describes: for sgd it is 1 / (4 c_1 l_1)
        without penalties, with l_1 the largest eigenvalue and c_1 the first prefix weight, and less with penalties,
        small mini-batches, a large start, further layers and the vae; for momentum and nesterov 0.4 of that.  For adam,
        whose steps do not depend on the size of the gradient, it is 0.03 / sqrt(d), falling to 0 at max_iter by half a
        cosine unless `schedule` says otherwise, with eps in units of c_1 l_1.
    schedule : None, str or object of `lae_fast.optimizers`, default=None
        "constant", "cosine" or "exponential"; None is constant but for adam with learning_rate="auto".
    max_iter : int, default=10000
        Iterations at most.
    tol : float, default=1e-6
        stop="gradient" stops when the gradient of every component is within tol of the component's own scale
        (docs/math.md Eq. 46), as far as rounding lets it.  It goes on where the optimum is known and not reached.
        With mini-batches every batch of an epoch must be within tol.  0 asks for a gradient of exactly zero.
    stop : {"gradient", "alignment"}, default="gradient"
        "alignment" needs a reference and stops, at a recording, when every component has absolute cosine over 0.99
        with the true direction of the same place (RatioTP = 1).
    batch_size : int or None, default=None
        None for full batch; stochastic_nested_dropout draws masks per sample and takes 256 then.
    scale : {"mean", "sum"}, default="mean"
        Mean or sum of squared errors over samples; penalties are not scaled.
    coupling : {"untied", "synchronised", "tied"}, default="untied"
        How decoder and encoder depend on each other (Kunin et al. 2019). "synchronised" starts from the mean of both,
        and one optimizer moves both by the mean of their gradients.
    hidden : tuple of int, default=()
        Widths (>= p) of further linear layers, mirrored in the decoder; gradient rule only.
    init : None, pair or list of arrays, default=None
        The start: (decoder (q, p), encoder (p, d)), or with `hidden` all layers in order; None draws it.
    init_scale : float, default=1e-4
        Standard deviation of the random start.  With `hidden` the layers start larger, so that the chain leaves its
        start as soon as two layers of this deviation would.
    random_state : None, int, Generator or RandomState, default=None
        Seed of the start and of everything drawn; None for a fixed one.
    backend : {"auto", "cpu", "cuda"}, default="auto"
        "auto" trains where the data are.  Chains of layers and the rule "alternating" run on the CPU only.
    record_every : int, default=100
        Iterations between two entries of `history_`.
    callback : callable or None, default=None
        callback(state), called at each recording; True stops.  state has iteration, loss, gradient_norm, encoder,
        decoder, history.
    progress : bool or callable, default=False
        True for a bar on stderr, or a callable (stage, done, total).
    regime : {"auto", "moments", "rows"}, default="auto"
        Train on second moments, which makes an iteration independent of the number of samples, or on passes over the
        rows; "auto" takes the cheaper.

    Attributes
    ----------
    encoder_ : ndarray of shape (p, d)
        B, in the compute dtype: float32 for float32 and small integer data. `transform` is (X - mean_) encoder_'.
    decoder_ : ndarray of shape (q, p)
        A, in the same dtype. `inverse_transform` is X decoder_' + target_mean_.
    components_ : ndarray of shape (p, q)
        The decoder's columns at length 1; a zero column stays zero.
    explained_variance_ : ndarray of shape (p,)
        Variance of Y along components_, denominator sum of weights - 1.
    mean_, target_mean_ : ndarray of shape (d,) and (q,)
        Means of X and Y.
    history_ : dict of arrays
        iteration, loss, gradient_norm, seconds, and with a reference alignment and ratio_tp.
    n_iter_ : int
        Iterations done.
    regime_, regime_reason_ : str
        What `regime` became, and why.
    converged_, converged_reason_ : bool and str
        The stopping rule holds and, where the optimum is known, excess_loss_ is within what tol allows; for losses and
        rules that end at the eigenvectors, alignment_residuals_ too (docs/math.md Eq. 48).  A ConvergenceWarning
        otherwise.  The reason says how the run ended and, where excess_loss_ is nan, why.
    excess_loss_ : float
        (L - L*) / (L at zero weights - L*), measured in float64 against the closed-form minimum L*; nan where there is
        none.  Rules without a loss are measured with A = B' by the ordered loss, oja by the squared error.
    alignment_residuals_ : ndarray of shape (p,), float64
        |S a_i - r_i a_i| / r_i of components_[i], r_i = a_i' S a_i: how far it is from an eigenvector of S, with
        targets of Syx Sxx^-1 Sxy.  Small values are expected of losses and rules that find the directions, not of mse.
        nan for components that are zero.
    backend_ : str
        "cpu" or "cuda", what ran.
    learning_rate_ : float or None
        What `learning_rate` became; None for rules that take no steps.
    latent_variances_, noise_variance_ : ndarray of shape (p,) and float
        Of the vae loss only.
    layers_ : list of ndarray
        The layers' matrices, with `hidden` only.
    n_features_in_ : int
        As in scikit-learn; feature_names_in_ too, where X has names.
    """

    def __init__(
        self,
        n_components: int,
        *,
        loss: Any = "auto",
        rule: Any = "gradient",
        optimizer: Any = "auto",
        learning_rate: float | str = "auto",
        schedule: Any = None,
        max_iter: int = 10_000,
        tol: float = 1e-6,
        stop: str = "gradient",
        batch_size: int | None = None,
        scale: str = "mean",
        coupling: str = "untied",
        hidden: tuple[int, ...] = (),
        init: Any = None,
        init_scale: float = 1e-4,
        random_state: Any = None,
        backend: str = "auto",
        record_every: int = 100,
        callback: Any = None,
        progress: Any = False,
        regime: str = "auto",
    ) -> None:
        self.n_components = n_components
        self.loss = loss
        self.rule = rule
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.max_iter = max_iter
        self.tol = tol
        self.stop = stop
        self.batch_size = batch_size
        self.scale = scale
        self.coupling = coupling
        self.hidden = hidden
        self.init = init
        self.init_scale = init_scale
        self.random_state = random_state
        self.backend = backend
        self.record_every = record_every
        self.callback = callback
        self.progress = progress
        self.regime = regime

    def fit(
        self, X: Any, y: Any = None, *, targets: Any = None, sample_weight: Any = None, reference: Any = None
    ) -> Self:
        """Train on X (n_samples, n_features); y is ignored.

        Parameters
        ----------
        X : (n_samples, n_features)
            Array, memmap, sparse matrix, HDF5 dataset, DataFrame or path; or rows in blocks, as of `PCA.fit`, which are
            read once, for their moments: not with mini-batches or targets.
        targets : (n_samples, q), default=None
            Y for reduced-rank regression, of the kinds that X may be of; None for Y = X.
        sample_weight : array of shape (n_samples,), default=None
            Frequency weights >= 0 that sum to more than one; mini-batches draw rows in proportion to them.
        reference : array of shape (q, p), default=None
            True directions in columns; recorded against, and used by stop="alignment".

        Raises
        ------
        ValueError, TypeError
            NaN or inf (names the first), wrong shapes, bad parameters, choices that do not go together.
        DivergenceError
            The gradient is no longer finite, or the loss has grown far over that of the start; the estimator keeps the
            weights of the last recording.

        Warns
        -----
        ConvergenceWarning
            max_iter came first, or a penalty removes components.

        Notes
        -----
        After Ctrl-C the estimator holds the weights reached so far, and KeyboardInterrupt is raised.
        """
        backends.resolve(self.backend)
        with (
            self._opened(X) as source,
            _opened_targets(targets, source) as target_source,
            progress.resolve(self.progress) as report,
        ):
            weights = weighed(source, sample_weight).weights
            truth = self._reference(reference, source, target_source)
            run = start(
                source, target_source, weights, self._settings(),
                lambda done, total: report("second moments", done, total),
            )  # fmt: skip
            stopped: BaseException | None = None
            try:
                train.proceed(run, truth, report)
                conclusion.conclude(run)
            except (KeyboardInterrupt, DivergenceError) as error:
                stopped = error
            self._store(run)
        if stopped is not None:
            raise stopped
        conclusion.warn(run)
        return self

    def partial_fit(self, X: Any, y: Any = None, *, targets: Any = None, sample_weight: Any = None) -> Self:
        """One step on one mini-batch; y is ignored.

        The batch is centred with the mean of all rows seen so far, and the learning rate "auto" and the start weights
        come from the first batch.  Optimizer states and the iteration go on from call to call, through pickle and copy
        too.  explained_variance_ is that of the last batch, and nan until the weights so far sum to more than one.

        A batch counts by its weight, the sum of sample_weight or the number of rows: the rate is multiplied by it, over
        the largest weight of a batch so far.

        An exception leaves the estimator as it was; so does a step that diverges.
        """
        backends.resolve(self.backend)
        run = self._run
        if isinstance(run, EarlierState):
            raise ValueError(
                "This model is from a pickle of an earlier version, whose state of partial_fit is not understood here. "
                "It transforms and scores as before; to train it further, take its weights into a new one: "
                "LinearAutoencoder(..., init=(model.decoder_, model.encoder_))."
            )
        with self._opened(X, reset=run is None) as source, _opened_targets(targets, source) as target_source:
            weights = validation.sample_weights(sample_weight, source.shape[0])
            run = train.partial_step(run, source, target_source, weights, self._settings())
            self._store(run, goes_on=True)
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """`fit(X, **fit_params).transform(X)`; y is ignored."""
        return self.fit(X, y, **fit_params).transform(X)

    def score(self, X: Any, y: Any = None, *, targets: Any = None, sample_weight: Any = None) -> float:
        """Minus the mean over samples of the squared reconstruction error |y - A B x|^2; y is ignored."""
        check_is_fitted(self)
        with self._opened(X, reset=False) as source, _opened_targets(targets, source) as target_source:
            wanted = source if target_source is None else target_source
            if wanted.n_features != len(self.decoder_):
                raise ValueError(
                    f"the target has {wanted.n_features} columns, expected {len(self.decoder_)}; a model that was "
                    "trained with targets is scored with targets."
                )
            weights = validation.sample_weights(sample_weight, source.shape[0])
            return -self._mean_squared_error(source, wanted, np.ones(source.shape[0]) if weights is None else weights)

    def _mean_squared_error(self, source: sources.Source, wanted: sources.Source, weights: np.ndarray) -> float:
        """Weighted mean of |y - A B x|^2, added up on the host in float64."""
        n_samples = source.shape[0]
        codes = np.empty((n_samples, len(self.encoder_)), np.result_type(source.compute_dtype, self.encoder_.dtype))
        self._scores(source, codes)
        decoder, total = self.decoder_.astype(np.float64), 0.0
        for first in range(0, n_samples, _ROWS_AT_ONCE):
            last = min(n_samples, first + _ROWS_AT_ONCE)
            centred = np.asarray(wanted.block(first, last, False), dtype=np.float64) - self._exact_target_mean
            errors = centred - codes[first:last].astype(np.float64) @ decoder.T
            total += float(weights[first:last] @ np.einsum("ij,ij->i", errors, errors))
        return total / float(weights.sum())

    def _projection(self) -> tuple[np.ndarray, np.ndarray]:
        return self._exact_mean, self.encoder_.astype(np.float64)

    def _expansion(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None, np.dtype]:
        return self.decoder_.T, self.target_mean_, self.decoder_.dtype

    # The run that partial_fit goes on with, and the means in float64: mean_ and target_mean_ are in the compute dtype.
    _private = frozenset(("_run", "_exact_mean", "_exact_target_mean"))
    _run: Run | EarlierState | None = None
    _exact_mean: np.ndarray
    _exact_target_mean: np.ndarray
    encoder_: np.ndarray
    decoder_: np.ndarray
    target_mean_: np.ndarray

    @property
    def _axes(self) -> np.ndarray:
        return self.encoder_

    def _settings(self) -> Settings:
        return Settings(
            n_components=self.n_components,
            loss=self.loss,
            rule=self.rule,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            max_iter=self.max_iter,
            tol=self.tol,
            stop=self.stop,
            batch_size=self.batch_size,
            scale=self.scale,
            coupling=self.coupling,
            hidden=self.hidden,
            init=self.init,
            init_scale=self.init_scale,
            random_state=self.random_state,
            backend=self.backend,
            regime=self.regime,
            record_every=self.record_every,
            callback=self.callback,
        )

    def _reference(self, reference: Any, source: Any, targets: Any) -> np.ndarray | None:
        """The true directions (q, p), checked before any work is done."""
        if reference is None:
            if self.stop == "alignment":
                raise ValueError("stop='alignment' needs reference=, the true directions (q, p) in columns.")
            return None
        truth = containers.as_matrix(reference, "reference")
        shape = ((source if targets is None else targets).n_features, self.n_components)
        if truth.shape != shape:
            raise ValueError(f"reference has shape {truth.shape}, expected {shape}: one true direction per column.")
        return truth

    def _store(self, run: Run, goes_on: bool = False) -> None:
        """Set every fitted attribute from the run, all at once: an interrupt leaves the old ones or the new ones.

        goes_on : whether the next call of `partial_fit` goes on from here
        """
        dtype, mean, target_mean = run.problem.dtype, run.problem.mean, run.problem.mean_y
        encoder, decoder = run.encoder, run.decoder
        columns = decoder.astype(np.float64)
        lengths = np.sqrt(np.sum(columns**2, axis=0))
        unit = columns / np.where(lengths > 0, lengths, 1.0)
        excess, residuals = np.nan, np.full(len(encoder), np.nan)
        if run.reason and run.assessment is not None:
            excess, residuals = run.assessment.excess, run.assessment.residuals
        fitted: dict[str, Any] = {
            "encoder_": encoder,
            "decoder_": decoder,
            "components_": np.ascontiguousarray(unit.T, dtype=dtype),
            "explained_variance_": held(run.variances(unit), dtype),
            "_run": run if goes_on else None,
            "_exact_mean": mean,
            "_exact_target_mean": target_mean,
            "mean_": mean.astype(dtype),
            "target_mean_": target_mean.astype(dtype),
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
        self._replace_fitted(fitted)


@contextlib.contextmanager
def _opened_targets(targets: Any, source: sources.Source) -> Iterator[sources.Source | None]:
    """The source of Y, open for as long as the context lasts, or None; it must have a row for each row of X."""
    if targets is None:
        yield None
        return
    with sources.opened(targets, "targets") as target_source:
        n_lines = source.n_lines(False)
        if math.isfinite(n_lines) and target_source.n_lines(False) != n_lines:
            raise ValueError(
                f"targets has {target_source.shape[0]} rows, but X has {n_lines}: pass one row per row of X."
            )
        yield target_source
