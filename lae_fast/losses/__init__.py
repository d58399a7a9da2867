"""Losses of linear autoencoders, their priors, and how a name becomes one."""

from ._base import Loss
from ._losses import (
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
from ._names import from_name, names, resolve
from ._priors import Prior, array_prior, geometric_prior, uniform_prior

__all__ = [
    "Loss",
    "Prior",
    "array_prior",
    "from_name",
    "geometric_prior",
    "mixed_l2",
    "mse",
    "names",
    "nested_dropout",
    "nonuniform_l2",
    "ordered",
    "product_l2",
    "resolve",
    "stochastic_nested_dropout",
    "sum_l2",
    "uniform_prior",
    "vae",
]
