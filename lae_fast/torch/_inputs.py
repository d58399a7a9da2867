"""Tensors at the boundary: kinds, shapes, devices, and the dtype that is computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from ..operators.moments import Moments


def checked_weights(decoder: Any, encoder: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoder (q, p) and encoder (p, d) on one device, in the dtype that is computed in."""
    for weights, name, shape in ((decoder, "decoder", "(q, p)"), (encoder, "encoder", "(p, d)")):
        check_float_tensor(weights, name)
        if weights.ndim != 2:
            raise ValueError(f"{name} has shape {tuple(weights.shape)}: it must be a matrix {shape}.")
    if decoder.shape[1] != encoder.shape[0]:
        raise ValueError(
            f"decoder has shape {tuple(decoder.shape)} and encoder {tuple(encoder.shape)}: they are (q, p) and (p, d) "
            "with the same p."
        )
    check_device(decoder, "decoder", encoder)
    dtype = compute_dtype(decoder, encoder)
    return decoder.to(dtype), encoder.to(dtype)


def checked_rows(rows: Any, name: str, width: int, like: torch.Tensor) -> torch.Tensor:
    """Rows (..., width) on the device of `like` as a matrix (m, width); whole numbers become its dtype."""
    if not isinstance(rows, torch.Tensor):
        raise TypeError(
            f"{name} is an object of the type {type(rows).__name__!r}: pass a tensor, such as torch.from_numpy(...)"
            + (", or lae_fast.Moments." if name == "x" else ".")
        )
    if rows.layout is not torch.strided:
        raise TypeError(f"{name} is a tensor of layout {rows.layout}: pass {name}.to_dense(), or its lae_fast.Moments.")
    if rows.is_complex():
        raise TypeError(f"{name} holds complex numbers: pass real and imaginary parts side by side.")
    if rows.ndim == 0 or rows.shape[-1] != width:
        side = "encoder" if name == "x" else "decoder"
        raise ValueError(f"{name} has shape {tuple(rows.shape)}: the {side} asks for (..., {width}).")
    if rows.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(rows.shape)}, so no rows: there is nothing to compute a loss of.")
    check_device(rows, name, like)
    if not rows.is_floating_point():
        rows = rows.to(like.dtype)
    return rows if rows.ndim == 2 else rows.reshape(-1, width)


def check_float_tensor(value: Any, name: str) -> None:
    """Raise TypeError unless `value` is a dense tensor of real floats."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} is an object of the type {type(value).__name__!r}: pass a tensor.")
    if not value.is_floating_point() or value.layout is not torch.strided:
        raise TypeError(f"{name} is a {value.layout} tensor of {value.dtype}: pass a dense one of floats.")


def check_device(value: torch.Tensor, name: str, like: torch.Tensor) -> None:
    """Raise ValueError unless both tensors are on one device."""
    if value.device != like.device:
        raise ValueError(
            f"{name} is on the device {str(value.device)!r} and the encoder on {str(like.device)!r}: move one of them "
            "with .to(device)."
        )


def check_no_data_gradients(x: Any, what: str) -> None:
    """Raise ValueError where gradients of x are wanted and none flow."""
    if isinstance(x, torch.Tensor) and x.requires_grad:
        raise ValueError(f"x requires gradients, but none flow through {what}: pass x.detach().")


def compute_dtype(*tensors: torch.Tensor | None) -> torch.dtype:
    """float64 if one of them is, else float32: half precision is computed in float32."""
    double = any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """A small tensor in float64, where the device has it."""
    return tensor if tensor.device.type == "mps" else tensor.double()


def exact(device: torch.device) -> AbstractContextManager[Any]:
    """Products in the dtype of the tensors, whatever autocast says."""
    return torch.autocast(device.type, enabled=False)


def is_moments(data: Any) -> bool:
    """Whether data are `lae_fast.Moments`."""
    return isinstance(data, Moments)
