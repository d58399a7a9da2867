"""The file of a fitted estimator: an .npz that NumPy reads without pickle, written by `save` and by the command line.

Every array and number among the fitted attributes is an array of the file, `components_` under the name "components".
"mean" is in float64: rounded to float32, a mean far from zero would shift every score.  The array "meta" is JSON: the
class, its parameters, what its attributes are made of, and where the file comes from.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import losses, optimizers, rules, selection, stopping
from .._moved import EarlierState
from .._version import __version__
from ..data import numpy_files
from ..data.atomic import atomic_write
from ..data.opened_file import UNREADABLE
from ..errors import DataFileError, user_level
from ..operators import moments_file
from ..operators.frequent_directions import Sketch
from ..operators.moments import Moments
from ..training import run_state
from ..training.run import Run
from ..training.run_state import RunState
from ..validation import as_path

# Counts up when a reader of the old layout would go wrong.  The first had arrays alone, of models without whitening.
FORMAT_VERSION = 2
# Attributes under other names.  The means are not written in the compute dtype too.
_NAMES = {"_exact_mean": "mean", "_exact_target_mean": "target_mean", "feature_names_in_": "feature_names"}
_FROM_MEANS = {"mean_": "_exact_mean", "target_mean_": "_exact_target_mean"}
# Modules whose objects are parameters or attributes: frozen dataclasses, known by their names.
_DESCRIPTIONS = {
    "losses": losses,
    "optimizers": optimizers,
    "rules": rules,
    "selection": selection,
    "stopping": stopping,
}


class _Part(NamedTuple):
    """An object that is written as several arrays."""

    kind: type
    to_arrays: Callable[[Any], Mapping[str, Any]]
    from_arrays: Callable[[dict[str, Any]], Any]


_PARTS = {
    "moments": _Part(Moments, lambda moments: moments_file.to_arrays(vars(moments)), Moments.from_arrays),
    "sketch": _Part(Sketch, Sketch.to_arrays, Sketch.from_arrays),
    "run": _Part(RunState, run_state.to_arrays, run_state.from_arrays),
}


class _NotKept(Exception):
    """A value that has no place in a file."""


class Model(NamedTuple):
    """What a file holds.

    estimator : name of the class;  parameters, fitted : by name, as in the estimator;  arrays : all of the file;  meta
    """

    estimator: str
    parameters: dict[str, Any]
    fitted: dict[str, Any]
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]


def write(
    path: str | os.PathLike[str],
    estimator: str,
    parameters: Mapping[str, Any],
    fitted: Mapping[str, Any],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a fitted estimator, whole or not at all.

    estimator : name of the class;  parameters, fitted : by name;  meta : what else the file is to say, for people

    Warns
    -----
    UserWarning
        A parameter, such as a callback or a random generator, has no place in a file; it is named.
    """
    arrays: dict[str, Any] = {"format_version": FORMAT_VERSION}
    kept, left_out = {}, []
    for name, value in parameters.items():
        try:
            kept[name] = _encoded(value, f"parameter_{name}", arrays)
        except _NotKept:
            left_out.append(name)
    attributes = {
        name: _encoded(value, _NAMES.get(name, name.removesuffix("_")), arrays)
        for name, value in fitted.items()
        if _FROM_MEANS.get(name) not in fitted
    }
    if left_out:
        warnings.warn(
            f"{', '.join(left_out)} of this {estimator} cannot be saved: numbers, text, arrays and objects of lae_fast "
            "can. A model that is loaded has the default there.",
            UserWarning,
            stacklevel=user_level(),
        )
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    said = {"lae_fast": __version__, "created": created, **(meta or {})}
    said |= {"estimator": estimator, "parameters": kept, "attributes": attributes}
    arrays["meta"] = json.dumps(said)
    with atomic_write(as_path(path, "path")) as file:
        np.savez(file, **{name: np.asarray(value) for name, value in arrays.items()})  # type: ignore[arg-type]  # names


def read(path: str | os.PathLike[str]) -> Model:
    """What `write` wrote, or the command line of an earlier version.

    Raises
    ------
    FileNotFoundError, DataFileError
        There is no such file; it is cut, no model, or of a version that this lae_fast does not read.
    """
    arrays = numpy_files.read_archive(path, "a model")
    try:
        return _of_arrays(path, arrays)
    except DataFileError:
        raise
    except UNREADABLE as error:
        raise DataFileError(f"{path} is not a model, or parts of it are missing: {error!r}") from error


def _of_arrays(path: Any, arrays: dict[str, np.ndarray]) -> Model:
    meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    missing = {"format_version", "components"} - arrays.keys()
    if "mean" not in arrays and meta.get("estimator") != "TruncatedSVD":
        missing.add("mean")
    if "moments" in str(arrays.get("format", "")):
        raise DataFileError(f"{path} holds moments and no model: Moments.load reads it")
    if missing:
        raise DataFileError(
            f"{path} is a .npz, but no model of save, lae-fast pca -o or lae-fast train -o: it has no array "
            f"{min(missing)!r}"
        )
    _check_version(path, arrays["format_version"])
    if "estimator" not in meta and arrays["format_version"] == 1:
        return _of_first_version(path, arrays, meta)
    fitted = {name: _decoded(kept, arrays) for name, kept in meta["attributes"].items()}
    parameters = {name: _decoded(kept, arrays) for name, kept in meta["parameters"].items()}
    _check_fit(path, arrays)
    for name, exact in _FROM_MEANS.items():
        if exact in fitted:
            fitted[name] = fitted[exact].astype(fitted["components_"].dtype)
    if "feature_names_in_" in fitted:
        fitted["feature_names_in_"] = fitted["feature_names_in_"].astype(object)
    return Model(meta["estimator"], parameters, fitted, arrays, meta)


