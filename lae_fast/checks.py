"""Checks of the numbers that losses, optimizers, metrics and theory are given; each message names the argument.

Imports NumPy only.
"""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

# Probabilities and weights typed by hand or computed in float32 miss 1 by about this much.
UNIT_TOLERANCE = 1e-6


def check_width(p):
    """Return the latent width p as an int; raise unless it is an integer >= 1."""
    if isinstance(p, bool) or not isinstance(p, Integral):
        raise TypeError(f"p must be an integer, got {p!r} of type {type(p).__name__}")
    if p < 1:
        raise ValueError(f"p must be at least 1, got {p}")
    return int(p)


def check_dtype(dtype):
    """Return `dtype` as numpy.float32 or numpy.float64; raise for anything else."""
    dtype = np.dtype(dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    return dtype


def check_real(value, name, low=None, low_open=False, high=None, high_open=False):
    """Return `value` as a finite float inside the given interval; raise naming `name` otherwise."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r} of type {type(value).__name__}")
    value = float(value)
    if not np.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if low is not None and (value < low or (low_open and value == low)):
        raise ValueError(f"{name} must be {'greater than' if low_open else 'at least'} {low}, got {value}")
    if high is not None and (value > high or (high_open and value == high)):
        raise ValueError(f"{name} must be {'less than' if high_open else 'at most'} {high}, got {value}")
    return value


def check_vector(values, name):
    """Return `values` as a non-empty 1-D float64 array of finite numbers; raise naming `name` otherwise."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be a sequence of numbers, got {values!r}")
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {array.shape}")
    array = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(f"{name}[{bad[0]}] is not finite: {array[bad[0]]}")
    return array


def check_matrix(matrix, name):
    """Return `matrix` as a 2-D float64 array of finite numbers; raise naming `name` otherwise."""
    array = np.asarray(matrix)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be two-dimensional and not empty, got shape {array.shape}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        row, column = np.argwhere(~np.isfinite(array))[0]
        raise ValueError(f"{name}[{row}, {column}] is not finite: {array[row, column]}")
    return array
