"""What the training loop of a backend takes, gives and must do; cpu/training/loop.py and cuda/training/loop.py do it.

The arithmetic that both must have is in formulas.py, and the equations in docs/math.md, Eq. 21 to 36 and 46.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np


class Spec(NamedTuple):
    """What a loop does: codes of formulas.py, switches, and when it stops."""

    rule: int
    optimizer: int
    coupling: int
    sequential: bool  # the decoder's gradient is taken with the new encoder
    same: bool  # Y is X, so S is symmetric and encoder and decoder have one shape
    has_decoder: bool
    product: int  # where the products with S come from: MOMENTS, ROWS or GIVEN
    product_penalty: float  # lam_pi
    tolerance: float  # of `formulas.is_still`; negative: never stop
    rounding: tuple[float, float]  # what rounding leaves of products with Sxy and with Sxx, absolute
    negligible: float  # the size of a component that counts as nothing
    patience: int  # iterations in a row that must be still
    scalars: np.ndarray  # (3,) float64 of the optimizer


class Data(NamedTuple):
    """Second moments in the compute dtype, on the host, and the loss's numbers; for rows, sxx and sxy are empty."""

    sxx: np.ndarray  # (d, d), symmetric
    sxy: np.ndarray  # (d, q), or empty for Y = X
    yy_trace: float
    prefix: np.ndarray  # (p,) c
    penalty: np.ndarray  # (p,) lam


class Outcome(NamedTuple):
    """Of some iterations: how many, how they ended, the last max |direction| / |W|, the loss on entry or NaN."""

    done: int
    converged: bool
    diverged: bool
    ratio: float
    loss: float


class Loop(ABC):
    """A training run in the memory of a backend: weights, optimizer states and workspace, and the iterations on them.

    Parameters
    ----------
    spec, data
    encoder : B (p, d);  decoder : A' (p, q), or (0, q) for rules without one; arrays of the host, which are copied

    Attributes
    ----------
    spec : Spec;  state : named tuple of all that iterations change
    calm : iterations in a row that were within the tolerance; may be set
    most : iterations that one call of `run` may take; None for any number

    As a context manager it holds what iterations need for their time, such as threads.
    """

    spec: Spec
    state: Any
    calm: int
    most: int | None = None

    @abstractmethod
    def __init__(self, spec: Spec, data: Data, encoder: np.ndarray, decoder: np.ndarray) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    @property
    @abstractmethod
    def encoder(self) -> np.ndarray:
        """B (p, d) on the host; it may be what is trained, and change with it."""

    @property
    @abstractmethod
    def decoder(self) -> np.ndarray:
        """A' (p, q) on the host, as `encoder`; the encoder itself for rules without one."""

    @property
    @abstractmethod
    def extra(self) -> np.ndarray:
        """(3, p + 1) float64 on the host: e and log s^2 of the VAE, and their optimizer states."""

    @abstractmethod
    def trained(self) -> list[Any]:
        """The arrays that training changes, where the backend computes: weights, optimizer states, `extra`."""

    @abstractmethod
    def saved(self) -> list[np.ndarray]:
        """Copies of `trained` on the host."""

    @abstractmethod
    def restore(self, saved: list[Any]) -> None:
        """Take back copies of `trained`, from the host or not."""

    @abstractmethod
    def watch(self, on: bool) -> None:
        """Whether to stop within spec.tolerance, from now on; iterations that were still before do not count."""

    @abstractmethod
    def bind(self, batch: Any) -> None:
        """The mini-batches of the calls to come, for spec.product ROWS: a tuple of the backend's own."""

    @abstractmethod
    def weights(self) -> tuple[Any, Any]:
        """(B, A') where the backend computes, for whoever makes the products of the next iteration from them."""

    @abstractmethod
    def take_products(self, zb: Any, za: Any, zxy: Any) -> None:
        """B Sxx, A'Syx and B Sxy of the next iteration, for spec.product GIVEN."""

    @abstractmethod
    def run(self, first_iteration: int, rates: np.ndarray, with_loss: bool) -> Outcome:
        """Iterate len(rates) times, or until convergence or divergence.

        first_iteration : number of the first one, from 0, for Adam's bias correction
        rates : (n,) float64, n at most `most`;  with_loss : whether the loss at the weights on entry is wanted
        """