def _check_version(path: Any, version: np.ndarray) -> None:
    if version.shape != () or version.dtype.kind not in "iu" or version < 1:
        raise DataFileError(f"{path} is not a model: format_version is {version}")
    if version > FORMAT_VERSION:
        raise DataFileError(
            f"{path} has format version {version}, and this lae_fast reads up to {FORMAT_VERSION}: use a newer lae_fast"
        )


def _check_fit(path: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse a file whose arrays do not fit together."""
    rows = arrays.get("encoder", arrays["components"])
    weights = [arrays[name] for name in ("components", "encoder", "decoder", "mean", "scale") if name in arrays]
    each = ("explained_variance", "explained_variance_ratio", "singular_values", "residuals")  # of a component
    if (
        rows.ndim != 2
        or any(arrays[name].shape != arrays["components"].shape[:1] for name in each if name in arrays)
        or any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in weights)
        or any(arrays[name].shape != rows.shape[1:] for name in ("mean", "scale", "feature_names") if name in arrays)
    ):
        raise DataFileError(f"{path} is not a model: its arrays do not fit together or hold no finite numbers")


# ---------------------------------------------------------------------------------------------------------------------
# values as JSON, with names of arrays in it


def _encoded(value: Any, name: str, arrays: dict[str, Any]) -> Any:
    """JSON for a value; what are arrays in it goes to `arrays`, under names that begin with `name`."""
    if value is None or isinstance(value, (bool, np.bool_, str)):
        return {"value": value if value is None or isinstance(value, str) else bool(value)}
    if isinstance(value, (int, float, np.number)):
        arrays[name] = value
        return {"number": name}
    if isinstance(value, np.ndarray):
        arrays[name] = value.astype(str) if value.dtype.kind == "O" else value
        return {"array": name}
    if isinstance(value, dict):
        return {"dict": {str(key): _encoded(one, f"{name}_{key}", arrays) for key, one in value.items()}}
    if isinstance(value, (list, tuple)):
        items = [_encoded(one, f"{name}_{i}", arrays) for i, one in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if isinstance(value, (Run, EarlierState)):
        return {"part": "earlier"}
    for label, part in _PARTS.items():
        if isinstance(value, part.kind):
            held = part.to_arrays(value)
            arrays.update({f"{name}_{key}": one for key, one in held.items()})
            return {"part": label, "arrays": {key: f"{name}_{key}" for key in held}}
    room = type(value).__module__.removeprefix("lae_fast.").partition(".")[0]
    label = type(value).__name__
    if getattr(_DESCRIPTIONS.get(room), label, None) is not type(value) or not dataclasses.is_dataclass(value):
        raise _NotKept
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
    return {
        "object": [room, label],
        "fields": {key: _encoded(one, f"{name}_{key}", arrays) for key, one in fields.items()},
    }


def _decoded(kept: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that `_encoded` made JSON of."""
    ((kind, content), *_) = kept.items()
    if kind == "value":
        return content
    if kind == "number":
        return arrays[content].item()
    if kind == "array":
        return arrays[content]
    if kind == "dict":
        return {key: _decoded(one, arrays) for key, one in content.items()}
    if kind in ("list", "tuple"):
        items = [_decoded(one, arrays) for one in content]
        return items if kind == "list" else tuple(items)
    if kind == "part":
        if content == "earlier":
            return EarlierState()
        return _PARTS[content].from_arrays({key: arrays[name] for key, name in kept["arrays"].items()})
    if kind != "object":
        raise ValueError(f"a value of the kind {kind!r}")
    room, label = content
    made = getattr(_DESCRIPTIONS[room], label)
    if not (isinstance(made, type) and dataclasses.is_dataclass(made)):
        raise ValueError(f"no description {room}.{label}")
    return made(**{key: _decoded(one, arrays) for key, one in kept["fields"].items()})


def _of_first_version(path: Any, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Model:
    """A model of the command line that is known by its arrays alone."""
    _check_fit(path, arrays)
    rows = arrays.get("encoder", arrays["components"])
    fitted: dict[str, Any] = {
        f"{name}_": array.item() if array.ndim == 0 else array
        for name, array in arrays.items()
        if name not in ("format_version", "meta", "mean", "feature_names", "missing")
        and not name.startswith("history_")
    }
    fitted |= {"_exact_mean": arrays["mean"].astype(np.float64), "mean_": arrays["mean"].astype(rows.dtype)}
    fitted["n_features_in_"] = rows.shape[1]
    if "feature_names" in arrays:
        fitted["feature_names_in_"] = arrays["feature_names"].astype(object)
    if "encoder" in arrays:
        history = {
            name.removeprefix("history_"): array for name, array in arrays.items() if name.startswith("history_")
        }
        # means of targets were not written: the command line takes none
        fitted |= {"history_": history, "target_mean_": fitted["mean_"], "_exact_target_mean": fitted["_exact_mean"]}
        return Model("LinearAutoencoder", {"n_components": len(rows)}, fitted, arrays, meta)
    fitted |= {"scale_": arrays.get("scale"), "n_components_": len(rows), "_rounding": float(np.finfo(rows.dtype).eps)}
    parameters: dict[str, Any] = {"n_components": len(rows), "standardize": "scale" in arrays}
    if "missing" in arrays:
        parameters["missing"] = "em"
        excess = np.maximum(arrays["explained_variance"].astype(np.float64) - fitted["noise_variance_"], 0.0)
        loadings = rows.T.astype(np.float64) * np.sqrt(excess)
        fitted["_missing_model"] = (fitted["_exact_mean"], loadings, fitted["noise_variance_"])
    return Model("PCA", parameters, fitted, arrays, meta)
