"""LinearAutoencoder under scikit-learn's contract: parameters, validation, attributes; the arithmetic is elsewhere."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .. import backends, progress, validation
from .._moved import EarlierState
from ..data.checkpoint import kept
from ..errors import DivergenceError
from ..operators import projection
from ..training import conclusion, recording, run_state, train
from ..training.run import Run, Settings
from ..training.run_state import RunState
from ..training.start import start
from . import _callbacks, _trained_attributes
from ._array_api import dispatched
from ._base import Estimator
from ._callbacks import with_callbacks
from ._training_data import given_for, opened_targets


class LinearAutoencoder(Estimator):
    """A linear autoencoder trained by any loss, rule and optimizer of the literature, in compiled kernels.

    Minimises |Y - X B' A'|^2 and its relatives for a decoder A (q, p) and an encoder B (p, d), X and Y centred;
    Y = X unless `targets` are given (Baldi and Hornik 1989; each loss and rule names its own source).
    docs/autoencoders.md leads from each loss to the kernel that computes it.

    Parameters
    ----------
    n_components : int
        The latent width p.
    loss : str or object of `lae_fast.losses`, default="auto"
        "auto", "mse", "ordered", "nested_dropout", "stochastic_nested_dropout" or "vae". "auto" is ordered for the
        rules gradient and alternating, mse for rag, none for the others.
    rule : str or object of `lae_fast.rules`, default="gradient"
        "gradient", "rag", "oja", "gha", "alpha_eigengame", "mu_eigengame", "adaoja" or
        "alternating".
    optimizer : str or object of `lae_fast.optimizers`, default="auto"
        "auto", "sgd", "momentum", "nesterov" or "adam". "auto" is what is known to reach the solution of the rule: adam
        for gradient, sgd for rag, oja, gha and the EigenGames.  rag with another one ends at minima of the squared
        error with wrong directions.  adaoja and alternating take no steps with a rate: leave "auto" there, and the two
        parameters that follow.
    learning_rate : float or "auto", default="auto"
        "auto" follows the largest curvature of the loss, which each loss describes: for sgd it is 1 / (4 c_1 l_1)
        without penalties, with l_1 the largest eigenvalue and c_1 the first prefix weight, and less with penalties,
        small mini-batches, a large start, further layers and the vae; for momentum and nesterov 0.4 of that.  For adam,
        whose steps do not depend on the size of the gradient, it is 0.03 / sqrt(d), falling to 0 at max_iter by half a
        cosine unless `schedule` says otherwise, with eps in units of c_1 l_1.
    schedule : None, str, object of `lae_fast.optimizers` or callable, default=None
        "constant", "cosine" or "exponential"; None is constant but for adam with learning_rate="auto".  A callable
        takes the iteration and returns the factor on the rate.
    max_iter : int, default=10000
        Iterations at most.
    tol : float, default=1e-6
        stop="gradient" stops when the gradient of every component is within tol of the component's own scale
        (docs/math.md Eq. 46), as far as rounding lets it.  It goes on where the optimum is known and not reached.
        With mini-batches every batch of an epoch must be within tol.  0 asks for a gradient of exactly zero: for all
        of max_iter, and without a warning.
    stop : str, criterion of `lae_fast.stopping`, or a list of them, default="gradient"
        "alignment" needs a reference and stops, at a recording, when every component has absolute cosine over 0.99
        with the true direction of the same place (RatioTP = 1).  `stopping.below("d_align", 0.3)` and its like stop at
        a recording where a quantity of `record` is there: record_every=1 asks at every iteration.  Of several criteria
        the first that holds ends the run.
    batch_size : int or None, default=None
        None for full batch, of stochastic_nested_dropout too, which draws a mask for every row at each iteration.
    scale : {"mean", "sum"}, default="mean"
        Mean or sum of squared errors over samples; penalties are not scaled.  A mini-batch stands for all samples: at
        "sum" its squared errors are multiplied by n_samples / batch_size.
    coupling : {"untied", "synchronised", "tied"}, default="untied"
        How decoder and encoder depend on each other (Kunin et al. 2019). "synchronised" starts from the mean of both,
        and one optimizer moves both by the mean of their gradients.
    center : bool, default=True
        False leaves the means of X and Y in, as Kunin et al. and Petrevski do; mean_ is zero then.
    hidden : tuple of int, default=()
        Widths (>= p) of further linear layers, mirrored in the decoder; gradient rule only.
    init : None, "balanced", pair or list of arrays, default=None
        The start: (decoder (q, p), encoder (p, d)), or with `hidden` all layers in order; None draws it. "balanced"
        draws the encoder and takes a decoder with A'A = BB': its transpose, or with targets one of random directions.
    init_scale : float or pair (decoder, encoder), default=1e-4
        Standard deviation of the random start, of each matrix.  With `hidden` the layers start larger, so that the
        chain leaves its start as soon as two layers of this deviation would.
    random_state : None, int, Generator or RandomState, default=None
        Seed of the start and of everything drawn; None for a fixed one.
    backend : {"auto", "cpu", "cuda"}, default="auto"
        "auto" trains where the data are.  Chains of layers and the rules "adaoja" and "alternating" run on the
        CPU only.
    record_every : int, "log" or sequence of int, default=100
        Iterations between two entries of `history_`; or "log", ten iterations for each factor of ten; or which ones.
        The first and the last iterate are recorded in any case.
    record : sequence of str or callables, or dict of them, default=()
        What `history_` has besides: "d_align", "d_sub", "d_sub_published", "matched_alignment", "ratio_tp", "ratio_fp",
        "ratio_total", "streak" (see `lae_fast.metrics`; they need a reference), "transpose_gap", "nondiagonality" of
        B Sxx B', "loss_ratio" L / L*, "excess_loss", "alignment_residuals" (measured as the attributes of these names
        are), "update_norm" of the step that follows, "rate", and for the vae "noise_variance", "latent_variances".  A
        callable makes a number or an array of the state that a callback sees, and goes by its name or its key.
    callback : callable or None, default=None
        callback(state), called at each recording; True stops.  state has iteration, loss, gradient_norm, encoder,
        decoder, history, rate, update_norm, latent_variances and noise_variance, all of one moment.  A run that it
        stops, or that ends in an exception of it, keeps the weights that it saw.
    progress : bool or callable, default=False
        True for a bar on stderr, or a callable (stage, done, total).
    regime : {"auto", "moments", "rows"}, default="auto"
        Train on second moments, which makes an iteration independent of the number of samples, or on passes over the
        rows; "auto" takes the cheaper.
    warm_start : bool, default=False
        True lets `fit` go on from the fit before, for max_iter more iterations: weights, optimizer states, random
        numbers and the count of iterations, as if it had not been interrupted.  Schedules given by name end at the last
        iteration counted from the first fit.  The data may be others of the same width.

    Attributes
    ----------
    encoder_ : ndarray of shape (p, d)
        B, in the compute dtype: float32 for float32 and small integer data. `transform` is (X - mean_) encoder_'.
    decoder_ : ndarray of shape (q, p)
        A, in the same dtype. `inverse_transform` is X decoder_' + target_mean_.
    components_ : ndarray of shape (p, q)
        The decoder's columns at length 1; a zero column stays zero.
    explained_variance_ : ndarray of shape (p,)
        Variance of Y along components_, denominator sum of weights - 1; with center=False mean squares, about zero.
    mean_, target_mean_ : ndarray of shape (d,) and (q,)
        Means of X and Y.
    history_ : dict of arrays
        iteration, loss, gradient_norm, seconds, with a reference alignment (d_align) and ratio_tp, and what `record`
        asks for.
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

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> X = np.random.default_rng(0).standard_normal((200, 5)) * [5.0, 4.0, 3.0, 2.0, 1.0]
    >>> model = lf.LinearAutoencoder(2).fit(X)  # the ordered loss finds the directions themselves
    >>> model.converged_, bool(model.excess_loss_ < 1e-6), model.n_iter_ < 10_000
    (True, True, True)
    >>> lf.metrics.acs(lf.PCA(2).fit(X).components_.T, model.decoder_).round(3)
    array([[1., 0.],
           [0., 1.]])
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
        stop: Any = "gradient",
        batch_size: int | None = None,
        scale: str = "mean",
        coupling: str = "untied",
        center: bool = True,
        hidden: tuple[int, ...] = (),
        init: Any = None,
        init_scale: float | tuple[float, float] = 1e-4,
        random_state: Any = None,
        backend: str = "auto",
        record_every: Any = 100,
        record: Any = (),
        callback: Any = None,
        progress: Any = False,
        regime: str = "auto",
        warm_start: bool = False,
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
        self.center = center
        self.hidden = hidden
        self.init = init
        self.init_scale = init_scale
        self.random_state = random_state
        self.backend = backend
        self.record_every = record_every
        self.record = record
        self.callback = callback
        self.progress = progress
        self.regime = regime
        self.warm_start = warm_start

    @dispatched
    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        targets: Any = None,
        sample_weight: Any = None,
        reference: Any = None,
        checkpoint: Any = None,
    ) -> Self:
        """Train on X (n_samples, n_features); y is ignored.

        Parameters
        ----------
        X : (n_samples, n_features)
            Array, memmap, sparse matrix, HDF5 dataset, DataFrame or path; or rows in blocks, as of `PCA.fit`, which are
            read once, for their moments: not with mini-batches or targets.  Or `Moments`, with those of targets where
            there are such: made once for many fits.
        targets : (n_samples, q), default=None
            Y for reduced-rank regression, of the kinds that X may be of; None for Y = X.
        sample_weight : array of shape (n_samples,), default=None
            Frequency weights >= 0 that sum to more than one; mini-batches draw rows in proportion to them.
        reference : array of shape (q, p), default=None
            True directions in columns; recorded against, and used by stop="alignment" and other criteria.
        checkpoint : path, `Checkpoint` or None, default=None
            Keeps the state of the run, every half a minute and after Ctrl-C; the same fit of the same data goes on from
            there and ends with the same bits.  A path is removed in the end.

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
        After Ctrl-C the estimator holds the weights reached so far, and KeyboardInterrupt is raised; an exception in
        a callback or a recorded callable leaves those that it saw.

        Examples
        --------
        Reduced-rank regression:

        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((100, 4))
        >>> Y = X @ np.ones((4, 3))  # of rank one
        >>> model = lf.LinearAutoencoder(1, loss="mse", rule="alternating").fit(X, targets=Y)
        >>> model.decoder_.shape, bool(np.abs(X @ model.encoder_.T @ model.decoder_.T - Y).max() < 0.1)
        ((3, 1), True)
        """
        backends.resolve(self.backend)
        with kept(checkpoint) as checkpoint:
            run, stopped = self._trained(X, targets, sample_weight, reference, checkpoint)
            if stopped is not None:
                raise stopped
        conclusion.warn(run)
        return self

    def _trained(
        self, X: Any, targets: Any, sample_weight: Any, reference: Any, checkpoint: Any
    ) -> tuple[Run, BaseException | None]:
        """Train, and set the attributes; the run, and the exception that ended it if what was reached is usable."""
        stopped: BaseException | None = None
        with (
            given_for(self, X, targets, sample_weight) as given,
            progress.resolve(self.progress) as report,
        ):
            settings = self._settings()
            truth = recording.checked_reference(settings, reference, given.n_targets)
            called = _callbacks.at_recordings(
                self, settings.callback, lambda state: _trained_attributes.of_weights(run, state.encoder, state.decoder)
            )
            run = start(
                given.data, given.targets, given.weights, dataclasses.replace(settings, callback=called),
                lambda done, total: report("second moments", done, total),
                self._stands_at if self.warm_start else None,
            )  # fmt: skip
            if checkpoint is not None:
                run_state.resume(run, checkpoint)
            try:
                train.proceed(run, truth, report, checkpoint)
                conclusion.conclude(run)
            except BaseException as error:  # raised by the caller, once what was reached is stored
                expected = isinstance(error, (KeyboardInterrupt, DivergenceError))
                if not expected and run.stopped_by != train.BY_AN_EXCEPTION:
                    raise
                stopped = error
            self._store(run)
        return run, stopped

    @dispatched
    def partial_fit(self, X: Any, y: Any = None, *, targets: Any = None, sample_weight: Any = None) -> Self:
        """One step on one mini-batch; y is ignored.

        The batch is centred with the mean of all rows seen so far, and the learning rate "auto" and the start weights
        come from the first batch.  Optimizer states and the iteration go on from call to call, through pickle and copy
        too.  explained_variance_ is that of the last batch, and nan until the weights so far sum to more than one.

        A batch counts by its weight, the sum of sample_weight or the number of rows: the rate is multiplied by it, over
        the largest weight of a batch so far.

        An exception leaves the estimator as it was; so does a step that diverges.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((256, 4))
        >>> model = lf.LinearAutoencoder(2, optimizer="sgd", learning_rate=0.05)
        >>> for rows in np.array_split(X, 8):
        ...     _ = model.partial_fit(rows)
        >>> model.n_iter_, model.encoder_.shape
        (8, (2, 4))
        """
        backends.resolve(self.backend)
        run = self._run
        if isinstance(run, EarlierState):
            raise ValueError(
                "This model is from a file, which has no state of partial_fit, or from a pickle of an earlier version. "
                "It transforms and scores as before; to train it further, take its weights into a new one: "
                "LinearAutoencoder(..., init=(model.decoder_, model.encoder_))."
            )
        with self._opened(X, reset=run is None) as source, opened_targets(targets, source) as target_source:
            weights = validation.sample_weights(sample_weight, source.shape[0])
            run = train.partial_step(run, source, target_source, weights, self._settings())
            self._store(run, goes_on=True)
        return self

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """`fit(X, **fit_params).transform(X)`; y is ignored.

        Returns
        -------
        ndarray of shape (n_samples, p)
            Codes, in the compute dtype.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> lf.LinearAutoencoder(2, rule="alternating").fit_transform(X).shape
        (50, 2)
        """
        return self.fit(X, y, **fit_params).transform(X)

    @dispatched
    def score(self, X: Any, y: Any = None, *, targets: Any = None, sample_weight: Any = None) -> float:
        """Minus the mean over samples of the squared reconstruction error |y - A B x|^2; y is ignored.

        X, targets and sample_weight are as of `fit`.

        Returns
        -------
        float
            In the squared units of the rows; not of the loss, and greater is better.

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((50, 4))
        >>> model = lf.LinearAutoencoder(2, rule="alternating").fit(X)
        >>> errors = X - model.inverse_transform(model.transform(X))
        >>> np.allclose(model.score(X), -np.mean(np.sum(errors**2, axis=1)))
        True
        """
        check_is_fitted(self)
        with self._opened(X, reset=False) as source, opened_targets(targets, source) as target_source:
            wanted = source if target_source is None else target_source
            if wanted.n_features != len(self.decoder_):
                raise ValueError(
                    f"the target has {wanted.n_features} columns, expected {len(self.decoder_)}; a model that was "
                    "trained with targets is scored with targets."
                )
            given = sample_weight is not None
            weights = validation.sample_weights(sample_weight, source.shape[0]) if given else None
            source.compute_dtype = np.result_type(source.compute_dtype, self.encoder_.dtype)
            rebuilt = projection.Rebuilding(
                *self._projection(), self.decoder_.astype(np.float64), self._exact_target_mean
            )
            return -projection.mean_squared_error(source, target_source, weights, rebuilt, self.backend)

    def _projection(self) -> tuple[np.ndarray, np.ndarray]:
        return self._exact_mean, self.encoder_.astype(np.float64)

    def _expansion(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None, np.dtype]:
        return self.decoder_.T, self.target_mean_, self.decoder_.dtype

    # The run that partial_fit goes on with, and the means in float64: mean_ and target_mean_ are in the compute dtype.
    _private = frozenset(("_run", "_stands_at", "_exact_mean", "_exact_target_mean"))
    _run: Run | EarlierState | None = None
    # Where a fit with warm_start=True ended, for the next one.
    _stands_at: RunState | None = None
    _exact_mean: np.ndarray
    _exact_target_mean: np.ndarray
    _max_subtasks = None
    _suggests_em = False  # which is another model
    encoder_: np.ndarray
    decoder_: np.ndarray
    target_mean_: np.ndarray

    @property
    def _axes(self) -> np.ndarray:
        return self.encoder_

    def _settings(self) -> Settings:
        return Settings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)})

    def _store(self, run: Run, goes_on: bool = False) -> None:
        """Set every fitted attribute from the run, all at once: an interrupt leaves the old ones or the new ones.

        goes_on : whether the next call of `partial_fit` goes on from here
        """
        stands_at = run_state.taken(run) if self.warm_start and not goes_on else None
        state = {"_run": run if goes_on else None, "_stands_at": stands_at}
        self._replace_fitted(_trained_attributes.of_run(run) | state)
