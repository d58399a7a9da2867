"""The data sets of the benchmarks: real images, and synthetic matrices with a known, slowly decaying spectrum.

Imports NumPy, scipy.fft, and lae_fast.datasets for the images.

The synthetic rows are x = mean + D C L^(1/2) g with g standard normal, L = diag(l_1 .. l_d), l_i proportional to 1/i
with mean 1, C the orthonormal cosine transform and D random signs. So the population covariance has exactly the
spectrum l, full rank without a noise floor, eigenvectors that are dense, and features of standard deviation near 1;
the feature means are uniform in [0, 2]. The cosine transform makes it in seconds where a dense random rotation of
20000 x 5000 would take longer than the fits. A spectrum of 1/i has no gap to exploit: neighbours at i = 50 differ by
2 %, which is what embeddings, genotypes and images look like far down, and what makes few power iterations fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DECAY = 1.0


@dataclass(frozen=True)
class Case:
    """One data set with the number of components asked for.

    Attributes
    ----------
    name : str
        Used on the command line.
    title : str
        Used in tables.
    n_samples, n_features, dtype, n_components
        What `load` returns and what is fitted.
    load : callable
        Makes the matrix; C-contiguous.
    limit_s : float
        A contestant whose single run takes longer is not raced.
    weight : float
        Share of the time budget, relative to the other cases.
    aim : float or None
        The speed-up over the best accurate peer that the project set itself; None where it set none.
    """

    name: str
    title: str
    n_samples: int
    n_features: int
    dtype: str
    n_components: int
    load: Callable[[], np.ndarray]
    limit_s: float = 8.0
    weight: float = 1.0
    aim: float | None = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_samples, self.n_features


class DataUnavailableError(RuntimeError):
    """The data of a case is not on this machine; the message says how to get it and holds no path."""


def spectrum(n_features: int, decay: float = DECAY) -> np.ndarray:
    """Population eigenvalues i^-decay, scaled to mean 1, shape (n_features,)."""
    values = np.arange(1, n_features + 1, dtype=np.float64) ** -decay
    return values * (n_features / values.sum())


def synthetic(
    n_samples: int, n_features: int, dtype: str = "float32", *, decay: float = DECAY, seed: int = 0
) -> np.ndarray:
    """Rows with the spectrum and the means that the module's text describes, shape (n_samples, n_features)."""
    import scipy.fft

    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    X = rng.standard_normal((n_samples, n_features), dtype=kind)
    X *= np.sqrt(spectrum(n_features, decay)).astype(kind)
    X = scipy.fft.dct(X, axis=1, norm="ortho", overwrite_x=True, workers=-1)
    X *= rng.choice(np.array([-1, 1], dtype=kind), size=n_features)
    X += rng.uniform(0.0, 2.0, size=n_features).astype(kind)
    return np.ascontiguousarray(X)


def images(name: str) -> np.ndarray:
    """The 60 000 training images of "mnist" or "fashion_mnist" as float32 rows of 784 pixels in [0, 1].

    Raises
    ------
    DataUnavailableError
        Neither the directory that LAE_FAST_DATA names nor scikit-learn's cache holds them, and no download worked.
    """
    from lae_fast import datasets
    from lae_fast.errors import DataFileError

    try:
        pixels = datasets.load(name)
    except (FileNotFoundError, DataFileError) as error:
        raise DataUnavailableError(f"{name} is not here: set LAE_FAST_DATA to a directory with {name}.npz") from error
    scaled = pixels.astype(np.float32)
    scaled /= np.float32(255)
    return scaled


def pixels(name: str) -> np.ndarray:
    """`images` as float32 pixels from 0 to 255, as most sources hand them out: whole numbers that fit a byte."""
    return np.rint(images(name) * np.float32(255))


def digits() -> np.ndarray:
    """The 1797 digit images of 8 x 8 pixels that ship with scikit-learn, float32."""
    from lae_fast import datasets

    return datasets.load("digits")


def _synthetic_case(name: str, m: int, d: int, p: int, dtype: str = "float32", **options: float) -> Case:
    return Case(name, "synthetic", m, d, dtype, p, lambda: synthetic(m, d, dtype), **options)


FULL = (
    Case("pixels-p20", "MNIST, pixels 0 to 255", 60_000, 784, "float32", 20, lambda: pixels("mnist"), aim=1.2),
    Case("mnist-p20", "MNIST", 60_000, 784, "float32", 20, lambda: images("mnist"), aim=1.2),
    Case("mnist-p100", "MNIST", 60_000, 784, "float32", 100, lambda: images("mnist"), aim=1.2),
    Case("fashion-p30", "Fashion-MNIST", 60_000, 784, "float32", 30, lambda: images("fashion_mnist")),
    _synthetic_case("tall-500000x200", 500_000, 200, 10, aim=2.0),
    _synthetic_case("large-20000x5000", 20_000, 5_000, 50, weight=2.0, aim=4.0, limit_s=15.0),
    _synthetic_case("square-8000x9000", 8_000, 9_000, 80, weight=1.5, aim=3.0, limit_s=15.0),
    _synthetic_case("wide-2500x15000", 2_500, 15_000, 30, aim=3.0, limit_s=15.0),
    _synthetic_case("wide-5000x20000", 5_000, 20_000, 50, weight=2.0, aim=3.0, limit_s=15.0),
    _synthetic_case("float64-20000x2000", 20_000, 2_000, 20, "float64", aim=1.3),
)

SMOKE = (
    Case("smoke-digits", "digits", 1797, 64, "float32", 10, digits, aim=None),
    _synthetic_case("smoke-wide", 100, 300, 5, aim=None),
    _synthetic_case("smoke-float64", 600, 150, 5, "float64", aim=None),
)
