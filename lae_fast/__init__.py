"""lae_fast: exact, certified principal components and linear autoencoders, by compiled kernels.

This module holds the public names and nothing else. They are loaded on first use (PEP 562), so that ``import lae_fast``
costs milliseconds and loads neither numba, scipy nor scikit-learn. It may import only the standard library when it is
loaded itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lae_fast._version import __version__ as __version__

if TYPE_CHECKING:
    from lae_fast import datasets as datasets
    from lae_fast import kernels as kernels
    from lae_fast import losses as losses
    from lae_fast import metrics as metrics
    from lae_fast import optimizers as optimizers
    from lae_fast import rules as rules
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
    from lae_fast.estimators.pca import PCA as PCA
    from lae_fast.estimators.truncated_svd import TruncatedSVD as TruncatedSVD
    from lae_fast.operators.moments import Moments as Moments
    from lae_fast.training.objective import gradients as gradients
    from lae_fast.training.objective import loss as loss
    from lae_fast.training.objective import vae_gradients as vae_gradients
    from lae_fast.training.objective import vae_loss as vae_loss

# Where each public name lives. A name that equals the last part of its module is the module itself.
_HOMES = {
    "PCA": "lae_fast.estimators.pca",
    "LinearAutoencoder": "lae_fast.estimators.linear_autoencoder",
    "IncrementalPCA": "lae_fast.estimators.incremental_pca",
    "TableFile": "lae_fast.data.tables",
    "TruncatedSVD": "lae_fast.estimators.truncated_svd",
    "Moments": "lae_fast.operators.moments",
    "Checkpoint": "lae_fast.data.checkpoint",
    "top_eigenpairs": "lae_fast.eigen.solve",
    "backend_info": "lae_fast.backends",
    "set_num_threads": "lae_fast.backends",
    "get_num_threads": "lae_fast.backends",
    "BackendUnavailableError": "lae_fast.errors",
    "UnsupportedOnBackendError": "lae_fast.errors",
    "DivergenceError": "lae_fast.errors",
    "loss": "lae_fast.training.objective",
    "gradients": "lae_fast.training.objective",
    "vae_loss": "lae_fast.training.objective",
    "vae_gradients": "lae_fast.training.objective",
    "losses": "lae_fast.losses",
    "rules": "lae_fast.rules",
    "optimizers": "lae_fast.optimizers",
    "metrics": "lae_fast.metrics",
    "theory": "lae_fast.theory",
    "kernels": "lae_fast.kernels",
    "datasets": "lae_fast.datasets",
}

__all__ = [
    "PCA",
    "BackendUnavailableError",
    "Checkpoint",
    "DivergenceError",
    "IncrementalPCA",
    "LinearAutoencoder",
    "Moments",
    "TableFile",
    "TruncatedSVD",
    "UnsupportedOnBackendError",
    "__version__",
    "backend_info",
    "datasets",
    "get_num_threads",
    "gradients",
    "kernels",
    "loss",
    "losses",
    "metrics",
    "optimizers",
    "rules",
    "set_num_threads",
    "theory",
    "top_eigenpairs",
    "vae_gradients",
    "vae_loss",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lae_fast' has no attribute {name!r}")
    module = import_module(home)
    value = module if home == f"lae_fast.{name}" else getattr(module, name)
    globals()[name] = value  # the next access does not come through here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
