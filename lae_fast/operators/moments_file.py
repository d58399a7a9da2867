"""The file that `Moments.save` writes: an .npz that NumPy reads without pickle."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backends.drift import MEASURED_RUNS
from ..data.atomic import atomic_write
from ..data.numpy_files import read_archive
from ..data.opened_file import UNREADABLE
from ..errors import DataFileError
from ..validation import as_path

_FORMAT = "lae_fast moments"
_VERSION = 1


def write(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write the attributes of `Moments` that `read` gives back; a whole file or none."""
    with atomic_write(as_path(path, "path")) as file:
        np.savez(file, **to_arrays(state))  # type: ignore[arg-type]  # no name is `allow_pickle`


def to_arrays(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The attributes of `Moments` as arrays, of which `from_arrays` makes them again."""
    arrays = {
        "format": np.array(_FORMAT),
        "version": np.array(_VERSION),
        "shape": np.array([state["n_features"], state["n_targets"], state["n_samples"]], dtype=np.int64),
        "center": np.array(state["center"]),
        "weight_sum": np.array(state["weight_sum"]),
        "n_positive": np.array(state["n_positive"]),
        "dtype": np.array(state["dtype"].name),
        "mean": np.stack([state["_base"], state["_low"]]),
        "scatter": state["_scatter"],
        "scale": np.array(1.0 if state["_scale"] is None else state["_scale"]),
        "run": np.array(state["run"]),
        "float32_run": np.array(state["float32_run"]),
        "drift": np.array(state["drift"]),
        "about_zero": np.array(state["about_zero"]),
    }
    if state["feature_names"] is not None:
        arrays["feature_names"] = np.array(state["feature_names"])
    return arrays


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The attributes of `Moments`, by name, as far as `write` keeps them.

    Raises
    ------
    DataFileError
        The file is truncated, not moments of this library, or of a newer version.
    """
    stored = read_archive(path, _FORMAT)
    try:
        if str(stored["format"]) != _FORMAT:
            raise DataFileError(f"{path} holds {str(stored['format'])!r}, not {_FORMAT!r}.")
        if int(stored["version"]) > _VERSION:
            raise DataFileError(f"{path} has version {int(stored['version'])}; this lae_fast reads up to {_VERSION}.")
        state = from_arrays(stored)
        _check(state)
    except DataFileError:
        raise
    except UNREADABLE as error:
        raise DataFileError(f"{path} holds no lae_fast moments, or parts of them are missing: {error!r}") from error
    return state


def from_arrays(stored: Any) -> dict[str, Any]:
    """What an archive holds.  Files of earlier versions lack some numbers: the most cautious ones stand in."""
    d, q, m = (int(value) for value in stored["shape"])
    run = int(stored["run"]) if "run" in stored else MEASURED_RUNS.lines
    base, low = stored["mean"]
    return {
        "n_features": d,
        "n_targets": q,
        "n_samples": m,
        "center": bool(stored["center"]),
        "n_positive": int(stored["n_positive"]) if "n_positive" in stored else m,
        "weight_sum": float(stored["weight_sum"]),
        "dtype": np.dtype(str(stored["dtype"])),
        "_base": base,
        "_low": low,
        "_scatter": stored["scatter"],
        "_scale": float(stored["scale"]) if m else None,  # of no rows there is none
        "run": run,
        "float32_run": int(stored["float32_run"]) if "float32_run" in stored else run,
        "drift": float(stored["drift"]) if "drift" in stored else math.inf,
        "about_zero": int(stored["about_zero"]) if "about_zero" in stored else m,
        "feature_names": tuple(stored["feature_names"].tolist()) if "feature_names" in stored else None,
    }


def _check(state: Mapping[str, Any]) -> None:
    """Raise ValueError where the numbers read from a file cannot be moments."""
    n_features, names = state["n_features"], state["feature_names"]
    width, mean, scatter = n_features + state["n_targets"], state["_base"] + state["_low"], state["_scatter"]
    if n_features < 1 or state["n_targets"] < 0:
        raise ValueError(f"{n_features} features and {state['n_targets']} targets")
    if mean.shape != (width,) or scatter.shape != (width, width):
        raise ValueError(f"arrays of shape {mean.shape} and {scatter.shape} for {width} columns")
    if state["dtype"] not in (np.float32, np.float64):
        raise ValueError(f"compute dtype {state['dtype']}")
    scale = 1.0 if state["_scale"] is None else state["_scale"]
    numbers = (scatter, mean, state["weight_sum"], scale)
    if not all(np.isfinite(number).all() for number in numbers):
        raise ValueError("NaN or inf among the moments")
    if names is not None and len(names) != n_features:
        raise ValueError(f"{len(names)} names for {n_features} features")
    if scale <= 0 or state["weight_sum"] < 0 or not 0 <= state["n_positive"] <= state["n_samples"]:
        raise ValueError("a scale, weight or number of samples out of range")
