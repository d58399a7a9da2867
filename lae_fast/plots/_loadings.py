"""Features along components: bars of loadings, the biplot, the correlation circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..validation import check_choice, check_integer, check_vector
from ._figures import BLUE, GREY, ORANGE, component_label, one_axes, set_title
from ._inputs import (
    check_component,
    check_components,
    check_own_codes,
    codes_of_rows,
    components_of,
    feature_names,
    fitted,
)

if TYPE_CHECKING:
    import numpy as np

SCALINGS = ("covariance", "form")
# Arrows that have a name; more cannot be read.
_NAMED = 12
# Further features whose arrows are drawn without one.
_ARROWS_UP_TO = 300


def loadings(
    model: Any,
    axes: Any = None,
    *,
    component: int = 0,
    names: Any = None,
    n_features: int = 15,
    title: str | None = None,
) -> Any:
    """Draw the largest loadings of a component as bars, largest magnitude first.

    Parameters
    ----------
    model : fitted estimator with `components_` (p, d)
    axes : matplotlib axes, optional
    component : its number, counted from 0
    names : (d,), optional
        Of the features: by default those that the model was fitted with, else their numbers, counted from 0.
    n_features : how many at most, >= 1
    title : str, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not fitted, or no model; no such component; names that are not d.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast
    >>> X = np.random.default_rng(0).standard_normal((50, 4)) * [8.0, 4.0, 2.0, 1.0]
    >>> axes = lae_fast.plots.loadings(lae_fast.PCA(2).fit(X), names=["a", "b", "c", "d"])
    >>> axes.get_yticklabels()[0].get_text()  # the feature that weighs most
    'a'
    """
    import numpy as np

    components = components_of(model)
    component = check_component(component, len(components))
    weights = components[component]
    order = np.argsort(-np.abs(weights), kind="stable")[: check_integer(n_features, "n_features", low=1)]
    every = feature_names(model, names, len(weights))
    axes = one_axes(axes, (6.0, 0.8 + 0.28 * len(order)))
    place = np.arange(len(order))
    negative = weights[order] < 0.0
    # hatched as well as orange: the sign is seen in grey too, where a bar crosses no axis
    axes.barh(place[~negative], weights[order][~negative], color=BLUE)
    axes.barh(place[negative], weights[order][negative], color=ORANGE, hatch="////", edgecolor="white", linewidth=0)
    axes.set_yticks(place, [every[j] for j in order], parse_math=False)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlabel(f"loading on {component_label(model, component)}")
    set_title(axes, title)
    return axes


def biplot(
    model: Any,
    codes: Any,
    axes: Any = None,
    *,
    components: Sequence[int] = (0, 1),
    scaling: str = "covariance",
    names: Any = None,
    n_named: int = _NAMED,
    title: str | None = None,
) -> Any:
    """Draw rows as points and features as arrows, whose inner products are the entries, as two components have them.

    Parameters
    ----------
    model : fitted `PCA` or `IncrementalPCA`
    codes : (m, p), what its `transform` gives
    axes : matplotlib axes, optional; their aspect is set to equal, because angles mean something
    components : two numbers, counted from 0
    scaling : "covariance": points have unit variance, an arrow's length is the standard deviation of a feature and
        the cosine between two arrows their correlation, as far as two components have them; "form": distances between
        points are those between rows, and arrows are loadings
    names : (d,), of the features, as of `loadings`
    n_named : how many of the longest arrows are named, >= 0
    title : str, optional

    Returns
    -------
    matplotlib axes

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not fitted, or without variances; another scaling; no such components; codes that are not finite or
        of another width; names that are not d.

    Notes
    -----
    Gabriel, Biometrika 58 (1971): X - mean = G H'.  Both axes have the same scale, and all arrows are lengthened by one
    factor, which the label of the axis says.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast
    >>> X = np.random.default_rng(0).standard_normal((50, 4)) * [8.0, 4.0, 2.0, 1.0]
    >>> pca = lae_fast.PCA(2).fit(X)
    >>> axes = lae_fast.plots.biplot(pca, pca.transform(X))
    >>> axes.get_xlabel().startswith("component 1")
    True
    """
    import numpy as np

    check_choice(scaling, SCALINGS, "scaling")
    fitted(model, "noise_variance_")
    weights, codes = components_of(model), codes_of_rows(codes)
    chosen = list(check_components(components, len(weights)))
    check_own_codes(codes, len(weights))
    every = feature_names(model, names, weights.shape[1])
    n_named = check_integer(n_named, "n_named", low=0)
    deviations = np.sqrt(np.asarray(model.explained_variance_, dtype=np.float64)[chosen])
    points, arrows = codes[:, chosen], weights[chosen].T
    if getattr(model, "whiten", False):
        points = points * deviations
    if scaling == "covariance":
        points = np.divide(points, deviations, out=np.zeros_like(points), where=deviations > 0.0)
        arrows = arrows * deviations
    axes = one_axes(axes, (7.0, 6.0))
    axes.set_aspect("equal", adjustable="box")
    axes.scatter(*points.T, s=6.0, color=BLUE, alpha=0.35, linewidths=0)
    longest = float(np.sqrt((arrows**2).sum(axis=1)).max(initial=0.0)) or 1.0
    factor = float(np.quantile(np.abs(points).max(axis=1), 0.99)) / longest or 1.0
    _arrows(axes, arrows * factor, every, n_named)
    axes.set_xlabel(f"{component_label(model, chosen[0])}; arrows x {factor:.3g}")
    axes.set_ylabel(component_label(model, chosen[1]))
    set_title(axes, title)
    return axes


def correlation_circle(
    model: Any,
    axes: Any = None,
    *,
    components: Sequence[int] = (0, 1),
    deviations: Any = None,
    names: Any = None,
    n_named: int = _NAMED,
    title: str | None = None,
) -> Any:
    """Draw the correlation of each feature with two components: u_ij sqrt(l_i) / s_j, within the unit circle.

    Parameters
    ----------
    model : fitted `PCA` or `IncrementalPCA`
    axes : matplotlib axes, optional
    components : two numbers, counted from 0
    deviations : (d,), optional
        Standard deviations s_j of the features, denominator n_samples - 1. Not needed with standardize=True.
    names, n_named, title : as of `biplot`

    Returns
    -------
    matplotlib axes

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not fitted, or without variances; the deviations are not known, or are not those of the model's
        data; no such components; names that are not d.

    Notes
    -----
    cov(x_j, z_i) = u_ij l_i for the score z_i of variance l_i; over s_j sqrt(l_i) it is the correlation.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast
    >>> X = np.random.default_rng(0).standard_normal((50, 4)) * [8.0, 4.0, 2.0, 1.0]
    >>> pca = lae_fast.PCA(2, standardize=True).fit(X)
    >>> axes = lae_fast.plots.correlation_circle(pca, names=["a", "b", "c", "d"])
    >>> axes.get_aspect()
    1.0
    """
    import numpy as np

    weights = components_of(model)
    chosen = list(check_components(components, len(weights)))
    arrows = correlations(model, deviations)[:, chosen]
    every, n_named = feature_names(model, names, weights.shape[1]), check_integer(n_named, "n_named", low=0)
    axes = one_axes(axes, (6.0, 6.0))
    turn = np.linspace(0.0, 2.0 * np.pi, 361)
    axes.plot(np.cos(turn), np.sin(turn), color=GREY, linewidth=1.0)
    axes.axhline(0.0, color=GREY, linewidth=0.5)
    axes.axvline(0.0, color=GREY, linewidth=0.5)
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlim(-1.15, 1.15)
    axes.set_ylim(-1.15, 1.15)
    _arrows(axes, arrows, every, n_named)
    axes.set_xlabel(f"correlation with {component_label(model, chosen[0])}")
    axes.set_ylabel(f"correlation with {component_label(model, chosen[1])}")
    set_title(axes, title)
    return axes


def correlations(model: Any, deviations: Any = None) -> np.ndarray:
    """(d, p) correlations of features with components; as of `correlation_circle`."""
    import numpy as np

    components = components_of(model)
    variances = np.asarray(fitted(model, "explained_variance_"), dtype=np.float64)
    if getattr(model, "scale_", None) is not None:
        deviations = np.ones(components.shape[1])
    elif deviations is None:
        raise ValueError(
            "The deviations of the features are not known: pass deviations=X.std(axis=0, ddof=1), or fit with "
            "standardize=True."
        )
    deviations = check_vector(deviations, "deviations")
    if deviations.shape != components.shape[1:] or (deviations < 0.0).any():
        raise ValueError(f"deviations must be {components.shape[1]} numbers >= 0, one for each feature.")
    covariances = (components * np.sqrt(variances)[:, None]).T
    found = np.divide(covariances, deviations[:, None], out=np.zeros_like(covariances), where=deviations[:, None] > 0.0)
    if (found**2).sum(axis=1).max(initial=0.0) > 1.01:
        raise ValueError(
            "deviations are smaller than what the components explain: they must be those of the rows that the model "
            "was fitted to, with denominator n_samples - 1."
        )
    return found


def _arrows(axes: Any, tips: np.ndarray, names: list[str], n_named: int) -> None:
    """Arrows from the origin to (d, 2) tips; the longest have names, moved up or down so that none lies on another."""
    import numpy as np

    lengths = np.sqrt((tips**2).sum(axis=1))
    order = np.argsort(-lengths, kind="stable")
    named = order[: min(n_named, int(np.count_nonzero(lengths)))]
    for j in order[:_ARROWS_UP_TO]:
        strong = bool(np.isin(j, named))
        style = {"color": ORANGE if strong else GREY, "lw": 1.4 if strong else 0.5, "alpha": 1.0 if strong else 0.4}
        axes.annotate(
            "", xy=tips[j], xytext=(0.0, 0.0), arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0} | style
        )
    axes.update_datalim(np.vstack([tips * 1.15, [[0.0, 0.0]]]))
    axes.autoscale_view()
    height = 0.045 * (axes.get_ylim()[1] - axes.get_ylim()[0])
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.75, "edgecolor": "none"}
    texts = []
    for side in (False, True):
        own = [j for j in named if (tips[j, 0] < 0.0) == side]
        own.sort(key=lambda j: tips[j, 1])
        for j, y in zip(own, _apart([float(tips[j, 1]) for j in own], height)):
            place = (float(tips[j, 0]), y)
            text = axes.annotate(
                names[j], xy=tips[j], xytext=place, ha="right" if side else "left", va="center", fontsize=9, bbox=box,
                parse_math=False, zorder=5,
            )  # fmt: skip
            texts.append(text)
    _make_room(axes, texts)


def _make_room(axes: Any, texts: list[Any]) -> None:
    """Widen the axes until all texts are inside; again, because wider axes make the same text longer."""
    for _ in range(3):
        axes.figure.draw_without_rendering()
        boxes = [text.get_window_extent().transformed(axes.transData.inverted()) for text in texts]
        low, high = axes.get_xlim()
        axes.set_xlim(min([low, *(box.x0 for box in boxes)]), max([high, *(box.x1 for box in boxes)]))


def _apart(places: list[float], least: float) -> list[float]:
    """Ascending places moved as little as need be until they lie `least` apart: by groups about their mean."""
    groups: list[list[float]] = []  # each [sum of places less their offsets, count]
    for place in places:
        groups.append([place, 1.0])
        while len(groups) > 1:
            (below, n), (above, k) = groups[-2], groups[-1]
            if above / k - (k - 1) * least / 2 - (below / n + (n - 1) * least / 2) >= least:
                break
            groups[-2:] = [[below + above, n + k]]
    return [total / n + (i - (n - 1) / 2) * least for total, n in groups for i in range(int(n))]
