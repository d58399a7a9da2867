"""lae_fast: exact, certified principal components and linear autoencoders, by compiled kernels.

This module holds the public names and nothing else. They are loaded on first use (PEP 562), so that ``import lae_fast``
costs milliseconds and loads neither numba, scipy nor scikit-learn. It may import only the standard library when it is
loaded itself.
"""

from importlib import import_module

from lae_fast import _moved
from lae_fast._version import __version__ as __version__

TYPE_CHECKING = False  # type checkers know it by its name; importing it from typing would take most of the time here
if TYPE_CHECKING:
    from lae_fast import datasets as datasets
    from lae_fast import kernels as kernels
    from lae_fast import losses as losses
    from lae_fast import metrics as metrics
    from lae_fast import optimizers as optimizers
    from lae_fast import plots as plots
    from lae_fast import rules as rules
    from lae_fast import selection as selection
    from lae_fast import stopping as stopping
    from lae_fast import theory as theory
    from lae_fast.backends import backend_info as backend_info
    from lae_fast.backends import get_num_threads as get_num_threads
    from lae_fast.backends import set_num_threads as set_num_threads
    from lae_fast.data.checkpoint import Checkpoint as Checkpoint
    from lae_fast.data.tables import TableFile as TableFile
    from lae_fast.eigen.solve import top_eigenpairs as top_eigenpairs
    from lae_fast.errors import BackendUnavailableError as BackendUnavailableError
    from lae_fast.errors import DivergenceError as DivergenceError
    from lae_fast.errors import UnsupportedOnBackendError as UnsupportedOnBackendError
    from lae_fast.estimators.incremental_pca import IncrementalPCA as IncrementalPCA
    from lae_fast.estimators.linear_autoencoder import LinearAutoencoder as LinearAutoencoder
    from lae_fast.estimators.loading import load as load
    from lae_fast.estimators.pca import PCA as PCA
    from lae_fast.estimators.truncated_svd import TruncatedSVD as TruncatedSVD
    from lae_fast.operators.moments import Moments as Moments
    from lae_fast.patch import patch_sklearn as patch_sklearn
    from lae_fast.patch import unpatch_sklearn as unpatch_sklearn
    from lae_fast.training.objective import gradients as gradients
    from lae_fast.training.objective import loss as loss
    from lae_fast.training.objective import vae_gradients as vae_gradients
    from lae_fast.training.objective import vae_loss as vae_loss

_moved.install()

# The public names, by the module that has them; those of the package itself are modules. Loading and `__all__` follow
# this list; the imports above, which type checkers need to see as such, are compared with it by a test.
_PUBLIC = {
    "lae_fast": (
        "datasets",
        "kernels",
        "losses",
        "metrics",
        "optimizers",
        "plots",
        "rules",
        "selection",
        "stopping",
        "theory",
    ),
    "lae_fast.backends": ("backend_info", "get_num_threads", "set_num_threads"),
    "lae_fast.data.checkpoint": ("Checkpoint",),
    "lae_fast.data.tables": ("TableFile",),
    "lae_fast.eigen.solve": ("top_eigenpairs",),
    "lae_fast.errors": ("BackendUnavailableError", "DivergenceError", "UnsupportedOnBackendError"),
    "lae_fast.estimators.incremental_pca": ("IncrementalPCA",),
    "lae_fast.estimators.linear_autoencoder": ("LinearAutoencoder",),
    "lae_fast.estimators.loading": ("load",),
    "lae_fast.estimators.pca": ("PCA",),
    "lae_fast.estimators.truncated_svd": ("TruncatedSVD",),
    "lae_fast.operators.moments": ("Moments",),
    "lae_fast.patch": ("patch_sklearn", "unpatch_sklearn"),
    "lae_fast.training.objective": ("gradients", "loss", "vae_gradients", "vae_loss"),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
# Modules that need an extra: `lae_fast.torch` works without an import of its own, but `import *` leaves them out.
_OPTIONAL = ("torch",)

__all__ = sorted(["__version__", *_HOMES])


def __getattr__(name: str) -> object:
    home = "lae_fast" if name in _OPTIONAL else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lae_fast' has no attribute {name!r}")
    value: object = import_module(f"lae_fast.{name}") if home == "lae_fast" else getattr(import_module(home), name)
    globals()[name] = value  # the next access does not come through here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
