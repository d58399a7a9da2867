"""scikit-learn's Array API dispatch: arrays of one library and device in, fitted attributes and results of the same.

Methods compute on NumPy arrays, or on the device that X is on.  Where `sklearn.set_config(array_api_dispatch=True)` is
set and X is a tensor or another array of the standard, `dispatched` lets a method run on a copy of the estimator whose
arrays are NumPy's, and turns what comes of it into arrays of the library and device of X.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sklearn

from ..data import containers, sources

# The attribute that says of which kind fitted attributes are, where they are not NumPy's: an empty array of that kind.
PROTOTYPE = "_prototype_"


def dispatched(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of an estimator, whose first argument is X if it has any, with Array API dispatch."""

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        fitted = vars(self).get(PROTOTYPE)
        asked = bool(sklearn.get_config()["array_api_dispatch"])
        if fitted is None and not asked:
            return method(self, *args, **kwargs)
        X = args[0] if args else kwargs.get("X")
        given = _prototype(X) if asked else None
        if method.__name__ == "fit":
            fitted = None
        elif asked and X is not None and self.__sklearn_is_fitted__():
            _check_same(fitted, given, X, f"{type(self).__name__}.{method.__name__}()")
        kind = fitted if given is None else given
        if kind is None:
            return method(self, *args, **kwargs)
        host = object.__new__(type(self))
        host.__dict__ = {name: _on_host(value) for name, value in vars(self).items() if name != PROTOTYPE}
        kwargs = {name: value if name == "X" else _on_host(value) for name, value in kwargs.items()}
        before = vars(host)
        args = (*map(_readable, args[:1]), *map(_on_host, args[1:]))
        try:
            with sklearn.config_context(array_api_dispatch=False):  # done here, for all that the method calls
                result = method(host, *args, **kwargs)
        finally:  # also what an interrupted fit has reached; fitted attributes change by another dictionary
            if vars(host) is not before:
                self.__dict__ = of_kind(vars(host), kind) | {PROTOTYPE: kind}
        if result is host:
            return self
        return _like(result, kind) if asked else result

    return called


def of_kind(attributes: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The attributes, NumPy's arrays of numbers among them as arrays of this kind (`PROTOTYPE`); None for NumPy's."""
    return {name: _like(value, kind) for name, value in attributes.items()}


def _is_array(value: Any) -> bool:
    """Whether it is an array of another library than NumPy: a tensor, or one that follows the standard."""
    if isinstance(value, (np.ndarray, np.generic)):
        return False
    return containers.is_tensor(value) or hasattr(value, "__array_namespace__")


def _namespace(array: Any) -> Any:
    return sys.modules["torch"] if containers.is_tensor(array) else array.__array_namespace__()


def _prototype(X: Any) -> Any:
    """An empty array of the library and device of X; None for NumPy's arrays and what is no array."""
    return _made(_namespace(X).empty, 0, X) if _is_array(X) else None


def _made(make: Callable[..., Any], given: Any, like: Any) -> Any:
    """make(given, device=...) on the device of `like`; CuPy, which has one current device, takes none."""
    return make(given) if type(like).__module__.startswith("cupy") else make(given, device=like.device)


def _readable(X: Any) -> Any:
    """X as the sources read it: tensors and arrays on a CUDA device as they are, others as NumPy's."""
    return X if containers.is_tensor(X) or sources.is_on_device(X) else _on_host(X)


def _on_host(value: Any) -> Any:
    """An array of another library as NumPy's, anything else as it is."""
    if not _is_array(value):
        return value
    if containers.is_tensor(value):
        return value.detach().cpu().numpy()
    return value.get() if sources.is_on_device(value) else np.from_dlpack(value)


def _like(value: Any, kind: Any) -> Any:
    """An array of numbers of NumPy's as one of this kind, anything else as it is."""
    if kind is None or not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    if not value.flags.writeable:  # which PyTorch would share
        value = value.copy()
    return _made(_namespace(kind).asarray, value, kind)


def _check_same(fitted: Any, given: Any, X: Any, where: str) -> None:
    """Refuse an X of another library or device than the one of `fit`, as scikit-learn does."""
    if not (_is_array(X) or isinstance(X, np.ndarray)):
        return
    if type(fitted) is type(given) and (fitted is None or str(fitted.device) == str(given.device)):
        return
    before, now = (_kind_in_words(kind) for kind in (fitted, given))
    raise ValueError(
        f"Inputs passed to {where} must use the same namespace and the same device as those passed to fit(): X is "
        f"{now}, and fit() was given {before}. Convert X, or switch array_api_dispatch off: all are NumPy's then."
    )


def _kind_in_words(kind: Any) -> str:
    return "NumPy's" if kind is None else f"of {_namespace(kind).__name__} on {kind.device}"
