"""What people pass to the pictures, checked before anything is drawn: a message names the argument and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import TYPE_CHECKING, Any

from ..validation import as_matrix, check_integer, check_matrix

if TYPE_CHECKING:
    import numpy as np

# Who has what a picture reads, for messages.
_WHO_HAS = {
    "components_": "a fitted PCA, IncrementalPCA, TruncatedSVD or LinearAutoencoder",
    "explained_variance_ratio_": "a fitted PCA, IncrementalPCA or TruncatedSVD, or selection.spectrum(X)",
    "explained_variance_": "a fitted PCA or IncrementalPCA",
    "noise_variance_": "a fitted PCA or IncrementalPCA, or draw plots.scores",
    "history_": "a fitted LinearAutoencoder, or its history_",
}


def fitted(model: Any, attribute: str) -> Any:
    """`attribute` of a fitted model.

    Raises
    ------
    NotFittedError, TypeError
        The model is not fitted; it is of a class, or no model at all, that does not have it.
    """
    is_class = isinstance(model, type)
    found = None if is_class else getattr(model, attribute, None)
    if found is not None:
        return found
    if not is_class and hasattr(model, "fit") and not _is_fitted(model):
        from sklearn.exceptions import NotFittedError

        raise NotFittedError(f"model is a {type(model).__name__} that is not fitted: call model.fit(X) first.")
    what = f"the class {model.__name__}" if is_class else f"of the type {type(model).__name__!r}"
    raise TypeError(f"model is {what}, which has no {attribute}: pass {_WHO_HAS[attribute]}.")


def _is_fitted(model: Any) -> bool:
    return any(name.endswith("_") and not name.startswith("_") for name in getattr(model, "__dict__", {}))


def components_of(model: Any) -> np.ndarray:
    """(p, d) float64 components of a fitted model, of which there is at least one."""
    import numpy as np

    components = np.asarray(fitted(model, "components_"), dtype=np.float64)
    check_any(len(components))
    return components


def check_any(available: int) -> None:
    """Refuse a model without components, such as one whose number was chosen from data that show none."""
    if available == 0:
        raise ValueError("The model has no components to draw: fit one with n_components of at least 1.")


def finite_matrix(values: Any, name: str) -> np.ndarray:
    """(m, n) float64 array of finite numbers, of anything that is a matrix."""
    return check_matrix(as_matrix(values, name).astype("float64"), name)


def codes_of_rows(codes: Any) -> np.ndarray:
    """(m, p) float64 codes, of rows along at least one component."""
    shape: Any = getattr(codes, "shape", ())
    check_any(shape[1] if len(shape) == 2 else 1)
    return finite_matrix(codes, "codes")


def check_own_codes(codes: np.ndarray, count: int) -> None:
    """Refuse codes (m, p) of another model than one with `count` components."""
    if codes.shape[1] != count:
        raise ValueError(
            f"codes has shape {codes.shape}, but the model has {count} components: pass model.transform(X)."
        )


def check_component(component: Any, available: int) -> int:
    """The number of a component, counted from 0."""
    return check_integer(component, "component", low=0, high=available - 1, high_is="the last of them")


def check_components(components: Any, available: int, allowed: tuple[int, ...] = (2,)) -> tuple[int, ...]:
    """Different component numbers, counted from 0, of which there are two (or three)."""
    check_any(available)
    many = " or ".join(map(str, allowed))
    if available < min(allowed):
        raise ValueError(f"There is {available} component, and the picture needs {many}: fit more.")
    wanted = f"{many} different numbers from 0 to {available - 1}, of the {available} components that there are"
    if isinstance(components, str) or not isinstance(components, Iterable):
        raise TypeError(f"components={components!r} must be {wanted}, such as (0, 1).")
    chosen = tuple(check_integer(one, "components", low=0) for one in components)
    if len(chosen) not in allowed or len(set(chosen)) < len(chosen) or max(chosen) >= available:
        raise ValueError(f"components={chosen} must be {wanted}.")
    return chosen


def feature_names(model: Any, names: Any, d: int) -> list[str]:
    """Names (d,) as given, of the model, or the numbers of the features, counted from 0."""
    if names is None:
        names = getattr(model, "feature_names_in_", None)
    if names is None:
        return [str(j) for j in range(d)]
    if isinstance(names, str) or not (isinstance(names, Sized) and isinstance(names, Iterable)):
        raise TypeError(f"names={names!r} must be a list of {d} names, one for each feature.")
    if len(names) != d:
        raise ValueError(f"names has {len(names)} entries, but the model has {d} features.")
    return [str(name) for name in names]


def check_labels(labels: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (count,) of rows, and the different ones among them, ascending."""
    import numpy as np

    try:
        labels = np.asarray(labels)
    except ValueError as error:
        raise ValueError("labels has entries of different lengths: pass a name or a number for each row.") from error
    if labels.shape != (count,):
        raise ValueError(f"labels has shape {labels.shape}, but there are {count} rows: pass one for each.")
    unknown = [i for i, label in enumerate(labels.tolist()) if label is None or label != label]
    if unknown:
        raise ValueError(
            f"labels[{unknown[0]}]={labels[unknown[0]]} is no label: give rows without one a name of their own."
        )
    try:
        return labels, np.unique(labels)
    except TypeError as error:
        raise TypeError(
            "labels has entries that have no order among them: pass names or numbers for all rows."
        ) from error


def check_shape(shape: Any, d: int) -> tuple[int, ...]:
    """(height, width) or (height, width, 3) of images with `d` entries."""
    import math

    wanted = f"(height, width) or (height, width, 3) with {d} entries, one for each feature"
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise TypeError(f"shape={shape!r} must be {wanted}.")
    sides = tuple(check_integer(side, "shape", low=1) for side in shape)
    if len(sides) not in (2, 3) or (len(sides) == 3 and sides[2] != 3) or math.prod(sides) != d:
        raise ValueError(f"shape={sides} must be {wanted}.")
    return sides


def check_choices(choices: Any) -> tuple[Any, ...]:
    """Choices of a number of components, one or several."""
    found = tuple(choices) if isinstance(choices, (list, tuple)) else (choices,)
    for choice in found:
        if not (hasattr(choice, "method") and hasattr(choice, "thresholds")):
            raise TypeError(
                f"choices has an entry of the type {type(choice).__name__!r}: pass what selection.minka and the others "
                "return, or the choice_ of a model."
            )
    return found


def recorded(model: Any, losses: tuple[str, ...]) -> Mapping[str, Any]:
    """The history of a training run: "iteration" and at least one of `losses`, of the same lengths."""
    import numpy as np

    found = model if isinstance(model, Mapping) else fitted(model, "history_")
    if "iteration" not in found or not any(name in found for name in losses):
        raise ValueError(
            f"model has no history to draw: it must hold 'iteration' and one of {', '.join(map(repr, losses))}, as the "
            "history_ of a fitted LinearAutoencoder does."
        )
    count = np.shape(found["iteration"])
    for name in losses:
        if name in found and np.shape(found[name]) != count:
            raise ValueError(f"{name} of the history has shape {np.shape(found[name])}, but iteration has {count}.")
    return found
