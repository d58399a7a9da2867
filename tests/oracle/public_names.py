"""The public names of the library: those that its reference, docs/api, must have."""

import importlib
import inspect
from typing import NamedTuple

MODULES = (
    "lae_fast", "lae_fast.datasets", "lae_fast.kernels", "lae_fast.kernels.c", "lae_fast.losses", "lae_fast.metrics",
    "lae_fast.optimizers", "lae_fast.plots", "lae_fast.rules", "lae_fast.selection", "lae_fast.stopping",
    "lae_fast.theory", "lae_fast.torch",
)  # fmt: skip


class Member(NamedTuple):
    """A method or property that a class of ours defines, under a public class: its function and its docstring."""

    name: str
    function: object
    text: str


def public(module):
    """The public names of a module: full name -> object."""
    imported = importlib.import_module(module)
    return {f"{module}.{name}": getattr(imported, name) for name in imported.__all__ if name != "__version__"}


def members(cls):
    """Its public methods and properties, but those of scikit-learn's and other libraries' classes."""
    found = []
    for name in dir(cls):
        home = next(base for base in cls.__mro__ if name in vars(base)) if not name.startswith("_") else object
        if not home.__module__.startswith("lae_fast"):
            continue
        given = vars(home)[name]
        function = given.fget if isinstance(given, property) else getattr(given, "__func__", given)
        if (getattr(function, "__module__", None) or "").startswith("lae_fast") and callable(function):
            found.append(Member(name, function, inspect.getdoc(function) or ""))
    return found
