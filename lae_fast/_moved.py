"""Where to find classes that pickles of earlier versions look for in modules which no longer exist.

A pickle names each class by the module it was in.  Python asks a finder at the end of `sys.meta_path` only for what
nothing else finds: an old module is then made, and takes its names from the new one.  If you move or rename a class
that pickles may hold, add its old module here; tests/house/test_moved.py says which classes these are.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType

# Old module (within lae_fast): new module.
MODULES = {
    "autoencoder": "estimators.linear_autoencoder",
    "checkpoint": "data.checkpoint",
    "eigenpairs": "eigen.eigenpairs",
    "incremental": "estimators.incremental_pca",
    "moments": "operators.moments",
    "objective": "training.objective",
    "priors": "losses",
    "sketch": "operators.frequent_directions",
    "tables": "data.tables",
    "truncated": "estimators.truncated_svd",
}
# Old modules whose classes were only the state that `LinearAutoencoder.partial_fit` kept between calls.
STATE = frozenset({"device_loop", "engines", "optimality", "problem", "train"})


class EarlierState:
    """Stands in for an object of STATE, which can no longer be used; the model around it still can."""

    def __new__(cls, *arguments: object) -> "EarlierState":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Ignore what was stored."""


class Finder:
    """Finds and loads the modules of MODULES and STATE: importlib's protocol for both."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        known = package == "lae_fast" and (old in MODULES or old in STATE)
        return ModuleSpec(name, Finder) if known else None  # type: ignore[arg-type]  # a loader by what it can do

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """An ordinary empty module will do."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        old = module.__name__.removeprefix("lae_fast.")

        def find(name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            if old in STATE:
                return EarlierState
            try:
                return getattr(import_module(f"lae_fast.{MODULES[old]}"), name)
            except AttributeError:
                # pickle would hide an AttributeError's words behind its own
                raise ImportError(
                    f"lae_fast.{old}.{name} is no longer part of lae_fast: load this pickle with the version that "
                    "wrote it, or fit again."
                ) from None

        module.__dict__["__getattr__"] = find


def install() -> None:
    """Let pickles of earlier versions find their classes."""
    sys.meta_path.append(Finder)
