"""Pictures of fitted models (docs/plots.md): each function draws on axes of matplotlib and returns them.

Without axes a figure is made that neither needs a display nor touches pyplot: `axes.figure.savefig(path)` writes it.
matplotlib, the extra ``plot``, is imported when a function is called.
"""

from ._figures import FORMATS, require, save
from ._history import history
from ._images import images
from ._loadings import biplot, correlation_circle, loadings
from ._scores import scores
from ._spectrum import scree

__all__ = [
    "FORMATS",
    "biplot",
    "correlation_circle",
    "history",
    "images",
    "loadings",
    "require",
    "save",
    "scores",
    "scree",
]
