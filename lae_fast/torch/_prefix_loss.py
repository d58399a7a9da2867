"""The prefix-weighted losses as autograd functions with closed-form backward  (docs/math.md Eq. 5 to 7).

Where a gradient of the gradient is asked for (create_graph=True), the same formulas run once more as differentiable
operations on the inputs: PyTorch enables gradients inside `backward` exactly then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..losses import Loss
from ..losses._family import prefix_mask
from ._inputs import exact, wide
from ._products import KernelRows, SecondMoments, squares


@dataclass(frozen=True)
class Terms:
    """A loss in numbers, float64 where the device has it: c (p,), M (p, p), lam (p,), lam_pi; and 1/m or 1."""

    prefix: torch.Tensor
    mask: torch.Tensor
    row_penalty: torch.Tensor
    product_penalty: float
    factor: float

    @classmethod
    def of(cls, loss: Loss, encoder: torch.Tensor, factor: float) -> Terms:
        """The numbers of a loss of the family, where the encoder is."""
        p, like = encoder.shape[0], wide(encoder[:0])
        prefix, penalty = loss.prefix(p), loss.row_penalty(p)
        c, mask, lam = (torch.from_numpy(part).to(like) for part in (prefix, prefix_mask(prefix), penalty))
        return cls(c, mask, lam, float(loss.product_penalty), factor)

    @property
    def penalises(self) -> bool:
        """Whether there is a penalty."""
        return self.product_penalty != 0 or bool((self.row_penalty != 0).any())

    def masked(self, gram: torch.Tensor) -> torch.Tensor:
        """2 kappa M o G in the dtype of G."""
        return ((2 * self.factor) * self.mask).to(gram.dtype) * gram

    @property
    def weights(self) -> torch.Tensor:
        """2 kappa c, (p,)."""
        return (2 * self.factor) * self.prefix

    def value(
        self,
        decoder: torch.Tensor,
        encoder: torch.Tensor,
        trace: torch.Tensor,
        cross: torch.Tensor,
        latent: torch.Tensor,
    ) -> torch.Tensor:
        """The loss (docs/math.md Eq. 5), summed in float64.  cross : (p,) diagonal of B Sxy A;  latent : B Sxx B'."""
        gram = wide(decoder.T @ decoder)
        fit = self.prefix[0] * trace - 2 * (self.prefix @ wide(cross)) + (self.mask * gram * wide(latent)).sum()
        value = self.factor * fit
        if self.penalises:
            of_encoder = wide(encoder @ encoder.T)
            value = value + self.row_penalty @ (gram.diagonal() + of_encoder.diagonal())
            value = value + self.product_penalty * (gram * of_encoder).sum()
        return value.to(encoder.dtype)

    def penalty_gradients(self, decoder: torch.Tensor, encoder: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What penalties add to the gradients of A (q, p) and B (p, d)."""
        lam = (2 * self.row_penalty).to(encoder.dtype)
        da, db = decoder * lam, lam[:, None] * encoder
        if self.product_penalty:
            twice = 2 * self.product_penalty
            da = da + twice * (decoder @ (encoder @ encoder.T))
            db = db + twice * ((decoder.T @ decoder) @ encoder)
        return da, db


class MomentLoss(torch.autograd.Function):
    """A loss of the family on second moments, or on rows that need no gradient; data are constants."""

    @staticmethod
    def forward(
        ctx: Any,
        decoder: torch.Tensor,
        encoder: torch.Tensor,
        data: SecondMoments | KernelRows,
        terms: Terms,
        with_gradients: bool,
    ) -> torch.Tensor:
        """The products with S.  with_gradients : also A'Syx, which only they need; all products are kept then."""
        with exact(encoder.device):
            found = data.multiplied(decoder, encoder, with_gradients)
            cross = (found.encoder_target * decoder.T).sum(dim=1)
            latent = found.encoder_input @ encoder.T
            ctx.data, ctx.terms = data, terms
            kept = (
                () if found.decoder_input is None else (found.encoder_input, found.decoder_input, found.encoder_target)
            )
            ctx.save_for_backward(decoder, encoder, *kept)
            return terms.value(decoder, encoder, found.trace, cross, latent)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """dA = 2 kappa [A (M o G) - Syx B' D], dB = 2 kappa [(M o A'A) B Sxx - D A' Syx], and penalties."""
        decoder, encoder, zb, za, zxy = ctx.saved_tensors
        terms: Terms = ctx.terms
        with exact(encoder.device):
            if torch.is_grad_enabled():
                zb, za, zxy, _ = ctx.data.explicit(decoder, encoder, True)
            prefix = terms.weights.to(encoder.dtype)
            da, db = terms.penalty_gradients(decoder, encoder)
            da = da + decoder @ terms.masked(zb @ encoder.T) - zxy.T * prefix
            db = db + terms.masked(decoder.T @ decoder) @ zb - prefix[:, None] * za
            return grad * da, grad * db, None, None, None


class RowLoss(torch.autograd.Function):
    """A loss of the family on rows, with gradients by the rows and targets too, by PyTorch's products."""

    @staticmethod
    def forward(
        ctx: Any,
        decoder: torch.Tensor,
        encoder: torch.Tensor,
        x: torch.Tensor,
        y: torch.Tensor | None,
        terms: Terms,
    ) -> torch.Tensor:
        """y : None for Y = X.  Codes (m, p) and B Sxy (p, q) are kept."""
        with exact(encoder.device):
            target = x if y is None else y
            codes = x @ encoder.T
            zxy = codes.T @ target
            ctx.terms = terms
            ctx.save_for_backward(decoder, encoder, x, y, codes, zxy)
            cross = (zxy * decoder.T).sum(dim=1)
            return terms.value(decoder, encoder, squares(target), cross, codes.T @ codes)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """E = C (M o A'A) - Y A D; dB = 2 E'X, dX = 2 E B, dY = 2 (c_1 Y - C D A'); dA as in `MomentLoss`."""
        decoder, encoder, x, y, codes, zxy = ctx.saved_tensors
        terms: Terms = ctx.terms
        by_decoder, by_encoder, by_rows, by_targets, _ = ctx.needs_input_grad
        with exact(encoder.device):
            target = x if y is None else y
            if torch.is_grad_enabled():
                codes = x @ encoder.T
                zxy = codes.T @ target
            prefix = terms.weights.to(encoder.dtype)
            da = db = dx = dy = None
            if by_decoder or by_encoder:
                da, db = terms.penalty_gradients(decoder, encoder)
            if da is not None and by_decoder:
                da = grad * (da + decoder @ terms.masked(codes.T @ codes) - zxy.T * prefix)
            if by_encoder or by_rows:
                error = codes @ terms.masked(decoder.T @ decoder) - (target @ decoder) * prefix
                db = grad * (db + error.T @ x) if db is not None and by_encoder else None
                dx = error @ encoder if by_rows else None
            if by_targets or (by_rows and y is None):
                of_target = prefix[0] * target - (codes * prefix) @ decoder.T
                if y is None:
                    dx = dx + of_target
                else:
                    dy = grad * of_target
            return da, db, None if dx is None else grad * dx, dy, None
