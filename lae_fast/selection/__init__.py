"""How many components: by evidence, by what noise alone would give, and by what held-out entries say.

`minka`, `parallel_analysis` and `gavish_donoho` take a :class:`Spectrum`, which `spectrum` makes of data;
`cross_validated` reads the data.  Each returns a :class:`Choice`.  docs/choosing-p.md says which of them answers which
question.
"""

from ._cross_validation import cross_validated
from ._spectrum import Choice, Spectrum, spectrum
from ._thresholds import (
    NAMES,
    chosen,
    gavish_donoho,
    marchenko_pastur_median,
    minka,
    optimal_threshold,
    parallel_analysis,
)

__all__ = [
    "NAMES",
    "Choice",
    "Spectrum",
    "chosen",
    "cross_validated",
    "gavish_donoho",
    "marchenko_pastur_median",
    "minka",
    "optimal_threshold",
    "parallel_analysis",
    "spectrum",
]
