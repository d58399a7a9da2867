"""The scree plot: variances, their running sum, the certificate, and where a choice of their number ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._figures import BLUE, GREY, ORANGE, as_axes, legend_beside, new_axes, set_title
from ._inputs import check_choices, fitted

if TYPE_CHECKING:
    import numpy as np

_BARS_UP_TO = 60  # components; beyond, bars are thinner than their gaps and points read better
_MARKERS_UP_TO = 200
# One for each choice that is shown; the lines differ in grey too.
_STYLES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def scree(model: Any, axes: Any = None, *, choices: Sequence[Any] | None = None, title: str | None = None) -> Any:
    """Draw the variance that each component explains, how well each is certified, and choices of their number.

    Upper panel: explained variance ratio per component, and its running sum; a vertical line after the last component
    of each choice, and the threshold of those that have one. Lower panel, logarithmic: `residuals_`, the certified
    relative residual of each eigenpair; a residual of exactly zero cannot be drawn and is left out.

    Parameters
    ----------
    model : fitted estimator, or `selection.Spectrum`
        Has `explained_variance_ratio_` (p,) and, where it has a certificate, `residuals_` (p,).
    axes : matplotlib axes, or two of them, optional
        One is for the upper panel alone; None makes a figure.
    choices : `selection.Choice`, or several, optional
        By default that of the model, where it has made one (`choice_`).
    title : str, optional

    Returns
    -------
    (1,) or (2,) ndarray of axes

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not fitted, or has no shares of the variance; choices that are none; more than two axes.

    Examples
    --------
    >>> import numpy as np
    >>> from lae_fast import plots, selection
    >>> spectrum = selection.Spectrum(np.array([6.0, 3.0, 0.6, 0.5, 0.4]), 100.0, np.ones(5))
    >>> panels = plots.scree(spectrum, choices=selection.minka(spectrum))
    >>> panels[0].get_ylabel(), panels[0].get_legend().get_texts()[1].get_text()
    ('variance explained', 'minka: 2')
    """
    import numpy as np

    ratio = np.asarray(fitted(model, "explained_variance_ratio_"), dtype=np.float64)
    residuals = getattr(model, "residuals_", None)
    if residuals is not None and not np.isfinite(residuals).any():
        residuals = None  # EM certifies nothing
    if axes is None:
        panels = 1 if residuals is None else 2
        size = (8.0, 4.0 if panels == 1 else 5.5)
        panel = new_axes(size, panels, 1, sharex=True, height_ratios=[3, 1][:panels])[:, 0]
    else:
        panel = as_axes(axes, 1, 2)
    made = getattr(model, "choice_", None)
    if choices is None:
        choices = () if made is None else made
    choices = check_choices(choices)
    _variances(panel[0], model, ratio, choices)
    set_title(panel[0], title)
    if residuals is not None and len(panel) > 1:
        _residuals(panel[1], np.asarray(residuals, dtype=np.float64))
    last = panel[-1]
    last.set_xlabel("component")
    last.set_xlim(0.4, max(len(ratio), 1) + (0.9 if choices else 0.6))
    return panel


def _variances(axes: Any, model: Any, ratio: np.ndarray, choices: Sequence[Any]) -> None:
    import numpy as np
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    component = np.arange(1, len(ratio) + 1)
    marker = "o" if len(ratio) <= _MARKERS_UP_TO else None
    if len(ratio) <= _BARS_UP_TO:
        axes.bar(component, ratio, color=BLUE, label="each component")
    else:
        axes.plot(
            component, ratio, color=BLUE, marker=marker or ".", markersize=3, linestyle="none", label="each component"
        )
    axes.plot(component, np.cumsum(ratio), color=ORANGE, marker=marker, markersize=3, label="cumulative")
    for choice, style in zip(choices, _STYLES):
        label = f"{choice.method}: {choice.n_components}"
        axes.axvline(choice.n_components + 0.5, color=GREY, linestyle=style, linewidth=1.4, label=label)
        shares = _shares(model, choice, len(ratio))
        if shares is not None:
            axes.plot(component[: len(shares)], shares, color="black", linestyle=style, linewidth=1.0)
    axes.set_ylabel("variance explained")
    axes.set_ylim(0.0, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_beside(axes)


def _shares(model: Any, choice: Any, count: int) -> np.ndarray | None:
    """The thresholds of a choice as shares of the total variance, of the components that are drawn."""
    import numpy as np

    if choice.thresholds is None or count == 0:
        return None
    variances = getattr(model, "variances", getattr(model, "explained_variance_", None))
    if variances is None or not variances[0] > 0.0:
        return None
    total = float(variances[0]) / float(model.explained_variance_ratio_[0])
    return np.asarray(choice.thresholds[:count]) / total


def _residuals(axes: Any, residuals: np.ndarray) -> None:
    import numpy as np

    component = np.arange(1, len(residuals) + 1)
    positive = residuals > 0.0
    axes.set_yscale("log")
    marker = "o" if len(residuals) <= _MARKERS_UP_TO else None
    axes.plot(component[positive], residuals[positive], color=GREY, marker=marker, markersize=3, linewidth=1)
    if positive.any():  # whole decades, so that the labels are few
        exponents = np.log10(residuals[positive & np.isfinite(residuals)])
        axes.set_ylim(10.0 ** np.floor(exponents.min() - 0.05), 10.0 ** np.ceil(exponents.max() + 0.05))
    axes.set_ylabel("residual")
    axes.grid(axis="y", alpha=0.3)
