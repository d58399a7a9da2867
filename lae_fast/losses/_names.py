"""How a name becomes a loss."""

from __future__ import annotations

from .._registry import Registry
from . import _losses
from ._base import Loss

LOSSES = Registry(
    "loss", "losses", Loss,
    _losses.mse, _losses.ordered, _losses.nested_dropout, _losses.stochastic_nested_dropout, _losses.sum_l2,
    _losses.nonuniform_l2, _losses.product_l2, _losses.mixed_l2, _losses.vae,
)  # fmt: skip


def names() -> tuple[str, ...]:
    """Return the names of all losses, a tuple of str; those that need no parameter may be used as strings.

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.names()[:4]
    ('mse', 'ordered', 'nested_dropout', 'stochastic_nested_dropout')
    """
    return LOSSES.names()


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

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.from_name("ordered")
    ordered()
    >>> losses.from_name("sum_l2")
    Traceback (most recent call last):
        ...
    ValueError: loss 'sum_l2' needs a parameter: pass lae_fast.losses.sum_l2(lam) instead of the string
    """
    if name == "auto":
        raise ValueError("loss 'auto' depends on the rule; see lae_fast.rules.default_loss(rule)")
    return LOSSES.from_name(name)


def resolve(loss: Loss | str) -> Loss:
    """Return `loss` as a Loss: an object as it is, a string through `from_name`.

    Raises
    ------
    TypeError
        If `loss` is neither; a class such as ``losses.mse`` without its parentheses gets its own message.
    ValueError
        As `from_name`.

    Examples
    --------
    >>> from lae_fast import losses
    >>> losses.resolve("mse"), losses.resolve(losses.sum_l2(0.1))
    (mse(), sum_l2(lam=0.1))
    """
    given = LOSSES.checked(loss)
    return from_name(given) if isinstance(given, str) else given
