"""What the theorems say: optima, critical points, curvature (docs/math.md Eq. 16 to 20 and 29 to 32)."""

from ._curvature import condition_bound, critical_point, descending_directions, flat_directions
from ._optima import VaeOptimum, minimum, optimum, ppca, shrinkage, vae_optimum

__all__ = [
    "VaeOptimum",
    "condition_bound",
    "critical_point",
    "descending_directions",
    "flat_directions",
    "minimum",
    "optimum",
    "ppca",
    "shrinkage",
    "vae_optimum",
]
