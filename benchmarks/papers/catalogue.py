"""All figures by name, in the order of the page."""

from __future__ import annotations

from benchmarks.papers import across, bao, bao_scaling, directions, kunin, kunin_race, oftadeh, petrevski

MODULES = (oftadeh, kunin, kunin_race, bao, bao_scaling, directions, petrevski, across)
FIGURES = {figure.name: figure for module in MODULES for figure in module.FIGURES}
