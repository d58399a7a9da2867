"""What PCA's parameter n_components asks for: a number, a share of the variance, a choice by name, or all there are."""

from __future__ import annotations

import numbers
from typing import Any

from ..selection import NAMES
from ..validation import ParameterTypeError

# Of scikit-learn's solvers, those that compute some components only; "krylov" is their name here.
_TRUNCATED = frozenset({"arpack", "randomized", "krylov"})
_KINDS = "n_components={!r} must be an integer, a float in (0, 1), 'mle', 'parallel', 'gavish-donoho' or None."


def resolved(
    n_components: Any, shape: tuple[int, int], svd_solver: str, note: str = ""
) -> tuple[int | float | str, int | float | None]:
    """What is asked for, an int, a fraction or one of `NAMES`; and what the solver must compute, None for all.

    shape : rows that count, and features;  note : on the rows that count, for messages

    Raises
    ------
    ValueError
        No such number, or more than there are; with scikit-learn's words where it has them.  A `ParameterTypeError`
        for what is no number at all.
    """
    largest = min(shape)
    if n_components is None:
        n_components = largest - 1 if svd_solver == "arpack" else largest
    if isinstance(n_components, str):
        return _chosen(n_components, shape, svd_solver, note), None
    if isinstance(n_components, numbers.Real) and not isinstance(n_components, numbers.Integral):
        fraction = float(n_components)
        if not 0.0 < fraction < 1.0:
            raise ValueError(
                f"n_components={n_components!r}: a float must lie in (0, 1), a number of components be an int."
            )
        return fraction, fraction
    if isinstance(n_components, bool) or not isinstance(n_components, numbers.Integral):
        raise ParameterTypeError(_KINDS.format(n_components))
    count, low = int(n_components), 1 if svd_solver in _TRUNCATED else 0
    if not low <= count <= largest:
        # scikit-learn's checks ask for its word 'full' here, where nobody typed it
        named = "'full' or 'auto'" if svd_solver == "auto" else repr(svd_solver)
        raise ValueError(
            f"n_components={count} must be between {low} and min(n_samples, n_features)={largest}{note} "
            f"with svd_solver={named}"
        )
    if svd_solver == "arpack" and count == largest:
        raise ValueError(
            f"n_components={count} must be strictly less than min(n_samples, n_features)={largest}{note} "
            "with svd_solver='arpack'"
        )
    return count, max(count, 1)


def resolved_for_em(n_components: Any, shape: tuple[int, int], n_counted: int, note: str = "") -> int:
    """The number of components that EM fits: fewer than features, because the model has noise.

    shape : of X;  n_counted : rows that count;  note : as of `resolved`
    """
    largest = min(n_counted, shape[1] - 1)
    p = largest if n_components is None else n_components
    if isinstance(p, bool) or not isinstance(p, numbers.Integral) or not 1 <= int(p) <= largest:
        is_number = isinstance(p, numbers.Real) and not isinstance(p, bool)
        raise (ValueError if is_number else ParameterTypeError)(
            f"n_components={p!r} must be an integer between 1 and min(n_samples, n_features - 1)={largest} with "
            f"missing='em' (n_samples={shape[0]}, n_features={shape[1]}){note}."
        )
    return int(p)


def _chosen(n_components: str, shape: tuple[int, int], svd_solver: str, note: str) -> str:
    if n_components not in NAMES:
        raise ParameterTypeError(_KINDS.format(n_components))
    if svd_solver in _TRUNCATED:
        raise ValueError(
            f"n_components={n_components!r} cannot be a string with svd_solver={svd_solver!r}: it needs the whole "
            "spectrum, of svd_solver='auto' or 'gram'"
        )
    if n_components == "mle" and shape[0] < shape[1]:
        raise ValueError(
            f"n_components='mle' is only supported if n_samples >= n_features{note}; 'parallel' and "
            "'gavish-donoho' take fewer samples too"
        )
    return n_components
