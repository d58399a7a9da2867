"""What weights are multiplied with, without a gradient of its own: second moments, or rows read by our kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from .. import plan
from ..backends import get_backend
from ..backends.lines import View
from ..data import sources
from ..operators.moments import Moments
from ._inputs import check_device, wide

# A pass of the kernels wakes threads of its own while PyTorch's still spin; below this many flops, some milliseconds,
# PyTorch's products were done before (3000 x 96 with p = 32: 1.4 against 11 ms of CPU time).
_FEWEST_FLOPS = 2.5e8


class Products(NamedTuple):
    """B Sxx (p, d), A'Syx (p, d) or None where it was not asked for, B Sxy (p, q), and tr Syy; scale "sum"."""

    encoder_input: torch.Tensor
    decoder_input: torch.Tensor | None
    encoder_target: torch.Tensor
    trace: torch.Tensor


class SecondMoments(NamedTuple):
    """Second moments as tensors, to be multiplied at every step; constants, through which no gradient flows.

    Attributes
    ----------
    xx : tensor (d, d)
        Scale "sum".
    xy : tensor (d, q) or None
        None for Y = X.
    yy_trace, weight_sum : float
        tr Syy, and what scale "mean" divides by.

    Examples
    --------
    >>> import torch
    >>> import lae_fast as lf
    >>> moments = lf.torch.SecondMoments(torch.diag(torch.tensor([8.0, 2.0])), None, 10.0, 4.0)
    >>> moments.size, lf.torch.mse_loss(torch.eye(2)[:, :1], torch.eye(2)[:1], moments).item()  # 2 / 4
    (4.0, 0.5)
    """

    xx: torch.Tensor
    xy: torch.Tensor | None
    yy_trace: float
    weight_sum: float

    @classmethod
    def from_moments(cls, moments: Moments, dtype: torch.dtype = torch.float32, device: Any = None) -> SecondMoments:
        """Copy `lae_fast.Moments` to a device.

        Parameters
        ----------
        moments : Moments
            Centred unless they were gathered with center=False.
        dtype : torch.dtype
            That of the weights.
        device : torch.device, str or None

        Returns
        -------
        SecondMoments

        Examples
        --------
        >>> import numpy as np
        >>> import lae_fast as lf
        >>> lf.torch.SecondMoments.from_moments(lf.Moments.from_data(np.array([[1.0, 0.0], [3.0, 4.0]]))).xx
        tensor([[2., 4.],
                [4., 8.]])
        """
        xy = moments.xy
        return cls(
            torch.as_tensor(moments.xx, dtype=dtype, device=device),
            None if xy is None else torch.as_tensor(xy, dtype=dtype, device=device),
            float(moments.yy_trace),
            float(moments.weight_sum),
        )

    def check(self, decoder: torch.Tensor, encoder: torch.Tensor) -> None:
        """Raise ValueError unless they fit decoder (q, p) and encoder (p, d)."""
        d, q = self.xx.shape[0], (self.xx if self.xy is None else self.xy).shape[1]
        if encoder.shape[1] != d or decoder.shape[0] != q:
            raise ValueError(
                f"decoder has shape {tuple(decoder.shape)} and encoder {tuple(encoder.shape)}, but the moments ask for "
                f"({q}, p) and (p, {d})."
            )
        for part, name in ((self.xx, "xx"), (self.xy, "xy")):
            if part is None:
                continue
            check_device(part, name, encoder)
            if part.requires_grad:
                raise ValueError(
                    f"{name} requires gradients, but moments are constants here: pass the rows x, through which they "
                    f"flow, or {name}.detach()."
                )

    def multiplied(self, decoder: torch.Tensor, encoder: torch.Tensor, with_decoder: bool) -> Products:
        """The products with decoder (q, p) and encoder (p, d), differentiable by both."""
        xx = self.xx.to(encoder.dtype)
        xy = None if self.xy is None else self.xy.to(encoder.dtype)
        zb = encoder @ xx
        za = decoder.T @ (xx if xy is None else xy.T) if with_decoder else None
        trace = torch.tensor(self.yy_trace, dtype=torch.float64)
        return Products(zb, za, zb if xy is None else encoder @ xy, trace.to(wide(encoder[:0])))

    def explicit(self, decoder: torch.Tensor, encoder: torch.Tensor, with_decoder: bool) -> Products:
        """The same as `multiplied`; rows need another way."""
        return self.multiplied(decoder, encoder, with_decoder)

    @property
    def size(self) -> float:
        """What scale "mean" divides by."""
        return self.weight_sum


class KernelRows:
    """Rows of a matrix on the CPU; X'(X V) is one pass of our kernels, with nothing of the size of X V in memory."""

    def __init__(self, x: torch.Tensor) -> None:
        self._x = x

    @staticmethod
    def pay(x: torch.Tensor, p: int) -> bool:
        """Whether they take these rows as they lie, and are worth their start."""
        m, d = x.shape
        return (
            x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.float64)
            and (x.is_contiguous() or x.T.is_contiguous())
            and 8.0 * m * d * p >= _FEWEST_FLOPS
        )

    @property
    def size(self) -> float:
        """What scale "mean" divides by."""
        return float(self._x.shape[0])

    def multiplied(self, decoder: torch.Tensor, encoder: torch.Tensor, with_decoder: bool) -> Products:
        """The products by one pass over X, which also sums its squares."""
        p = encoder.shape[0]
        sides = [encoder, decoder.T] if with_decoder else [encoder]
        block = np.ascontiguousarray(torch.cat(sides).detach().numpy().T)
        source = sources.as_source(self._x.detach().numpy())
        m, d = source.shape
        tiling = plan.tiling(m, d, source.compute_dtype.itemsize, plan.pass_flops(1, d, block.shape[1]))
        view = View(source, False, np.zeros(d, source.compute_dtype), 1.0, np.empty(0), tiling)
        found = get_backend("cpu").rows.row_pass(view, block)
        image = torch.from_numpy(found.image).T.to(encoder.dtype)
        trace = torch.tensor(found.squares.sum(), dtype=torch.float64)
        return Products(image[:p], image[p:] if with_decoder else None, image[:p], trace)

    def explicit(self, decoder: torch.Tensor, encoder: torch.Tensor, with_decoder: bool) -> Products:
        """The same by PyTorch's products, differentiable by decoder and encoder."""
        zb = (encoder @ self._x.T) @ self._x
        za = (decoder.T @ self._x.T) @ self._x if with_decoder else None
        return Products(zb, za, zb, squares(self._x))


def squares(x: torch.Tensor) -> torch.Tensor:
    """|X|_F^2 as a scalar in float64, summed row by row, without a copy of X."""
    return wide(torch.linalg.vector_norm(x, dim=1)).square().sum()
