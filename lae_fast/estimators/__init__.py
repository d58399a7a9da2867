"""scikit-learn's contract: PCA, IncrementalPCA, TruncatedSVD, LinearAutoencoder. No arithmetic over the data."""

from typing import TYPE_CHECKING

if not TYPE_CHECKING:

    def __getattr__(name: str) -> type:
        """PCA, which pickles look for here that were made when this package was a module."""
        if name != "PCA":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .pca import PCA

        return PCA
