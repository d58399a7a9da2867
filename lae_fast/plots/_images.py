"""Components of images, as images."""

from __future__ import annotations

import math
from typing import Any

from ._figures import check_any, new_axes

# How many are drawn where nothing else is said.
_SHOWN = 16


def images(
    model: Any, shape: tuple[int, ...], axes: Any = None, *, n_images: int | None = None, title: str | None = None
) -> Any:
    """Draw components as images: zero is the middle of the scale, which is the same on both sides, for each its own.

    Parameters
    ----------
    model : fitted estimator, or components (p, d)
    shape : (height, width), or (height, width, 3) for colours, of d entries
    axes : array of axes, one for each image, optional; None makes a figure
    n_images : how many, the first 16 by default
    title : str, optional

    Returns
    -------
    ndarray of axes

    Raises
    ------
    ValueError
        The shape does not have d entries.

    Notes
    -----
    The map (cividis) grows in lightness from one end to the other and is read with any colour vision. Colours, which
    have a sign each, are drawn as 0.5 + value / (2 largest).
    """
    import numpy as np

    components = np.asarray(getattr(model, "components_", model), dtype=np.float64)
    shape = tuple(int(side) for side in shape)
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] != 3) or math.prod(shape) != components.shape[1]:
        raise ValueError(
            f"shape={shape} must be (height, width) or (height, width, 3) with {components.shape[1]} entries, one for "
            "each feature."
        )
    check_any(len(components))
    count = min(len(components), _SHOWN if n_images is None else n_images)
    if axes is None:
        across = min(count, max(4, math.ceil(math.sqrt(count))))
        down = math.ceil(count / across)
        panel = new_axes((1.6 * across, 1.85 * down * shape[0] / shape[1] + (0.3 if title else 0.0)), down, across)
        if title is not None:
            panel[0, 0].figure.suptitle(title, x=0.01, ha="left", fontsize="medium", parse_math=False)
    else:
        panel = np.asarray(axes, dtype=object)
    for one in panel.ravel():
        one.set_axis_off()
    ratio = getattr(model, "explained_variance_ratio_", None)
    for i, (one, component) in enumerate(zip(panel.ravel(), components[:count])):
        largest = float(np.abs(component).max(initial=0.0)) or 1.0
        picture = component.reshape(shape)
        if len(shape) == 3:
            one.imshow(0.5 + picture / (2.0 * largest), interpolation="nearest")
        else:
            one.imshow(picture, cmap="cividis", vmin=-largest, vmax=largest, interpolation="nearest")
        share = "" if ratio is None else f": {ratio[i]:.1%}".replace("%", " %")
        one.set_title(f"{i + 1}{share}", fontsize=9, pad=3)
    return panel
