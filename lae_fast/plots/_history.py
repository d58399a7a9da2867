"""How a training run went: loss and alignment over the iterations."""

from __future__ import annotations

from typing import Any

from ._figures import BLUE, GREEN, GREY, ORANGE, as_axes, legend_beside, new_axes, set_title
from ._inputs import recorded

# What is drawn of `history_`, where it has it: name, line style, colour.
_LOSSES = (("loss", "-", BLUE), ("excess_loss", "--", ORANGE), ("gradient_norm", ":", GREY))
_ALIGNMENTS = (
    ("alignment", "-", BLUE),
    ("d_align", "-", BLUE),
    ("d_sub", "--", ORANGE),
    ("ratio_tp", "-.", GREEN),
    ("matched_alignment", ":", GREY),
)
_WORDS = {
    "alignment": "d_align: distance from\nthe true directions",
    "d_align": "d_align: distance from\nthe true directions",
    "d_sub": "d_sub: distance from\ntheir subspace",
    "ratio_tp": "ratio_tp: share of\ndirections found",
    "matched_alignment": "matched alignment",
    "excess_loss": "excess loss",
    "gradient_norm": "gradient norm",
}


def history(model: Any, axes: Any = None, *, title: str | None = None) -> Any:
    """Draw the loss of a training run, its gradient norm and, where it knew a reference, the alignment.

    Of `history_`, what it has of loss, excess_loss and gradient_norm (logarithmic where all of it is positive), and in
    the second panel of alignment, d_sub, ratio_tp and matched_alignment. Losses have the scale of the training loss,
    alignments are from 0 to 1.

    Parameters
    ----------
    model : fitted `LinearAutoencoder`, or its `history_`
    axes : one or two axes, optional
        The second is for alignments; None makes a figure.
    title : str, optional

    Returns
    -------
    (1,) or (2,) ndarray of axes

    Raises
    ------
    NotFittedError, TypeError, ValueError
        The model is not fitted, or of another class; a history without iterations or losses, or of different lengths.

    Examples
    --------
    >>> from lae_fast import plots
    >>> panels = plots.history({"iteration": [0, 10, 100], "loss": [5.0, 2.0, 1.5]}, title="A run")
    >>> len(panels), panels[0].get_yscale()
    (1, 'log')
    """
    import numpy as np

    run = recorded(model, tuple(name for name, _, _ in _LOSSES))
    aligned = [entry for entry in _ALIGNMENTS if entry[0] in run and np.ndim(run[entry[0]]) == 1]
    if "alignment" in run:
        aligned = [entry for entry in aligned if entry[0] != "d_align"]  # the same numbers
    if axes is None:
        panels = 2 if aligned else 1
        panel = new_axes((8.0, 3.0 * panels + 0.5), panels, 1, sharex=True)[:, 0]
    else:
        panel = as_axes(axes, 1, 2)
    iteration = np.asarray(run["iteration"])
    _lines(panel[0], iteration, run, [entry for entry in _LOSSES if entry[0] in run])
    drawn = np.concatenate([line.get_ydata() for line in panel[0].lines])
    if (drawn[np.isfinite(drawn)] > 0.0).all():
        panel[0].set_yscale("log")
    if aligned and len(panel) > 1:
        _lines(panel[1], iteration, run, aligned)
        panel[1].set_ylim(-0.03, 1.03)
    # a run that was recorded by factors of ten is shown so
    steps = np.diff(iteration)
    if len(steps) > 2 and steps[-2] > 10 * steps[0]:
        panel[-1].set_xscale("symlog", linthresh=1.0)
        panel[-1].set_xlim(left=0)
    panel[-1].set_xlabel("iteration")
    set_title(panel[0], title)
    return panel


def _lines(axes: Any, iteration: Any, run: Any, entries: list[tuple[str, str, str]]) -> None:
    import numpy as np

    marker = "o" if len(iteration) <= 60 else None
    for name, style, colour in entries:
        values = np.asarray(run[name], dtype=np.float64)
        if values.ndim == 1 and np.isfinite(values).any():
            label = _WORDS.get(name, name)
            axes.plot(iteration, values, linestyle=style, color=colour, marker=marker, markersize=3, label=label)
    axes.grid(alpha=0.3)
    legend_beside(axes)
