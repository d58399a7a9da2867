"""Choices that need the spectrum alone: Minka's evidence, Horn's parallel analysis, Gavish and Donoho's threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import validation
from ..eigen.request import start_seed
from ._minka import minka_dimension
from ._spectrum import Choice, Spectrum, check_spectrum

# What `PCA` takes for n_components, beside numbers.
NAMES = ("mle", "parallel", "gavish-donoho")
# Nodes of the quadrature; the integrand is smooth, and 64 give 1e-12.
_NODES = 64
# A median variance below this share of the largest is rounding, and no noise to measure.
_NO_NOISE = 1e-14


def chosen(method: str, spectrum: Spectrum, random_state: Any = None) -> Choice:
    """The choice of `PCA(n_components=method)`, with its defaults.

    Parameters
    ----------
    method : "mle", "parallel" or "gavish-donoho", a name of NAMES
    spectrum : all variances
    random_state : as of `parallel_analysis`; the others draw nothing

    Returns
    -------
    Choice

    Raises
    ------
    ValueError, TypeError
        Another method; no `Spectrum`; what the method itself refuses.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> spectrum = selection.Spectrum(np.array([6.0, 3.0, 0.6, 0.5, 0.4]), 100.0, np.ones(5))
    >>> selection.chosen("mle", spectrum)
    Choice('minka', n_components=2)
    """
    validation.check_choice(method, NAMES, "method")
    if method == "parallel":
        return parallel_analysis(spectrum, random_state=random_state)
    return gavish_donoho(spectrum) if method == "gavish-donoho" else _minka(spectrum)


def minka(spectrum: Spectrum) -> Choice:
    """The number of components with the largest evidence; needs at least as many samples as features.

    Parameters
    ----------
    spectrum : all variances

    Returns
    -------
    Choice
        Of 1 to d - 1 components; 0 where there is one feature, or no variance.

    Raises
    ------
    ValueError, TypeError
        Fewer samples than features; no `Spectrum`.

    Notes
    -----
    Minka, Automatic Choice of Dimensionality for PCA, NIPS 2000: Laplace's approximation of p(D | k), in the form that
    scikit-learn computes.  Variances that are exactly equal, as no measured ones are, make it infinite: the choice then
    ends at the first of them.  O(d^2) time and memory.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> selection.minka(selection.Spectrum(np.array([6.0, 3.0, 0.6, 0.5, 0.4]), 100.0, np.ones(5)))
    Choice('minka', n_components=2)
    """
    d = check_spectrum(spectrum).feature_variances.size
    if spectrum.n_samples < d:
        raise ValueError(
            f"minka needs at least as many samples as features, and there are {spectrum.n_samples:g} for "
            f"{d}: use gavish_donoho or parallel_analysis."
        )
    return _minka(spectrum)


def _minka(spectrum: Spectrum) -> Choice:
    return Choice("minka", minka_dimension(check_spectrum(spectrum).variances, spectrum.n_samples))


def parallel_analysis(
    spectrum: Spectrum, *, n_draws: int = 50, quantile: float = 0.95, random_state: Any = None
) -> Choice:
    """Leading components whose variance exceeds that of independent normal features, drawn with the same variances.

    Parameters
    ----------
    spectrum : all variances; where `standardize`, drawn features are scaled to unit variance too, as Horn did
    n_draws : matrices that are drawn, >= 1
    quantile : of the i-th variance of the draws, which the i-th variance must exceed, in (0, 1).  Horn took the mean;
        0.95 is Glorfeld's
    random_state : None for a fixed seed, an integer or a NumPy generator

    Returns
    -------
    Choice
        thresholds : (min(n_samples - 1, d),) these quantiles, as variances with denominator n_samples - 1

    Raises
    ------
    ValueError, TypeError
        Numbers outside these ranges; no `Spectrum`.

    Notes
    -----
    Horn, Psychometrika 30 (1965); Glorfeld, Educ. Psychol. Meas. 55 (1995).  No rows are drawn: the triangular factor
    of their scatter is, by Bartlett's decomposition, so that a draw costs about 2 k^2 d + 4/3 k^3 flops and 8 k (k + d)
    bytes, k = min(n_samples - 1, d), whatever the number of rows.

    A component that has much of the variance makes its features, and so the draws, larger: weak components behind a
    strong one may be missed (docs/choosing-p.md).

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> spectrum = selection.Spectrum(np.array([6.0, 3.0, 0.5, 0.5]), 100.0, np.full(4, 2.5))
    >>> selection.parallel_analysis(spectrum)  # 3.0 is less than the second variance of noise with the variances 2.5
    Choice('parallel', n_components=1)
    """
    check_spectrum(spectrum)
    n_draws = validation.check_integer(n_draws, "n_draws", low=1)
    quantile = validation.check_real(quantile, "quantile", above=0.0, below=1.0)
    random = np.random.default_rng(start_seed(random_state))
    varying = spectrum.feature_variances[spectrum.feature_variances > 0.0]
    unit = float(varying.max(initial=0.0))
    drawn = np.zeros((n_draws, spectrum.rank))
    for variances in drawn:
        _draw(variances, np.sqrt(varying / unit), spectrum.n_samples - 1.0, spectrum.standardize, random)
    thresholds = np.quantile(drawn, quantile, axis=0) * unit
    return Choice("parallel", _leading(spectrum.variances, thresholds), thresholds)


def _draw(out: np.ndarray, deviations: np.ndarray, freedom: float, standardize: bool, random: Any) -> None:
    """Variances (k,) of normal rows about their mean, descending: of R'R / freedom, R (k, d) upper trapezoidal.

    deviations : (d,) of the features;  freedom : n_samples - 1.  Bartlett's decomposition: R_ii^2 is chi-square with
    freedom - i degrees (i from 0), what is right of it normal, all independent.
    """
    k, d = out.size, deviations.size
    factor = np.triu(random.standard_normal((k, d)), 1)
    factor[np.arange(k), np.arange(k)] = np.sqrt(random.chisquare(freedom - np.arange(k)))
    if standardize:
        factor *= math.sqrt(freedom) / np.sqrt(np.einsum("ij,ij->j", factor, factor))
    else:
        factor *= deviations
    out[:] = np.linalg.eigvalsh(factor @ factor.T)[::-1] / freedom


def gavish_donoho(spectrum: Spectrum, *, noise: float | None = None) -> Choice:
    """Components whose singular value exceeds the optimal hard threshold of Gavish and Donoho.

    Parameters
    ----------
    spectrum : all variances
    noise : standard deviation of the white noise on every entry, where it is known;  None: it is taken from the median
        singular value

    Returns
    -------
    Choice
        thresholds : (r,) the threshold as a variance, the same for each component

    Raises
    ------
    ValueError, TypeError
        Without `noise`: half of the variances are zero, so that there is no noise to measure.  A negative `noise`; no
        `Spectrum`.

    Notes
    -----
    Gavish and Donoho, IEEE Trans. Inf. Theory 60 (2014): a singular value of the centred data is kept
    above lambda(beta) sqrt(n) sigma, or lambda(beta) / sqrt(mu_beta) times the median singular value, where beta <= 1
    is the ratio of the sides, n the longer one and mu_beta the median of the Marchenko-Pastur law.  Centring takes one
    row's worth of noise, and constant features have none: the sides are n_samples - 1 and the features that vary.
    The error of the denoised matrix is the least that a threshold reaches when both sides grow, for white noise.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import selection
    >>> spectrum = selection.Spectrum(np.array([9.0, 4.0, 1.1, 1.0, 0.9]), 1000.0, np.full(5, 3.2))
    >>> selection.gavish_donoho(spectrum).n_components
    2
    """
    check_spectrum(spectrum)
    long = max(spectrum.n_samples - 1.0, float(spectrum.n_varying))
    ratio = spectrum.rank / long
    if noise is not None:
        noise = validation.check_real(noise, "noise", low=0.0, below=math.inf)
        threshold = optimal_threshold(ratio) ** 2 * long * noise**2 / (spectrum.n_samples - 1.0)
    elif spectrum.rank == 0:
        threshold = 0.0
    else:
        padded = np.zeros(spectrum.rank)
        padded[: spectrum.variances.size] = spectrum.variances[: spectrum.rank]
        median = float(np.median(np.sqrt(padded))) ** 2
        if median <= _NO_NOISE * spectrum.variances[0]:
            raise ValueError(
                "Half of the variances are zero, so that there is no noise to measure: use gavish_donoho(noise=...), "
                "or n_components as a fraction of the variance."
            )
        threshold = optimal_threshold(ratio) ** 2 / marchenko_pastur_median(ratio) * median
    thresholds = np.full(spectrum.variances.size, threshold)
    return Choice("gavish-donoho", _leading(spectrum.variances, thresholds), thresholds)


def optimal_threshold(ratio: float) -> float:
    """lambda(beta) = sqrt(2 (b + 1) + 8 b / (b + 1 + sqrt(b^2 + 14 b + 1))), for noise whose deviation is known.

    Parameters
    ----------
    ratio : beta, the short side of the matrix over the long one n, 0 < ratio <= 1

    Returns
    -------
    float
        The optimal threshold for singular values, in units of sqrt(n) times the deviation of the noise.

    Raises
    ------
    ValueError, TypeError
        Another ratio.

    Notes
    -----
    Gavish and Donoho, The optimal hard threshold for singular values is 4 / sqrt(3), IEEE Trans. Inf. Theory 60 (2014),
    Eq. 11.

    Examples
    --------
    >>> from lae_fast.selection import optimal_threshold
    >>> round(optimal_threshold(1.0), 4)  # 4 / sqrt(3)
    2.3094
    """
    beta = validation.check_real(ratio, "ratio", above=0.0, high=1.0)
    return math.sqrt(2.0 * (beta + 1.0) + 8.0 * beta / (beta + 1.0 + math.sqrt(beta**2 + 14.0 * beta + 1.0)))


def marchenko_pastur_median(ratio: float) -> float:
    """Median of the Marchenko-Pastur law of unit variance.

    Parameters
    ----------
    ratio : beta, the short side of the matrix over the long one n, 0 < ratio <= 1

    Returns
    -------
    float
        Median of the eigenvalues of noise' noise / n, entries of variance 1, as both sides grow: by bisection of the
        integrated density sqrt((t - a)(b - t)) / (2 pi beta t) between a, b = (1 -+ sqrt(beta))^2.

    Raises
    ------
    ValueError, TypeError
        Another ratio.

    Notes
    -----
    Marchenko and Pastur, Math. USSR Sbornik 1 (1967).

    Examples
    --------
    >>> from lae_fast.selection import marchenko_pastur_median, optimal_threshold
    >>> round(optimal_threshold(1.0) / marchenko_pastur_median(1.0) ** 0.5, 3)  # published: 2.858
    2.858
    """
    beta = validation.check_real(ratio, "ratio", above=0.0, high=1.0)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    low, width = (1.0 - math.sqrt(beta)) ** 2, 4.0 * math.sqrt(beta)

    def below(angle: float) -> float:
        """The law's share below low + width sin^2(angle): density sqrt((t - a)(b - t)) / (2 pi beta t)."""
        angles = angle / 2.0 * (nodes + 1.0)
        squares = np.sin(angles) ** 2
        integrand = 2.0 * width**2 * squares * (1.0 - squares) / (low + width * squares)
        return float(weights @ integrand) * angle / 2.0 / (2.0 * math.pi * beta)

    first, last = 0.0, math.pi / 2.0
    for _ in range(60):
        middle = (first + last) / 2.0
        first, last = (middle, last) if below(middle) < 0.5 else (first, middle)
    return low + width * math.sin(first) ** 2


def _leading(variances: np.ndarray, thresholds: np.ndarray) -> int:
    """How many variances exceed their thresholds before the first one that does not."""
    size = min(variances.size, thresholds.size)
    above = variances[:size] > thresholds[:size]
    return size if above.all() else int(above.argmin())
