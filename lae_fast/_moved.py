"""Where classes are that pickles of earlier versions look for in modules that are no more.

A pickle names each class by the module it was in.  Python asks a finder at the end of `sys.meta_path` only for what
nothing else finds: an old module is then one that takes its names from the new one.  Who moves or renames a class that
pickles may hold adds it here; tests/house/test_moved.py says which classes these are.
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
    "engines": "training.cpu_loop",
    "incremental": "estimators.incremental_pca",
    "moments": "operators.moments",
    "objective": "training.objective",
    "optimality": "training.optimality",
    "priors": "losses",
    "problem": "training.problem",
    "sketch": "operators.frequent_directions",
    "tables": "data.tables",
    "train": "training.train",
    "truncated": "estimators.truncated_svd",
}
# Names in old modules that are somewhere else than the rest, or called something else: "old.Name": "new.Name".
NAMES: dict[str, str] = {}


class Finder:
    """Finds and loads the modules of MODULES: importlib's protocol for both."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        known = package == "lae_fast" and old in MODULES
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
            home, _, new = NAMES.get(f"{old}.{name}", f"{MODULES[old]}.{name}").rpartition(".")
            try:
                return getattr(import_module(f"lae_fast.{home}"), new)
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
