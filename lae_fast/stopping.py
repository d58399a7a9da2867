"""When a training run ends: criteria as frozen descriptions, for `LinearAutoencoder(stop=...)`.

`gradient` is watched at every iteration, `below` and `above` are asked at each recording.  Several criteria end a run
as soon as one of them holds.

>>> from lae_fast import LinearAutoencoder, stopping
>>> model = LinearAutoencoder(3, stop=[stopping.below("d_align", 0.01), stopping.above("ratio_tp", 1.0)])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ._registry import Registry
from .validation import ParameterTypeError, check_real

__all__ = ["Criterion", "above", "below", "gradient", "resolve"]


@dataclass(frozen=True)
class Criterion:
    """Base of all criteria.

    Examples
    --------
    >>> from lae_fast import stopping
    >>> stopping.below("d_align", 0.3).describe()
    "stopping.below('d_align', 0.3)"
    >>> isinstance(stopping.gradient(), stopping.Criterion)
    True
    """

    name: ClassVar[str] = ""

    def describe(self) -> str:
        """The criterion as it is written in Python."""
        return f"stopping.{self!r}"


@dataclass(frozen=True)
class gradient(Criterion):
    """The gradient of every component is within the estimator's `tol` of the component's own scale.

    docs/math.md Eq. 46; where the optimum is known, the run goes on until it is reached (Eq. 48).

    Examples
    --------
    >>> from lae_fast import LinearAutoencoder, stopping
    >>> model = LinearAutoencoder(3, stop=stopping.gradient(), tol=1e-8)  # what stop="gradient" means
    >>> stopping.gradient().describe()
    'stopping.gradient()'
    """

    name: ClassVar[str] = "gradient"


@dataclass(frozen=True)
class _Threshold(Criterion):
    """A recorded number against a threshold.

    Parameters
    ----------
    quantity : str or callable
        One of the names that `LinearAutoencoder(record=...)` takes, "loss" or "gradient_norm"; or a callable that makes
        a number of the state that a callback sees.
    threshold : float
    """

    quantity: str | Callable[[Any], float]
    threshold: float

    def __post_init__(self) -> None:
        if not (isinstance(self.quantity, str) or callable(self.quantity)):
            raise ParameterTypeError(f"quantity={self.quantity!r} must be a name or a callable.")
        object.__setattr__(self, "threshold", check_real(self.threshold, "threshold", below=math.inf))

    @property
    def label(self) -> str:
        """What the quantity is called in messages."""
        return self.quantity if isinstance(self.quantity, str) else getattr(self.quantity, "__name__", "quantity")

    def describe(self) -> str:
        """The criterion as it is written in Python."""
        shown = repr(self.quantity) if isinstance(self.quantity, str) else self.label
        return f"stopping.{self.name}({shown}, {self.threshold:g})"


@dataclass(frozen=True)
class below(_Threshold):
    """The quantity is at most the threshold: `below("d_align", 0.3)`, `below("update_norm", 1e-8)`.

    Parameters
    ----------
    quantity : str or callable
        A name that `LinearAutoencoder(record=...)` takes, "loss" or "gradient_norm"; or a callable that makes a number
        of the state that a callback sees.
    threshold : float
        In the units of the quantity.

    Raises
    ------
    TypeError, ValueError
        `quantity` is neither; `threshold` is no finite number.

    Examples
    --------
    >>> from lae_fast import stopping
    >>> criterion = stopping.below("d_align", 0.3)
    >>> criterion.holds(0.25), criterion.holds(float("nan")), criterion.label
    (True, False, 'd_align')
    """

    name: ClassVar[str] = "below"

    def holds(self, value: float) -> bool:
        """Whether a recorded value ends the run; nan never does."""
        return value <= self.threshold


@dataclass(frozen=True)
class above(_Threshold):
    """The quantity is at least the threshold: `above("ratio_tp", 1.0)`, which is what stop="alignment" means.

    Parameters and errors as of `below`.

    Examples
    --------
    >>> from lae_fast import stopping
    >>> stopping.above("ratio_tp", 1.0).holds(1.0), stopping.above("ratio_tp", 1.0).describe()
    (True, "stopping.above('ratio_tp', 1)")
    """

    name: ClassVar[str] = "above"

    def holds(self, value: float) -> bool:
        """Whether a recorded value ends the run; nan never does."""
        return value >= self.threshold


_STOPS = Registry("stop", "stopping", Criterion, gradient, below, above)
_ALIGNMENT = "alignment"


def resolve(stop: Any) -> tuple[Criterion, ...]:
    """Criteria from what `LinearAutoencoder(stop=...)` takes.

    Parameters
    ----------
    stop : str, Criterion, or a list or tuple of these
        The strings are "gradient" and "alignment".

    Returns
    -------
    tuple of Criterion

    Raises
    ------
    ValueError
        An unknown name, or no criterion at all.
    TypeError
        Something else.

    Examples
    --------
    >>> from lae_fast import stopping
    >>> stopping.resolve("alignment")
    (above(quantity='ratio_tp', threshold=1.0),)
    >>> stopping.resolve(["gradient", stopping.below("loss", 0.1)])
    (gradient(), below(quantity='loss', threshold=0.1))
    """
    if isinstance(stop, (list, tuple)):
        if not stop:
            raise ValueError("stop=[] has no criterion; to run max_iter iterations use stop='gradient' with tol=0.")
        return tuple(criterion for one in stop for criterion in resolve(one))
    if isinstance(stop, str):
        if stop == _ALIGNMENT:
            return (above("ratio_tp", 1.0),)
        _STOPS.by_name(stop, also=(_ALIGNMENT,))
        return (_STOPS.from_name(stop),)
    given = _STOPS.checked(stop)
    if isinstance(given, _Threshold) and type(given) is _Threshold:
        raise ParameterTypeError("stop must be stopping.below(...) or stopping.above(...).")
    return (given,)  # type: ignore[return-value]  # strings are gone
