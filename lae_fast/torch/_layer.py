"""A linear autoencoder as a layer: encoder, decoder, mean; its loss or rule; to and from the estimators."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch

from .. import losses, rules, validation
from ..estimators.linear_autoencoder import LinearAutoencoder
from ._inputs import checked_rows
from ._losses import PrefixLoss
from ._rules import add_rule_gradients_, normalise_rows_


class LinearAutoencoderLayer(torch.nn.Module):
    """Encoder B (p, d) and decoder A (q, p), to be trained by a loss or a rule of the library (docs/embedding.md).

    `forward` rebuilds rows, `encode` gives codes. With a loss of which the minimisers are ordered (the default), the
    first k codes of a trained layer are the best k: read any `width` of them ("Matryoshka" embeddings).

    Parameters
    ----------
    d, p : int
        Width of the rows, and number of codes.
    loss : str or object of `lae_fast.losses`, default="auto"
        A member of the family; "auto" is that of the rule: ordered for gradient, mse for rag, none for the others.
    rule : str or object of `lae_fast.rules`, default="gradient"
        "gradient" trains by `loss(x).backward()`; "rag", "oja", "gha", "alpha_eigengame" and "mu_eigengame" are no
        gradients of a loss and train by `rule_backward(x)`, then a step of any optimizer, then `after_step()`.
    q : int, default=None
        Width of the targets; None is d. Rules other than gradient have none but x.
    scale : {"mean", "sum"}, default="mean"
        Of squared errors over rows.
    center : bool, default=False
        Keep buffers `mean` (d,) and `target_mean` (q,), zero until they are set, which are taken off rows and targets.
    init_scale : float, default=1e-2
        Standard deviation of the random start; rows of the EigenGames' encoders have length 1.
    device, dtype : as of every module
        float32, float64, or half precision, which is computed in float32.

    Attributes
    ----------
    encoder : Parameter (p, d)
    decoder : Parameter (q, p), or the encoder transposed for rules with one weight matrix

    Raises
    ------
    ValueError, TypeError
        Bad widths; an unknown loss or rule; a rule that goes with another loss.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 3.0, 2.0, 1.0])
    >>> layer = lf.torch.LinearAutoencoderLayer(4, 2, center=True)
    >>> layer.set_mean(x)
    >>> adam = torch.optim.Adam(layer.parameters(), lr=0.1)
    >>> for _ in range(40):
    ...     adam.zero_grad()
    ...     layer.loss(x).backward()
    ...     adam.step()
    ...     layer.after_step()
    >>> pca = lf.PCA(2).fit(x.numpy())
    >>> lf.metrics.subspace_distance(pca.components_.T, layer.decoder.detach().numpy()) < 0.1
    True
    >>> layer.encode(x, width=1).shape, layer(x).shape, layer.decode(torch.ones(1, 2)).shape
    (torch.Size([200, 1]), torch.Size([200, 4]), torch.Size([1, 4]))
    """

    def __init__(
        self,
        d: int,
        p: int,
        *,
        loss: Any = "auto",
        rule: Any = "gradient",
        q: int | None = None,
        scale: str = "mean",
        center: bool = False,
        init_scale: float = 1e-2,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d, p = validation.check_integer(d, "d", low=1), validation.check_integer(p, "p", low=1)
        q = d if q is None else validation.check_integer(q, "q", low=1)
        self.rule = rules.resolve(rule)
        if not self.rule.iterative:
            raise ValueError(f"rule {self.rule.name!r} takes no rate: use LinearAutoencoder.")
        if q != d and self.rule.name != "gradient":
            raise ValueError(f"rule {self.rule.name!r} is of x itself: q={q} must be d={d}.")
        self.scale = validation.check_choice(scale, ("mean", "sum"), "scale")
        self.objective = self._objective(loss)
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        self.encoder = torch.nn.Parameter(torch.randn(p, d, **like) * init_scale)
        if self.rule.normalises_rows:
            normalise_rows_(self.encoder)
        if self.rule.has_decoder:
            self.decoder = torch.nn.Parameter(torch.randn(q, p, **like) * init_scale)
        self.center = validation.check_bool(center, "center")
        if center:
            self.register_buffer("mean", torch.zeros(d, **like))
            self.register_buffer("target_mean", torch.zeros(q, **like))

    def _objective(self, loss: Any) -> PrefixLoss | None:
        if loss == "auto":
            loss = rules.default_loss(self.rule)
        if loss is not None and not self.rule.takes_loss:
            raise ValueError(f"rule {self.rule.name!r} has no loss: leave loss at 'auto'.")
        if self.rule.name == "rag" and not isinstance(losses.resolve(loss), losses.mse):
            raise ValueError("rule 'rag' goes with the loss 'mse' only.")
        return None if loss is None else PrefixLoss(loss, self.scale)

    def __getattr__(self, name: str) -> Any:
        """The decoder of a rule with one weight matrix, which is its encoder transposed."""
        if name == "decoder" and not self.rule.has_decoder:
            return self.encoder.T
        return super().__getattr__(name)

    def encode(self, x: torch.Tensor, width: int | None = None) -> torch.Tensor:
        """Codes (..., width) of rows (..., d): of the first `width` units, all of them for None."""
        rows = x - self.mean if self.center else x
        return rows @ self.encoder[: self._width(width)].T

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Rows (..., q) from codes (..., width) of the first units."""
        rows = codes @ self.decoder[:, : self._width(codes.shape[-1])].T
        return rows + self.target_mean if self.center else rows

    def forward(self, x: torch.Tensor, width: int | None = None) -> torch.Tensor:
        """Rows (..., q) rebuilt from the first `width` codes."""
        return self.decode(self.encode(x, width))

    def _width(self, width: int | None) -> int:
        p = self.encoder.shape[0]
        return p if width is None else validation.check_integer(width, "width", low=1, high=p)

    def loss(self, x: Any, y: torch.Tensor | None = None) -> torch.Tensor:
        """The loss of the layer on rows (..., d), or moments, less the means; parameters of `prefix_loss`.

        For rules without a loss, the squared error.
        """
        objective = PrefixLoss("mse", self.scale) if self.objective is None else self.objective
        if self.center and isinstance(x, torch.Tensor):
            y = None if y is None else y - self.target_mean
            x = x - self.mean
        value: torch.Tensor = objective(self.decoder, self.encoder, x, y)
        return value

    def rule_backward(self, x: Any) -> None:
        """Add the directions of the rule to the gradients of the parameters; see `add_rule_gradients_`.

        Raises
        ------
        ValueError
            The rule is gradient, which `loss(x).backward()` follows.

        Examples
        --------
        >>> import torch
        >>> import lae_fast as lf
        >>> layer = lf.torch.LinearAutoencoderLayer(4, 2, rule="gha")
        >>> layer.rule_backward(torch.eye(4))
        >>> layer.encoder.grad.shape
        torch.Size([2, 4])
        """
        if self.rule.name == "gradient":
            raise ValueError("rule 'gradient' is the gradient of a loss: call loss(x).backward().")
        rows = x - self.mean if self.center and isinstance(x, torch.Tensor) else x
        decoder = self.decoder if self.rule.has_decoder else None
        add_rule_gradients_(self.rule, decoder, self.encoder, rows, scale=self.scale)

    def after_step(self) -> None:
        """What a rule does after the step of an optimizer: the EigenGames normalise the rows of the encoder."""
        if self.rule.normalises_rows:
            normalise_rows_(self.encoder)

    def set_mean(self, x: torch.Tensor, y: torch.Tensor | None = None) -> None:
        """Set the buffers to the means of rows (..., d) and targets (..., q); x itself where there are no targets."""
        if not self.center:
            raise ValueError("this layer keeps no mean: make it with center=True.")
        rows = checked_rows(x, "x", self.encoder.shape[1], self.encoder)
        targets = rows if y is None else checked_rows(y, "y", self.decoder.shape[0], self.encoder)
        with torch.no_grad():
            self.mean.copy_(rows.double().mean(dim=0))
            self.target_mean.copy_(targets.double().mean(dim=0))

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, loss: Any = "auto", device: Any = None, dtype: torch.dtype | None = None
    ) -> Self:
        """A layer that encodes and decodes as a fitted estimator does, with its means.

        Parameters
        ----------
        estimator : LinearAutoencoder, PCA, IncrementalPCA or TruncatedSVD
            Fitted. Whitening and unit variances become part of the weights.
        loss : what the layer goes on training with; "auto" is ordered
        device, dtype : where the layer lies; None for dtype is that of `components_`

        Returns
        -------
        LinearAutoencoderLayer
            Of the rule gradient.

        Raises
        ------
        sklearn.exceptions.NotFittedError

        Examples
        --------
        >>> import numpy as np
        >>> import torch
        >>> import lae_fast as lf
        >>> X = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
        >>> pca = lf.PCA(2).fit(X)
        >>> layer = lf.torch.LinearAutoencoderLayer.from_estimator(pca)
        >>> np.allclose(layer.encode(torch.from_numpy(X)).detach(), pca.transform(X), atol=1e-5)
        True
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(estimator)
        mean, encoder = estimator._projection()
        kept = estimator.components_.dtype
        decoder, target_mean, _ = estimator._expansion(kept)  # (p, q)
        dtype = torch.from_numpy(np.empty(0, kept)).dtype if dtype is None else dtype
        (p, d), q = encoder.shape, decoder.shape[1]
        layer = cls(d, p, q=q, loss=loss, center=True, device=device, dtype=dtype)
        parts = (
            (layer.encoder, encoder), (layer.decoder, decoder.T), (layer.mean, mean),
            (layer.target_mean, np.zeros(q) if target_mean is None else target_mean),
        )  # fmt: skip
        with torch.no_grad():
            for target, values in parts:
                target.copy_(torch.from_numpy(np.array(values)))
        return layer

    def to_estimator(self) -> LinearAutoencoder:
        """A fitted LinearAutoencoder with the weights and means of the layer.

        Its `explained_variance_` are nan, as a layer has seen no data; `converged_` is False for the same reason.

        Returns
        -------
        LinearAutoencoder
            On the host, float64 for a layer of float64, else float32.

        Examples
        --------
        >>> import lae_fast as lf
        >>> model = lf.torch.LinearAutoencoderLayer(4, 2).to_estimator()
        >>> model.encoder_.shape, model.converged_
        ((2, 4), False)
        """
        dtype = np.float64 if self.encoder.dtype == torch.float64 else np.float32
        estimator = LinearAutoencoder(self.encoder.shape[0], rule=self.rule.name, scale=self.scale)
        if self.objective is not None:
            estimator.set_params(loss=self.objective.loss)
        encoder, decoder = _host(self.encoder, dtype), _host(self.decoder, dtype)
        (p, d), q = encoder.shape, decoder.shape[0]
        lengths = np.linalg.norm(decoder.astype(np.float64), axis=0)
        mean = _host(self.mean, np.float64) if self.center else np.zeros(d)
        target_mean = _host(self.target_mean, np.float64) if self.center else np.zeros(q)
        estimator._set_features(d, None)
        estimator._replace_fitted(
            {
                "encoder_": encoder,
                "decoder_": decoder,
                "components_": (decoder / np.where(lengths > 0, lengths, 1.0)).T.astype(dtype, order="C"),
                "explained_variance_": np.full(p, np.nan, dtype),
                "_run": None,
                "_exact_mean": mean,
                "_exact_target_mean": target_mean,
                "mean_": mean.astype(dtype),
                "target_mean_": target_mean.astype(dtype),
                "history_": {},
                "n_iter_": 0,
                "converged_": False,
                "converged_reason_": "not measured: made of a layer of PyTorch",
                "excess_loss_": np.nan,
                "alignment_residuals_": np.full(p, np.nan),
                "backend_": "cpu",
                "learning_rate_": None,
            }
        )
        return estimator

    def extra_repr(self) -> str:
        """Widths, loss and rule, for print."""
        p, d = self.encoder.shape
        loss = "None" if self.objective is None else self.objective.loss.describe()
        return f"d={d}, p={p}, q={self.decoder.shape[0]}, loss={loss}, rule={self.rule.name!r}, scale={self.scale!r}"


def _host(tensor: torch.Tensor, dtype: Any) -> np.ndarray:
    """A copy on the host, C-ordered."""
    wide = tensor.detach().cpu()
    return np.array((wide if wide.dtype == torch.float64 else wide.float()).numpy(), dtype=dtype, order="C")
