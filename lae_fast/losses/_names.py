"""How a name becomes a loss."""

from __future__ import annotations

from .._registry import Registry
from ._losses import (
    Loss,
    mixed_l2,
    mse,
    nested_dropout,
    nonuniform_l2,
    ordered,
    product_l2,
    stochastic_nested_dropout,
    sum_l2,
    vae,
)

_LOSSES = Registry(
    "loss", "losses", Loss,
    mse, ordered, nested_dropout, stochastic_nested_dropout, sum_l2, nonuniform_l2, product_l2, mixed_l2, vae,
)  # fmt: skip


def names() -> tuple[str, ...]:
    """Return the names of all losses, a tuple of str; those that need no parameter may be used as strings."""
    return _LOSSES.names()


def from_name(name: str) -> Loss:
    """Return the loss called `name`.

    Parameters
    ----------
    name : str
        One that needs no parameter: "mse", "ordered", "nested_dropout", "stochastic_nested_dropout", "vae".

    Returns
    -------
    Loss

    Raises
    ------
    ValueError
        If the name is unknown (the message lists the valid ones), needs a parameter (the message shows the call), or
        is "auto", which only a rule can turn into a loss.
    TypeError
        If `name` is not a string.
    """
    if name == "auto":
        raise ValueError("loss 'auto' depends on the rule; see lae_fast.rules.default_loss(rule)")
    return _LOSSES.from_name(name)


def resolve(loss: Loss | str) -> Loss:
    """Return `loss` as a Loss: an object as it is, a string through `from_name`.

    Raises
    ------
    TypeError
        If `loss` is neither; a class such as ``losses.mse`` without its parentheses gets its own message.
    ValueError
        As `from_name`.
    """
    given = _LOSSES.checked(loss)
    return from_name(given) if isinstance(given, str) else given
