"""scikit-learn's PCA, IncrementalPCA and TruncatedSVD replaced by ours in a program that was written for scikit-learn.

    lae_fast.patch_sklearn()             # first thing in the program
    python -m lae_fast.patch script.py   # without a change to it

Nothing is handed back to scikit-learn: every option is ours to serve.  Options that mean something else here, or
nothing, are told once each, as a `PatchWarning`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import sklearn.decomposition

from ..errors import user_level
from ..validation import check_choice
from . import _classes
from ._classes import PatchWarning

__all__ = ["PatchWarning", "patch_sklearn", "unpatch_sklearn"]

_OURS = {"PCA": _classes.PCA, "IncrementalPCA": _classes.IncrementalPCA, "TruncatedSVD": _classes.TruncatedSVD}
# scikit-learn's own classes, of those that are replaced now.
_theirs: dict[str, type] = {}


def patch_sklearn(names: Iterable[str] = tuple(_OURS)) -> None:
    """Put our classes in the place of scikit-learn's, wherever scikit-learn itself has them.

    Estimators made before stay what they are, and so do pickles of them.  What a program imports afterwards from
    `sklearn.decomposition` is ours, and so is what scikit-learn uses within, such as the PCA of TSNE(init="pca").

    Parameters
    ----------
    names : iterable of str, default=("PCA", "IncrementalPCA", "TruncatedSVD")
        Which classes.

    Raises
    ------
    ValueError
        Unknown name; the message lists all.

    Warns
    -----
    PatchWarning
        Some module has imported a class before and keeps scikit-learn's; the message names it.  At a fit: an option
        means something else here, or nothing; once for each.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.patch_sklearn(["PCA"])
    >>> from sklearn.decomposition import PCA
    >>> isinstance(PCA(), lf.PCA)
    True
    >>> lf.unpatch_sklearn()
    """
    wanted = [check_choice(name, tuple(_OURS), "names") for name in ([names] if isinstance(names, str) else names)]
    _classes.told.clear()
    for name in wanted:
        if name not in _theirs:
            _theirs[name] = getattr(sklearn.decomposition, name)
            _replace(name, _theirs[name], _OURS[name])
    kept = {
        f"{module.__name__}.{label}"
        for name in wanted
        for module, label in _holders(_theirs[name])
        if module.__name__ != "sklearn" and not module.__name__.startswith("sklearn.")
    }
    if kept:
        warnings.warn(
            f"{', '.join(sorted(kept))}: imported before patch_sklearn(), so scikit-learn's own is used there. Call "
            "patch_sklearn() before these imports, or run the program with python -m lae_fast.patch.",
            PatchWarning,
            stacklevel=user_level(),
        )


def unpatch_sklearn() -> None:
    """Give scikit-learn its own classes back; estimators made meanwhile stay ours.

    Examples
    --------
    >>> import sklearn.decomposition
    >>> import lae_fast as lf
    >>> lf.patch_sklearn(["TruncatedSVD"])
    >>> lf.unpatch_sklearn()
    >>> sklearn.decomposition.TruncatedSVD is lf.TruncatedSVD
    False
    """
    while _theirs:
        name, original = _theirs.popitem()
        _replace(name, _OURS[name], original)


def _replace(name: str, before: type, after: type) -> None:
    """In all modules of scikit-learn that have it, but for the one that defines it, where pickles look for it."""
    home = _theirs[name].__module__ if name in _theirs else after.__module__
    for module, label in _holders(before):
        if module.__name__.startswith("sklearn.") and module.__name__ != home:
            setattr(module, label, after)


def _holders(value: Any) -> Iterator[tuple[ModuleType, str]]:
    """Loaded modules that have it, and under which name; ours are no part of it."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and not module.__name__.startswith("lae_fast."):
            yield from [(module, label) for label, held in list(vars(module).items()) if held is value]
