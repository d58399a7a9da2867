"""What moments and sketches share: how many of the rows they have seen count, and whether these have a variance."""

from __future__ import annotations

from .. import validation


class CountedRows:
    """Rows that were seen, with their weights.

    n_positive : rows of positive weight;  weight_sum : sum of weights
    """

    n_positive: int
    weight_sum: float

    @property
    def n_counted(self) -> int:
        """The rows that count (`validation.rows_that_count`)."""
        return validation.rows_that_count(self.n_positive, self.weight_sum)

    @property
    def has_variance(self) -> bool:
        """Whether two rows count, and the weights leave a denominator sum(w) - 1."""
        return self.n_counted > 1 and validation.leaves_a_denominator(self.weight_sum)
